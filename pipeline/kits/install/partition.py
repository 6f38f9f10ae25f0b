# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds the system partition on a medium: a GPT read as a stranger's.

Source: UEFI specification 2.10, section 5.3.
"""

import struct
import zlib
from collections.abc import Iterator

from pipeline.kits.install.failure import UsageError
from pipeline.kits.install.fat_layout import SECTOR, is_fat32
from pipeline.kits.install.fat_table import Blocks

HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")
ENTRY = struct.Struct("<16s16sQQQ72s")
ENTRIES_LIMIT = 1024
UNUSED = bytes(16)

Span = tuple[int, int]  # start and length in bytes


def fat_partitions(blocks: Blocks, size: int) -> Iterator[Span]:
    """Give the FAT32 partitions of a medium, or all of it if it is such a partition itself.

    Raise UsageError if it has no sound GPT.
    """
    if size >= SECTOR and is_fat32(blocks.read(0, SECTOR)):
        yield 0, size
        return
    for start, length in _partitions(blocks, size):
        if is_fat32(blocks.read(start, SECTOR)):
            yield start, length


def _partitions(blocks: Blocks, size: int) -> Iterator[Span]:
    header = blocks.read(SECTOR, SECTOR) if size >= 2 * SECTOR else bytes(SECTOR)
    magic, _, length, crc, _, _, _, _, _, _, table, count, each, table_crc = HEADER.unpack_from(
        header
    )
    zeroed = header[:16] + bytes(4) + header[20 : min(length, SECTOR)]
    if magic != b"EFI PART" or length < HEADER.size or zlib.crc32(zeroed) != crc:
        raise UsageError("the target has no partition table (GPT)", remedy="write the image to it")
    if each != ENTRY.size or not count <= ENTRIES_LIMIT or table * SECTOR + count * each > size:
        raise UsageError("the target's partition table is of an unknown kind")
    entries = blocks.read(table * SECTOR, count * each)
    if zlib.crc32(entries) != table_crc:
        raise UsageError("the target's partition table is damaged", remedy="mend it with gdisk")
    for kind, _, first, last, _, _ in ENTRY.iter_unpack(entries):
        if kind != UNUSED and 0 < first <= last < size // SECTOR:
            yield first * SECTOR, (last - first + 1) * SECTOR
