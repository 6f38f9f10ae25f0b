# SPDX-License-Identifier: GPL-3.0-or-later
"""Stage 2: brings every package of the commit's lock, and earlier releases, into the store."""

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from pipeline.base.errors import InputsUnverified, UsageError, command_line
from pipeline.base.files import read_json, sha256_bytes, write_json
from pipeline.base.store import Store
from pipeline.documents.digest import sha256_file
from pipeline.documents.inputs import Inputs
from pipeline.documents.job import KitRequest, Local, LocalPackage, LocalSource
from pipeline.documents.json_form import json_bytes
from pipeline.documents.lock import Lock, LockedPackage, Package, in_lock_order, lock_path
from pipeline.documents.malformed import Malformed
from pipeline.farm.config import Farm, Image, load_image
from pipeline.farm.run import Run
from pipeline.farm.run_documents import read_source
from pipeline.inputs import earlier
from pipeline.inputs.archive_files import open_archives, suite_of
from pipeline.inputs.configuration import refuse_unsupported
from pipeline.inputs.local_packages import NONE
from pipeline.inputs.lock_file import read
from pipeline.inputs.locking import refuse_stale
from pipeline.inputs.package_list import build_index
from pipeline.inputs.request import PackageRequest, read_request
from pipeline.inputs.source_files import paths_in, source_digests, take_out
from pipeline.published.immutable import refuse_changed
from pipeline.published.published import Location

STAGE = "inputs"
PIECE = 1024 * 1024

Notify = Callable[[str], None]
Progress = Callable[[int, int], None]  # bytes in the store so far, and bytes in all


def run_inputs(
    run: Run,
    farm: Farm,
    store: Store,
    *,
    builder_lists: Path,
    snapshots: Path,
    locate: Callable[[], Location],
    notify: Notify,
    progress: Progress = lambda _done, _total: None,
) -> None:
    """Bring every package that the commit's lock names into the store; write `inputs.json`.

    `builder_lists` are used if the source has none of its own. `snapshots` holds a folder for each
    tagged snapshot; that of the run's tag is used before any archive. `locate` returns where
    releases are published; those that a tag has kits from are chosen once for a run. Raise
    UsageError if the lock is missing or stale, InputsUnverified if a package is not as the lock
    says or if one of the image's own was published with other content, and what `earlier.choose`
    raises.
    """
    begin = time.monotonic()
    lock, lock_sha256, image, request = _locked(run, farm, builder_lists, store)
    tag = run.request().tag
    snapshot = snapshots / tag if tag and (snapshots / tag).is_dir() else None
    reads = {
        "lock": lock_sha256,
        "source.json": sha256_file(run.source_json),
        "snapshot": snapshot.name if snapshot else "none",
    }
    if tag and image.upgrades.from_ != "none":
        reads["the release key"] = _trust(locate())
    why = run.why_again(STAGE, reads)
    settled = None if why else _settled(run)
    kits: Sequence[KitRequest] | None = settled.kits if settled else None
    why = why or _lost(settled, store)
    if why is None:
        notify("the inputs are complete and unchanged")
        return
    notify(f"inputs: {why}")
    if kits is None:
        kits = _choose(run, image, locate, notify)
    if kits:
        earlier.keep(locate(), kits, store)
    local = _local(run, request)
    if local and tag:
        refuse_changed(locate(), tag, local)
    _fill(store, request, lock, snapshot, progress)
    index_sha256 = store.add_bytes(build_index(store, lock.packages))
    inputs = Inputs(
        image=lock.image,
        lock_sha256=lock_sha256,
        snapshot=snapshot.name if snapshot else None,
        packages=tuple(in_lock_order(lock.packages)),
        index_sha256=index_sha256,
        kits=tuple(kits),
        local=local,
    )
    write_json(run.inputs_json, inputs.document())
    for binary in request.local.ready_made:
        notify(f"{binary.file} is ready-made: not built from source, and no archive vouches for it")
    run.complete(STAGE, reads, [run.inputs_json], since=begin)


