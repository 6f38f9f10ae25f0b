# SPDX-License-Identifier: GPL-3.0-or-later
"""The directory records of a FAT file system: names, facts, and other bytes."""

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.documents import fat
from pipeline.documents.fat import DirectoryEntry
from pipeline.look.formats.container import Entry
from pipeline.look.formats.source import BadFormat, ByteSource

DOT = 0x2E  # first byte of a folder's record of itself or of its parent
PADDED = b"\0\0" + b"\xff\xff" * 13  # after a long name


@dataclass(frozen=True)
class Found:
    """A file or folder: its name, its record, and the bytes that are not in its facts."""

    name: str
    record: DirectoryEntry
    rest: bytes


def read_records(
    folder: ByteSource, rest: bytearray, own: Entry, clusters: tuple[int, int]
) -> Iterator[Found]:
    """Yield the files and folders in a folder; add to `rest` the bytes that belong to none.

    `own` is the folder's entry, `clusters` the first clusters of it and of its parent (0: the
    root).
    """
    if folder.size > fat.FOLDER_LIMIT:
        raise BadFormat(f"a folder has over {fat.FOLDER_LIMIT} bytes")
    raw = folder.read(0, folder.size)
    parts: dict[int, bytes] = {}  # of a long name, by number
    step = fat.RECORD.size
    whole = len(raw) // step * step
    for start in range(0, whole, step):
        part = raw[start : start + step]
        record = fat.read_record(part)
        first = part[0]
        if first == fat.END:
            rest += raw[start:].rstrip(b"\0")
            return
        if record.attributes & fat.ATTRIBUTES_MASK == fat.LONG and first != fat.DELETED:
            parts[first & fat.LONG_NUMBER] = part
        elif first not in (fat.DELETED, DOT):
            yield Found(_name(record, parts), record, _rest(record, parts))
            parts = {}
        else:
            known = {b".": clusters[0], b"..": clusters[1]}.get(record.name.rstrip(b" "))
            if known is None or not _follows(record, own, known):
                rest += b"".join(parts.values()) + part
            parts = {}
    rest += b"".join(parts.values()) + raw[whole:]


def _follows(record: DirectoryEntry, own: Entry, cluster: int) -> bool:
    """Return whether a `.` or `..` record agrees with the folder's entry and the known cluster."""
    plain = (record.attributes, record.case, record.size) == (fat.FOLDER, 0, 0)
    return record.cluster == cluster and plain and times_of(record) == own.facts.get("time")


def _rest(record: DirectoryEntry, parts: dict[int, bytes]) -> bytes:
    """Return the bytes of records that are not facts, long name or cluster numbers."""
    odd = [part[0:1] + part[11:14] + part[26:28] for _, part in sorted(parts.items())]
    numbers = sorted(parts)
    total = fat.name_checksum(record.name)
    usual = [
        bytes([number | fat.LONG_LAST * (number == numbers[-1]), fat.LONG, 0, total, 0, 0])
        for number in numbers
    ]
    text = _long(parts)
    ends = next((at for at in range(0, len(text), 2) if text[at : at + 2] == b"\0\0"), len(text))
    behind = text[ends:]
    rest = b"" if odd == usual else b"".join(odd)
    rest += b"" if PADDED.startswith(behind) else behind
    size = record.size if record.attributes & (fat.VOLUME | fat.FOLDER) else 0
    place = record.cluster if record.attributes & fat.VOLUME else 0  # a label has no content
    return (
        record.name + b"|" + rest + b"".join(b"%x" % number for number in (size, place) if number)
    )


def _long(parts: dict[int, bytes]) -> bytes:
    """Return the UTF-16 units of a long name, with the padding after them."""
    return fat.long_units(parts[number] for number in sorted(parts))


def times_of(record: DirectoryEntry) -> tuple[tuple[str, str], ...]:
    """Return the times of a record, formatted for people."""
    created = _stamp(record.created_day, record.created_time)
    return (
        ("created", f"{created}+{record.created_fine / 100:.2f}s"),
        ("accessed", _stamp(record.read_day, 0)[:10]),
        ("written", _stamp(record.written_day, record.written_time)),
    )


def _name(record: DirectoryEntry, parts: dict[int, bytes]) -> str:
    """Return the long name, or else the short one, parts of which may be in lower case."""
    long = _long(parts).decode("utf-16-le", "replace")
    name = long.partition("\0")[0] or record.shown
    if "/" in name or name in (".", ".."):
        raise BadFormat(f"a file cannot be named {name!r}")
    return name


def _stamp(day: int, time: int) -> str:
    """Format a FAT date and time, which have no time zone, for people."""
    date = f"{1980 + (day >> 9)}-{day >> 5 & 15:02}-{day & 31:02}"
    return f"{date} {time >> 11:02}:{time >> 5 & 63:02}:{(time & 31) * 2:02}"
