# SPDX-License-Identifier: GPL-3.0-or-later
"""cpio archives in the older formats: binary, in either byte order, and portable ASCII (odc).

Source: cpio(5) of libarchive.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from pipeline.look.formats.container import (
    PATH_LIMIT,
    Container,
    Entry,
    Format,
    Region,
    Tally,
    listed,
    name_of,
    path_of,
)
from pipeline.look.formats.cpio import TRAILER, closes, ends_oddly, entry_of
from pipeline.look.formats.rest import without
from pipeline.look.formats.source import BadFormat, ByteSource, Spool

MAGIC = 0o070707
PORTABLE = b"070707"
WIDTHS = (6, 6, 6, 6, 6, 6, 6, 6, 11, 6, 11)  # digits of the portable header's fields

# magic, device, inode, mode, user, group, links, device number, time, length of name, size
Fields = tuple[int, ...]


@dataclass(frozen=True)
class _Form:
    """A header format: its length, its parser, and the alignment of names and data."""

    length: int
    fields: Callable[[bytes], Fields]
    align: int


def _binary(order: str, raw: bytes) -> Fields:
    *fields, high, low, name, size_high, size_low = struct.unpack(f"{order}13H", raw)
    return *fields, high << 16 | low, name, size_high << 16 | size_low


def _portable(raw: bytes) -> Fields:
    if not set(raw) <= set(b"01234567"):
        raise BadFormat("a header is malformed")
    fields, at = [], 0
    for width in WIDTHS:
        fields.append(int(raw[at : at + width], 8))
        at += width
    return tuple(fields)


FORMS = {
    MAGIC.to_bytes(2, "little"): _Form(26, partial(_binary, "<"), 2),
    MAGIC.to_bytes(2, "big"): _Form(26, partial(_binary, ">"), 2),
    PORTABLE[:2]: _Form(sum(WIDTHS), _portable, 1),
}


def _matches(source: ByteSource) -> bool:
    if source.size < 26:
        return False
    head = source.read(0, 26)
    form = FORMS.get(head[:2])
    if form is None or (form.align == 1 and head[:6] != PORTABLE):
        return False
    # a magic of two bytes is weak: the length of the first name must be plausible, too
    return form.align == 1 or 1 < form.fields(head)[9] <= PATH_LIMIT


def _read(source: ByteSource, spool: Spool) -> Container:
    form, trailer = FORMS[source.read(0, 2)], list[Region]()
    ordered, order = listed(_entries(source, form, trailer))
    return Container(
        entries=lambda: iter(ordered),
        regions=lambda: trailer,
        order=order,
        rest=lambda entry, _: _rest(source, form, entry),
        number=lambda entry: _fields(source, form, entry)[2],
        align=form.align,
        closes=closes,
    )


CPIO_OLD = Format("cpio", _matches, _read)


def _fields(source: ByteSource, form: _Form, entry: Entry) -> Fields:
    start = entry.record[0] if entry.record else 0
    return form.fields(source.read(start, form.length))


def _rest(source: ByteSource, form: _Form, entry: Entry) -> bytes:
    """Return the parts of a member's header that are not facts, inode number, size or name."""
    fields, start = _fields(source, form, entry), entry.record[0] if entry.record else 0
    begin, length = start + form.length, fields[9]
    name = source.read(begin, _aligned(begin + length, form.align) - begin)
    device = 0 if "device" in entry.facts else fields[7]
    rest = fields[1], fields[3] & ~0o7777, device
    names = (
        ends_oddly(name[:length]),
        without(name[:length], entry.path),
        name[length:].strip(b"\0"),
    )
    return repr(rest).encode() + b"|".join(names)


def _entries(source: ByteSource, form: _Form, trailer: list[Region]) -> Iterator[Entry]:
    at, tally = 0, Tally()
    while True:
        fields = form.fields(source.read(at, form.length))
        length, size = fields[9], fields[10]
        if fields[0] != MAGIC or not 0 < length <= PATH_LIMIT:
            raise BadFormat(f"there is no header at byte {at}")
        name = name_of(source.read(at + form.length, length).rstrip(b"\0"))
        start = _aligned(at + form.length + length, form.align)
        if name == TRAILER:
            trailer.append(Region("trailer", (at, start)))
            return
        yield tally.count(_entry(source, path_of(name), fields, at, start))
        at = _aligned(start + size, form.align)


def _aligned(offset: int, align: int) -> int:
    return offset + -offset % align


def _entry(source: ByteSource, path: str, fields: Fields, at: int, start: int) -> Entry:
    _, _, _, mode, uid, gid, links, device, time, _, size = fields
    span, record = (start, start + size), (at, start)
    return entry_of(source, path, (mode, uid, gid, links, time), device, span, record)
