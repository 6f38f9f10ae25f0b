# SPDX-License-Identifier: GPL-3.0-or-later
"""Boot records and partition tables: MBR and GPT.

Their records are defined in documents/mbr.py and documents/gpt.py.
"""

import uuid
import zlib
from collections.abc import Iterator

from pipeline.documents import gpt, mbr
from pipeline.documents.gpt import SECTOR
from pipeline.look.formats.container import Container, Entry, Format, Region, Structure
from pipeline.look.formats.ranges import Span
from pipeline.look.formats.source import BadFormat, ByteSource, Extents, Spool

ENTRIES_LIMIT = 4 * gpt.ENTRIES
GPTS = {"GPT": SECTOR, "backup GPT": -SECTOR}  # offsets of headers, from the start or the end
# CHS geometries that tools assume, and addresses that they write for sectors beyond these.
HEADS, SECTORS = (16, 32, 64, 128, 240, 255), (32, 63)
BEYOND = (b"\xfe\xff\xff", b"\xff\xff\xff", bytes(3))


def _matches(source: ByteSource) -> bool:
    """Return whether there is a partition table; a mere boot sector has none."""
    if source.size < 2 * SECTOR or not has_boot_record(source):
        return False
    table = source.read(446, 64)
    flags = {table[at] for at in range(0, 64, 16)}
    return flags <= {0, 0x80} and any(table[at + 4] for at in range(0, 64, 16))


def _read(source: ByteSource, spool: Spool) -> Container:
    named = [(f"partition {number}", span) for number, span in enumerate(partitions(source), 1)]
    return Container(
        structures=boot_structures(source),
        entries=lambda: (
            Entry(name, {"layout": f"bytes {span[0]} to {span[1]}"}, Extents(source, [span]))
            for name, span in sorted(named)
        ),
        regions=lambda: gpt_regions(source),
        align=0,  # free space is zeros
    )


DISK = Format("disk", _matches, _read)


def has_boot_record(source: ByteSource) -> bool:
    """Return whether the first sector ends with the signature of a boot record."""
    return source.read(mbr.SIGNATURE_AT, 2) == mbr.SIGNATURE


def boot_structures(source: ByteSource) -> list[Structure]:
    """Return the structures of the MBR, its partition table and both GPTs, if present."""
    if source.size < SECTOR or not has_boot_record(source):
        return []
    raw = source.read(0, SECTOR)
    found = [
        Structure("MBR boot code", (0, 432), raw[:432]),
        _code_place(raw, source.size),
        Structure("MBR disk identifier", (440, 446), raw[440:446], "identifier"),
    ]
    for number in range(4):
        at, name = 446 + 16 * number, f"MBR partition {number + 1}"
        kind = raw[at : at + 1] + raw[at + 4 : at + 5]
        found.append(Structure(name, (at, at + 5), kind))
        where = raw[at + 1 : at + 4] + raw[at + 5 : at + 16]
        places = _mbr_places(raw[at : at + 16])
        found.append(
            Structure(f"{name}: its place", (at + 1, at + 16), where, "layout", places=places)
        )
    for name, place in GPTS.items():
        found += _gpt_structures(source, name, place % source.size)
    return found


def _code_place(raw: bytes, size: int) -> Structure:
    """Return the field of hybrid boot code (GRUB, isolinux) with the sector of the boot image."""
    place = int.from_bytes(raw[432:440], "little") * SECTOR
    places = (place,) if 0 < place < size else ()
    return Structure("MBR boot code: what it loads", (432, 440), raw[432:440], places=places)


def _mbr_places(raw: bytes) -> tuple[int, ...]:
    """Return the start and end of a partition, or nothing if its CHS addresses contradict them."""
    entry = mbr.read_entry(raw)
    start, end = entry.first, entry.first + entry.sectors
    honest = _says(entry.first_chs, start) and _says(entry.last_chs, end - 1)
    return (start * SECTOR, end * SECTOR) if honest and entry.sectors else ()


def _says(chs: bytes, sector: int) -> bool:
    """Return whether a CHS address stands for a sector, or is the mark of one out of its range."""
    if chs in BEYOND:
        return True
    head, low, high = chs
    cylinder = high | (low & 0xC0) << 2
    return any(
        (cylinder * heads + head) * sectors + (low & 0x3F) - 1 == sector
        for heads in HEADS
        for sectors in SECTORS
    )


