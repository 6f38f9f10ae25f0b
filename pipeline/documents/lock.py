# SPDX-License-Identifier: GPL-3.0-or-later
"""The lock: every package that a build may use, and the signed indices that vouch for it.

A lock is a deb822 file in git beside the image, `images/live/<name>/lock`. Its first paragraph says
what it was made from, then follows a paragraph for each signed index, then one for each package.
Which mirror served a byte leaves no trace in it. `docs/reference/lock.md` describes every field.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from pathlib import Path
from typing import NamedTuple, TypeVar

from pipeline.documents.fields import SHA256
from pipeline.documents.formats import LaterFormat, check_format
from pipeline.documents.malformed import Malformed

Read = TypeVar("Read")

FORMAT = "twinbuild-lock/1"
PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+")
VERSION = re.compile(r"[A-Za-z0-9.+:~-]+")
POOL_PATH = re.compile(
    r"(?:[A-Za-z0-9_+~%:-][A-Za-z0-9._+~%:-]*/)*[A-Za-z0-9_+~%:-][A-Za-z0-9._+~%:-]*"
)
NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")
SUITE = re.compile(r"[a-z][a-z0-9.+-]*")
USED_BY = re.compile(r"build|builder|image|(?:build )?builder image|build (?:builder|image)")
SIZE_LIMIT = 4 * 1024**3  # a package's
FILE_LIMIT = 64 * 1024**2


@dataclass(frozen=True)
class Index:
    """A file that an InRelease names by hash, for instance `main/binary-amd64/Packages.xz`."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Suite:
    """A signed InRelease of an archive and those of its indices that were read."""

    archive: str
    suite: str
    date: datetime
    inrelease_sha256: str
    indices: tuple[Index, ...]


@dataclass(frozen=True)
class Package:
    """A binary package, from the lock to the build: what it is and what its bytes must be."""

    name: str
    version: str
    architecture: str
    size: int
    sha256: str
    used_by: tuple[str, ...]  # of "build", "builder", "image", in this order

    @property
    def file_name(self) -> str:
        """The name that apt gives the file: `name_version_architecture.deb`, the colon as `%3a`."""
        return f"{self.name}_{self.version.replace(':', '%3a')}_{self.architecture}.deb"


class PackageLocation(NamedTuple):
    """Where a package is: the archive, the suite whose index names it, the file below its root."""

    archive: str
    suite: str
    filename: str

    @property
    def path(self) -> str:
        """Where a snapshot has the file, below its own root."""
        return f"{self.archive}/{self.filename}"


@dataclass(frozen=True)
class LockedPackage:
    """A package and where it was found."""

    package: Package
    place: PackageLocation


@dataclass(frozen=True)
class Lock:
    """All of a lock; `request_sha256` is the digest of the request (`inputs/request.py`)."""

    image: str
    architecture: str
    request_sha256: str
    suites: tuple[Suite, ...]
    locked: tuple[LockedPackage, ...]

    @property
    def packages(self) -> tuple[Package, ...]:
        """The packages by themselves: where they were found matters only until they are here."""
        return tuple(locked.package for locked in self.locked)

    def used_by(self, user: str) -> tuple[Package, ...]:
        """Return the packages of the "image", the "builder" or the "build" of local packages."""
        return tuple(package for package in self.packages if user in package.used_by)


def lock_path(images: Path, image: str) -> Path:
    """Return where the lock of `image` stands below an `images/live` folder."""
    return images / image / "lock"


def in_lock_order(packages: Iterable[Package]) -> list[Package]:
    """Return packages in the order of a lock."""
    return sorted(packages, key=_order)


def dump(lock: Lock) -> bytes:
    """Return the one form of a lock: paragraphs and fields in a fixed order, UTF-8."""
    paragraphs = [_head(lock)]
    paragraphs += [_suite(s) for s in sorted(lock.suites, key=lambda s: (s.archive, s.suite))]
    in_order = sorted(lock.locked, key=lambda locked: _order(locked.package))
    paragraphs += [_package(locked.package, locked.place) for locked in in_order]
    return "\n".join(paragraphs).encode()


def load(content: bytes) -> Lock:
    """Parse a lock; raise Malformed if anything in it is not as `dump` writes it."""
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise Malformed(f"the lock is damaged: {error}") from error
    try:
        lock = _lock(_paragraphs(text))
    except LaterFormat as error:
        raise LaterFormat(f"the lock cannot be read: {error}") from error
    except Malformed as error:
        raise Malformed(f"the lock is damaged: {error}") from error
    if dump(lock) != content:
        raise Malformed("the lock is not in its canonical form")
    return lock


def _order(package: Package) -> tuple[str, str, str]:
    return package.name, package.architecture, package.version


def _head(lock: Lock) -> str:
    return (
        f"Format: {FORMAT}\nImage: {lock.image}\nArchitecture: {lock.architecture}\n"
        f"Request-SHA256: {lock.request_sha256}\n"
    )


