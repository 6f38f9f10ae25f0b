# SPDX-License-Identifier: GPL-3.0-or-later
"""Directory records of FAT: 32 bytes each, long names before the short one they belong to."""

import re
from collections.abc import Collection
from datetime import UTC, datetime

from pipeline.documents import fat

PLAIN_SHORT = re.compile(r"[A-Z0-9!#$%&'()@^_`{}~-]{1,8}(?:\.[A-Z0-9!#$%&'()@^_`{}~-]{1,3})?")
NOT_SHORT = re.compile(r"[^A-Z0-9!#$%&'()@^_`{}~-]")
FIRST_YEAR, LAST_YEAR = 1980, 2107


def parse_long(records: list[bytes], short: bytes) -> str | None:
    """Return the long name that stands before a short record; None if they do not belong together.

    The last part comes first, marked as such; each part holds the checksum of the short name.
    """
    expected = len(records)
    total = fat.name_checksum(short)
    for number, record in enumerate(records):
        mark = fat.LONG_LAST if number == 0 else 0
        if record[0] != (expected - number) | mark or record[13] != total:
            return None
    units = fat.long_units(reversed(records))
    name = units.decode("utf-16-le", "surrogatepass").partition("\0")[0]
    return name or None


def make_records(
    name: str, taken: Collection[bytes], cluster: int, size: int, epoch: int, *, folder: bool
) -> list[bytes]:
    """Return the records of a new file or folder; `taken` are the short names beside it."""
    short = _short_name(name, taken)
    attributes = fat.FOLDER if folder else fat.ARCHIVE
    last = make_short(short, attributes, cluster, size, epoch)
    if PLAIN_SHORT.fullmatch(name) and _packed(name) == short:
        return [last]
    units = name.encode("utf-16-le") + b"\0\0"
    units += b"\xff" * (-len(units) % (2 * fat.LONG_PART))
    if len(name) % fat.LONG_PART == 0:  # it needs no end mark
        units = name.encode("utf-16-le")
    parts = [units[at : at + 2 * fat.LONG_PART] for at in range(0, len(units), 2 * fat.LONG_PART)]
    records = []
    for number, part in enumerate(parts, 1):
        mark = fat.LONG_LAST if number == len(parts) else 0
        records.append(fat.long_record(number, mark, short, part))
    return [*reversed(records), last]


def make_short(short: bytes, attributes: int, cluster: int, size: int, epoch: int) -> bytes:
    """Return a short record; its times are `epoch`, in UTC."""
    day, time = _stamp(epoch)
    record = fat.DirectoryEntry(
        name=short,
        attributes=attributes,
        case=0,
        created_fine=0,
        created_time=time,
        created_day=day,
        read_day=day,
        cluster_high=cluster >> 16,
        written_time=time,
        written_day=day,
        cluster_low=cluster & 0xFFFF,
        size=size,
    )
    return fat.RECORD.pack(*record)


def redirected(record: bytes, cluster: int, size: int, epoch: int) -> bytes:
    """Return a short record that names other content."""
    day, time = _stamp(epoch)
    changed = fat.read_record(record)._replace(
        cluster_high=cluster >> 16,
        written_time=time,
        written_day=day,
        cluster_low=cluster & 0xFFFF,
        size=size,
    )
    return fat.RECORD.pack(*changed)


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
