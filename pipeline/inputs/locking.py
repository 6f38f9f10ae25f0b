# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes a lock from today's archives; checks that a lock is current and still available."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from pipeline.base.errors import InfrastructureFailed, InputsUnverified, UsageError, command_line
from pipeline.base.files import write_bytes
from pipeline.base.store import Store
from pipeline.documents.lock import (
    Lock,
    LockedPackage,
    Package,
    PackageLocation,
    Suite,
    dump,
    lock_path,
)
from pipeline.farm.config import Farm
from pipeline.inputs.archive_files import Archives, open_archives, suite_of
from pipeline.inputs.history import refuse_changed
from pipeline.inputs.lock_file import load, read
from pipeline.inputs.packages_index import catalogue, find_packages
from pipeline.inputs.request import PackageRequest, read_request
from pipeline.inputs.resolve import ChosenPackages, check_names, check_needs, private_apt
from pipeline.inputs.validity import tell_validity

# What dpkg-buildpackage always requires, besides a source's own build dependencies.
BUILD_ALWAYS = "build-essential"

Notify = Callable[[str], None]


def make_lock(
    tree: Path,
    image: str,
    farm: Farm,
    store: Store,
    cache: Path,
    builder_lists: Path,
    notify: Notify,
) -> Lock:
    """Resolve what `image` of the source `tree` asks for against today's archives.

    The signed indices stay in the store. Raise UsageError for a request that cannot be met,
    InputsUnverified for an archive that cannot be trusted, is older than when it was locked before,
    or has changed a package that was locked before.
    """
    request = read_request(tree, image, farm, builder_lists, store)
    path = lock_path(tree / "images" / "live", image)
    before = read(path)[0] if path.exists() else None
    with open_archives(request.archives, store) as archives:
        suites = _read_suites(archives, request, before, notify)
    places = {
        user: chosen.places
        for user, chosen in _resolve(request, suites, store, cache, notify).items()
    }
    wanted = {place for chosen in places.values() for place in chosen}
    packages = _merge(places, find_packages(store, suites, wanted))
    lock = Lock(image, request.architecture, request.sha256, tuple(suites), packages)
    refuse_changed(tree, lock)
    return load(dump(lock))


def _resolve(
    request: PackageRequest,
    suites: Sequence[Suite],
    store: Store,
    cache: Path,
    notify: Notify,
) -> dict[str, ChosenPackages]:
    """Return the packages for the "builder", the "image" and, if it has sources, their "build".

    The builder uses only the farm's archives. Raise UsageError for a request that cannot be met.
    """
    of_farm = catalogue(store, [s for s in suites if s.archive not in request.own_keys])
    of_image = catalogue(store, [s for s in suites if s.archive in request.own_keys])
    found = of_farm.joined(of_image)
    own = {binary.name for binary in request.local.binaries}
    with_own = replace(found, names=found.names | own)
    chosen: dict[str, ChosenPackages] = {}
    with private_apt(cache, store, suites, request) as apt:
        notify("resolving the packages of the builder")
        check_names(request.builder_names, of_farm)
        names = {word.name for word in request.builder_names}
        chosen["builder"] = apt.packages_for(of_farm.essential | names)
        notify("resolving the packages of the image")
        check_names(request.image_names, with_own)
        names = {word.name for word in request.image_names} | request.installed_local
        chosen["image"] = apt.packages_for(
            found.essential | names, request.preferences, for_image=True
        )
        _refuse_passed_over(request, chosen["image"])
        if request.local.sources:
            notify("resolving what builds the image's own packages")
            check_needs(request.local, found)
            needs = {need.relation for source in request.local.sources for need in source.needs}
            always = found.essential | {BUILD_ALWAYS}
            chosen["build"] = apt.packages_to_build(always, needs)
            _tell_unused(request, chosen["image"].local, notify)
    return chosen


def _refuse_passed_over(request: PackageRequest, chosen: ChosenPackages) -> None:
    """Raise UsageError if apt prefers an archive's package to the image's own."""
    taken = {PurePosixPath(file).name: archive for archive, _, file in chosen.places}
    for own in request.local.binaries:
        if own.name not in request.installed_local - chosen.local:
            continue
        theirs = [f"{file} of {taken[file]}" for file in taken if file.startswith(f"{own.name}_")]
        raise UsageError(
            f"{own.file}: apt takes {''.join(theirs) or 'another package'}, not {own.version}",
            remedy=f"raise the version in debian/changelog, or pin it in preferences/: 'Package:"
            f" {own.name}', 'Pin: version {own.version}', 'Pin-Priority: 1001'",
        )


