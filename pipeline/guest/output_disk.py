# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes the results of a build to the output disk, as a plain tar archive."""

import errno
import os
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from pipeline.documents.progress import STATUS_INFRASTRUCTURE
from pipeline.guest.serial_port import StepFailed

PIECE = 1024 * 1024
END = bytes(2 * tarfile.BLOCKSIZE)


def hand_over(output: Path, folder: Path, names: Iterable[str]) -> None:
    """Write files of a folder to the output disk, which is all zeros.

    Holes are skipped, as three quarters of a USB image are holes. Raise StepFailed if the disk
    fails or is too small.
    """
    try:
        disk = os.open(output, os.O_RDWR)
        try:
            at = 0
            for name in names:
                at = _write(disk, at, folder / name, name)
            _write_whole(disk, END, at)
            os.fsync(disk)
        finally:
            os.close(disk)
    except OSError as error:
        what = f"the output disk is too small or broken: {error.strerror}"
        raise StepFailed(STATUS_INFRASTRUCTURE, what) from error


def _write(disk: int, at: int, path: Path, name: str) -> int:
    """Write one file; return the offset of the next."""
    with path.open("rb", buffering=0) as file:
        member = tarfile.TarInfo(name)
        member.size = os.fstat(file.fileno()).st_size
        at = _write_whole(disk, member.tobuf(tarfile.GNU_FORMAT), at)
        for start, end in _data(file.fileno(), member.size):
            while start < end:
                piece = os.pread(file.fileno(), min(PIECE, end - start), start)
                _write_whole(disk, piece, at + start)
                start += len(piece)
    return at - (-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def _data(file: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield the ranges of a file that are data rather than holes."""
    end = 0
    while end < size:
        try:
            start = os.lseek(file, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole is left
                return
            raise
        end = os.lseek(file, start, os.SEEK_HOLE)
        yield start, end


def _write_whole(disk: int, content: bytes, at: int) -> int:
    """Write all of the content at an offset; return the offset of its end."""
    view = memoryview(content)
    while view:
        written = os.pwrite(disk, view, at)
        at, view = at + written, view[written:]
    return at
