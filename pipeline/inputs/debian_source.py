# SPDX-License-Identifier: GPL-3.0-or-later
"""A source package's `debian/control` and `debian/changelog`.

Read as far as apt needs, for one architecture and without build profiles: names, version, date,
build dependencies, and the relations of each binary package as they are written there. Variables
of debhelper (`${shlibs:Depends}` and the like) are not known before the build, and left out.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from debian.deb822 import Deb822

from pipeline.base.errors import UsageError
from pipeline.documents.lock import PACKAGE, VERSION

TEXT_LIMIT = 4 * 1024 * 1024
BINARIES_LIMIT = 200
# name:qualifier (>= version) [architectures] <profiles>
RELATION = re.compile(
    r"([a-z0-9][a-z0-9+.-]+)(:[a-z0-9-]+)?\s*(\([<=>]+\s*[^\s()]+\s*\))?"
    r"\s*(?:\[([^\[\]]*)\])?\s*((?:<[^<>]*>\s*)*)"
)
WORD = re.compile(r"[a-z0-9+.-]+")
HEAD = re.compile(r"(\S+) \((\S+)\)(?: [a-zA-Z0-9.~+-]+)+;.*")
BUILD_FIELDS = ("Build-Depends", "Build-Depends-Indep", "Build-Depends-Arch")
# What a stanza of a `Packages` index takes over from `debian/control` or a control file.
RELATIONS = ("Pre-Depends", "Depends", "Provides", "Conflicts", "Breaks", "Replaces")
PLAIN_FIELDS = ("Essential", "Multi-Arch")
# The variables that are known before the build.
OWN_VERSION = ("${binary:Version}", "${source:Version}")
UPSTREAM_VERSION = "${source:Upstream-Version}"
EPOCH = range(1, 2**40)


@dataclass(frozen=True)
class Binary:
    """A binary package of an image's own: `fields` are relations and what else apt asks for.

    `source` is the source package that it is built from; one that is ready-made has none, but the
    `sha256` of its file. `file` is what names it, for people.
    """

    name: str
    version: str
    architecture: str
    source: str | None
    file: str
    fields: tuple[tuple[str, str], ...]
    sha256: str | None = None

    @property
    def stanza(self) -> str:
        """Its paragraph in the index that apt resolves with; its file is not there yet."""
        upstream = self.version.partition(":")[2] or self.version
        known = dict.fromkeys(OWN_VERSION, self.version)
        known[UPSTREAM_VERSION] = upstream.rpartition("-")[0] or upstream
        lines = [f"{key}: {_replaced(value, known)}\n" for key, value in self.fields]
        return (
            f"Package: {self.name}\nVersion: {self.version}\nArchitecture: {self.architecture}\n"
            f"{''.join(lines)}Filename: ./{self.name}\nSize: 1\nSHA256: {'0' * 64}\n"
        )


@dataclass(frozen=True)
class Need:
    """A relation that a build must meet, and the line of `debian/control` that names it."""

    relation: str
    line: int


@dataclass(frozen=True)
class SourcePackage:
    """A source package: `needs` are its build dependencies."""

    name: str
    version: str
    epoch: int  # the date of its last change, and so the SOURCE_DATE_EPOCH of its build
    file: str
    needs: tuple[Need, ...]
    binaries: tuple[Binary, ...]
    dsc: str | None = None  # the name of the file that names it by hash


def read_source(control: bytes, changelog: bytes, architecture: str, folder: str) -> SourcePackage:
    """Return the source package whose `debian/` in `folder` has these two files.

    Raise UsageError that names the file at fault.
    """
    file = f"{folder}/debian/control"
    name, version, epoch = _last_change(changelog, f"{folder}/debian/changelog")
    first, *others = _paragraphs(control, file)
    if first.get("Source") != name:
        what = f"{file} is of the source {first.get('Source', '')[:80]!r}, debian/changelog of"
        raise UsageError(f"{what} {name}")
    lines = _first_lines(_text(control, file))
    needs = [
        Need(relation, lines.get(names_in(relation)[0], 1))
        for field in BUILD_FIELDS
        for relation in _relations(first, field, architecture, file)
    ]
    binaries = [
        _binary(fields, name, version, made_for, file)
        for fields in others
        if (made_for := _made_for(fields, architecture))
    ]
    if not 0 < len(binaries) <= BINARIES_LIMIT:
        raise UsageError(f"{file} names {len(binaries)} packages for {architecture}")
    return SourcePackage(name, version, epoch, file, tuple(needs), tuple(binaries))


def stanza_fields(
    fields: Mapping[str, str], architecture: str, file: str
) -> tuple[tuple[str, str], ...]:
    """Return the fields for apt's index beside the name; `file` is what has these fields.

    Raise UsageError if one is not what it must be.
    """
    plain = [(key, " ".join(fields[key].split())) for key in PLAIN_FIELDS if key in fields]
    reduced = [(key, ", ".join(_relations(fields, key, architecture, file))) for key in RELATIONS]
    return (*plain, *((key, value) for key, value in reduced if value))


def _relations(fields: Mapping[str, str], field: str, architecture: str, file: str) -> list[str]:
    try:
        return relations(fields.get(field, ""), architecture)
    except ValueError as error:
        raise UsageError(f"{file}: {field}: {error}") from error


def relations(text: str, architecture: str) -> list[str]:
    """Return the relations of a field that hold for an architecture, without build profiles.

    An alternative with a variable that is not known before the build is left out. Raise ValueError
    for what is no relation.
    """
    found = []
    for clause in text.split(","):
        alternatives = [
            kept
            for words in clause.split("|")
            if words.strip() and (kept := _alternative(" ".join(words.split()), architecture))
        ]
        if alternatives:
            found.append(" | ".join(alternatives))
    return found


def names_in(relation: str) -> list[str]:
    """Return the names of the packages, any of which meets a relation."""
    return [re.split(r"[ :(]", words.strip())[0] for words in relation.split("|")]


def _alternative(words: str, architecture: str) -> str:
    """Return one alternative without conditions, or nothing if they are not met."""
    known = _replaced(words, dict.fromkeys((*OWN_VERSION, UPSTREAM_VERSION), ""))
    if "${" in known:
        return ""
    match = RELATION.fullmatch(words)
    if not match:
        raise ValueError(f"{words[:80]!r} is no relation between packages")
    if match[4] is not None and not _is_for(match[4].split(), architecture):
        return ""
    return words[: max(match.end(n) for n in (1, 2, 3))] * _is_without_profiles(match[5])


def _is_for(listed: list[str], architecture: str) -> bool:
    """Tell whether a list of architectures, or of those that are not meant, has this one."""
    names = {"any", "linux-any", f"any-{architecture}", f"linux-{architecture}", architecture}
    if any(word.startswith("!") for word in listed):
        return not names & {word.removeprefix("!") for word in listed}
    return bool(names & set(listed))


def _is_without_profiles(restrictions: str) -> bool:
    """Tell whether `<…>` lists of build profiles allow a build without any."""
    groups = re.findall(r"<([^<>]*)>", restrictions)
    return not groups or any(all(w.startswith("!") for w in group.split()) for group in groups)


def _made_for(fields: Mapping[str, str], architecture: str) -> str:
    """Return the architecture that a binary package will have; nothing if it is not made."""
    if "Package-Type" in fields or not _is_without_profiles(fields.get("Build-Profiles", "")):
        return ""
    listed = fields.get("Architecture", "").split()
    if listed == ["all"]:
        return "all"
    return architecture if _is_for(listed, architecture) else ""


def _binary(
    fields: Mapping[str, str], source: str, version: str, architecture: str, file: str
) -> Binary:
    name = fields.get("Package", "")
    if not PACKAGE.fullmatch(name):
        raise UsageError(f"{file} names a package {name[:80]!r}")
    stanza = stanza_fields(fields, architecture, file)
    return Binary(name, version, architecture, source, file, stanza)


def _first_lines(text: str) -> dict[str, int]:
    """Return the number of the first line in which each word stands that may name a package."""
    found: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        for word in WORD.findall(line):
            found.setdefault(word, number)
    return found


def _paragraphs(content: bytes, file: str) -> list[Deb822]:
    try:
        found = list(Deb822.iter_paragraphs(_text(content, file), use_apt_pkg=False))
    except ValueError as error:
        raise UsageError(f"{file} cannot be read: {error}") from error
    if not found:
        raise UsageError(f"{file} is empty")
    return found


def _last_change(content: bytes, file: str) -> tuple[str, str, int]:
    """Return source, version and date, in seconds, of the first entry of a changelog."""
    lines = _text(content, file).splitlines()
    head = next((match for line in lines if line.strip() for match in [HEAD.fullmatch(line)]), None)
    trailer = next((line for line in lines if line.startswith(" -- ") and "<" in line), "")
    if not head or not PACKAGE.fullmatch(head[1]) or not VERSION.fullmatch(head[2]):
        raise UsageError(f"{file} does not begin with an entry `name (version) suite; urgency=…`")
    try:
        epoch = int(parsedate_to_datetime(trailer.rpartition("> ")[2].strip()).timestamp())
    except (ValueError, TypeError, OverflowError, IndexError):
        epoch = 0
    if epoch not in EPOCH:
        raise UsageError(f"{file}: the first entry has no date that can be read")
    return head[1], head[2], epoch


def _text(content: bytes, file: str) -> str:
    if len(content) > TEXT_LIMIT:
        raise UsageError(f"{file} is larger than {TEXT_LIMIT} bytes")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{file} is not UTF-8: {error}") from error


def _replaced(value: str, known: Mapping[str, str]) -> str:
    for variable, text in known.items():
        value = value.replace(variable, text)
    return value
