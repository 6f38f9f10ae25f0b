# SPDX-License-Identifier: GPL-3.0-or-later
"""Find out which compressor and level produced compressed bytes, by compressing the content again.

This works for libbz2 and liblzma, whose output is the same in all versions, and for gzip and zlib,
which are recognised by their choices (see `deflate`). The output of lz4 may differ between
versions, that of zstd does: a difference is reported for lz4 only if one side is the output of the
installed version; zstd is not examined.
Sources: xz-file-format.txt 1.2.1 and, for the legacy format, lzma-file-format.txt 1.1 of XZ Utils.
"""

import bz2
import lzma
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple, Protocol

from pipeline.look.formats import deflate, lz4
from pipeline.look.formats.deflate import Taken, is_made, take_apart
from pipeline.look.formats.gzip_header import read_header
from pipeline.look.formats.ranges import Span
from pipeline.look.formats.source import BadFormat, ByteSource, Spool, pieces

DEFLATED = ("gzip", "deflate")  # as a file, and raw as in a zip
# The cost of compressing or parsing a byte, in the unit of Spool.spend.
BYTE_WORK = {"bzip2": 100, "xz": 500, "lzma": 500, "gzip": 1000, "deflate": 1000}
BYTE_WORK |= {"lz4": 50, "lz4-legacy": 50}
LIMITS = {"bzip2": 16 * 1024**2, "xz": 1024**2, "lzma": 1024**2}  # bytes of a content
LIMITS |= {**dict.fromkeys(DEFLATED, 128 * 1024), "lz4": 4 * 1024**2, "lz4-legacy": 4 * 1024**2}
VARIOUS = (*DEFLATED, "lz4", "lz4-legacy")  # with compressors unknown here
ODD = ("what another program makes of it", "what no known program makes of it")
LZ4_LEVELS = (1, *range(3, 13))
GZIP_TRAILER = 8
LZMA_HEADER, LZMA_UNKNOWN_SIZE = 13, b"\xff" * 8
XZ_HEADER = XZ_FOOTER = 12
XZ_CHECKS = {0: 0, 1: 4, 4: 8, 10: 32}  # sizes of the check field by its type
XZ_SIZES = (0x40, 0x80)  # flags of a block whose header has its sizes
DELTA, LZMA2 = 0x03, 0x21
EXTREME = lzma.PRESET_EXTREME
# The likeliest levels of xz by dictionary size; 7 to 9 differ from 6 in that size alone.
LEVELS = {2**18: (0,), 2**20: (1,), 2**21: (2,), 2**22: (4, 3), 2**23: (6, 5)}
ALL_LEVELS = (6, 5, 4, 3, 2, 1, 0)


class _Compressor(Protocol):
    def compress(self, data: bytes) -> bytes: ...
    def flush(self) -> bytes: ...


class Compressed(NamedTuple):
    """A compressed file: its format, and the spans of its streams and of their contents."""

    format: str
    source: ByteSource
    spans: Sequence[Span]
    content: ByteSource
    holds: Sequence[Span]


class _Piece(Protocol):
    """A part of the compressed bytes that is compressed independently."""

    def is_made(self, side: Compressed, setting: int, spool: Spool) -> bool:
        """Return whether a compressor with this setting produces these bytes."""


@dataclass(frozen=True)
class _Made:
    """Bytes that are compared with the output of a compressor for each setting."""

    span: Span
    holds: Span
    new: Callable[[int], _Compressor]
    dictionary: int = 0
    odd: bool = False  # whether the compressor never writes such a header around it

    def is_made(self, side: Compressed, setting: int, spool: Spool) -> bool:
        if self.odd:
            return False
        (at, end), work = self.span, BYTE_WORK[side.format]
        content = pieces(side.content, *self.holds)
        for made in _compressed(self.new(setting), content, spool, work):  # until one differs
            if at + len(made) > end or side.source.read(at, len(made)) != made:
                return False
            at += len(made)
        return at == end


@dataclass(frozen=True)
class _Deflated:
    """Deflate data, which is parsed if it is not equal to zlib's output."""

    packed: bytes
    holds: Span

    @cached_property
    def _taken(self) -> Taken:
        return take_apart(self.packed)

    @property
    def odd(self) -> bool:
        return self._taken.odd

    def is_made(self, side: Compressed, setting: int, spool: Spool) -> bool:
        start, end = self.holds
        spool.spend((end - start) * BYTE_WORK[side.format])
        content = side.content.read(start, end - start)
        return is_made(self.packed, content, lambda: self._taken, setting)


