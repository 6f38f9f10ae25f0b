# SPDX-License-Identifier: GPL-3.0-or-later
"""Boot records and partition tables: MBR and GPT (UEFI specification, chapter 5).

A logical sector has 512 bytes, as on all that images are made for.
"""

import struct
import uuid
import zlib
from collections.abc import Iterator

from pipeline.look.formats.container import Container, Entry, Format, Region, Structure
from pipeline.look.formats.ranges import Span
from pipeline.look.formats.source import BadFormat, Extents, Source, Spool

SECTOR = 512
SIGNATURE = b"\x55\xaa"
GPT_MAGIC = b"EFI PART"
GPT = struct.Struct("<8sIIIIQQQQ16sQIII")
GPT_ENTRIES = 128
PARTITION = struct.Struct("<B3sB3sII")
PROTECTIVE = 0xEE
GPTS = {"GPT": SECTOR, "backup GPT": -SECTOR}  # where their headers are, from the start or the end
# Geometries that tools pretend, and what they write of sectors that these cannot say.
HEADS, SECTORS = (16, 32, 64, 128, 240, 255), (32, 63)
BEYOND = (b"\xfe\xff\xff", b"\xff\xff\xff", bytes(3))


def _matches(source: Source) -> bool:
    """Whether there is a partition table; a lone boot sector has none."""
    if source.size < 2 * SECTOR or source.read(510, 2) != SIGNATURE:
        return False
    table = source.read(446, 64)
    flags = {table[at] for at in range(0, 64, 16)}
    return flags <= {0, 0x80} and any(table[at + 4] for at in range(0, 64, 16))


def _read(source: Source, spool: Spool) -> Container:
    named = [(f"partition {number}", span) for number, span in enumerate(partitions(source), 1)]
    return Container(
        structures=boot_structures(source),
        entries=lambda: (
            Entry(name, {"layout": f"bytes {span[0]} to {span[1]}"}, Extents(source, [span]))
            for name, span in sorted(named)
        ),
        regions=lambda: gpt_regions(source),
        align=0,  # what is free is zeros
    )


DISK = Format("disk", _matches, _read)


def boot_structures(source: Source) -> list[Structure]:
    """Return master boot record, partition table and both GPTs, as far as they are there."""
    if source.size < SECTOR or source.read(510, 2) != SIGNATURE:
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
    """Return what tells hybrid boot code the sector of the boot image, as GRUB and isolinux do."""
    place = int.from_bytes(raw[432:440], "little") * SECTOR
    places = (place,) if 0 < place < size else ()
    return Structure("MBR boot code: what it loads", (432, 440), raw[432:440], places=places)


def _mbr_places(raw: bytes) -> tuple[int, ...]:
    """Return where a partition begins and ends, if that is all that its record says of it."""
    _, first, _, last, start, count = PARTITION.unpack(raw)
    honest = _says(first, start) and _says(last, start + count - 1)
    return (start * SECTOR, (start + count) * SECTOR) if honest and count else ()


def _says(chs: bytes, sector: int) -> bool:
    """Whether the old address by cylinder, head and sector says a sector, or that it cannot."""
    if chs in BEYOND:
        return True
    head, low, high = chs
    cylinder = high | (low & 0xC0) << 2
    return any(
        (cylinder * heads + head) * sectors + (low & 0x3F) - 1 == sector
        for heads in HEADS
        for sectors in SECTORS
    )


def gpt_regions(source: Source) -> Iterator[Region]:
    """Give the arrays of partitions, as far as nothing is in them."""
    for name, place in GPTS.items():
        header = _gpt_header(source, place % source.size)
        if header is not None:
            _, entries, count, size = header
            # an entry that is not all zeros is a structure
            yield Region(f"{name} entries", (entries, entries + count * size), bytes)


def _gpt_structures(source: Source, name: str, place: int) -> Iterator[Structure]:
    header = _gpt_header(source, place)
    if header is None:
        return
    raw, entries, count, size = header
    guid = str(uuid.UUID(bytes_le=raw[56:72]))
    yield Structure(f"{name} header", (place, place + 16), raw[:16])
    length = int.from_bytes(raw[12:16], "little")
    right = zlib.crc32(raw[:16] + bytes(4) + raw[20:length]).to_bytes(4, "little") == raw[16:20]
    span = place + 16, place + 20
    yield Structure(f"{name} checksum", span, raw[16:20], "layout", follows=right)
    yield Structure(f"{name} reserved", (place + 20, place + 24), raw[20:24])
    own, other, first, last = struct.unpack_from("<4Q", raw, 24)
    places = tuple(sector * SECTOR for sector in (own, other, first, last + 1))
    span = place + 24, place + 56
    yield Structure(f"{name} places", span, raw[24:56], "layout", places=places)
    yield Structure(f"{name} disk GUID", (place + 56, place + 72), raw[56:72], "identifier", guid)
    span = place + 72, place + 80
    yield Structure(f"{name} array's place", span, raw[72:80], "layout", places=(entries,))
    yield Structure(f"{name} entry array", (place + 80, place + 88), raw[80:88])
    array = source.read(entries, count * size)
    right = zlib.crc32(array).to_bytes(4, "little") == raw[88:92]
    span = place + 88, place + 92
    yield Structure(f"{name} entries' checksum", span, raw[88:92], "layout", follows=right)
    for number in range(count):
        start = entries + number * size
        entry = array[number * size : number * size + size]
        if any(entry):
            title = f"{name} partition {number + 1}"
            guid = str(uuid.UUID(bytes_le=entry[16:32]))
            span = (start + 16, start + 32)
            yield Structure(f"{title} GUID", span, entry[16:32], "identifier", guid)
            yield Structure(title, (start, start + size), entry[:16] + entry[48:])
            begin, end = struct.unpack_from("<QQ", entry, 32)
            yield Structure(
                *(f"{title}: its place", (start + 32, start + 48), entry[32:48], "layout"),
                places=(begin * SECTOR, (end + 1) * SECTOR),
            )


def _gpt_header(source: Source, place: int) -> tuple[bytes, int, int, int] | None:
    """Return a GPT header's bytes, where its entries begin, how many there are, and their size."""
    if place < SECTOR or place + SECTOR > source.size:
        return None
    raw = source.read(place, SECTOR)
    magic, *_, entries, count, size, _ = GPT.unpack_from(raw)
    if magic != GPT_MAGIC:
        return None
    if count > 4 * GPT_ENTRIES or not 128 <= size <= 4096:
        raise BadFormat(f"its GPT has {count} entries of {size} bytes")
    return raw, entries * SECTOR, count, size


def partitions(source: Source) -> Iterator[Span]:
    """Give where partitions lie, those beyond the end left out; of a GPT if there is one."""
    header = _gpt_header(source, SECTOR)
    if header is not None:
        _, entries, count, size = header
        for number in range(count):
            first, last = struct.unpack_from("<QQ", source.read(entries + number * size, size), 32)
            if first and first <= last < source.size // SECTOR:
                yield first * SECTOR, (last + 1) * SECTOR
        return
    for number in range(4):
        _, _, kind, _, first, count = PARTITION.unpack_from(source.read(446 + 16 * number, 16))
        if kind not in (0, PROTECTIVE) and first > 0 and (first + count) * SECTOR <= source.size:
            yield first * SECTOR, (first + count) * SECTOR
