# SPDX-License-Identifier: GPL-3.0-or-later
"""The records of a FAT's folders: names, facts, and what else they say."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.look.formats.container import Entry
from pipeline.look.formats.source import BadFormat, Source

RECORD = struct.Struct("<11sBBBHHHHHHHI")
FOLDER_LIMIT = 2 * 1024 * 1024  # bytes of a folder's records: FAT allows no more
LONG_NAME, LAST_PART = 0x0F, 0x40
LABEL, FOLDER = 0x08, 0x10  # attributes of a record
SMALL_BASE, SMALL_EXTENSION = 0x08, 0x10
FREE, DELETED, DOT = 0x00, 0xE5, 0x2E
PADDED = b"\0\0" + b"\xff\xff" * 13  # behind a long name


@dataclass(frozen=True)
class Found:
    """A file or folder: its name, the fields of its record, and what is no fact of it."""

    name: str
    fields: tuple[int, ...]
    rest: bytes


def read_records(
    folder: Source, rest: bytearray, own: Entry, clusters: tuple[int, int]
) -> Iterator[Found]:
    """Give all that a folder holds; add to `rest` what belongs to none of it.

    `own` is the folder as an entry, `clusters` where it and its parent begin (0: the root).
    """
    if folder.size > FOLDER_LIMIT:
        raise BadFormat(f"a folder has over {FOLDER_LIMIT} bytes")
    raw = folder.read(0, folder.size)
    parts: dict[int, bytes] = {}  # of a long name, by number
    whole = len(raw) // 32 * 32
    for start in range(0, whole, 32):
        record = raw[start : start + 32]
        short, *fields = RECORD.unpack(record)
        first = short[0]
        if first == FREE:
            rest += raw[start:].rstrip(b"\0")
            return
        if fields[0] & 0x3F == LONG_NAME and first != DELETED:
            parts[first & 0x1F] = record
        elif first not in (DELETED, DOT):
            name = _name(short, fields[1], parts)
            yield Found(name, tuple(fields), _rest(short, fields, parts))
            parts = {}
        else:
            known = {b".": clusters[0], b"..": clusters[1]}.get(short.rstrip(b" "))
            if known is None or not _follows(fields, own, known):
                rest += b"".join(parts.values()) + record
            parts = {}
    rest += b"".join(parts.values()) + raw[whole:]


def _follows(fields: list[int], own: Entry, cluster: int) -> bool:
    """Whether a record of a folder itself, or of its parent, says what is known of them."""
    begins = fields[9] | fields[6] << 16
    plain = fields[:2] == [FOLDER, 0] and fields[-1] == 0
    return begins == cluster and plain and times_of(fields) == own.facts.get("time")


def _rest(short: bytes, fields: list[int], parts: dict[int, bytes]) -> bytes:
    """Return what records say beyond facts, long name and places."""
    total = 0
    for letter in short:
        total = (total >> 1 | (total & 1) << 7) + letter & 0xFF
    odd = [record[0:1] + record[11:14] + record[26:28] for _, record in sorted(parts.items())]
    numbers = sorted(parts)
    usual = [
        bytes([number | LAST_PART * (number == numbers[-1]), LONG_NAME, 0, total, 0, 0])
        for number in numbers
    ]
    text = _long(parts)
    ends = next((at for at in range(0, len(text), 2) if text[at : at + 2] == b"\0\0"), len(text))
    behind = text[ends:]
    rest = b"" if odd == usual else b"".join(odd)
    rest += b"" if PADDED.startswith(behind) else behind
    size = fields[-1] if fields[0] & (LABEL | FOLDER) else 0
    place = fields[9] | fields[6] << 16 if fields[0] & LABEL else 0  # a label has no content
    return short + b"|" + rest + b"".join(b"%x" % number for number in (size, place) if number)


def _long(parts: dict[int, bytes]) -> bytes:
    """Return the letters of a long name, two bytes each, with what stands behind them."""
    records = (parts[number] for number in sorted(parts))
    return b"".join(record[1:11] + record[14:26] + record[28:] for record in records)


def times_of(fields: tuple[int, ...] | list[int]) -> tuple[tuple[str, str], ...]:
    """Return the times of a record, as people write them."""
    _, _, fine, made, day, read, _, written, changed, *_ = fields
    return (
        ("created", f"{_stamp(day, made)}+{fine / 100:.2f}s"),
        ("accessed", _stamp(read, 0)[:10]),
        ("written", _stamp(changed, written)),
    )


def _name(short: bytes, case: int, parts: dict[int, bytes]) -> str:
    """Return a long name, or a short one, whose parts may be in small letters."""
    long = _long(parts).decode("utf-16-le", "replace")
    base = short[:8].decode("cp437").rstrip()
    extension = short[8:].decode("cp437").rstrip()
    base = base.lower() if case & SMALL_BASE else base
    extension = extension.lower() if case & SMALL_EXTENSION else extension
    name = long.partition("\0")[0] or (f"{base}.{extension}" if extension else base)
    if "/" in name or name in (".", ".."):
        raise BadFormat(f"a file cannot be named {name!r}")
    return name


def _stamp(day: int, time: int) -> str:
    """Return how people write a FAT date and time, which have no zone."""
    date = f"{1980 + (day >> 9)}-{day >> 5 & 15:02}-{day & 31:02}"
    return f"{date} {time >> 11:02}:{time >> 5 & 63:02}:{(time & 31) * 2:02}"