@dataclass(frozen=True)
class _Packed:
    """A block of lz4: offset, length, content; lz4 stores blocks that would not get shorter."""

    at: int
    length: int
    holds: Span
    stored: bool

    def is_made(self, side: Compressed, setting: int, spool: Spool) -> bool:
        start, end = self.holds
        spool.spend((end - start) * BYTE_WORK[side.format])
        made = lz4.pack(side.content.read(start, end - start), setting)
        if self.stored:
            return len(made) >= end - start
        return made == side.source.read(self.at, self.length)


def tell_encodings(first: Compressed, second: Compressed, spool: Spool) -> tuple[str, str] | None:
    """Describe the compressors of two files of one format, if they or their settings differ.

    Return None if one setting of one compressor produces both, or if that cannot be determined:
    because of limits or of a header.
    """
    sides, name = (first, second), first.format
    if name != second.format or name not in LIMITS:
        return None
    if any(side.content.size > LIMITS[name] for side in sides):
        return None
    try:
        parts = [[*_READ[name](side)] for side in sides]
    except (BadFormat, struct.error, IndexError, ValueError, _Unknown):
        return None
    found: tuple[list[int], list[int]] = ([], [])
    for setting in _settings(name, parts[0][:1], found):
        if not spool.affords(BYTE_WORK[name] * sum(side.content.size for side in sides)):
            return None
        for side, made, known in zip(sides, parts, found, strict=True):
            if all(part.is_made(side, setting, spool) for part in made):
                known.append(setting)
        if found[0][-1:] == found[1][-1:] == [setting]:
            return None
    if name in VARIOUS and not any(found):
        odd = [any(isinstance(part, _Deflated) and part.odd for part in made) for made in parts]
        return None if odd[0] == odd[1] else (ODD[odd[0]], ODD[odd[1]])
    return _say(name, found[0]), _say(name, found[1])


def _settings(
    name: str, parts: Sequence[_Piece], found: tuple[list[int], list[int]]
) -> Iterator[int]:
    """Yield the settings that may have produced these; unlikely ones only if none was `found`."""
    if name == "bzip2":
        yield 0  # the level is in the header
    elif name in DEFLATED:
        yield from deflate.LEVELS
    elif name in VARIOUS:
        yield from LZ4_LEVELS
    else:
        sizes = [part.dictionary for part in parts if isinstance(part, _Made)]
        likely = LEVELS.get(sizes[0], (6,)) if sizes else (6,)
        yield from (level | extreme for level in likely for extreme in (0, EXTREME))
        if not any(found):
            yield from (level for level in ALL_LEVELS if level not in likely)


def _say(name: str, settings: Sequence[int]) -> str:
    if not settings:
        return f"not what {name} makes of it"
    if name == "bzip2":
        return f"what {name} makes of it"
    level, extreme = settings[0] & 15, settings[0] & EXTREME
    return f"what {name} -{level}{'e' * bool(extreme)} makes of it"


class _Unknown(Exception):
    """Raised for bytes that no known compressor produces, or whose settings are unsupported."""


def _compressed(
    compressor: _Compressor, content: Iterable[bytes], spool: Spool, work: int
) -> Iterator[bytes]:
    for piece in content:
        spool.spend(len(piece) * work)
        yield compressor.compress(piece)
    yield compressor.flush()


def _gzip(side: Compressed) -> Iterator[_Piece]:
    for (start, end), holds in zip(side.spans, side.holds, strict=True):
        packed = side.source.read(start, end - start)
        yield _Deflated(packed[read_header(packed).length : -GZIP_TRAILER], holds)


def _deflate(side: Compressed) -> Iterator[_Piece]:
    for (start, end), holds in zip(side.spans, side.holds, strict=True):
        yield _Deflated(side.source.read(start, end - start), holds)


def _lz4(side: Compressed) -> Iterator[_Piece]:
    for (start, end), (begin, stop) in zip(side.spans, side.holds, strict=True):
        position = begin
        for first, last, limit in lz4.blocks(side.source.read(start, end - start)):
            holds = position, min(position + (limit or last - first), stop)
            yield _Packed(start + first, last - first, holds, stored=not limit)
            position = holds[1]


