# SPDX-License-Identifier: GPL-3.0-or-later
"""Single compressed files: gzip (RFC 1952), xz, lzma, zstd (RFC 8878), lz4, bzip2."""

import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from pipeline.look.formats import compression, gzip_header, lz4
from pipeline.look.formats.compression import Streams
from pipeline.look.formats.container import Container, Entry, Format, Region, Structure, name_of
from pipeline.look.formats.packed_account import further_headers, unused_bits
from pipeline.look.formats.ranges import Ranges, Span
from pipeline.look.formats.recompress import Compressed
from pipeline.look.formats.source import ByteSource, Extents, Spool, pieces

HEADER_LIMIT = 128 * 1024  # fields can have 64 KiB each
ZSTD_SIZE, ZSTD_SINGLE = 0xC0, 0x20  # flags: width of the content size; no window descriptor
ZSTD_DICTIONARY = (0, 1, 2, 4)
LENGTH_FRAME = b"\x50\x2a\x4d\x18\4\0\0\0"  # skippable frame of pzstd: length of the next frame
CONTENT = "content"
OUTSIDE = "[outside the streams]"
SKIPPED_LIMIT = 16  # skippable frames before the first stream of a zstd or lz4 file
LZMA_PROPERTIES = 0x5D
LZMA_DICTIONARIES = frozenset(2**log + half for log in range(12, 31) for half in (0, 2**log // 2))
BZIP2_BLOCKS = (b"\x31\x41\x59\x26\x53\x59", b"\x17\x72\x45\x38\x50\x90")

Header = Callable[[bytes], list[Structure]]


@dataclass(frozen=True)
class _Packing:
    """A kind of compressed file: its streams, a parser of its header, a check of its magic."""

    name: str
    streams: Streams
    header: Header
    matches: Callable[[ByteSource], bool]

    def format(self) -> Format:
        return Format(self.name, self.matches, partial(_read, self), packs=True)


def _read(packing: _Packing, source: ByteSource, spool: Spool) -> Container:
    streams: list[Span] = []
    holds: list[Span] = []
    content = spool.keep(packing.streams.unpack(pieces(source), spool, streams, holds))
    structures = _first_header(packing, source, streams)
    structures += further_headers(packing.header, source, streams, HEADER_LIMIT)
    structures += unused_bits(packing.name, source, streams)
    packed = Compressed(packing.name, source, streams, content, holds)
    entries = [Entry(CONTENT, {}, content, compressed=packed)]
    outside = _outside(source, streams)
    if outside:
        entries.insert(0, Entry(OUTSIDE, {}, Extents(source, outside)))
    regions = [Region("compressed data", span) for span in streams]
    return Container(structures, lambda: iter(entries), lambda: regions)


def _first_header(packing: _Packing, source: ByteSource, streams: list[Span]) -> list[Structure]:
    """Return the structures in the header of the first stream."""
    start, end = streams[0] if streams else (0, source.size)
    found = packing.header(source.read(start, min(end - start, HEADER_LIMIT)))
    return [replace(s, span=(start + s.span[0], start + s.span[1])) for s in found]


def _outside(source: ByteSource, streams: list[Span]) -> list[Span]:
    """Return the spans outside all streams: padding, skippable frames, and trailing bytes.

    A skippable frame in which pzstd stores the length of the next frame follows from that frame and
    is left out.
    """
    gaps = Ranges([(0, source.size)]).without(streams)
    lengths = {start: end - start for start, end in streams}
    return [(start, end) for start, end in gaps if not _tells_length(source, start, end, lengths)]


def _tells_length(source: ByteSource, start: int, end: int, lengths: dict[int, int]) -> bool:
    if end - start != 12 or end not in lengths:
        return False
    frame = source.read(start, 12)
    length = int.from_bytes(frame[8:], "little")
    return frame[:8] == LENGTH_FRAME and length == lengths[end]


def _gzip_header(raw: bytes) -> list[Structure]:
    """Return the fields of a gzip header that do not describe its content."""
    header = gzip_header.read_header(raw)
    # the flags for optional fields are left out: they follow from the fields
    flags = header.flags & ~(gzip_header.EXTRA | gzip_header.NAME | gzip_header.COMMENT)
    time, level, system = gzip_header.TIME, gzip_header.LEVEL, gzip_header.SYSTEM
    found = [
        Structure("header time", time, raw[slice(*time)], "time", str(header.time)),
        Structure("header flags", gzip_header.FLAGS, bytes([flags])),
        Structure("header level", level, raw[slice(*level)]),
        Structure("header system", system, raw[slice(*system)]),
    ]
    if header.extra:
        content = raw[slice(*header.extra)]
        found.append(Structure("header extra field", header.extra, content, optional=True))
    for span, name in ((header.name, "header name"), (header.comment, "header comment")):
        if span:
            text = raw[span[0] : span[1] - 1]
            words = name_of(text)
            found.append(Structure(name, span, text, "structure", words, optional=True))
    return found


def _xz_header(raw: bytes) -> list[Structure]:
    return [Structure("stream flags", (6, 8), raw[6:8])]


def _bzip2_header(raw: bytes) -> list[Structure]:
    return [Structure("block size", (3, 4), raw[3:4])]


def _lzma_header(raw: bytes) -> list[Structure]:
    return [Structure("parameters", (0, 5), raw[:5])]


def _zstd_header(raw: bytes) -> list[Structure]:
    """Return the fields of a frame's header, without the size of its content."""
    if not raw.startswith(ZSTD) or len(raw) < 6:
        return []
    single = raw[4] & ZSTD_SINGLE
    window, at = (b"", 5) if single else (raw[5:6], 6)
    dictionary = raw[at : at + ZSTD_DICTIONARY[raw[4] & 3]]
    flags = bytes([raw[4] & ~(ZSTD_SIZE | ZSTD_SINGLE)])
    return [Structure("frame header", (4, at), flags + window + dictionary)]


def _lz4_header(raw: bytes) -> list[Structure]:
    return [Structure("frame flags", (4, 6), raw[4:6])]


def _no_header(_: bytes) -> list[Structure]:
    return []


def _begins(magic: bytes, source: ByteSource) -> bool:
    return source.size >= len(magic) and source.read(0, len(magic)) == magic


def _begins_behind_skipped(magic: bytes, source: ByteSource) -> bool:
    """Return whether the first frame that is not skippable begins with `magic`."""
    at = 0
    for _ in range(SKIPPED_LIMIT):
        head = source.read(at, min(8, max(0, source.size - at)))
        if not compression.is_skippable(head):
            return head.startswith(magic)
        at += 8 + int.from_bytes(head[4:], "little")
        if at > source.size:
            return False
    return False


def _is_bzip2(source: ByteSource) -> bool:
    if source.size < 14:
        return False
    head = source.read(0, 10)
    return head[:3] == b"BZh" and head[3:4] in b"123456789" and head[4:] in BZIP2_BLOCKS


def _is_lzma(source: ByteSource) -> bool:
    """Return whether a content begins with plausible fields of a .lzma file, which has no magic."""
    if source.size < 18:
        return False
    properties, dictionary, size, first = struct.unpack("<BIQB", source.read(0, 14))
    likely = properties == LZMA_PROPERTIES and dictionary in LZMA_DICTIONARIES and first == 0
    return likely and (size == 2**64 - 1 or size < 2**38)


GZIP, XZ, ZSTD, BZIP2 = gzip_header.MAGIC, b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"BZh"
PACKINGS = (
    _Packing("gzip", Streams(GZIP, compression.new_gzip), _gzip_header, partial(_begins, GZIP)),
    _Packing(
        "xz",
        Streams(XZ, compression.new_xz, compression.xz_padding),
        _xz_header,
        partial(_begins, XZ),
    ),
    _Packing(
        "zstd",
        Streams(ZSTD, compression.new_zstd, compression.zstd_skippable),
        _zstd_header,
        partial(_begins_behind_skipped, ZSTD),
    ),
    _Packing(
        "lz4",
        Streams(lz4.FRAME, lz4.Frame, compression.zstd_skippable),
        _lz4_header,
        partial(_begins_behind_skipped, lz4.FRAME),
    ),
    _Packing(
        "lz4-legacy", Streams(lz4.LEGACY, lz4.Legacy), _no_header, partial(_begins, lz4.LEGACY)
    ),
    _Packing("bzip2", Streams(BZIP2, compression.new_bzip2), _bzip2_header, _is_bzip2),
    _Packing("lzma", Streams(b"", compression.new_lzma, several=False), _lzma_header, _is_lzma),
)
PACKED = tuple(packing.format() for packing in PACKINGS)
