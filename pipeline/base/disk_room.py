# SPDX-License-Identifier: GPL-3.0-or-later
"""Explains why something could not be written: the path, and, if the disk is full, what fills it.

All such messages are made here. What the farm keeps on that file system (parts of the cache, runs,
published releases, snapshots) is measured only once something has failed.
"""

import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from pipeline.base import places
from pipeline.base.cache_folder import default_cache
from pipeline.base.errors import InfrastructureFailed, command_line

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
NO_SPACE = "No space left on device"  # as programs print it in the locale that they get
MIB = 1024 * 1024
# Folders of the farm. If `farm.yaml` puts releases elsewhere, these are not named.
KEPT = ("runs", "public", "snapshots")
UNKNOWN = "a file"


def no_room(error: BaseException) -> bool:
    """Tell whether an error means a full disk, a quota, or the process's file size limit."""
    if not isinstance(error, OSError):
        return False
    return error.errno in FULL or (error.errno == errno.EFBIG and error.filename is None)


def cannot_write(
    error: OSError, where: str | os.PathLike[str] | BinaryIO | None = None
) -> InfrastructureFailed:
    """Return the error for a failed write to a path or file, by default the path in `error`."""
    path = _path(error, where)
    what = f"cannot write {path or UNKNOWN}: {error.strerror or error}"
    if error.errno not in FULL:
        return InfrastructureFailed(what, remedy="look at that disk and its limits")
    room, remedy = _filled(path or _fullest())
    return InfrastructureFailed(f"{what}: {room}", remedy=remedy)


def program_found_no_room(program: str, detail: str) -> InfrastructureFailed:
    """Return the error for a program that failed as a disk is full; `detail` is its output."""
    room, remedy = _filled(_fullest())
    return InfrastructureFailed(f"{program}: {NO_SPACE}: {room}", remedy=remedy, detail=detail)


def _path(error: OSError, where: str | os.PathLike[str] | BinaryIO | None) -> Path | None:
    named: object = error.filename2 or error.filename  # of a copy, the second is the target
    if where is not None:
        named = where if isinstance(where, str | os.PathLike) else where.name
    if isinstance(named, int):  # of a file opened by descriptor
        named = Path(f"/proc/self/fd/{named}").readlink()
    if isinstance(named, str | bytes | os.PathLike):
        return Path(os.fsdecode(named)).absolute()
    return None


def _filled(path: Path) -> tuple[str, str]:
    """Describe how full the file system of a path is and what the farm has on it; add a remedy."""
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    space, device = os.statvfs(there), there.stat().st_dev
    free, whole = space.f_bavail * space.f_frsize, space.f_blocks * space.f_frsize
    room = f"{free // MIB} of {whole // MIB} MiB are free on {_mount_point(there)}"
    if space.f_files and not space.f_favail:
        room += ", and no inode is"
    sizes = {folder: _size(folder) for folder in _ours() if _is_on(folder, device)}
    if not any(sizes.values()):
        return room, "make room there"
    most = max(sizes, key=lambda folder: sizes[folder])
    room += f"; {most} has {sizes[most] // MIB} MiB of it"
    ways = []
    if sizes.get(places.farm / "runs"):
        ways.append(f"{command_line('clean')} removes old runs")
    if most.parent == default_cache():
        ways.append(f"remove {most}; what is needed of it is fetched or made again")
    return room, " or ".join(ways) or "make room there"


def _ours() -> Iterator[Path]:
    """Yield the folders that the farm writes large files to."""
    cache = default_cache()
    if cache.is_dir():
        yield from sorted(path for path in cache.iterdir() if path.is_dir())
    yield from (places.farm / name for name in KEPT)


def _fullest() -> Path:
    """Return the folder that we write to whose file system has the least free space."""
    written = [default_cache(), places.farm, Path(tempfile.gettempdir())]
    there = [next(p for p in (place, *place.parents) if p.exists()) for place in written]
    return min(there, key=lambda path: os.statvfs(path).f_bavail * os.statvfs(path).f_frsize)


def _is_on(folder: Path, device: int) -> bool:
    try:
        return folder.is_dir() and folder.stat().st_dev == device
    except OSError:
        return False


def _size(folder: Path) -> int:
    """Return how many bytes a folder takes on disk, without files that cannot be examined."""
    total, linked = 0, set()
    for here, _, names in os.walk(folder):
        for name in names:
            try:
                status = Path(here, name).lstat()
            except OSError:
                continue
            if status.st_nlink > 1:
                if status.st_ino in linked:
                    continue
                linked.add(status.st_ino)
            total += status.st_blocks * 512
    return total


def _mount_point(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.is_mount())