def _bzip2(side: Compressed) -> Iterator[_Piece]:
    for span, holds in zip(side.spans, side.holds, strict=True):
        level = int(side.source.read(span[0] + 3, 1))
        yield _Made(span, holds, lambda _, level=level: bz2.BZ2Compressor(level))  # type: ignore[misc]


def _raw(filters: Sequence[dict[str, Any]], setting: int) -> _Compressor:
    *before, last = filters
    return lzma.LZMACompressor(lzma.FORMAT_RAW, filters=[*before, {**last, "preset": setting}])


def _lzma(side: Compressed) -> Iterator[_Piece]:
    for span, holds in zip(side.spans, side.holds, strict=True):
        header = side.source.read(span[0], LZMA_HEADER)
        if header[5:] != LZMA_UNKNOWN_SIZE:
            raise _Unknown  # liblzma never writes the size into the header
        (dictionary,) = struct.unpack_from("<I", header, 1)
        filters = [{"id": lzma.FILTER_LZMA1, "dict_size": dictionary}]
        yield _Made((span[0] + LZMA_HEADER, span[1]), holds, partial(_raw, filters), dictionary)


def _xz(side: Compressed) -> Iterator[_Piece]:
    """Yield the blocks of all streams, located by the streams' indexes."""
    for (start, end), (begin, _) in zip(side.spans, side.holds, strict=True):
        flags = side.source.read(start + 7, 1)[0]
        check = XZ_CHECKS.get(flags)
        if check is None:
            raise _Unknown
        at, position = start + XZ_HEADER, begin
        for unpadded, size in _index(side.source, end):
            yield _block(side.source, (at, at + unpadded - check), (position, position + size))
            at, position = at + unpadded + -unpadded % 4, position + size


def _index(source: ByteSource, end: int) -> Iterator[tuple[int, int]]:
    """Yield the sizes of each block and its content, from the index of a stream's end."""
    (size,) = struct.unpack("<I", source.read(end - XZ_FOOTER + 4, 4))
    start = end - XZ_FOOTER - (size + 1) * 4
    raw = source.read(start, (size + 1) * 4)
    count, at = _number(raw, 1)
    for _ in range(count):
        unpadded, at = _number(raw, at)
        content, at = _number(raw, at)
        yield unpadded, content


def _number(raw: bytes, at: int) -> tuple[int, int]:
    """Return a number of variable length, and the offset after it."""
    value = shift = 0
    while True:
        value |= (raw[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if raw[at - 1] < 0x80:
            return value, at


def _block(source: ByteSource, span: Span, holds: Span) -> _Made:
    """Return a block; it is odd if its header has neither sizes nor the minimal length."""
    length = (source.read(span[0], 1)[0] + 1) * 4
    raw = source.read(span[0], length)
    at, flags = 2, raw[1]
    for flag in XZ_SIZES:
        at = _number(raw, at)[1] if flags & flag else at
    filters: list[dict[str, Any]] = []
    for _ in range((flags & 3) + 1):
        number, at = _number(raw, at)
        size, at = _number(raw, at)
        filters.append(_filter(number, raw[at : at + size]))
        at += size
    if filters[-1]["id"] != LZMA2:
        raise _Unknown
    dictionary = filters[-1]["dict_size"]
    odd = not flags & sum(XZ_SIZES) and length != at + 4 + -at % 4
    return _Made((span[0] + length, span[1]), holds, partial(_raw, filters), dictionary, odd)


def _filter(number: int, properties: bytes) -> dict[str, Any]:
    if number == LZMA2:
        bits = properties[0]
        size = 2**32 - 1 if bits == 40 else (2 | bits & 1) << bits // 2 + 11
        return {"id": number, "dict_size": size}
    if number == DELTA:
        return {"id": number, "dist": properties[0] + 1}
    if properties:
        raise _Unknown  # a BCJ filter with a start offset
    return {"id": number}


_READ: dict[str, Callable[[Compressed], Iterator[_Piece]]] = {
    "gzip": _gzip,
    "deflate": _deflate,
    "lz4": _lz4,
    "lz4-legacy": _lz4,
    "bzip2": _bzip2,
    "lzma": _lzma,
    "xz": _xz,
}
