# SPDX-License-Identifier: GPL-3.0-or-later
"""What a compressed file says beyond its content: later headers, and bits that no stream uses."""

import zlib
from collections.abc import Callable, Iterator, Sequence

from pipeline.look.formats.container import Structure
from pipeline.look.formats.ranges import Span
from pipeline.look.formats.source import ByteSource, pieces

TAIL = 4096  # bytes of a gzip stream that are looked at for unused bits
GZIP_TRAILER = 8
OUTPUT_PIECE = 1024 * 1024
BZIP2_END, BZIP2_TRAILER_BITS = 0x177245385090, 32
BLOCKED = b"BC\2\0"  # of bgzip, whose extra field is the length of the stream
EXTRA = "header extra field"


def further_headers(
    header: Callable[[bytes], list[Structure]],
    source: ByteSource,
    streams: Sequence[Span],
    limit: int,
) -> Iterator[Structure]:
    """Give the different headers of all streams but the first, as one structure."""
    found: set[bytes] = set()
    optional = False
    for start, end in streams[1:]:
        structures = header(source.read(start, min(end - start, limit)))
        contents = [s.content for s in structures if s.name != EXTRA or s.content[2:6] != BLOCKED]
        found.add(b"|".join(contents))
        optional |= any(s.optional and s.content in contents for s in structures)
    content = b"".join(sorted(found))
    yield Structure("headers of further streams", (0, 0), content, optional=optional)


def unused_bits(name: str, source: ByteSource, streams: Sequence[Span]) -> Iterator[Structure]:
    """Give the bits behind the ends of streams that fill up a byte, if they are not zeros."""
    read = {"gzip": _gzip_bits, "bzip2": _bzip2_bits}.get(name)
    if read is not None:
        content = b"".join(read(source, *span) for span in streams)
        yield Structure("unused bits", (0, 0), content, "layout", optional=True)


def _bzip2_bits(source: ByteSource, start: int, end: int) -> bytes:
    """Return the bits behind the checksum that follows a stream's magic end."""
    length = min(end - start, 11)
    tail = int.from_bytes(source.read(end - length, length), "big")
    for count in range(8):
        if tail >> count >> BZIP2_TRAILER_BITS & (2**48 - 1) == BZIP2_END:
            unused = tail & ((1 << count) - 1)
            return bytes([unused]) if unused else b""
    return b""


def _gzip_bits(source: ByteSource, start: int, end: int) -> bytes:
    """Return the last byte before the checksum if some of its bits can be zeros as well."""
    unpacker, border = zlib.decompressobj(16 + zlib.MAX_WBITS), max(start, end - TAIL)
    for piece in pieces(source, start, border):
        data = piece
        while data:
            unpacker.decompress(data, OUTPUT_PIECE)
            data = unpacker.unconsumed_tail
    tail = source.read(border, end - border)
    at = len(tail) - GZIP_TRAILER - 1
    last = tail[at] if at >= 0 else 0
    for count in range(1, 8):
        without = last & ((1 << count) - 1)
        if without != last and _ends(
            unpacker.copy(), tail[:at] + bytes([without]) + tail[at + 1 :]
        ):
            return bytes([last])
    return b""


def _ends(unpacker: "zlib._Decompress", data: bytes) -> bool:
    """Whether this is the end of a stream, and nothing more."""
    try:
        unpacker.decompress(data)
    except zlib.error:
        return False
    return unpacker.eof and not unpacker.unused_data
