"""cpio archives in the new ASCII form, and initramfs: several of them, the last one compressed.

Source: the kernel's Documentation/driver-api/early-userspace/buffer-format.rst.
"""

from collections.abc import Iterator

from pipeline.compare.formats.container import (
    LINK_LIMIT,
    PATH_LIMIT,
    Container,
    Entry,
    Fact,
    Format,
    Tally,
    file_type,
    listed,
    name_of,
    owner_of,
    path_of,
)
from pipeline.compare.formats.ranges import Span
from pipeline.compare.formats.source import Extents, Malformed, Source, Spool, pieces

MAGICS = (b"070701", b"070702")
HEADER = 110
TRAILER = "TRAILER!!!"
PARTS_LIMIT = 16


def _matches(source: Source) -> bool:
    return source.size >= HEADER and source.read(0, 6) in MAGICS


def _read(source: Source, spool: Spool) -> Container:
    entries: list[Entry] = []
    end = _read_archive(source, entries)
    start = _next_part(source, end)
    if start is None:
        ordered, order = listed(entries)
        return Container(entries=lambda: iter(ordered), order=order)
    entries.clear()
    parts = list(_parts(source, start, end))
    return Container(entries=lambda: iter(parts))


CPIO = Format("cpio", _matches, _read)


def _parts(source: Source, start: int, end: int) -> Iterator[Entry]:
    """Give the parts of an initramfs: the first ends at `end`, the second begins at `start`."""
    yield _part(source, 1, (0, end))
    for number in range(2, PARTS_LIMIT + 1):
        if source.read(start, 6) not in MAGICS:
            yield _part(source, number, (start, source.size))
            return
        # where an archive ends tells only the archive itself
        end = start + _read_archive(Extents(source, [(start, source.size)]), [])
        yield _part(source, number, (start, end))
        following = _next_part(source, end)
        if following is None:
            return
        start = following
    raise Malformed(f"it has over {PARTS_LIMIT} parts")


def _part(source: Source, number: int, span: Span) -> Entry:
    return Entry(f"part {number:02}", {}, Extents(source, [span]))


def _next_part(source: Source, end: int) -> int | None:
    """Return where something other than zeros begins after an archive, if there is enough of it."""
    position = end
    for piece in pieces(source, end):
        zeros = len(piece) - len(piece.lstrip(b"\0"))
        position += zeros
        if zeros < len(piece):
            return position if source.size - position >= 6 else None
    return None


def _read_archive(source: Source, entries: list[Entry]) -> int:
    """Read one archive's entries; return where it ends."""
    at, tally = 0, Tally()
    while True:
        raw = source.read(at, HEADER)
        fields = _fields(raw)
        size, length = fields[6], fields[11]
        if not 0 < length <= PATH_LIMIT:
            raise Malformed(f"a name has {length} bytes")
        name = name_of(source.read(at + HEADER, length).rstrip(b"\0"))
        start = _aligned(at + HEADER + length)
        if name == TRAILER:
            return min(start, source.size)
        entry = _entry(source, path_of(name), fields, (start, start + size), (at, start))
        entries.append(tally.count(entry))
        at = _aligned(start + size)


def _fields(raw: bytes) -> tuple[int, ...]:
    digits = raw[6:]
    if raw[:6] not in MAGICS or not set(digits) <= set(b"0123456789abcdefABCDEF"):
        raise Malformed("a header is none")
    return tuple(int(digits[at : at + 8], 16) for at in range(0, 104, 8))


def _aligned(offset: int) -> int:
    return offset + -offset % 4


def _entry(source: Source, path: str, fields: tuple[int, ...], span: Span, record: Span) -> Entry:
    _, mode, uid, gid, links, time, size, _, _, major, minor, *_ = fields
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
        facts["device"] = f"{major}:{minor}"
    if kind == "link" and size <= LINK_LIMIT:
        facts["target"] = name_of(content.read(0, size))
        return Entry(path, facts, None, (record[0], span[1]))
    return Entry(path, facts, content, record)
