# SPDX-License-Identifier: GPL-3.0-or-later
"""The places where this machine's own apt fetches packages.

apt itself lists them with the origin stated in their signed Release files, but only those whose
indices it has downloaded. The others are read from its configuration, in both formats
(sources.list(5)), so that this also works on a machine whose lists were deleted or that never ran
`apt-get update`. `mirror+file:` names a file of addresses (apt-transport-mirror(1)).
"""

import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from debian.deb822 import Deb822

from pipeline.base import command

APT_TIMEOUT_S = 60
HTTP_URL = re.compile(r"https?://[^\s?#]+")
MIRROR_LIST = "mirror+file:"
DEBIANS_KEYRING = "debian-archive-"  # prefix of the file names of Debian's keyrings
ONE_LINE = re.compile(
    r"deb\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<url>\S+)\s+(?P<suite>\S+)(?P<components>(?:\s+\S+)*)"
)
FILE_LIMIT = 1 << 20


@dataclass(frozen=True)
class AptSource:
    """One place that apt fetches packages from; `origin` is empty before the first update."""

    url: str
    suite: str
    component: str
    origin: str


def read_sources() -> tuple[AptSource, ...]:
    """Return the HTTP(S) sources without duplicates; raise UsageError if there is no apt."""
    wanted = "$(REPO_URI)\t$(RELEASE)\t$(COMPONENT)\t$(ORIGIN)"
    argv = ["apt-get", "indextargets", "--format", wanted, "Created-By: Packages"]
    downloaded = parse_targets(command.run(argv, timeout_s=APT_TIMEOUT_S).text)
    known = {replace(source, origin="") for source in downloaded}
    configured = [source for source in _configured() if source not in known]
    return tuple(expand([*downloaded, *configured]))


def parse_targets(text: str) -> list[AptSource]:
    """Parse the output of `apt-get indextargets`, keeping its order."""
    rows = (line.split("\t") for line in text.split("\n"))
    return [AptSource(row[0].rstrip("/"), *row[1:]) for row in rows if len(row) == 4]


def expand(sources: Iterable[AptSource]) -> list[AptSource]:
    """Replace mirror lists by their addresses; drop what is not HTTP(S), and duplicates."""
    found = []
    for source in sources:
        listed = [source.url]
        if source.url.startswith(MIRROR_LIST):
            listed = _mirrors(Path(source.url.removeprefix(MIRROR_LIST)))
        found += [replace(source, url=url) for url in listed if HTTP_URL.fullmatch(url)]
    return list(dict.fromkeys(found))


def _mirrors(path: Path) -> list[str]:
    lines = [line.split() for line in _text(path).split("\n") if not line.startswith("#")]
    return [words[0].rstrip("/") for words in lines if words]


def _configured() -> list[AptSource]:
    names = ("Dir::Etc::sourcelist/f", "Dir::Etc::sourceparts/d")
    argv = ["apt-config", "shell", "FILE", names[0], "FOLDER", names[1]]
    answer = command.run(argv, timeout_s=APT_TIMEOUT_S).text
    paths = dict(word.split("=", 1) for word in shlex.split(answer))
    return read_configuration(Path(paths["FILE"]), Path(paths["FOLDER"]))


def read_configuration(file: Path, folder: Path) -> list[AptSource]:
    """Return the sources of `sources.list` and the `.list` and `.sources` files of a folder.

    Sources signed by a keyring other than Debian's are left out: what they serve is unknown until
    their Release file has been downloaded.
    """
    found = list(_one_line(_text(file)))
    for path in sorted(folder.glob("*")):
        if path.suffix == ".list":
            found += _one_line(_text(path))
        elif path.suffix == ".sources":
            found += _deb822(_text(path))
    return found


def _text(path: Path) -> str:
    try:
        with path.open("rb") as source:
            return source.read(FILE_LIMIT).decode(errors="replace")
    except OSError:
        return ""  # apt skips it as well, or has reported it


def _one_line(text: str) -> Iterator[AptSource]:
    for line in text.split("\n"):
        match = ONE_LINE.fullmatch(line.partition("#")[0].strip())
        if match and _is_debians(dict(_options(match["options"] or "")).get("signed-by", "")):
            for component in match["components"].split():
                yield AptSource(match["url"].rstrip("/"), match["suite"], component, "")


def _options(text: str) -> Iterator[tuple[str, str]]:
    for word in text.split():
        name, _, value = word.partition("=")
        yield name.lower(), value


def _deb822(text: str) -> Iterator[AptSource]:
    for entry in Deb822.iter_paragraphs(text.encode(), use_apt_pkg=False):
        kinds, enabled = entry.get("Types", "").split(), entry.get("Enabled", "yes").lower()
        if "deb" not in kinds or enabled in ("no", "false", "0", "off"):
            continue
        if not _is_debians(entry.get("Signed-By", "")):
            continue
        for url in entry.get("URIs", "").split():
            for suite in entry.get("Suites", "").split():
                for component in entry.get("Components", "").split():
                    yield AptSource(url.rstrip("/"), suite, component, "")


def _is_debians(signed_by: str) -> bool:
    """Tell whether a source may be Debian's: it names no keyring, or one of Debian's."""
    if "-----BEGIN" in signed_by:
        return False  # an embedded key; Debian's own are in files
    names = [Path(word).name for word in re.split(r"[\s,]+", signed_by) if word]
    return not names or any(name.startswith(DEBIANS_KEYRING) for name in names)
