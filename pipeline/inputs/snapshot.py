# SPDX-License-Identifier: GPL-3.0-or-later
"""The tagged snapshot: the files that a lock names, in a layout that apt and debootstrap accept.

    <folder>/<tag>/<archive>/dists/<suite>/InRelease and the indices, as the archive signed them
    <folder>/<tag>/<archive>/pool/…                  only the locked packages

The archive's own signature covers all of it: whoever rebuilds trusts Debian's key, not ours.
"""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp

from pipeline.base.errors import InputsUnverified, UsageError
from pipeline.base.store import Store
from pipeline.documents.digest import sha256_file
from pipeline.documents.lock import Lock
from pipeline.farm.config import Farm
from pipeline.inputs.archive_files import open_archives, suite_of
from pipeline.inputs.packages_index import refuse_forged

TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")


def write_snapshot(folder: Path, tag: str, lock: Lock, farm: Farm, store: Store) -> Path:
    """Write the snapshot of `lock` atomically as `<folder>/<tag>`; return that path.

    Files that the store lacks are fetched. An existing snapshot is left alone if it is the same.
    Raise UsageError if it differs, InfrastructureFailed if the archive no longer has the signed
    indices of the lock.
    """
    if not TAG.fullmatch(tag):
        raise UsageError(f"{tag!r} cannot be the name of a snapshot")
    _have_all(lock, farm, store)
    wanted = dict(_files(lock))
    folder.mkdir(parents=True, exist_ok=True)
    final, temporary = folder / tag, Path(mkdtemp(prefix=f".{tag}.", dir=folder))
    try:
        for path, sha256 in sorted(wanted.items()):
            (temporary / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(store.path(sha256), temporary / path)
            if sha256_file(temporary / path) != sha256:
                raise InputsUnverified(f"{store.path(sha256)} is damaged", remedy="delete it")
        temporary.chmod(0o755)
        if final.exists():
            _refuse_other(final, wanted)
        else:
            os.rename(temporary, final)  # noqa: PTH104 - beside the other one-step writes
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return final


def _have_all(lock: Lock, farm: Farm, store: Store) -> None:
    """Bring all files into the store; verify the whole chain from signature to package."""
    with open_archives(farm.archives, store) as archives:
        for suite in lock.suites:
            archives.keep_indices(suite)
        absent = [p for p in lock.locked if not store.has(p.package.sha256, p.package.size)]
        archives.client.in_parallel(
            absent, lambda p: archives.keep_package(suite_of(lock, p.place), p, lambda _: None)
        )
    refuse_forged(store, lock)


def _files(lock: Lock) -> Iterator[tuple[str, str]]:
    """Yield the path, below the snapshot, and the digest of each of its files."""
    for suite in lock.suites:
        dists = f"{suite.archive}/dists/{suite.suite}"
        yield f"{dists}/InRelease", suite.inrelease_sha256
        for index in suite.indices:
            yield f"{dists}/{index.path}", index.sha256
    for locked in lock.locked:
        yield locked.place.path, locked.package.sha256


def _refuse_other(final: Path, wanted: dict[str, str]) -> None:
    there = {
        path.relative_to(final).as_posix(): path
        for path in final.rglob("*")
        if path.is_symlink() or not path.is_dir()
    }
    if there.keys() != wanted.keys() or any(
        path.is_symlink() or sha256_file(path) != wanted[name] for name, path in there.items()
    ):
        raise UsageError(f"{final} is there and is not this snapshot", remedy="move it away")
