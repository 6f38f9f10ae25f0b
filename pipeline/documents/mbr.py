# SPDX-License-Identifier: GPL-3.0-or-later
"""The partition table in a boot record (MBR), the first sector of a disk.

Source: UEFI specification 2.10, section 5.2.
"""

import struct
from typing import NamedTuple

SIGNATURE_AT, SIGNATURE = 510, b"\x55\xaa"  # of a boot record
ENTRIES_AT, ENTRIES = 446, 4
ENTRY = struct.Struct("<B3sB3sII")
ACTIVE = 0x80
PROTECTIVE = 0xEE  # type of the partition that keeps others off a disk with a GPT


class PartitionRecord(NamedTuple):
    """A partition of a boot record; the addresses by cylinder, head and sector are old ones."""

    flag: int
    first_chs: bytes
    kind: int
    last_chs: bytes
    first: int
    sectors: int


def read_entry(raw: bytes) -> PartitionRecord:
    """Return an entry of the table, 16 bytes."""
    return PartitionRecord(*ENTRY.unpack(raw))
