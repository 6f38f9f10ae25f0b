# SPDX-License-Identifier: GPL-3.0-or-later
"""cpio archives in the new ASCII format, and initramfs images: several of them in a row.

The last archive of an initramfs is usually compressed.

Source: the kernel's Documentation/driver-api/early-userspace/buffer-format.rst.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise

from pipeline.look.formats.container import (
    LINK_LIMIT,
    PATH_LIMIT,
    Container,
    Entry,
    Fact,
    Format,
    Region,
    Structure,
    Tally,
    file_type,
    listed,
    name_of,
    owner_of,
    path_of,
)
from pipeline.look.formats.ranges import Span
from pipeline.look.formats.rest import without
from pipeline.look.formats.source import BadFormat, ByteSource, Extents, Spool, pieces

MAGICS = (b"070701", b"070702")
HEADER = 110
BLOCK = 512  # cpio pads an archive to a multiple of this
BETWEEN = "zeros between the parts"
TRAILER = "TRAILER!!!"
PARTS_LIMIT = 16


def _matches(source: ByteSource) -> bool:
    return source.size >= HEADER and source.read(0, 6) in MAGICS


def _read(source: ByteSource, spool: Spool) -> Container:
    entries: list[Entry] = []
    end = _read_archive(source, entries)
    start = _next_part(source, end)
    trailer = entries.pop().record
    _join_links(source, entries)
    order = listed(entries)[1]
    parts = [] if start is None else [*_parts(source, start)]
    case = _case(source, entries)
    ordered, _ = listed([*entries, *parts])
    return Container(
        [Structure("letters of digits", (0, 0), case, "layout")],
        entries=lambda: iter(ordered),
        regions=lambda: [
            *([Region("trailer", trailer)] if trailer else []),
            *_between(source, end, parts),
        ],
        order=order,
        rest=lambda entry, _: _rest(source, entry, case),
        number=partial(_number, source),
        align=4,
        closes=closes,
    )


CPIO = Format("cpio", _matches, _read)


def _join_links(source: ByteSource, entries: Sequence[Entry]) -> None:
    """Assign a file's content to all its hard links; only the last link stores it."""
    linked = [e for e in entries if e.facts["type"] == "file" and e.facts["links"] != 1]
    files: dict[bytes, list[Entry]] = {}
    for entry in linked:
        if entry.record:
            header = source.read(entry.record[0], HEADER)
            files.setdefault(header[6:14] + header[62:78], []).append(entry)
    for same in files.values():
        contents = [entry.content for entry in same if entry.content and entry.content.size]
        for entry in same if len(contents) == 1 else ():
            entry.content = contents[0]


def _parts(source: ByteSource, start: int) -> Iterator[Entry]:
    """Yield the parts of an initramfs that follow the first archive, from `start` on."""
    for number in range(2, PARTS_LIMIT + 1):
        if source.read(start, 6) not in MAGICS:
            yield _part(source, number, (start, source.size))
            return
        # only reading an archive shows where it ends
        end = start + _read_archive(Extents(source, [(start, source.size)]), [])
        yield _part(source, number, (start, end))
        following = _next_part(source, end)
        if following is None:
            return
        start = following
    raise BadFormat(f"it has over {PARTS_LIMIT} parts")


def _between(source: ByteSource, end: int, parts: list[Entry]) -> Iterator[Region]:
    """Yield the zeros between the parts as regions; the first archive ends at `end`.

    A region's `rest` is the number of zeros beyond the next multiple of BLOCK.
    """
    spans = [(0, end), *(part.content.stored()[0] for part in parts if part.content)]
    for (_, start), (following, _) in pairwise(spans):
        more = max(0, following - start - -start % BLOCK)
        rest = more.to_bytes(8, "big") if more else b""
        yield Region(BETWEEN, (start, following), partial(bytes, rest))


def _part(source: ByteSource, number: int, span: Span) -> Entry:
    return Entry(f"part {number:02}", {}, Extents(source, [span]))


def _next_part(source: ByteSource, end: int) -> int | None:
    """Return the offset of the first byte after an archive that is not zero.

    Return None if there is none, or if too few bytes follow for another archive's magic.
    """
    position = end
    for piece in pieces(source, end):
        zeros = len(piece) - len(piece.lstrip(b"\0"))
        position += zeros
        if zeros < len(piece):
            return position if source.size - position >= 6 else None
    return None


def _read_archive(source: ByteSource, entries: list[Entry]) -> int:
    """Append one archive's entries, with its trailer, to `entries`; return the archive's end."""
    at, tally = 0, Tally()
    while True:
        raw = source.read(at, HEADER)
        fields = read_header(raw)
        size, length = fields[6], fields[11]
        if not 0 < length <= PATH_LIMIT:
            raise BadFormat(f"a name has {length} bytes")
        name = name_of(source.read(at + HEADER, length).rstrip(b"\0"))
        start = aligned(at + HEADER + length)
        if name == TRAILER:
            entries.append(Entry(TRAILER, {}, None, (at, min(start, source.size))))
            return min(start, source.size)
        entry = _entry(source, path_of(name), fields, (start, start + size), (at, start))
        entries.append(tally.count(entry))
        at = aligned(start + size)


