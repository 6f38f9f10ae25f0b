# SPDX-License-Identifier: GPL-3.0-or-later
"""Decompress data, with limits on memory and output."""

import bz2
import lzma
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from pipeline.look.formats.ranges import Span
from pipeline.look.formats.source import BadFormat, Spool

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

OUTPUT_PIECE = 1024 * 1024
XZ_MEMORY = 96 * 1024 * 1024  # xz -9 needs 65 MiB
ZSTD_WINDOW_LOG = 27  # 128 MiB, the most that the program zstd accepts by default
PADDING_AT_ONCE = 4096
STREAM_WORK = 10_000  # the cost of starting a stream, in the unit of Spool.spend
ERRORS = (zlib.error, lzma.LZMAError, zstd.ZstdError, OSError, EOFError, MemoryError)


class Unpacker(Protocol):
    """The interface that the decompressors of bz2, lzma and zstd share."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class Zlib:
    """zlib's decompressor with the interface of the others; `wbits` selects the wrapping."""

    def __init__(self, wbits: int) -> None:
        self._inner = zlib.decompressobj(wbits)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        return self._inner.decompress(
            self._inner.unconsumed_tail + data, max_length if max_length > 0 else 0
        )


def new_zlib() -> Unpacker:
    """Return a decompressor for zlib streams (RFC 1950), as in SquashFS."""
    return Zlib(zlib.MAX_WBITS)


def new_deflate() -> Unpacker:
    """Return a decompressor for raw deflate data (RFC 1951), as in zip."""
    return Zlib(-zlib.MAX_WBITS)


def new_gzip() -> Unpacker:
    """Return a decompressor for a member of a gzip file (RFC 1952)."""
    return Zlib(16 + zlib.MAX_WBITS)


def new_xz() -> Unpacker:
    """Return a decompressor for an xz stream."""
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY)


def new_lzma() -> Unpacker:
    """Return a decompressor for the legacy .lzma format."""
    return lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=XZ_MEMORY)


def new_bzip2() -> Unpacker:
    """Return a decompressor for a bzip2 stream."""
    return bz2.BZ2Decompressor()


def new_zstd() -> Unpacker:
    """Return a decompressor for a zstd frame."""
    options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: ZSTD_WINDOW_LOG}
    unpacker: Unpacker = zstd.ZstdDecompressor(options=options)
    return unpacker


def unpack_block(new: Callable[[], Unpacker], packed: bytes, limit: int) -> bytes:
    """Decompress a complete block.

    Raise BadFormat if it is damaged, is not exactly one stream, or exceeds `limit` bytes.
    """
    unpacker = new()
    try:
        content = unpacker.decompress(packed, limit + 1)
    except ERRORS as error:
        raise BadFormat(f"a block cannot be unpacked: {error}") from error
    if len(content) > limit:
        raise BadFormat(f"a block unpacks to over {limit} bytes")
    if not unpacker.eof:
        raise BadFormat("a block ends before its data does")
    if unpacker.unused_data:
        raise BadFormat("a block goes on behind its data")
    return content


def unpack_one(new: Callable[[], Unpacker], packed: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the decompressed content of a single stream; bytes after its end are ignored.

    Raise BadFormat if the data is damaged or ends too early.
    """
    yield from _unpack(new(), _Feed(packed))


def no_filler(_: "_Feed") -> int:
    """Return 0: the format allows nothing between two streams."""
    return 0


def xz_padding(feed: "_Feed") -> int:
    """Return the length of the buffered padding after an xz stream: a multiple of 4 zeros."""
    head = feed.peek(PADDING_AT_ONCE) if feed.at else b""
    return (len(head) - len(head.lstrip(b"\0"))) // 4 * 4


def zstd_skippable(feed: "_Feed") -> int:
    """Return the length of a skippable frame of zstd or lz4 with its header; 0 if there is none."""
    head = feed.peek(8)
    return 8 + int.from_bytes(head[4:], "little") if is_skippable(head) else 0


def is_skippable(head: bytes) -> bool:
    """Return whether these are the first 8 bytes of a skippable frame."""
    return len(head) == 8 and head[0] >> 4 == 5 and head[1:4] == b"\x2a\x4d\x18"


@dataclass(frozen=True)
class Streams:
    """The layout of a kind of compressed file: streams that begin with `magic`.

    `several` is set if there may be more than one. `filler` returns how many of the next bytes are
    allowed between two streams without belonging to one.
    """

    magic: bytes
    new: Callable[[], Unpacker]
    filler: Callable[["_Feed"], int] = no_filler
    several: bool = True

    def unpack(
        self, packed: Iterable[bytes], spool: Spool, found: list[Span], holds: list[Span]
    ) -> Iterator[bytes]:
        """Yield the decompressed content of all streams.

        Append the span of each stream to `found`, and the span of its content in the whole content
        to `holds`. Bytes after the last stream are ignored. Raise BadFormat if a stream is damaged
        or truncated.
        """
        feed, position = _Feed(packed), 0
        while True:
            while length := self.filler(feed):
                spool.spend(STREAM_WORK)
                feed.skip(length)
            if feed.peek(len(self.magic)) != self.magic or (found and not self.several):
                return
            spool.spend(STREAM_WORK)
            start, begin = feed.at, position
            for piece in _unpack(self.new(), feed):
                position += len(piece)
                yield piece
            found.append((start, feed.at))
            holds.append((begin, position))


class _Feed:
    """A buffer for compressed bytes that arrive in pieces; `at` is the offset of the next byte."""

    def __init__(self, packed: Iterable[bytes]) -> None:
        self._source = iter(packed)
        self._data = b""
        self.at = 0

    def peek(self, length: int) -> bytes:
        """Return the next bytes, fewer at the end, without consuming them."""
        while len(self._data) < length and (more := next(self._source, b"")):
            self._data += more
        return self._data[:length]

    def skip(self, length: int) -> None:
        """Skip `length` bytes; raise BadFormat if there are fewer."""
        self.at += length
        while length > len(self._data):
            length -= len(self._data)
            self._data = next(self._source, b"")
            if not self._data:
                raise BadFormat("it ends before its last frame does")
        self._data = self._data[length:]

    def take(self) -> bytes:
        """Consume and return the buffered bytes, or the next piece if there are none."""
        data = self._data or next(self._source, b"")
        self._data = b""
        self.at += len(data)
        return data

    def give_back(self, data: bytes) -> None:
        """Put back `data`, the last of the bytes that were consumed."""
        self._data = data + self._data
        self.at -= len(data)


def _unpack(unpacker: Unpacker, feed: _Feed) -> Iterator[bytes]:
    """Yield the decompressed content of one stream; leave the bytes after it in `feed`."""
    try:
        while not unpacker.eof:
            data = feed.take() if unpacker.needs_input else b""
            content = unpacker.decompress(data, OUTPUT_PIECE)
            if not (content or data or unpacker.eof):
                raise BadFormat("it ends before its compressed data does")
            yield content
    except ERRORS as error:
        raise BadFormat(f"it cannot be unpacked: {error}") from error
    feed.give_back(unpacker.unused_data)
