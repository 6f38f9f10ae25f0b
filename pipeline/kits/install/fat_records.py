# SPDX-License-Identifier: GPL-3.0-or-later
"""Directory records of FAT: 32 bytes each, long names before the short one they belong to.

Source: Microsoft's FAT32 File System Specification 1.03.
"""

import re
import struct
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime

SHORT = struct.Struct("<11sBBBHHHHHHHI")
READ_ONLY, VOLUME, FOLDER, ARCHIVE, LONG = 0x01, 0x08, 0x10, 0x20, 0x0F
FREE, DELETED, END = b"\xe5", 0xE5, 0x00
SMALL_BASE, SMALL_EXTENSION = 0x08, 0x10
LONG_PART = 13  # characters in one record
PLAIN_SHORT = re.compile(r"[A-Z0-9!#$%&'()@^_`{}~-]{1,8}(?:\.[A-Z0-9!#$%&'()@^_`{}~-]{1,3})?")
NOT_SHORT = re.compile(r"[^A-Z0-9!#$%&'()@^_`{}~-]")
FIRST_YEAR, LAST_YEAR = 1980, 2107


@dataclass(frozen=True)
class Short:
    """What a short record says; `name` is the 11 bytes of it, `shown` how people read them."""

    name: bytes
    shown: str
    attributes: int
    cluster: int
    size: int


def parse_short(record: bytes) -> Short:
    """Read a short record."""
    name, attributes, case, _, _, _, _, high, _, _, low, size = SHORT.unpack(record)
    raw = b"\xe5" + name[1:] if name[0] == 0x05 else name
    base = raw[:8].decode("cp437").rstrip()
    extension = raw[8:].decode("cp437").rstrip()
    base = base.lower() if case & SMALL_BASE else base
    extension = extension.lower() if case & SMALL_EXTENSION else extension
    shown = f"{base}.{extension}" if extension else base
    return Short(name, shown, attributes, high << 16 | low, size)


def parse_long(records: list[bytes], short: bytes) -> str | None:
    """Return the long name that stands before a short record; None if they do not belong together.

    The last part comes first, marked by 0x40; each part holds the checksum of the short name.
    """
    expected = len(records)
    units = b""
    for number, record in enumerate(records):
        mark = 0x40 if number == 0 else 0
        if record[0] != (expected - number) | mark or record[13] != checksum(short):
            return None
        units = record[1:11] + record[14:26] + record[28:32] + units
    name = units.decode("utf-16-le", "surrogatepass").partition("\0")[0]
    return name or None


def checksum(short: bytes) -> int:
    """Return the checksum of a short name that its long name's records hold."""
    total = 0
    for byte in short:
        total = ((total >> 1) + ((total & 1) << 7) + byte) & 0xFF
    return total


def make_records(
    name: str, taken: Collection[bytes], cluster: int, size: int, epoch: int, *, folder: bool
) -> list[bytes]:
    """Return the records of a new file or folder; `taken` are the short names beside it."""
    short = _short_name(name, taken)
    attributes = FOLDER if folder else ARCHIVE
    last = make_short(short, attributes, cluster, size, epoch)
    if PLAIN_SHORT.fullmatch(name) and _packed(name) == short:
        return [last]
    units = name.encode("utf-16-le") + b"\0\0"
    units += b"\xff" * (-len(units) % (2 * LONG_PART))
    if len(name) % LONG_PART == 0:  # it needs no end mark
        units = name.encode("utf-16-le")
    parts = [units[at : at + 2 * LONG_PART] for at in range(0, len(units), 2 * LONG_PART)]
    records = []
    for number, part in enumerate(parts, 1):
        mark = 0x40 if number == len(parts) else 0
        head = bytes([number | mark]) + part[:10] + bytes([LONG, 0, checksum(short)])
        records.append(head + part[10:22] + b"\0\0" + part[22:])
    return [*reversed(records), last]


def make_short(short: bytes, attributes: int, cluster: int, size: int, epoch: int) -> bytes:
    """Return a short record; its times are `epoch`, in UTC."""
    day, time = _stamp(epoch)
    return SHORT.pack(
        short, attributes, 0, 0, time, day, day, cluster >> 16, time, day, cluster & 0xFFFF, size
    )


def redirected(record: bytes, cluster: int, size: int, epoch: int) -> bytes:
    """Return a short record that names other content."""
    day, time = _stamp(epoch)
    head = record[:20] + struct.pack("<HHH", cluster >> 16, time, day)
    return head + struct.pack("<HI", cluster & 0xFFFF, size)


def _stamp(epoch: int) -> tuple[int, int]:
    """Return a time as FAT's date and time."""
    then = datetime.fromtimestamp(epoch, UTC)
    year = min(max(then.year, FIRST_YEAR), LAST_YEAR) - FIRST_YEAR
    day = year << 9 | then.month << 5 | then.day
    return day, then.hour << 11 | then.minute << 5 | then.second // 2


def _packed(name: str) -> bytes:
    base, _, extension = name.partition(".")
    return base.encode().ljust(8) + extension.encode().ljust(3)


def _short_name(name: str, taken: Collection[bytes]) -> bytes:
    """Return a short name that is not taken: the name itself if it is one, else with a number."""
    if PLAIN_SHORT.fullmatch(name) and _packed(name) not in taken:
        return _packed(name)
    stem, _, extension = name.upper().rpartition(".")
    stem, extension = (stem, extension) if stem else (extension, "")
    base = NOT_SHORT.sub("_", stem.replace(".", "").replace(" ", "")) or "_"
    extension = NOT_SHORT.sub("_", extension)[:3]
    number = 1
    while True:
        tail = f"~{number}"
        short = (base[: 8 - len(tail)] + tail).encode().ljust(8) + extension.encode().ljust(3)
        if short not in taken:
            return short
        number += 1
