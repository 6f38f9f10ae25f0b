# SPDX-License-Identifier: GPL-3.0-or-later
"""A source package's `debian/control` and `debian/changelog`.

Only what apt needs is read, for one architecture and without build profiles: names, version, date,
build dependencies, and the relations of each binary package as written there. Substitution
variables that are known only after the build (`${shlibs:Depends}` and the like) are left out.
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
# The fields that a stanza of a `Packages` index takes from `debian/control` or a control file.
RELATIONS = ("Pre-Depends", "Depends", "Provides", "Conflicts", "Breaks", "Replaces")
PLAIN_FIELDS = ("Essential", "Multi-Arch")
# The substitution variables that are known before the build.
OWN_VERSION = ("${binary:Version}", "${source:Version}")
UPSTREAM_VERSION = "${source:Upstream-Version}"
EPOCH = range(1, 2**40)


@dataclass(frozen=True)
class Binary:
    """A binary package that an image brings itself; `fields` are relations and others apt needs.

    `source` is the source package that it is built from; a ready-made package has the `sha256` of
    its file instead. `file` is the file that defines it, for error messages.
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
        """Its paragraph in the index that apt resolves with; the .deb need not exist yet."""
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
    """A build dependency, and the line of `debian/control` that states it."""

    relation: str
    line: int


@dataclass(frozen=True)
class SourcePackage:
    """A source package: `needs` are its build dependencies."""

    name: str
    version: str
    epoch: int  # date of its last changelog entry: its build's SOURCE_DATE_EPOCH
    file: str
    needs: tuple[Need, ...]
    binaries: tuple[Binary, ...]
    dsc: str | None = None  # name of the .dsc file, if it is fetched by hash


def read_source(control: bytes, changelog: bytes, architecture: str, folder: str) -> SourcePackage:
    """Return the source package whose `debian/` in `folder` has these two files.

    Raise UsageError, which names the file at fault, if one is malformed.
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
    """Return the fields that apt's index has besides the name; they were read from `file`.

    Raise UsageError if one is malformed.
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
    """Return the relations of a field that apply to an architecture, without build profiles.

    An alternative with a variable that is not known before the build is left out. Raise ValueError
    for a malformed relation.
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
    """Return the names of the alternatives of a relation."""
    return [re.split(r"[ :(]", words.strip())[0] for words in relation.split("|")]


def _alternative(words: str, architecture: str) -> str:
    """Return an alternative without its restrictions, or "" if they are not met."""
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
    """Tell whether an architecture restriction, which may be negated, admits this one."""
    names = {"any", "linux-any", f"any-{architecture}", f"linux-{architecture}", architecture}
    if any(word.startswith("!") for word in listed):
        return not names & {word.removeprefix("!") for word in listed}
    return bool(names & set(listed))


def _is_without_profiles(restrictions: str) -> bool:
    """Tell whether `<…>` lists of build profiles allow a build without any."""
    groups = re.findall(r"<([^<>]*)>", restrictions)
    return not groups or any(all(w.startswith("!") for w in group.split()) for group in groups)


def _made_for(fields: Mapping[str, str], architecture: str) -> str:
    """Return the architecture that a binary package will have; "" if it is not built."""
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
    """Return the number of the first line with each word that may be a package name."""
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
    """Return the source, version and date (in seconds) of a changelog's first entry."""
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
