# SPDX-License-Identifier: GPL-3.0-or-later
"""The index of published releases: `index.json` for programs, `index.html` for people.

Both are generated from the public tree, so it does no harm if they are lost or out of date. Nothing
relies on them: `verify.py` reads neither.
"""

import html
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from pipeline.base import dsse
from pipeline.base.errors import InfrastructureFailed, TwinbuildError
from pipeline.base.files import read_json, write_bytes
from pipeline.documents.digest import sha256_file
from pipeline.documents.dsse import PAYLOAD_LIMIT
from pipeline.documents.job import Job
from pipeline.documents.json_form import json_bytes
from pipeline.documents.release_index import ListedRelease, ReleaseIndex
from pipeline.documents.statement import FILE_NAME
from pipeline.release.assemble import MANIFEST
from pipeline.release.statements import check_statement

KIT = ".iuk"
SIZE_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


def read_entries(public: Path) -> list[ListedRelease]:
    """Return the releases in a public tree, the newest first.

    Raise InfrastructureFailed for a folder that looks like a release and is damaged.
    """
    found = [release for folder in sorted(public.iterdir()) if (release := _read(folder))]
    return sorted(found, key=lambda release: (release.epoch, release.tag), reverse=True)


def write_index(public: Path) -> list[ListedRelease]:
    """Write both forms of the index; return the releases, the newest first."""
    found = read_entries(public)
    write_changed(public / "index.json", json_bytes(ReleaseIndex(tuple(found)).document()))
    write_changed(public / "index.html", _page(public, found).encode())
    return found


def write_changed(path: Path, content: bytes) -> None:
    """Write a published file, unless it already has this content."""
    if not path.is_file() or path.read_bytes() != content:
        write_bytes(path, content)


def _read(folder: Path) -> ListedRelease | None:
    """Return the release in a folder, or None if the folder is not one."""
    manifest = folder / MANIFEST
    if not FILE_NAME.fullmatch(folder.name) or folder.is_symlink() or not manifest.is_file():
        return None
    try:
        path = min((folder / "statements").glob("*.json"))
        envelope = read_json(path, failure=InfrastructureFailed, limit=2 * PAYLOAD_LIMIT)
        stated = check_statement(dsse.unverified_payload(envelope))
        epoch = Job.of(stated.job).epoch
    except (TwinbuildError, ValueError, OSError) as error:
        raise InfrastructureFailed(
            f"{folder} is damaged: {error}", remedy="restore it, or move it out of the public tree"
        ) from error
    kits = tuple(sorted(name for name in stated.artifacts if name.endswith(KIT)))
    return ListedRelease(
        folder.name, stated.image, stated.commit, epoch, sha256_file(manifest), kits
    )


PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Releases</title>
<style>
:root {{ color-scheme: light dark; --line: #8886; --quiet: #666; }}
@media (prefers-color-scheme: dark) {{ :root {{ --quiet: #aaa; }} }}
body {{ font: 1rem/1.5 system-ui, sans-serif; }}
body {{ max-width: 50rem; margin: 2rem auto; padding: 0 1rem; }}
h1 {{ font-size: 1.6rem; }}
h2 {{ font-size: 1.25rem; margin: 0; }}
article {{ border-top: 1px solid var(--line); padding: 1rem 0; }}
.quiet {{ color: var(--quiet); }}
code, pre {{ font: 0.875rem/1.5 ui-monospace, monospace; overflow-wrap: anywhere; }}
pre {{ border: 1px solid var(--line); border-radius: 4px; }}
pre {{ padding: 0.75rem; white-space: pre-wrap; }}
ul {{ margin: 0.5rem 0; padding-left: 1.25rem; }}
</style>
</head>
<body>
<h1>Releases</h1>
<p>Each was built twice, from one commit, in two environments, and the results are the same bit for
bit. Verify what you download with the release key, from someone you trust and not from here:</p>
<pre>python3 verify.py --url URL-OF-THIS-PAGE --tag TAG --keyring KEY.asc --file FILE</pre>
<p class="quiet">The script is <a href="verify.py">here</a> for convenience; it is safer to have it
from the source, and so is <a href="upgrade.pyz">what upgrades</a> an installed system. Plain
<code>gpg --verify SHA256SUMS.asc SHA256SUMS</code> and
<code>sha256sum -c SHA256SUMS</code> do as well.</p>
<main>
{releases}
</main>
</body>
</html>
"""

ARTICLE = """<article id="{tag}">
<h2>{tag}</h2>
<p class="quiet">image {image}, {date}<br>commit <code>{commit}</code></p>
<ul>
{files}
</ul>
{kits}<p><a href="{tag}/SHA256SUMS">SHA256SUMS</a> · <a href="{tag}/SHA256SUMS.asc">signature</a>
<br><span class="quiet">SHA-256 of SHA256SUMS: <code>{manifest_sha256}</code></span></p>
</article>"""

KITS = """<p>Upgrade kits, for systems installed from an earlier release:</p>
<ul>
{files}
</ul>
"""


def _page(public: Path, releases: Iterable[ListedRelease]) -> str:
    articles = [_article(public / release.tag, release) for release in releases]
    return PAGE.format(releases="\n".join(articles) or "<p>There is none yet.</p>")


def _article(folder: Path, release: ListedRelease) -> str:
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    own = [name for name in names if name.startswith(f"{release.image}-")]
    kits = [_file(folder, name) for name in own if name in release.kits]
    return ARTICLE.format(
        tag=html.escape(release.tag),
        image=html.escape(release.image),
        date=datetime.fromtimestamp(release.epoch, UTC).strftime("%d %B %Y"),
        commit=html.escape(release.commit),
        files="\n".join(_file(folder, name) for name in own if name not in release.kits),
        kits=KITS.format(files="\n".join(kits)) if kits else "",
        manifest_sha256=release.manifest_sha256,
    )


def _file(folder: Path, name: str) -> str:
    link = html.escape(f"{quote(folder.name)}/{quote(name)}")
    size = size_words((folder / name).stat().st_size)
    return f'<li><a href="{link}">{html.escape(name)}</a> <span class="quiet">{size}</span></li>'


def size_words(size: int) -> str:
    """Return a size in bytes as text in binary units."""
    value, unit = float(size), 0
    while value >= 1024 and unit < len(SIZE_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.1f} {SIZE_UNITS[unit]}" if unit else f"{size} bytes"
