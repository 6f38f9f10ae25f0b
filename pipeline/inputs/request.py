# SPDX-License-Identifier: GPL-3.0-or-later
"""What a lock is made for: package names, pins, architecture, archives; it records their digest."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from pipeline.base.errors import UsageError, command_line
from pipeline.base.files import sha256_bytes
from pipeline.base.store import Store
from pipeline.documents.lock import NAME, PACKAGE, SUITE, Lock
from pipeline.farm.config import Archive, Farm, load_image
from pipeline.inputs.configuration import LISTS, PINS, files_in, read_text, refuse_unsupported
from pipeline.inputs.fetched_source import FetchedSource, keep_files, read_debian
from pipeline.inputs.image_archives import COMPONENT, read_archives
from pipeline.inputs.local_packages import NONE, Fetch, LocalPackages, read_local

BUILDER_LISTS = Path("images/builder/package-lists")
# live-build's conditionals look like comments, but are not.
DIRECTIVE = re.compile(r"\s*#(?:if|nif|else|elif|endif)\b")
# The package that the builder always needs, whatever its lists say.
BUILDER_ALWAYS = "apt"


@dataclass(frozen=True)
class Asked:
    """A requested package name, and the file and line that request it."""

    name: str
    file: str
    line: int


@dataclass(frozen=True)
class PackageRequest:
    """What a lock is made for. `preferences` are apt's pins for the image: file name and text.

    `local` are the packages that the image brings itself. `own_keys` are the SHA-256 digests of the
    keys of those `archives` that the image names itself, by name.
    """

    image: str
    architecture: str
    image_names: tuple[Asked, ...]
    builder_names: tuple[Asked, ...]
    preferences: tuple[tuple[str, str], ...]
    archives: Mapping[str, Archive]
    local: LocalPackages = NONE
    own_keys: Mapping[str, str] = field(default_factory=dict)

    @property
    def installed_local(self) -> frozenset[str]:
        """The names of local packages that must be installed: ready-made, or in a package list."""
        asked = {word.name for word in self.image_names}
        built = {binary.name for source in self.local.sources for binary in source.binaries}
        return frozenset({binary.name for binary in self.local.ready_made} | (asked & built))

    @property
    def sha256(self) -> str:
        """The digest of everything that decides a lock's content, except the archives' content.

        Addresses and keyring paths are left out, as they differ from machine to machine.
        """
        asked: dict[str, object] = {
            "architecture": self.architecture,
            "image": sorted({asked.name for asked in self.image_names}),
            "builder": sorted({asked.name for asked in self.builder_names}),
            "preferences": [list(preference) for preference in self.preferences],
            "archives": {
                name: [archive.suites, archive.components, archive.at]
                for name, archive in self.archives.items()
            },
        }
        if self.own_keys:
            asked["keys"] = dict(self.own_keys)
        if self.local != NONE:  # without their versions: a new one needs no new lock
            needs = {need.relation for source in self.local.sources for need in source.needs}
            packages = [
                [b.name, b.architecture, bool(b.source), b.fields] for b in self.local.binaries
            ]
            asked["local"] = {"needs": sorted(needs), "packages": packages}
        return sha256_bytes(json.dumps(asked, sort_keys=True).encode())


def read_request(
    tree: Path, image: str, farm: Farm, builder_lists: Path, store: Store
) -> PackageRequest:
    """Read the request of `image` in the source `tree`.

    `builder_lists` are used if the tree has no lists for the builder. Source packages named by hash
    are fetched into the store. Raise UsageError, which names the file and line at fault, and what
    `Client.download` raises.
    """
    folder = tree / "images" / "live" / image
    if not NAME.fullmatch(image) or not folder.is_dir():
        raise UsageError(f"there is no image {image!r}", remedy=_other_images(tree))
    refuse_unsupported(image, files_in(folder))
    described = load_image(folder / "image.yaml")
    _check_archives(farm.archives)
    if described.suite not in {s for a in farm.archives.values() for s in a.suites}:
        raise UsageError(f"no archive in farm.yaml has the suite {described.suite} of {image}")
    own = read_archives(folder, described.architecture, farm.archives)
    archives = {**farm.archives, **{name: one.archive for name, one in own.items()}}
    own_lists = tree / BUILDER_LISTS
    image_names = tuple(_names(folder / "package-lists", LISTS))
    builder_names = tuple(_names(own_lists if own_lists.is_dir() else builder_lists, (".list",)))
    if not image_names:
        raise UsageError(f"image {image} has no packages", remedy="write a *.list.chroot for it")
    return PackageRequest(
        image,
        described.architecture,
        image_names,
        (*builder_names, Asked(BUILDER_ALWAYS, "the builder itself", 0)),
        tuple(_preferences(folder)),
        archives,
        read_local_of(tree, image, partial(_fetch, archives, store)),
        {name: one.key_sha256 for name, one in own.items()},
    )


def _other_images(tree: Path) -> str:
    """Return the remedy if `tree` lacks the requested image."""
    names = sorted(path.parent.name for path in tree.glob("images/live/*/image.yaml"))
    if names:
        return f"--image names one of {', '.join(names)}"
    return f"{command_line('new-image NAME')} makes one"


def with_own_archives(tree: Path, lock: Lock, farm: Farm) -> Farm:
    """Return the farm with the archives that the image of `lock` names itself in the source `tree`.

    Raise UsageError for what `read_archives` refuses.
    """
    folder = tree / "images" / "live" / lock.image
    own = read_archives(folder, lock.architecture, farm.archives)
    archives = {**farm.archives, **{name: one.archive for name, one in own.items()}}
    return farm.model_copy(update={"archives": archives})


def read_local_of(tree: Path, image: str, fetch: Fetch | None = None) -> LocalPackages:
    """Return the packages that an image of the source `tree` brings itself.

    Raise what `read_local` raises, and UsageError for a malformed `image.yaml`.
    """
    folder = tree / "images" / "live" / image
    return read_local(folder, load_image(folder / "image.yaml").architecture, fetch)


def _fetch(
    archives: Mapping[str, Archive], store: Store, source: FetchedSource, shown: str
) -> Mapping[str, bytes]:
    keep_files(source, archives, store)
    return read_debian(source, store, shown)


def _check_archives(archives: Mapping[str, Archive]) -> None:
    for name, archive in archives.items():
        for suite in archive.suites:
            if not SUITE.fullmatch(suite):
                raise UsageError(f"farm.yaml: archive {name}: {suite!r} is not a suite's name")
        for component in archive.components:
            if not COMPONENT.fullmatch(component):
                raise UsageError(f"farm.yaml: archive {name}: {component!r} is not a component")


def _names(folder: Path, endings: tuple[str, ...]) -> Iterator[Asked]:
    """Yield the names in a folder's package lists, in the order of files and lines."""
    for path in sorted(folder.glob("*")) if folder.is_dir() else ():
        shown = f"{folder.parent.name}/{folder.name}/{path.name}"
        if path.name.startswith((".", "README")):
            continue
        if not path.name.endswith(endings):
            remedy = f"name it *{endings[0]}"
            raise UsageError(f"{shown} is no kind of package list known here", remedy=remedy)
        for number, line in enumerate(read_text(path).splitlines(), start=1):
            for word in [line] if DIRECTIVE.match(line) else line.partition("#")[0].split():
                if not PACKAGE.fullmatch(word):
                    remedy = "write names of packages alone"
                    raise UsageError(f"{shown}:{number}: {word[:80]!r} is not one", remedy=remedy)
                yield Asked(word, shown, number)


def _preferences(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the pins of an image under distinct file names that apt accepts for preferences."""
    for part, prefix in (("preferences", ""), ("archives", "archives-")):
        for path in sorted((folder / part).glob("*")):
            if path.name.endswith(PINS) and not path.name.startswith((".", "README")):
                yield prefix + path.name.removesuffix(".chroot"), read_text(path)
    if (folder / "apt/preferences").exists():
        yield "apt-preferences", read_text(folder / "apt/preferences")
