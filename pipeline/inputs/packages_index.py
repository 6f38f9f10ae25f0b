# SPDX-License-Identifier: GPL-3.0-or-later
"""`Packages`: an archive's list of binary packages, read from the store paragraph by paragraph."""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from debian.deb822 import Deb822

from pipeline.base.errors import InputsUnverified
from pipeline.base.store import Store
from pipeline.documents.fields import SHA256
from pipeline.documents.lock import (
    NAME,
    PACKAGE,
    POOL_PATH,
    VERSION,
    Index,
    Lock,
    Package,
    PackageLocation,
    Suite,
    matching,
)
from pipeline.inputs.unpacked import ERRORS, Unreadable, open_packed

UNPACKED_LIMIT = 1024**3
PARAGRAPH_LIMIT = 1024**2
PIECE = 1024**2
FIELD = re.compile(rb"^(Package|Essential|Provides):(.*)$", re.MULTILINE)
FILENAME = re.compile(rb"^Filename:(.*)$", re.MULTILINE)


@dataclass
class Catalogue:
    """The names in all indices: packages, virtual ones with their providers, essential ones."""

    names: set[str] = field(default_factory=set)
    provided: dict[str, set[str]] = field(default_factory=dict)
    essential: set[str] = field(default_factory=set)

    def joined(self, other: "Catalogue") -> "Catalogue":
        """Return the union of two catalogues."""
        provided = {
            name: self.provided.get(name, set()) | other.provided.get(name, set())
            for name in self.provided.keys() | other.provided.keys()
        }
        return Catalogue(self.names | other.names, provided, self.essential | other.essential)


def paragraphs(store: Store, index: Index) -> Iterator[bytes]:
    """Yield the paragraphs of an index in the store; raise InputsUnverified past the limits."""
    unpacked, rest = 0, b""
    try:
        with store.path(index.sha256).open("rb") as file:
            stream = open_packed(file, PurePosixPath(index.path).suffix.removeprefix("."))
            while piece := stream.read(PIECE):
                unpacked += len(piece)
                *whole, rest = (rest + piece).split(b"\n\n")
                if unpacked > UNPACKED_LIMIT or len(rest) > PARAGRAPH_LIMIT:
                    raise InputsUnverified(f"{index.path} is absurdly large")
                yield from whole
    except (*ERRORS, Unreadable) as error:
        raise InputsUnverified(f"{index.path} cannot be unpacked: {error}") from error
    if rest.strip():
        yield rest


def catalogue(store: Store, suites: Collection[Suite]) -> Catalogue:
    """Read all names in the `Packages` of `suites`."""
    found = Catalogue()
    for _, index in _packages_of(suites):
        for paragraph in paragraphs(store, index):
            fields = {
                key: value.strip().decode(errors="replace")
                for key, value in FIELD.findall(paragraph)
            }
            name = fields.get(b"Package", "")
            found.names.add(name)
            if fields.get(b"Essential") == "yes":
                found.essential.add(name)
            for relation in fields.get(b"Provides", "").split(","):
                for virtual in relation.split()[:1]:
                    found.provided.setdefault(virtual, set()).add(name)
    return found


def find_packages(
    store: Store, suites: Collection[Suite], wanted: Collection[PackageLocation]
) -> dict[PackageLocation, Package]:
    """Return the packages at these locations, with `used_by` still empty.

    Raise InputsUnverified if a location is missing, is listed twice with different packages, or
    has a malformed paragraph.
    """
    found: dict[PackageLocation, Package] = {}
    for suite, index in _packages_of(suites):
        for paragraph in paragraphs(store, index):
            match = FILENAME.search(paragraph)
            if not match:
                continue
            filename = match[1].strip().decode(errors="replace")
            place = PackageLocation(suite.archive, suite.suite, filename)
            if place in wanted:
                named, package = _package(paragraph, suite)
                if named != filename or found.setdefault(place, package) != package:
                    raise InputsUnverified(f"{index.path} names {filename} twice")
    missing = sorted(set(wanted) - set(found))
    if missing:
        raise InputsUnverified(f"no index names {missing[0].filename}")
    return found


def refuse_forged(store: Store, lock: Lock) -> None:
    """Raise InputsUnverified unless each locked package is exactly as its signed index says.

    The indices are in the store.
    """
    locked = {p.place: replace(p.package, used_by=()) for p in lock.locked}
    for place, package in find_packages(store, lock.suites, locked.keys()).items():
        if package != locked[place]:
            raise InputsUnverified(f"{package.file_name} is not what its signed index says")


def _packages_of(suites: Collection[Suite]) -> Iterator[tuple[Suite, Index]]:
    for suite in suites:
        for index in suite.indices:
            if PurePosixPath(index.path).stem == "Packages":
                yield suite, index


def _package(paragraph: bytes, suite: Suite) -> tuple[str, Package]:
    """Return the `Filename` in a paragraph, and the package that it describes."""
    try:
        fields = Deb822(paragraph.decode())
        return matching(POOL_PATH, fields["Filename"]), Package(
            matching(PACKAGE, fields["Package"]),
            matching(VERSION, fields["Version"]),
            matching(NAME, fields["Architecture"]),
            int(fields["Size"]),
            matching(SHA256, fields["SHA256"]),
            (),
        )
    except (KeyError, ValueError) as error:
        raise InputsUnverified(f"a package in {suite.suite} cannot be read: {error!r}") from error
