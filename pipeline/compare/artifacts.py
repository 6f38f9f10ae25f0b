# SPDX-License-Identifier: GPL-3.0-or-later
"""Artifacts compared byte by byte, a piece at a time."""

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pipeline.base.errors import InfrastructureFailed
from pipeline.base.files import open_plain
from pipeline.look.causes.spots import common_prefix

PIECE = 1024 * 1024


@dataclass(frozen=True)
class ComparedFiles:
    """Two files: their sizes in bytes, their digests, and where they differ first, if they do."""

    sizes: tuple[int, int]
    sha256: tuple[str, str]
    offset: int | None

    @property
    def equal(self) -> bool:
        """Whether the files are the same, bit for bit."""
        return self.offset is None


def compare_files(first: Path, second: Path) -> ComparedFiles:
    """Compare two files of any size; raise InfrastructureFailed if one cannot be read.

    Bytes that are equal are hashed once: that is both files' SHA-256. From the first piece that
    differs on, each file is hashed by itself.
    """
    with ExitStack() as stack:
        left, right = (stack.enter_context(_opened(path)) for path in (first, second))
        digest, position = hashlib.sha256(), 0
        while True:
            a, b = left.read(PIECE), right.read(PIECE)
            if a != b:
                offset = position + common_prefix(a, b)
                break
            if not a:
                return ComparedFiles((position,) * 2, (digest.hexdigest(),) * 2, None)
            digest.update(a)
            position += len(a)
        ends = [_rest(digest.copy(), piece, file) for piece, file in ((a, left), (b, right))]
        sizes = (position + ends[0][0], position + ends[1][0])
        return ComparedFiles(sizes, (ends[0][1], ends[1][1]), offset)


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Open a plain file; never follow a link."""
    try:
        with open_plain(path) as file:
            yield file
    except OSError as error:
        raise InfrastructureFailed(f"cannot read the artifact {path}: {error.strerror}") from error


def _rest(digest: "hashlib._Hash", piece: bytes, file: BinaryIO) -> tuple[int, str]:
    """Hash `piece` and the rest of `file`; return the number of bytes and the digest."""
    length = 0
    while piece:
        digest.update(piece)
        length += len(piece)
        piece = file.read(PIECE)
    return length, digest.hexdigest()
