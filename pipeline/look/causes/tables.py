# SPDX-License-Identifier: GPL-3.0-or-later
"""Binary tables with inode numbers of files: the caches of ldconfig and git."""

import struct
from collections.abc import Callable, Iterator

from pipeline.documents.explanation import Cause

ENTRIES_LIMIT = 100_000
AUX_CACHE = b"glibc-ld.so.auxcache"
AUX_BEGIN, AUX_ENTRY = 32, 48  # bytes
INDEX_BEGIN, INDEX_ENTRY = 12, 62  # gitformat-index(5), versions 2 and 3
NAME_BITS, EXTENDED, MORE_FLAGS = 0xFFF, 0x4000, 2  # of flags; two bytes more of them

Inode = tuple[int, int]  # the device's number, and the inode's


def _aux_cache(content: bytes) -> Iterator[Inode]:
    (count,) = struct.unpack_from("<I", content, 24)
    for number in range(count):
        inode, _, _, device = struct.unpack_from("<4Q", content, AUX_BEGIN + number * AUX_ENTRY)
        yield device, inode


def _index(content: bytes) -> Iterator[Inode]:
    version, count = struct.unpack_from(">II", content, 4)
    at = INDEX_BEGIN
    for _ in range(count if version in (2, 3) else 0):
        device, inode = struct.unpack_from(">II", content, at + 16)
        (flags,) = struct.unpack_from(">H", content, at + INDEX_ENTRY - 2)
        yield device, inode
        length = INDEX_ENTRY + (flags & NAME_BITS) + MORE_FLAGS * bool(flags & EXTENDED)
        at += (length + 8) & ~7


TABLES: dict[bytes, tuple[str, Callable[[bytes], Iterator[Inode]]]] = {
    AUX_CACHE: ("the cache of ldconfig", _aux_cache),
    b"DIRC": ("the index of git", _index),
}


def in_tables(contents: tuple[bytes, bytes]) -> list[Cause]:
    """Find different inode numbers in two tables of a known format."""
    for magic, (what, read) in TABLES.items():
        if all(content.startswith(magic) for content in contents):
            left, right = (_inodes(read, content) for content in contents)
            if left and right and left != right:
                pairs = zip(left, right, strict=False)
                first = next((a, b) for a, b in pairs if a != b) if len(left) == len(right) else ()
                evidence = " and ".join(f"{device}:{inode}" for device, inode in first)
                return [
                    Cause("file-system", f"{what} has other inodes: {evidence or 'more of them'}")
                ]
    return []


def _inodes(read: Callable[[bytes], Iterator[Inode]], content: bytes) -> list[Inode]:
    try:
        return [inode for _, inode in zip(range(ENTRIES_LIMIT), read(content), strict=False)]
    except struct.error:  # the table is truncated or malformed
        return []
