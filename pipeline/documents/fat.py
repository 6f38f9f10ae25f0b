# SPDX-License-Identifier: GPL-3.0-or-later
"""The records of a FAT file system: boot sector, table, folders.

Source: Microsoft's FAT32 File System Specification 1.03.
"""

import struct
from collections.abc import Iterable
from typing import NamedTuple

SIGNATURE_AT, SIGNATURE = 510, b"\x55\xaa"  # of a boot sector
SECTOR_SIZES = (512, 1024, 2048, 4096)
BOOT = struct.Struct("<3s8sHBHBHHBHHHII")
BOOT_32_AT, BOOT_32 = 36, struct.Struct("<IHHIH")
TABLE_LIMIT = 32 * 1024 * 1024  # bytes of one table: 8 million clusters

# The sector with what a FAT32 keeps of its free clusters: how many, and where to look for one.
INFO_MAGIC, INFO_MAGIC_2_AT, INFO_MAGIC_2 = b"RRaA", 484, b"rrAa"
INFO_AT, INFO_UNKNOWN = 488, 0xFFFFFFFF
INFO = struct.Struct("<II")

# An entry of the table of a FAT32; its upper 4 bits are no part of it.
MASK, BAD, LAST = 0x0FFFFFFF, 0x0FFFFFF7, 0x0FFFFFFF
# This and what is above it ends a chain of clusters, by the bits of an entry.
CHAIN_END = {12: 0xFF8, 16: 0xFFF8, 32: 0x0FFFFFF8}

RECORD = struct.Struct("<11sBBBHHHHHHHI")
FOLDER_LIMIT = 2 * 1024 * 1024  # bytes of a folder's records: FAT allows no more
END, DELETED = 0x00, 0xE5  # first byte of a record: none follows, and it is free
E5 = 0x05  # stands for 0xE5 as the first letter of a name
VOLUME, FOLDER, ARCHIVE = 0x08, 0x10, 0x20
LONG, ATTRIBUTES_MASK = 0x0F, 0x3F
SMALL_BASE, SMALL_EXTENSION = 0x08, 0x10  # flags of `case`
LONG_LAST, LONG_NUMBER = 0x40, 0x1F  # first byte of a part of a long name
LONG_PART = 13  # characters in one record


class Boot(NamedTuple):
    """A boot sector as all kinds of FAT have it; lengths in sectors, unless they are named else."""

    jump: bytes
    oem: bytes
    sector: int  # bytes
    cluster: int
    reserved: int
    fats: int
    roots: int  # records in the root folder, 0 in a FAT32
    total_16: int  # 0 if `total_32` is used
    media: int
    fat_16: int  # 0 in a FAT32
    track: int
    heads: int
    hidden: int
    total_32: int


class Boot32(NamedTuple):
    """What follows in the boot sector of a FAT32."""

    fat: int  # sectors of one table
    flags: int
    version: int
    root: int  # the root folder's first cluster
    info: int  # the sector that begins with INFO_MAGIC


class DirectoryEntry(NamedTuple):
    """A record of a folder: a file, a folder or the volume's label; see `LONG` for long names."""

    name: bytes  # 8 of the base and 3 of the extension, filled up with spaces
    attributes: int
    case: int
    created_fine: int  # hundredths of a second
    created_time: int
    created_day: int
    read_day: int
    cluster_high: int  # in a FAT32
    written_time: int
    written_day: int
    cluster_low: int
    size: int

    @property
    def cluster(self) -> int:
        """The first cluster; 0 if there is none."""
        return self.cluster_high << 16 | self.cluster_low

    @property
    def shown(self) -> str:
        """The short name as people read it."""
        name = bytes([DELETED]) + self.name[1:] if self.name[0] == E5 else self.name
        base = name[:8].decode("cp437").rstrip()
        extension = name[8:].decode("cp437").rstrip()
        base = base.lower() if self.case & SMALL_BASE else base
        extension = extension.lower() if self.case & SMALL_EXTENSION else extension
        return f"{base}.{extension}" if extension else base


def read_boot(sector: bytes) -> Boot:
    """Return the fields of a boot sector; nothing is checked."""
    return Boot(*BOOT.unpack_from(sector))


def read_boot_32(sector: bytes) -> Boot32:
    """Return the further fields of a FAT32's boot sector; nothing is checked."""
    return Boot32(*BOOT_32.unpack_from(sector, BOOT_32_AT))


def read_record(raw: bytes) -> DirectoryEntry:
    """Return a folder's record, 32 bytes."""
    return DirectoryEntry(*RECORD.unpack(raw))


def name_checksum(short: bytes) -> int:
    """Return the checksum of the 11 bytes of a short name that its long name's records hold."""
    total = 0
    for byte in short:
        total = ((total >> 1) + ((total & 1) << 7) + byte) & 0xFF
    return total


def long_units(records: Iterable[bytes]) -> bytes:
    """Return the letters of a long name, UTF-16, from its records in the order of the name.

    Zeros end them, if there is room, and 0xFFFF fills up the last record.
    """
    return b"".join(record[1:11] + record[14:26] + record[28:32] for record in records)


def long_record(number: int, mark: int, short: bytes, units: bytes) -> bytes:
    """Return one record of a long name, for 26 bytes of it; `mark` is LONG_LAST for the last."""
    head = bytes([number | mark]) + units[:10] + bytes([LONG, 0, name_checksum(short)])
    return head + units[10:22] + b"\0\0" + units[22:]
