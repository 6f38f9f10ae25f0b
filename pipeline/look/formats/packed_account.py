# SPDX-License-Identifier: GPL-3.0-or-later
"""The account of a compressed file beyond its content: headers of further streams, unused bits."""

import zlib
from collections.abc import Callable, Iterator, Sequence

from pipeline.look.formats.container import Structure
from pipeline.look.formats.ranges import Span
from pipeline.look.formats.source import ByteSource, pieces

TAIL = 4096  # bytes at the end of a gzip stream that are searched for unused bits
GZIP_TRAILER = 8
OUTPUT_PIECE = 1024 * 1024
BZIP2_END, BZIP2_TRAILER_BITS = 0x177245385090, 32
BLOCKED = b"BC\2\0"  # begins bgzip's extra field, which has the length of the stream
EXTRA = "header extra field"


def further_headers(
    header: Callable[[bytes], list[Structure]],
    source: ByteSource,
    streams: Sequence[Span],
    limit: int,
) -> Iterator[Structure]:
    """Yield one structure with the distinct headers of all streams but the first."""
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
    """Yield a structure with the bits that pad the last byte of streams, if they are not zeros."""
    read = {"gzip": _gzip_bits, "bzip2": _bzip2_bits}.get(name)
    if read is not None:
        content = b"".join(read(source, *span) for span in streams)
        yield Structure("unused bits", (0, 0), content, "layout", optional=True)


def _bzip2_bits(source: ByteSource, start: int, end: int) -> bytes:
    """Return the padding bits after the checksum that follows a stream's end magic."""
    length = min(end - start, 11)
    tail = int.from_bytes(source.read(end - length, length), "big")
    for count in range(8):
        if tail >> count >> BZIP2_TRAILER_BITS & (2**48 - 1) == BZIP2_END:
            unused = tail & ((1 << count) - 1)
            return bytes([unused]) if unused else b""
    return b""


def _gzip_bits(source: ByteSource, start: int, end: int) -> bytes:
    """Return the last byte of the deflate data if some of its bits that are set are unused."""
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
    """Return whether `data` is exactly the remainder of a stream."""
    try:
        unpacker.decompress(data)
    except zlib.error:
        return False
    return unpacker.eof and not unpacker.unused_data
