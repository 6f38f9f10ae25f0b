# SPDX-License-Identifier: GPL-3.0-or-later
"""The lock: every package that a build may use, and the signed indices that vouch for it.

A lock is a deb822 file in git beside the image, `images/live/<name>/lock`. Its first paragraph says
what it was made from, then follows a paragraph for each signed index, then one for each package.
Which mirror served a byte leaves no trace in it. `docs/reference/lock.md` describes every field.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from pathlib import Path

from debian.deb822 import Deb822

from pipeline.base.errors import InputsUnverified, UsageError, command_line
from pipeline.base.files import read_plain, sha256_bytes

FORMAT = "twinbuild-lock/1"
SHA256 = re.compile(r"[0-9a-f]{64}")
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
    """A binary package: what it is, where an archive keeps it and what its bytes must be."""

    name: str
    version: str
    architecture: str
    archive: str
    suite: str
    filename: str
    size: int
    sha256: str
    used_by: tuple[str, ...]  # of "build", "builder", "image", in this order

    @property
    def file_name(self) -> str:
        """The name that apt gives the file: `name_version_architecture.deb`, the colon as `%3a`."""
        return f"{self.name}_{self.version.replace(':', '%3a')}_{self.architecture}.deb"


@dataclass(frozen=True)
class Lock:
    """All of a lock; `request_sha256` is the digest of what was asked for (`inputs/request.py`)."""

    image: str
    architecture: str
    request_sha256: str
    suites: tuple[Suite, ...]
    packages: tuple[Package, ...]

    def used_by(self, user: str) -> tuple[Package, ...]:
        """Return the packages of the "image", the "builder" or the "build" of local packages."""
        return tuple(package for package in self.packages if user in package.used_by)


def lock_path(images: Path, image: str) -> Path:
    """Return where the lock of `image` stands below an `images/live` folder."""
    return images / image / "lock"


def dump(lock: Lock) -> bytes:
    """Return the one form of a lock: paragraphs and fields in a fixed order, UTF-8."""
    paragraphs = [_head(lock)]
    paragraphs += [_suite(s) for s in sorted(lock.suites, key=lambda s: (s.archive, s.suite))]
    paragraphs += [
        _package(p)
        for p in sorted(lock.packages, key=lambda p: (p.name, p.architecture, p.version))
    ]
    return "\n".join(paragraphs).encode()


def load(content: bytes) -> Lock:
    """Parse a lock; raise InputsUnverified if anything in it is not as `dump` writes it."""
    try:
        paragraphs = list(Deb822.iter_paragraphs(content.decode(), use_apt_pkg=False))
        lock = _lock(iter(paragraphs))
    except (KeyError, ValueError, TypeError, OverflowError, StopIteration) as error:
        raise InputsUnverified(f"the lock is damaged: {error!r}") from error
    if dump(lock) != content:
        raise InputsUnverified("the lock is not in its canonical form", remedy="write it anew")
    return lock


def read(path: Path) -> tuple[Lock, str]:
    """Read a lock and its SHA-256; raise UsageError if there is none."""
    try:
        content = read_plain(path, FILE_LIMIT)
    except FileNotFoundError:
        remedy = f"{command_line(f'lock --image {path.parent.name}')}, then commit it"
        raise UsageError(f"there is no lock {path}", remedy=remedy) from None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    return load(content), sha256_bytes(content)


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


def _package(package: Package) -> str:
    return (
        f"Package: {package.name}\nVersion: {package.version}\n"
        f"Architecture: {package.architecture}\n"
        f"Archive: {package.archive}\nSuite: {package.suite}\nFilename: {package.filename}\n"
        f"Size: {package.size}\nSHA256: {package.sha256}\nUsed-By: {' '.join(package.used_by)}\n"
    )


def _lock(paragraphs: Iterator[Deb822]) -> Lock:
    head = next(paragraphs)
    if head["Format"] != FORMAT:
        raise ValueError(f"unknown format {head['Format']}")
    suites, packages = [], []
    for paragraph in paragraphs:
        if "Package" in paragraph:
            packages.append(_parse_package(paragraph))
        else:
            suites.append(_parse_suite(paragraph))
    known = {(suite.archive, suite.suite) for suite in suites}
    strays = [p.name for p in packages if (p.archive, p.suite) not in known]
    if strays:
        raise ValueError(f"no signed index vouches for {strays[0]}")
    uses = [(user, p.name, p.architecture) for p in packages for user in p.used_by]
    if len(set(uses)) != len(uses):
        raise ValueError("a package stands in it twice")
    return Lock(
        matching(NAME, head["Image"]),
        matching(NAME, head["Architecture"]),
        matching(SHA256, head["Request-SHA256"]),
        tuple(suites),
        tuple(packages),
    )


def _parse_suite(paragraph: Deb822) -> Suite:
    indices = []
    for line in paragraph["Indices"].splitlines():
        if line.strip():
            digest, size, path = line.split()
            indices.append(Index(matching(POOL_PATH, path), _size(size), matching(SHA256, digest)))
    return Suite(
        matching(NAME, paragraph["Archive"]),
        matching(SUITE, paragraph["Suite"]),
        parsedate_to_datetime(paragraph["Date"]).astimezone(UTC),
        matching(SHA256, paragraph["InRelease-SHA256"]),
        tuple(indices),
    )


def _parse_package(paragraph: Deb822) -> Package:
    return Package(
        matching(PACKAGE, paragraph["Package"]),
        matching(VERSION, paragraph["Version"]),
        matching(NAME, paragraph["Architecture"]),
        matching(NAME, paragraph["Archive"]),
        matching(SUITE, paragraph["Suite"]),
        matching(POOL_PATH, paragraph["Filename"]),
        _size(paragraph["Size"]),
        matching(SHA256, paragraph["SHA256"]),
        tuple(matching(USED_BY, paragraph["Used-By"]).split()),
    )


def matching(pattern: re.Pattern[str], value: str) -> str:
    """Return `value` if it is of this form; raise ValueError if not."""
    if not pattern.fullmatch(value):
        raise ValueError(f"bad value {value[:100]!r}")
    return value


def _size(value: str) -> int:
    size = int(value)
    if not 0 < size <= SIZE_LIMIT:
        raise ValueError(f"bad size {value[:30]!r}")
    return size
