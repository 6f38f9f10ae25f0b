# SPDX-License-Identifier: GPL-3.0-or-later
"""The account of zip's own bytes: parts of headers and directory that are not members' facts."""

import struct
import zlib
from collections.abc import Iterator, Sequence
from functools import partial

from pipeline.look.formats.container import Entry, Region
from pipeline.look.formats.rest import without
from pipeline.look.formats.source import ByteSource, pieces

LOCAL_SIZE, CENTRAL_SIZE = 30, 46
MEMBER, DIRECTORY = b"PK\x03\x04", b"PK\x01\x02"  # signatures of local and central headers
TIMES = {MEMBER: 10, DIRECTORY: 12}  # the offset of the time in these headers
NAME_LENGTH = 26  # the offset of the name's length in a local header
ENDS = (b"PK\x05\x06", b"PK\x06\x06")  # signatures of a directory's end, the second for zip64
END = struct.Struct("<4sHHHHIIH")


def rest_of_member(source: ByteSource, entry: Entry, checksum: int, *, changed: bool) -> bytes:
    """Return the spelling of a member's local name, and its checksum unless that is explained.

    The checksum is left out if it matches a content that `changed`, or a link's target.
    """
    if entry.record is None:
        return b""
    start = entry.record[0]
    (length,) = struct.unpack("<H", source.read(start + NAME_LENGTH, 2))
    name = without(source.read(start + LOCAL_SIZE, length), entry.path)
    if "target" in entry.facts:
        target = str(entry.facts["target"]).encode("utf-8", "surrogateescape")
        return name if zlib.crc32(target) == checksum else b"%08x" % checksum + name
    total = checksum if entry.note else 0
    for piece in pieces(entry.content) if changed and entry.content and not entry.note else ():
        total = zlib.crc32(piece, total)
    return name if changed and total == checksum else b"%08x" % checksum + name


def regions_of_directory(
    source: ByteSource, start: int, entries: Sequence[Entry], other: Sequence[Region]
) -> Iterator[Region]:
    """Yield the `other` regions, the central directory and its end."""
    yield from other
    at, found = start, bytearray()
    paths = {entry.record[0]: entry.path for entry in entries if entry.record}
    while at + CENTRAL_SIZE <= source.size and source.read(at, 4) == DIRECTORY:
        raw = source.read(at, CENTRAL_SIZE)
        lengths, (offset,) = struct.unpack_from("<HHH", raw, 28), struct.unpack_from("<I", raw, 42)
        name = source.read(at + CENTRAL_SIZE, lengths[0])
        odd = without(name, paths.get(offset, "")) + raw[34:36].strip(b"\0")
        found += odd if odd.strip(b"/") else b""
        at = at + CENTRAL_SIZE + sum(lengths)
    if source.read(at, min(4, max(0, source.size - at))) not in ENDS:
        yield Region("central directory", (start, source.size))  # it has a wrong length
        return
    yield Region("central directory", (start, at), lambda: bytes(found))
    yield Region("end of central directory", (at, source.size), partial(_end, source, start, at))


def _end(source: ByteSource, start: int, at: int) -> bytes:
    """Return the end of the central directory, or nothing if it agrees with the directory."""
    raw = source.read(at, min(END.size, source.size - at))
    if len(raw) < END.size:
        return raw
    magic, disk, first, here, total, size, offset, comment = END.unpack(raw)
    follows = (magic, disk, first, size, offset) == (b"PK\5\6", 0, 0, at - start, start)
    if follows and here == total and at + END.size + comment == source.size:
        return b""
    return source.read(at, source.size - at)