def _tell_unused(request: PackageRequest, taken: Collection[str], notify: Notify) -> None:
    for source in request.local.sources:
        if not {binary.name for binary in source.binaries} & set(taken):
            notify(f"{source.file}: no package list asks for what it builds: it is not installed")


def write_lock(tree: Path, lock: Lock) -> Path:
    """Write a lock to its path in the source `tree`; return that path."""
    path = lock_path(tree / "images" / "live", lock.image)
    write_bytes(path, dump(lock))
    return path


def check_lock(
    tree: Path, image: str, farm: Farm, store: Store, builder_lists: Path, notify: Notify
) -> Lock:
    """Return the lock of `image` if it is current and all its packages are available.

    `notify` gets a line for each suite about when its signed indices expire. Raise UsageError if
    the lock is stale, InfrastructureFailed, which lists the packages, if neither the store nor any
    address has some of them.
    """
    request = read_request(tree, image, farm, builder_lists, store)
    lock, _ = read(lock_path(tree / "images" / "live", image))
    refuse_stale(lock, request)
    refuse_changed(tree, lock)
    absent = [p for p in lock.locked if not store.has(p.package.sha256, p.package.size)]
    notify(f"{len(lock.locked) - len(absent)} packages are in the store, asking for the rest")
    gone: list[str] = []

    def ask(locked: LockedPackage) -> None:
        if not archives.offers_package(suite_of(lock, locked.place), locked):
            gone.append(locked.package.file_name)

    with open_archives(request.archives, store) as archives:
        archives.client.in_parallel(absent, ask)
        validity = [tell_validity(archives.signed_release(suite), suite) for suite in lock.suites]
    if gone:
        raise InfrastructureFailed(
            f"{len(gone)} locked packages cannot be had",
            remedy=f"{command_line(f'lock --image {image}')}, or set snapshot_urls in farm.yaml",
            detail="\n".join(sorted(gone)),
        )
    for line in validity:
        notify(line)
    return lock


def refuse_stale(lock: Lock, request: PackageRequest) -> None:
    """Raise UsageError if a lock was made for another request than `request`.

    Raise InputsUnverified if its builder has a package from an archive that the image names itself.
    """
    remedy = f"{command_line(f'lock --image {request.image}')}, then commit it"
    if lock.image != request.image or lock.architecture != request.architecture:
        raise UsageError(f"the lock is that of {lock.image} for {lock.architecture}", remedy=remedy)
    if lock.request_sha256 != request.sha256:
        raise UsageError(
            f"the lock of {request.image} is stale: packages, pins or archives changed since",
            remedy=remedy,
        )
    for locked in lock.locked:
        name, archive = locked.package.name, locked.place.archive
        if "builder" in locked.package.used_by and archive in request.own_keys:
            what = f"the lock's builder has {name} of the image's archive {archive}"
            raise InputsUnverified(what, remedy=remedy)


def _read_suites(
    archives: Archives, request: PackageRequest, before: Lock | None, notify: Notify
) -> list[Suite]:
    dates = {(s.archive, s.suite): s.date for s in before.suites} if before else {}
    wanted = [(name, suite) for name, a in request.archives.items() for suite in a.suites]
    found: dict[tuple[str, str], Suite] = {}

    def read_one(place: tuple[str, str]) -> None:
        name, suite = place
        notify(f"reading {suite} of {name}")
        found[place] = archives.read_suite(name, suite, request.architecture, dates.get(place))

    archives.client.in_parallel(wanted, read_one)
    return [found[place] for place in wanted]


def _merge(
    places: dict[str, tuple[PackageLocation, ...]], found: dict[PackageLocation, Package]
) -> tuple[LockedPackage, ...]:
    """Return each package once, with all of its users."""
    merged: dict[tuple[str, str, str], LockedPackage] = {}
    for user, chosen in sorted(places.items()):
        for place in chosen:
            package = found[place]
            identity = (package.name, package.version, package.architecture)
            first = merged.setdefault(identity, LockedPackage(package, place))
            known = first.package
            if known.sha256 != package.sha256:
                raise InputsUnverified(
                    f"{package.name} {package.version} is one thing in {first.place.archive} and"
                    f" another in {place.archive}"
                )
            used = replace(known, used_by=(*known.used_by, user))
            merged[identity] = LockedPackage(used, first.place)
    return tuple(merged.values())
