# SPDX-License-Identifier: GPL-3.0-or-later
"""The packages that an image brings itself, besides those from archives.

`packages/<source>/` is an unpacked source package that the machine builds, `packages/*.dsc` names
one by hash, and `packages.chroot/*.deb` are ready-made, as in a live-build configuration.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from pipeline.base.errors import UsageError
from pipeline.documents.digest import sha256_file
from pipeline.documents.lock import PACKAGE, VERSION
from pipeline.inputs.deb_control import read_control
from pipeline.inputs.debian_source import Binary, SourcePackage, read_source, stanza_fields
from pipeline.inputs.fetched_source import FetchedSource, read_dsc
from pipeline.inputs.unpacked import Unreadable

SOURCES, READY_MADE = "packages", "packages.chroot"
PACKAGES_LIMIT = 500
DEB_LIMIT = 64 * 1024 * 1024  # it is committed to git

Fetch = Callable[[FetchedSource, str], Mapping[str, bytes]]  # also given the path to show


@dataclass(frozen=True)
class LocalPackages:
    """The packages that an image builds and those it has ready-made; most images have none."""

    sources: tuple[SourcePackage, ...] = ()
    ready_made: tuple[Binary, ...] = ()
    fetched: tuple[FetchedSource, ...] = ()  # the sources that are named by a .dsc

    @property
    def binaries(self) -> tuple[Binary, ...]:
        """All binary packages, by name."""
        built = [binary for source in self.sources for binary in source.binaries]
        return tuple(sorted([*built, *self.ready_made], key=lambda binary: binary.name))


NONE = LocalPackages()


def read_local(folder: Path, architecture: str, fetch: Fetch | None = None) -> LocalPackages:
    """Read the packages in an image's folder.

    `fetch` returns `debian/control` and `debian/changelog` of the source that a .dsc names;
    without it only the names in the .dsc are known. Raise UsageError, which names the file at
    fault, if a package is malformed or two have the same name.
    """
    shown = folder.name
    sources, fetched = [], []
    for path in _entries(folder / SOURCES):
        where = f"{shown}/{SOURCES}/{path.name}"
        if path.suffix == ".dsc":
            dsc = read_dsc(path, where)
            sources.append(_fetched(path, dsc, architecture, where, fetch))
            fetched.append(dsc)
        elif path.suffix != ".urls" or not path.with_suffix(".dsc").exists():
            sources.append(_source(path, architecture, where))
    ready_made = tuple(
        _ready_made(path, architecture, f"{shown}/{READY_MADE}/{path.name}")
        for path in _entries(folder / READY_MADE)
    )
    local = LocalPackages(tuple(sources), ready_made, tuple(fetched))
    _refuse_twice(local.binaries)
    return local


def _fetched(
    path: Path, dsc: FetchedSource, architecture: str, shown: str, fetch: Fetch | None
) -> SourcePackage:
    if fetch is None:
        binaries = [Binary(b, dsc.version, "", dsc.name, shown, ()) for b in dsc.binaries]
        return SourcePackage(dsc.name, dsc.version, 0, shown, (), tuple(binaries), path.name)
    debian = fetch(dsc, shown)
    source = read_source(debian["control"], debian["changelog"], architecture, shown)
    if (source.name, source.version) != (dsc.name, dsc.version):
        what = f"{shown} is {dsc.name} {dsc.version}, its debian/changelog says {source.name}"
        raise UsageError(f"{what} {source.version}")
    return replace(source, dsc=path.name)


def _entries(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if not path.name.startswith((".", "README")):
            yield path


def _source(path: Path, architecture: str, shown: str) -> SourcePackage:
    if path.suffix == ".deb":
        remedy = f"ready-made packages go into {READY_MADE}/"
        raise UsageError(f"{shown} is no source package", remedy=remedy)
    control, changelog = (path / "debian" / name for name in ("control", "changelog"))
    links = any(p.is_symlink() for p in (path, path / "debian", control, changelog))
    if links or not (control.is_file() and changelog.is_file()):
        remedy = "it must be a folder with debian/control and debian/changelog"
        raise UsageError(f"{shown} is no source package", remedy=remedy)
    source = read_source(control.read_bytes(), changelog.read_bytes(), architecture, shown)
    if source.name != path.name:
        raise UsageError(f"{shown} holds the source {source.name}", remedy="name the folder so")
    return source


def _ready_made(path: Path, architecture: str, shown: str) -> Binary:
    if path.suffix != ".deb" or path.is_symlink() or not path.is_file():
        raise UsageError(f"{shown} is no package", remedy="only *.deb files may stand there")
    if path.stat().st_size > DEB_LIMIT:
        raise UsageError(f"{shown} is larger than {DEB_LIMIT} bytes")
    try:
        fields = {key: str(value) for key, value in read_control(path).items()}
    except Unreadable as error:
        raise UsageError(f"{shown} cannot be read: {error}") from error
    name, version, made_for = (
        fields.get(key, "") for key in ("Package", "Version", "Architecture")
    )
    if not PACKAGE.fullmatch(name) or not VERSION.fullmatch(version):
        raise UsageError(f"{shown} says that it is {name[:80]!r} {version[:80]!r}")
    if made_for not in ("all", architecture):
        raise UsageError(f"{shown} is for {made_for[:80]!r}, and the image for {architecture}")
    stanza = stanza_fields(fields, architecture, shown)
    return Binary(name, version, made_for, None, shown, stanza, sha256_file(path))


def _refuse_twice(binaries: tuple[Binary, ...]) -> None:
    if len(binaries) > PACKAGES_LIMIT:
        raise UsageError(f"an image may have {PACKAGES_LIMIT} packages of its own at most")
    for one, other in pairwise(binaries):
        if one.name == other.name:
            raise UsageError(
                f"{one.file} is {one.name} {one.version} and {other.file} is {other.name}"
                f" {other.version}",
                remedy="keep one of them",
            )
