# SPDX-License-Identifier: GPL-3.0-or-later
"""The records of a GPT partition table; `mbr.py` has those of the boot record before it.

Places and lengths are in sectors of 512 bytes, GUIDs are in the byte order of the table. Source:
UEFI specification 2.10, chapter 5.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

SECTOR = 512
MAGIC = b"EFI PART"
HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")
ENTRY = struct.Struct("<16s16sQQQ72s")
ENTRIES = 128  # in the table that everybody makes
TABLE_SECTORS = ENTRIES * ENTRY.size // SECTOR
UNUSED = bytes(16)  # type of an entry that is no partition


class Header(NamedTuple):
    """A header of a GPT; `own` and `other` are where it and the other header are."""

    magic: bytes
    revision: int
    length: int  # bytes
    checksum: int
    reserved: int
    own: int
    other: int
    first_usable: int
    last_usable: int
    disk: bytes
    table: int
    entries: int  # in the table
    entry_size: int  # bytes
    table_checksum: int


class PartitionEntry(NamedTuple):
    """An entry of the table; the partition includes the sector `last`."""

    kind: bytes
    guid: bytes
    first: int
    last: int
    attributes: int
    name: bytes  # UTF-16, little-endian, filled up with zeros

    @property
    def span(self) -> tuple[int, int]:
        """Where the partition begins and ends, in bytes."""
        return self.first * SECTOR, (self.last + 1) * SECTOR


def read_header(sector: bytes) -> Header | None:
    """Return the header in a sector; None if there is none. Nothing but its magic is checked."""
    header = Header(*HEADER.unpack_from(sector))
    return header if header.magic == MAGIC else None


def header_checksum(sector: bytes) -> int:
    """Return the checksum that the header in a sector must have.

    It covers as many bytes as the header's own length, its own field taken as zero.
    """
    length = Header(*HEADER.unpack_from(sector)).length
    return zlib.crc32(sector[:16] + bytes(4) + sector[20 : min(length, SECTOR)])


def read_entry(raw: bytes) -> PartitionEntry:
    """Return an entry from its first 128 bytes."""
    return PartitionEntry(*ENTRY.unpack_from(raw))


def read_table(raw: bytes) -> Iterator[PartitionEntry]:
    """Give the entries of a table whose entries have 128 bytes, unused ones too."""
    return (PartitionEntry(*fields) for fields in ENTRY.iter_unpack(raw))
