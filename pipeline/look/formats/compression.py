# SPDX-License-Identifier: GPL-3.0-or-later
"""Compressed data made plain, with limits on memory and output."""

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
ZSTD_WINDOW_LOG = 27  # 128 MiB, what zstd takes without being asked for more
PADDING_AT_ONCE = 4096
STREAM_WORK = 10_000  # that beginning a stream costs, as Spool counts it
ERRORS = (zlib.error, lzma.LZMAError, zstd.ZstdError, OSError, EOFError, MemoryError)


class Unpacker(Protocol):
    """What bz2, lzma and zstd have alike."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class Zlib:
    """zlib's decompressor, with the manners of the others; `wbits` says how the data is wrapped."""

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
    """Return a decompressor for zlib's own wrapping, as SquashFS has it."""
    return Zlib(zlib.MAX_WBITS)


def new_deflate() -> Unpacker:
    """Return a decompressor for bare deflated data, as zip has it."""
    return Zlib(-zlib.MAX_WBITS)


def new_gzip() -> Unpacker:
    """Return a decompressor for a member of a gzip file."""
    return Zlib(16 + zlib.MAX_WBITS)


def new_xz() -> Unpacker:
    """Return a decompressor for an xz stream."""
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY)


def new_lzma() -> Unpacker:
    """Return a decompressor for the older lzma format."""
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
    """Return what a whole block unpacks to; raise BadFormat if that is over `limit` bytes."""
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
    """Give what a single stream unpacks to; bytes behind its end are ignored.

    Raise BadFormat if the data is damaged or ends too early.
    """
    yield from _unpack(new(), _Feed(packed))


def no_filler(_: "_Feed") -> int:
    """Return that nothing may stand between two streams."""
    return 0


def xz_padding(feed: "_Feed") -> int:
    """Return how much of the padding behind an xz stream is at hand: zeros, four by four."""
    head = feed.peek(PADDING_AT_ONCE) if feed.at else b""
    return (len(head) - len(head.lstrip(b"\0"))) // 4 * 4


def zstd_skippable(feed: "_Feed") -> int:
    """Return the length of a skippable frame of zstd or lz4, with its header."""
    head = feed.peek(8)
    return 8 + int.from_bytes(head[4:], "little") if is_skippable(head) else 0


def is_skippable(head: bytes) -> bool:
    """Whether these are the first 8 bytes of a skippable frame."""
    return len(head) == 8 and head[0] >> 4 == 5 and head[1:4] == b"\x2a\x4d\x18"


@dataclass(frozen=True)
class Streams:
    """How a kind of compressed file is written: as one stream, or `several`, that begin so.

    `filler` returns how many of the next bytes belong to no stream but may stand between two.
    """

    magic: bytes
    new: Callable[[], Unpacker]
    filler: Callable[["_Feed"], int] = no_filler
    several: bool = True

    def unpack(
        self, packed: Iterable[bytes], spool: Spool, found: list[Span], holds: list[Span]
    ) -> Iterator[bytes]:
        """Give what the streams unpack to; add where each lies to `found`, and what it `holds`.

        What follows the last is left alone. Raise BadFormat if a stream is damaged or cut short.
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
    """Compressed bytes that come in pieces; `at` is the place of the next one."""

    def __init__(self, packed: Iterable[bytes]) -> None:
        self._source = iter(packed)
        self._data = b""
        self.at = 0

    def peek(self, length: int) -> bytes:
        """Return the next bytes, fewer at the end, and stay before them."""
        while len(self._data) < length and (more := next(self._source, b"")):
            self._data += more
        return self._data[:length]

    def skip(self, length: int) -> None:
        """Go on behind so many bytes; raise BadFormat if there are fewer."""
        self.at += length
        while length > len(self._data):
            length -= len(self._data)
            self._data = next(self._source, b"")
            if not self._data:
                raise BadFormat("it ends before its last frame does")
        self._data = self._data[length:]

    def take(self) -> bytes:
        """Return the bytes at hand, or the next piece if there are none."""
        data = self._data or next(self._source, b"")
        self._data = b""
        self.at += len(data)
        return data

    def give_back(self, data: bytes) -> None:
        """Take back the last of the bytes that were taken."""
        self._data = data + self._data
        self.at -= len(data)


def _unpack(unpacker: Unpacker, feed: _Feed) -> Iterator[bytes]:
    """Give what one stream unpacks to; leave what follows it in `feed`."""
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