def gpt_regions(source: ByteSource) -> Iterator[Region]:
    """Yield the arrays of partition entries as regions for their unused entries."""
    for name, place in GPTS.items():
        header = _gpt_header(source, place % source.size)
        if header is not None:
            # an entry that is not all zeros is a structure
            yield Region(f"{name} entries", _table(header), bytes)


def _gpt_structures(source: ByteSource, name: str, place: int) -> Iterator[Structure]:
    header = _gpt_header(source, place)
    if header is None:
        return
    raw = source.read(place, SECTOR)
    yield Structure(f"{name} header", (place, place + 16), raw[:16])
    right = gpt.header_checksum(raw) == header.checksum
    span = place + 16, place + 20
    yield Structure(f"{name} checksum", span, raw[16:20], "layout", follows=right)
    yield Structure(f"{name} reserved", (place + 20, place + 24), raw[20:24])
    named = (header.own, header.other, header.first_usable, header.last_usable + 1)
    places = tuple(sector * SECTOR for sector in named)
    span = place + 24, place + 56
    yield Structure(f"{name} places", span, raw[24:56], "layout", places=places)
    span = place + 56, place + 72
    yield Structure(f"{name} disk GUID", span, header.disk, "identifier", _guid(header.disk))
    start, end = _table(header)
    span = place + 72, place + 80
    yield Structure(f"{name} array's place", span, raw[72:80], "layout", places=(start,))
    yield Structure(f"{name} entry array", (place + 80, place + 88), raw[80:88])
    table = source.read(start, end - start)
    right = zlib.crc32(table) == header.table_checksum
    span = place + 88, place + 92
    yield Structure(f"{name} entries' checksum", span, raw[88:92], "layout", follows=right)
    for number in range(header.entries):
        at = number * header.entry_size
        entry = table[at : at + header.entry_size]
        if any(entry):
            yield from _entry_structures(f"{name} partition {number + 1}", start + at, entry)


def _entry_structures(title: str, start: int, raw: bytes) -> Iterator[Structure]:
    entry = gpt.read_entry(raw)
    span = start + 16, start + 32
    yield Structure(f"{title} GUID", span, entry.guid, "identifier", _guid(entry.guid))
    yield Structure(title, (start, start + len(raw)), raw[:16] + raw[48:])
    span = start + 32, start + 48
    yield Structure(f"{title}: its place", span, raw[32:48], "layout", places=entry.span)


def _guid(raw: bytes) -> str:
    return str(uuid.UUID(bytes_le=raw))


def _table(header: gpt.Header) -> Span:
    """Return the span of the array of partition entries."""
    start = header.table * SECTOR
    return start, start + header.entries * header.entry_size


def _gpt_header(source: ByteSource, place: int) -> gpt.Header | None:
    """Return the GPT header at `place`, or None; raise BadFormat if its counts exceed limits."""
    if place < SECTOR or place + SECTOR > source.size:
        return None
    header = gpt.read_header(source.read(place, SECTOR))
    if header is None:
        return None
    count, size = header.entries, header.entry_size
    if count > ENTRIES_LIMIT or not gpt.ENTRY.size <= size <= 4096:
        raise BadFormat(f"its GPT has {count} entries of {size} bytes")
    return header


def partitions(source: ByteSource) -> Iterator[Span]:
    """Yield the spans of the partitions that are within the source, from the GPT if it has one."""
    header = _gpt_header(source, SECTOR)
    if header is not None:
        start, end = _table(header)
        for at in range(start, end, header.entry_size):
            entry = gpt.read_entry(source.read(at, header.entry_size))
            if entry.first and entry.first <= entry.last < source.size // SECTOR:
                yield entry.span
        return
    for number in range(mbr.ENTRIES):
        raw = source.read(mbr.ENTRIES_AT + mbr.ENTRY.size * number, mbr.ENTRY.size)
        part = mbr.read_entry(raw)
        span = part.first * SECTOR, (part.first + part.sectors) * SECTOR
        if part.kind not in (0, mbr.PROTECTIVE) and part.first > 0 and span[1] <= source.size:
            yield span
