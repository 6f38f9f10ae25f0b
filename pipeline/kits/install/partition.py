# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds the system partition on a medium: a GPT, none of which is trusted.

Source: UEFI specification 2.10, section 5.3.
"""

import zlib
from collections.abc import Iterator

from pipeline.documents import gpt
from pipeline.documents.gpt import SECTOR
from pipeline.kits.install.failure import UsageError
from pipeline.kits.install.fat_layout import is_fat32
from pipeline.kits.install.fat_table import Device

ENTRIES_LIMIT = 1024

Span = tuple[int, int]  # start and length in bytes


def fat_partitions(blocks: Device, size: int) -> Iterator[Span]:
    """Give the FAT32 partitions of a medium, or all of it if it is such a partition itself.

    Raise UsageError if it has no sound GPT.
    """
    if size >= SECTOR and is_fat32(blocks.read(0, SECTOR)):
        yield 0, size
        return
    for start, length in _partitions(blocks, size):
        if is_fat32(blocks.read(start, SECTOR)):
            yield start, length


def _partitions(blocks: Device, size: int) -> Iterator[Span]:
    sector = blocks.read(SECTOR, SECTOR) if size >= 2 * SECTOR else bytes(SECTOR)
    header = gpt.read_header(sector)
    if (
        header is None
        or header.length < gpt.HEADER.size
        or gpt.header_checksum(sector) != header.checksum
    ):
        raise UsageError("the target has no partition table (GPT)", remedy="write the image to it")
    start, length = header.table * SECTOR, header.entries * header.entry_size
    if (
        header.entry_size != gpt.ENTRY.size
        or header.entries > ENTRIES_LIMIT
        or start + length > size
    ):
        raise UsageError("the target's partition table is of an unknown kind")
    table = blocks.read(start, length)
    if zlib.crc32(table) != header.table_checksum:
        raise UsageError("the target's partition table is damaged", remedy="repair it with gdisk")
    for entry in gpt.read_table(table):
        if entry.kind != gpt.UNUSED and 0 < entry.first <= entry.last < size // SECTOR:
            begin, end = entry.span
            yield begin, end - begin
