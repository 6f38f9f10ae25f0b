# SPDX-License-Identifier: GPL-3.0-or-later
"""ar archives, the outer format of Debian packages."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

from pipeline.look.formats.container import Container, Entry, Fact, Format, Region, listed
from pipeline.look.formats.rest import without
from pipeline.look.formats.source import BadFormat, ByteSource, Extents, Spool

MAGIC = b"!<arch>\n"
HEADER = 60
NAMES_LIMIT = 1024 * 1024


def _matches(source: ByteSource) -> bool:
    return source.size >= len(MAGIC) and source.read(0, len(MAGIC)) == MAGIC


def _read(source: ByteSource, spool: Spool) -> Container:
    ordered, order = listed(_entries(source))
    return Container(
        entries=lambda: iter(ordered),
        regions=lambda: _fillings(source, ordered),
        order=order,
        rest=lambda entry, _: _rest(source, entry),
    )


AR = Format("ar", _matches, _read)


class ArHeader(NamedTuple):
    """The header of a member: `time`, `uid` and `gid` as written, `size` in bytes."""

    name: bytes
    time: str
    uid: str
    gid: str
    mode: int
    size: int


def read_header(raw: bytes) -> ArHeader:
    """Parse the HEADER bytes before a member; raise BadFormat if they are not a header."""
    if len(raw) != HEADER or raw[58:] != b"`\n":
        raise BadFormat("a member's header is malformed")
    fields = (raw[16:28], raw[28:34], raw[34:40])
    time, uid, gid = (field.strip().decode("latin-1") for field in fields)
    mode, size = _number(raw[40:48], 8), _number(raw[48:58], 10)
    return ArHeader(raw[:16].rstrip(b" "), time, uid, gid, mode, size)


def _entries(source: ByteSource) -> Iterator[Entry]:
    at, names = len(MAGIC), b""
    while at < source.size:
        name, time, uid, gid, mode, size = read_header(source.read(at, HEADER))
        start = at + HEADER
        content = Extents(source, [(start, start + size)])
        if name == b"//":
            if size > NAMES_LIMIT:
                raise BadFormat(f"its names have over {NAMES_LIMIT} bytes")
            names = content.read(0, size)
        facts: dict[str, Fact] = {"time": time, "owner": f"{uid}:{gid}", "mode": mode & 0o7777}
        yield Entry(_name(name, names), facts, content, (at, start))
        at = start + size + size % 2


def _number(digits: bytes, base: int) -> int:
    """Parse a header's numeric field; an empty one is 0."""
    text = digits.strip()
    if not set(text) <= set(b"0123456789"[:base]):
        raise BadFormat(f"{digits!r} is no number")
    return int(text or b"0", base)


def _name(name: bytes, names: bytes) -> str:
    """Return a member's name; the header of a long one refers to `names`."""
    if name.startswith(b"/") and name[1:].isdigit():
        name = names[int(name[1:]) :].partition(b"\n")[0]
    if name not in (b"/", b"//"):
        name = name.removesuffix(b"/")
    return name.decode("utf-8", "surrogateescape")


def _fillings(source: ByteSource, entries: Sequence[Entry]) -> Iterator[Region]:
    """Yield the padding bytes that align the members to even offsets."""
    for entry in entries:
        end = entry.content.stored()[0][1] if entry.content else 0
        if end % 2 and end < source.size:
            filling = source.read(end, 1)
            yield Region("filling", (end, end + 1), partial(bytes, filling * (filling != b"\n")))


def _rest(source: ByteSource, entry: Entry) -> bytes:
    """Return the parts of a member's header that are not facts or a size in ar's usual form."""
    if entry.record is None:
        return b""
    raw = source.read(entry.record[0], HEADER)
    fields = raw[16:28], raw[28:34], raw[34:40], raw[48:58]
    odd = [field for field in fields if field != field.strip().ljust(len(field))]
    mode = _number(raw[40:48], 8)
    odd += [raw[40:48]] if raw[40:48] != b"%-8o" % mode else [b"%o" % (mode & ~0o7777)]
    return _odd_name(raw[:16], entry.path) + b"|".join(odd) + raw[58:]


def _odd_name(field: bytes, path: str) -> bytes:
    """Return what a name field has besides the name; "/0" for any reference to a long name."""
    name = field.rstrip(b" ")
    if name.startswith(b"/") and name[1:].isdigit():
        return b"/0"
    return without(name, path)