def _locked(
    run: Run, farm: Farm, builder_lists: Path, store: Store
) -> tuple[Lock, str, Image, PackageRequest]:
    """Return the lock of the run's commit, its digest, the image.yaml and the package request.

    Raise UsageError if the commit has no lock or a stale one, InputsUnverified if `source.tar` was
    changed.
    """
    if sha256_file(run.source_tar) != read_source(run).tar_sha256:
        raise InputsUnverified(f"{run.source_tar} was changed", remedy="run the source stage again")
    image = run.request().image
    with TemporaryDirectory(prefix="twinbuild-") as folder:
        tree = Path(folder)
        refuse_unsupported(image, paths_in(run.source_tar, image))
        take_out(run.source_tar, image, tree)
        request = read_request(tree, image, farm, builder_lists, store)
        try:
            lock, digest = read(lock_path(tree / "images" / "live", image))
        except UsageError:
            remedy = f"{command_line(f'lock --image {image}')}, then commit it"
            raise UsageError(f"this commit has no lock of {image}", remedy=remedy) from None
        refuse_stale(lock, request)
        described = load_image(tree / "images" / "live" / image / "image.yaml")
        return lock, digest, described, request


def _choose(
    run: Run, image: Image, locate: Callable[[], Location], notify: Notify
) -> Sequence[KitRequest]:
    """Return the releases that kits are made from; only a tag whose image.yaml asks has any."""
    request = run.request()
    if request.tag is None or image.upgrades.from_ == "none":
        return ()
    return earlier.choose(locate(), request.image, image, read_source(run).version, notify)


def _trust(location: Location) -> str:
    """Return the digest of the keys by which earlier releases are verified."""
    trust = {"fingerprint": location.fingerprint, "keyring": sha256_bytes(location.keyring)}
    return sha256_bytes(json_bytes(trust))


def _settled(run: Run) -> Inputs | None:
    """Return the inputs that this run has already, so that later releases do not change its kits.

    Return None if they are of a version of Twinbuild without kits.
    """
    try:
        return Inputs.of(read_json(run.inputs_json, failure=UsageError))
    except Malformed:
        return None


def _lost(settled: Inputs | None, store: Store) -> str | None:
    """Return why a complete stage must run again: the store has lost some of its files."""
    if settled is None:
        return "it says nothing of kits"
    if all(store.has(sha256, size) for sha256, size in settled.digests().items()):
        return None
    return "the store no longer has all of it"


def _local(run: Run, request: PackageRequest) -> Local | None:
    """Return the packages that the image brings itself."""
    local = request.local
    digests = source_digests(run.source_tar, request.image)
    files = {fetched.name: fetched.files for fetched in local.fetched}
    if odd := sorted(digests.keys() ^ {source.name for source in local.sources} - files.keys()):
        raise UsageError(
            f"images/live/{request.image}/packages/{odd[0]} is no source package",
            remedy="it must be a folder with debian/control and debian/changelog",
        )
    if local == NONE:
        return None
    sources = tuple(
        LocalSource(
            name=source.name,
            version=source.version,
            epoch=source.epoch,
            sha256=digests.get(source.name) or sha256_bytes(repr(files[source.name]).encode()),
            dsc=source.dsc,
            files=tuple(files.get(source.name, ())),
        )
        for source in local.sources
    )
    packages = tuple(
        LocalPackage(
            name=binary.name,
            version=binary.version,
            architecture=binary.architecture,
            source=binary.source,
            sha256=binary.sha256,
            file=None if binary.source else PurePosixPath(binary.file).name,
            wanted=binary.name in request.installed_local,
        )
        for binary in local.binaries
    )
    return Local(sources, packages)


def _fill(
    store: Store, request: PackageRequest, lock: Lock, snapshot: Path | None, progress: Progress
) -> None:
    """Verify the packages that the store has; fetch the others."""
    counter = _Counter(sum(package.size for package in lock.packages), progress)
    with open_archives(request.archives, store) as archives:

        def keep(locked: LockedPackage) -> None:
            package, place = locked.package, locked.place
            if store.has(package.sha256, package.size) and not store.damaged(package.sha256):
                counter.add(package.size)
            elif snapshot and (snapshot / place.path).is_file():
                _copy(store, package, snapshot / place.path)
                counter.add(package.size)
            else:
                archives.keep_package(suite_of(lock, place), locked, counter.add)

        archives.client.in_parallel(lock.locked, keep)


class _Counter:
    """Reports the sum of the bytes that several threads receive."""

    def __init__(self, total: int, progress: Progress) -> None:
        self._total, self._progress, self._done = total, progress, 0
        self._mutex = threading.Lock()

    def add(self, gained: int) -> None:
        with self._mutex:
            self._done += gained
            self._progress(self._done, self._total)


def _copy(store: Store, package: Package, path: Path) -> None:
    with path.open("rb") as file:
        try:
            store.add(package.sha256, package.size, iter(lambda: file.read(PIECE), b""))
        except InputsUnverified as error:
            raise InputsUnverified(
                f"{path} in the tagged snapshot is not as the lock says"
            ) from error
