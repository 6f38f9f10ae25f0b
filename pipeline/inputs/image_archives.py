# SPDX-License-Identifier: GPL-3.0-or-later
"""The archives that an image names itself: `archives/<name>.list.chroot`, `<name>.key.chroot`.

They are live-build's files with restrictions: a list describes one archive, its lines are `deb
ADDRESS SUITE COMPONENT…`, and only the key of the same name may sign it. As both come from a
commit, an address must name its host by a domain name, and must not have a user name or password.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from pipeline.base.errors import UsageError
from pipeline.base.files import sha256_bytes
from pipeline.documents.lock import NAME, SUITE
from pipeline.documents.public_address import LOCAL_DOMAINS
from pipeline.farm.config import Archive, ImageArchive
from pipeline.inputs.configuration import ARCHIVE_KEYS, ARCHIVE_LISTS, read_small, read_text

COMPONENT = re.compile(r"[a-z][a-z0-9-]*")
SUITES_LIMIT = 20
LINE = re.compile(
    r"deb(?:\s+\[(?P<options>[^]]*)\])?\s+(?P<url>[^\s[]\S*)\s+(?P<suite>\S+)(?P<components>(?:\s+\S+)*)"
)
PLACEHOLDER = re.compile(r"@[A-Z_]+@")
# No IP address and no single-label name: these could be hosts on the farm's own network.
ADDRESS = re.compile(
    r"https?://(?P<host>(?:[a-z0-9-]+\.)+[a-z][a-z0-9-]*)(?::[0-9]{1,5})?(?:/[\w.+~%/-]*)?",
    re.ASCII | re.IGNORECASE,
)
USUAL_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class OwnArchive:
    """An archive that an image names itself; its keyring is the key in the same commit."""

    archive: Archive
    key_sha256: str  # of the key's file


@dataclass(frozen=True)
class _Source:
    """A line of a list; `where` is its file and line number, for error messages."""

    where: str
    url: str
    suite: str
    components: tuple[str, ...]


def read_archives(
    folder: Path, architecture: str, farm: Mapping[str, Archive]
) -> dict[str, OwnArchive]:
    """Return the archives that the image in `folder` names, by name, without those of `farm`.

    A list with the address of a `farm` archive refers to that archive. Raise UsageError, which
    names the file and line at fault, if a list or key is invalid.
    """
    lists, keys = _named(folder, ARCHIVE_LISTS), _named(folder, ARCHIVE_KEYS)
    found = {}
    for name, path in lists.items():
        sources = _read_list(path, architecture)
        known = _known(sources[0].url, farm)
        if known:
            _refuse_more(sources, known, farm[known], keys.get(name))
            continue
        if name in farm:
            remedy = "rename the list and its key, or add this address to its urls there"
            raise UsageError(f"{_shown(path)}: farm.yaml has another archive {name}", remedy=remedy)
        if name not in keys:
            remedy = f"put its public key into archives/{name}{ARCHIVE_KEYS[0]} of the image"
            raise UsageError(f"{_shown(path)} has no key", remedy=remedy)
        found[name] = _own(sources, keys[name])
    for name in sorted(keys.keys() - lists.keys()):
        remedy = f"name it as its list; a list is called <name>{ARCHIVE_LISTS[0]}"
        raise UsageError(f"{_shown(keys[name])} is the key of no list", remedy=remedy)
    if sum(len(own.archive.suites) for own in found.values()) > SUITES_LIMIT:
        raise UsageError(f"{folder.name}/archives/ has more than {SUITES_LIMIT} suites")
    return found


def _named(folder: Path, endings: Sequence[str]) -> dict[str, Path]:
    """Return the files of `archives/` with one of these suffixes, by name without the suffix."""
    found: dict[str, Path] = {}
    for path in sorted((folder / "archives").glob("*")):
        ending = next((e for e in endings if path.name.endswith(e)), None)
        if ending is None or path.name.startswith((".", "README")):
            continue
        name = path.name.removesuffix(ending)
        if not NAME.fullmatch(name):
            remedy = "it has small letters, digits and hyphens, 40 at most, a letter first"
            raise UsageError(f"{_shown(path)}: {name!r} names no archive", remedy=remedy)
        if name in found:
            what = f"{_shown(path)}: {found[name].name} is there, too"
            raise UsageError(what, remedy="keep one of them")
        found[name] = path
    return found


def _read_list(path: Path, architecture: str) -> list[_Source]:
    """Parse a list; raise UsageError unless all of its lines are of one archive."""
    sources = list(_sources(path, architecture))
    if not sources:
        raise UsageError(f"{_shown(path)} names no archive", remedy="remove it")
    for source in sources:
        first = sources[0]
        if _place(source.url) != _place(first.url) or source.components != first.components:
            remedy = "give it a list and a key of its own"
            what = f"{source.where}: another address or other components than in {first.where}"
            raise UsageError(what, remedy=remedy)
    return sources


def _sources(path: Path, architecture: str) -> Iterator[_Source]:
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        entry = line.partition("#")[0].strip()
        if entry:
            yield _source(entry, f"{_shown(path)}:{number}", architecture)


def _source(entry: str, where: str, architecture: str) -> _Source:
    if entry.split()[0] == "deb-src":
        raise UsageError(f"{where}: deb-src is not supported", remedy="remove the line")
    if placeholder := PLACEHOLDER.search(entry):
        remedy = "write out what it stands for"
        raise UsageError(f"{where}: {placeholder[0][:80]} is not supported", remedy=remedy)
    match = LINE.fullmatch(entry)
    if not match:
        remedy = "write deb ADDRESS SUITE COMPONENT"
        raise UsageError(f"{where}: {entry[:80]!r} is no source of packages", remedy=remedy)
    if "@" in match["url"]:
        what = f"{where}: an address with a user name or a password is not supported"
        raise UsageError(what, remedy="such an archive goes into farm.yaml")
    for option in (match["options"] or "").split():
        if option != f"arch={architecture}":
            remedy = f"remove it: the key that counts is the image's archives/*{ARCHIVE_KEYS[0]}"
            raise UsageError(f"{where}: option {option[:80]!r} is not supported", remedy=remedy)
    suite, components = match["suite"], tuple(match["components"].split())
    if suite.endswith("/"):
        remedy = "only archives with dists/ and components can be locked"
        raise UsageError(
            f"{where}: a flat archive ({suite[:80]!r}) is not supported", remedy=remedy
        )
    if not SUITE.fullmatch(suite):
        raise UsageError(f"{where}: {suite[:80]!r} is not a suite's name")
    odd = [word for word in components if not COMPONENT.fullmatch(word)]
    if odd or not components:
        raise UsageError(
            f"{where}: {odd[0][:80]!r} is not a component" if odd else f"{where}: no component"
        )
    return _Source(where, match["url"], suite, tuple(dict.fromkeys(components)))


def _known(url: str, farm: Mapping[str, Archive]) -> str | None:
    """Return the name of the archive in `farm.yaml` that has this address."""
    place = _place(url)
    for name, archive in farm.items():
        if place and place in map(_place, archive.urls or ()):
            return name
    return None


def _place(url: str) -> tuple[str, int | None, str] | None:
    """Return an address in normal form, for comparison; None if it is malformed."""
    try:
        parts = urlsplit(url)
        port = None if parts.port == USUAL_PORTS.get(parts.scheme) else parts.port
    except ValueError:
        return None
    return (parts.hostname, port, parts.path.rstrip("/")) if parts.hostname else None


def _refuse_more(sources: Sequence[_Source], name: str, archive: Archive, key: Path | None) -> None:
    """Raise UsageError if a list asks more of a farm's archive than `farm.yaml` configures."""
    for source in sources:
        if source.suite not in archive.suites or set(source.components) - set(archive.components):
            raise UsageError(
                f"{source.where}: farm.yaml has this archive as {name}, with other suites or"
                " components",
                remedy=f"add {' '.join((source.suite, *source.components))} to {name} there",
            )
    if key:
        remedy = f"remove it: farm.yaml has this archive as {name}, and its keyring counts"
        raise UsageError(f"{_shown(key)} would be ignored", remedy=remedy)


def _own(sources: Sequence[_Source], key: Path) -> OwnArchive:
    first = sources[0]
    for source in sources:
        _refuse_address(source)
    archive = ImageArchive(
        suites=list(dict.fromkeys(source.suite for source in sources)),
        components=list(first.components),
        keyring=key.absolute(),
        urls=[first.url.rstrip("/")],
    )
    return OwnArchive(archive, sha256_bytes(read_small(key)))


def _refuse_address(source: _Source) -> None:
    match = ADDRESS.fullmatch(source.url)
    if not match or match["host"].lower().endswith(LOCAL_DOMAINS):
        raise UsageError(
            f"{source.where}: {source.url[:80]!r} is no http or https address of a public host",
            remedy="an archive without a public name goes into farm.yaml",
        )


def _shown(path: Path) -> str:
    return f"images/live/{path.parents[1].name}/archives/{path.name}"