def read_header(raw: bytes) -> tuple[int, ...]:
    """Return the numbers in a member's header; raise BadFormat if it is malformed.

    They are, in this order: inode, mode, uid, gid, links, time, size, major and minor number of the
    file system and of the device, length of the name with its terminating zero, checksum.
    """
    digits = raw[6:]
    if (
        len(raw) < HEADER
        or raw[:6] not in MAGICS
        or not set(digits) <= set(b"0123456789abcdefABCDEF")
    ):
        raise BadFormat("a header is malformed")
    return tuple(int(digits[at : at + 8], 16) for at in range(0, 104, 8))


def aligned(offset: int) -> int:
    """Round an offset up to a multiple of 4 bytes, where the next header or content begins."""
    return offset + -offset % 4


def _entry(
    source: ByteSource, path: str, fields: tuple[int, ...], span: Span, record: Span
) -> Entry:
    _, mode, uid, gid, links, time, _, _, _, major, minor, *_ = fields
    device = f"{major}:{minor}"
    return entry_of(source, path, (mode, uid, gid, links, time), device, span, record)


def entry_of(
    source: ByteSource,
    path: str,
    fields: tuple[int, int, int, int, int],
    device: Fact,
    span: Span,
    record: Span,
) -> Entry:
    """Return the entry of a member; `fields` are its mode, user, group, links and time.

    `span` is where its content is stored, `record` its header with the name.
    """
    mode, uid, gid, links, time = fields
    kind = file_type(mode)
    facts: dict[str, Fact] = {
        "type": kind,
        "mode": mode & 0o7777,
        "owner": owner_of(uid, gid),
        "links": links,
        "time": time,
    }
    content = Extents(source, [span])
    if kind in ("char", "block"):
        facts["device"] = device
    if kind == "link" and content.size <= LINK_LIMIT:
        facts["target"] = name_of(content.read(0, content.size))
        return Entry(path, facts, None, (record[0], span[1]))
    return Entry(path, facts, content, record)


def closes(start: int, end: int) -> bool:
    """Return whether zeros from `start` to `end` are an archive's final padding."""
    return end % BLOCK == 0 and end - start < BLOCK


def _number(source: ByteSource, entry: Entry) -> int | None:
    """Return a member's inode number; None for a part of an initramfs."""
    return int(source.read(entry.record[0] + 6, 8), 16) if entry.record else None


def _case(source: ByteSource, entries: Sequence[Entry]) -> bytes:
    """Return A or a: the case of the hexadecimal digits in the first header that has letters."""
    for entry in entries:
        digits = source.read(entry.record[0], HEADER)[6:] if entry.record else b""
        if digits.upper() != digits.lower():
            return b"A" if digits == digits.upper() else b"a"
    return b""


def ends_oddly(name: bytes) -> bytes:
    """Return the number of zeros after a stored name, in digits; nothing for a single one."""
    return (
        b"" if name[-1:] == b"\0" != name[-2:-1] else b"%d" % (len(name) - len(name.rstrip(b"\0")))
    )


def _rest(source: ByteSource, entry: Entry, case: bytes) -> bytes:
    """Return the parts of a member's header that are not facts, inode number, size or name."""
    if entry.record is None:
        return b""
    start = entry.record[0]
    raw = source.read(start, HEADER)
    length = int(raw[94:102], 16)
    name = source.read(start + HEADER, length)
    end = start + HEADER + length
    filling = source.read(end, aligned(end) - end)
    digits = raw[6:]
    usual = digits.upper() if case == b"A" else digits.lower()
    mixed = digits if digits != usual else b""
    device = raw[78:94] if entry.facts["type"] not in ("char", "block") else b""
    mode = int(raw[14:22], 16) >> 16
    rest = (
        raw[:6],
        mixed,
        b"%x" % mode,
        raw[62:78],
        device,
        _wrong_sum(raw, entry),
    )
    names = ends_oddly(name), without(name, entry.path), filling.strip(b"\0")
    return b"|".join((*rest, *names))


def _wrong_sum(raw: bytes, entry: Entry) -> bytes:
    """Return a header's checksum unless it is the sum of the bytes that are stored after it.

    Only the last of several hard links stores bytes; the others must have the sum 0, and so must
    all members in the format without checksums (070701).
    """
    total = 0
    if raw[:6] == MAGICS[1] and entry.content and int(raw[54:62], 16):
        total = sum(sum(piece) for piece in pieces(entry.content)) & 0xFFFFFFFF
    return b"" if int(raw[102:110], 16) == total else raw[102:110]