def _suite(suite: Suite) -> str:
    indices = "".join(
        f" {i.sha256} {i.size} {i.path}\n" for i in sorted(suite.indices, key=lambda i: i.path)
    )
    return (
        f"Archive: {suite.archive}\nSuite: {suite.suite}\n"
        f"Date: {format_datetime(suite.date, usegmt=True)}\n"
        f"InRelease-SHA256: {suite.inrelease_sha256}\nIndices:\n{indices}"
    )


def _package(package: Package, place: PackageLocation) -> str:
    return (
        f"Package: {package.name}\nVersion: {package.version}\n"
        f"Architecture: {package.architecture}\n"
        f"Archive: {place.archive}\nSuite: {place.suite}\nFilename: {place.filename}\n"
        f"Size: {package.size}\nSHA256: {package.sha256}\nUsed-By: {' '.join(package.used_by)}\n"
    )


@dataclass(frozen=True)
class _Paragraph:
    """The fields of a paragraph, which errors name by its first line."""

    name: str
    fields: Mapping[str, str]

    def text(self, field: str) -> str:
        if field not in self.fields:
            raise Malformed(f"{self.name}: {field} is missing")
        return self.fields[field]

    def matching(self, field: str, pattern: re.Pattern[str]) -> str:
        return self._checked(field, matching, pattern, self.text(field))

    def size(self, field: str) -> int:
        return self._checked(field, _size, self.text(field))

    def date(self, field: str) -> datetime:
        return self._checked(field, _date, self.text(field))

    def indices(self, field: str) -> tuple[Index, ...]:
        lines = [line for line in self.text(field).split("\n") if line]
        return tuple(self._checked(field, _index, line) for line in lines)

    def _checked(self, field: str, read: Callable[..., Read], *values: object) -> Read:
        try:
            return read(*values)
        except (ValueError, TypeError, OverflowError) as error:
            raise Malformed(f"{self.name}: {field}: {error}") from error


def _paragraphs(text: str) -> Iterator[_Paragraph]:
    for block in text.split("\n\n"):
        fields: dict[str, str] = {}
        lines, field = block.split("\n"), ""
        for line in lines:
            if line.startswith(" ") and field:
                fields[field] += f"\n{line[1:]}"
            elif line:
                field, _, value = line.partition(":")
                fields[field] = value.removeprefix(" ")
        yield _Paragraph(repr(lines[0][:100]), fields)


def _lock(paragraphs: Iterable[_Paragraph]) -> Lock:
    head, *rest = paragraphs
    check_format(head.text("Format"), FORMAT)
    packages = tuple(_parse_package(p) for p in rest if "Package" in p.fields)
    suites = tuple(_parse_suite(p) for p in rest if "Package" not in p.fields)
    known = {(suite.archive, suite.suite) for suite in suites}
    strays = [p.package.name for p in packages if p.place[:2] not in known]
    if strays:
        raise Malformed(f"no signed index vouches for {strays[0]}")
    names = [(p.package.name, p.package.architecture, p.package.used_by) for p in packages]
    uses = [(user, *name) for *name, users in names for user in users]
    if len(set(uses)) != len(uses):
        raise Malformed("a package stands in it twice")
    return Lock(
        head.matching("Image", NAME),
        head.matching("Architecture", NAME),
        head.matching("Request-SHA256", SHA256),
        suites,
        packages,
    )


def _parse_suite(paragraph: _Paragraph) -> Suite:
    return Suite(
        paragraph.matching("Archive", NAME),
        paragraph.matching("Suite", SUITE),
        paragraph.date("Date"),
        paragraph.matching("InRelease-SHA256", SHA256),
        paragraph.indices("Indices"),
    )


def _parse_package(paragraph: _Paragraph) -> LockedPackage:
    package = Package(
        paragraph.matching("Package", PACKAGE),
        paragraph.matching("Version", VERSION),
        paragraph.matching("Architecture", NAME),
        paragraph.size("Size"),
        paragraph.matching("SHA256", SHA256),
        tuple(paragraph.matching("Used-By", USED_BY).split()),
    )
    place = PackageLocation(
        paragraph.matching("Archive", NAME),
        paragraph.matching("Suite", SUITE),
        paragraph.matching("Filename", POOL_PATH),
    )
    return LockedPackage(package, place)


def matching(pattern: re.Pattern[str], value: str) -> str:
    """Return `value` if it is of this form; raise Malformed if not."""
    if not pattern.fullmatch(value):
        raise Malformed(f"bad value {value[:100]!r}")
    return value


def _size(value: str) -> int:
    size = int(value)
    if not 0 < size <= SIZE_LIMIT:
        raise Malformed(f"bad size {value[:30]!r}")
    return size


def _date(value: str) -> datetime:
    return parsedate_to_datetime(value).astimezone(UTC)


def _index(line: str) -> Index:
    digest, size, path = line.split()
    return Index(matching(POOL_PATH, path), _size(size), matching(SHA256, digest))
