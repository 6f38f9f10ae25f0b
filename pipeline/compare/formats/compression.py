"""Compressed data made plain, with limits on memory and output."""

import bz2
import lzma
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from pipeline.compare.formats.source import Malformed

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

OUTPUT_PIECE = 1024 * 1024
XZ_MEMORY = 96 * 1024 * 1024  # xz -9 needs 65 MiB
ZSTD_WINDOW_LOG = 27  # 128 MiB, what zstd takes without being asked for more
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
    """Return what a whole block unpacks to; raise Malformed if that is over `limit` bytes."""
    unpacker = new()
    try:
        content = unpacker.decompress(packed, limit + 1)
    except ERRORS as error:
        raise Malformed(f"a block cannot be unpacked: {error}") from error
    if len(content) > limit:
        raise Malformed(f"a block unpacks to over {limit} bytes")
    if not unpacker.eof:
        raise Malformed("a block ends before its data does")
    return content


def unpack_stream(
    new: Callable[[], Unpacker], packed: Iterable[bytes], magic: bytes
) -> Iterator[bytes]:
    """Give what the streams, each beginning with `magic`, unpack to; what follows them is ignored.

    Raise Malformed if the data is damaged or ends too early.
    """
    source = iter(packed)
    data = next(source, b"")
    try:
        while data.startswith(magic):
            unpacker = new()
            yield from _unpack_one(unpacker, data, source)
            data = unpacker.unused_data
            while len(data) < len(magic) and (more := next(source, b"")):
                data += more
    except ERRORS as error:
        raise Malformed(f"it cannot be unpacked: {error}") from error


def _unpack_one(unpacker: Unpacker, data: bytes, source: Iterator[bytes]) -> Iterator[bytes]:
    """Give what one stream unpacks to; `data` is its beginning."""
    while not unpacker.eof:
        if not data and unpacker.needs_input:
            data = next(source, b"")
        content = unpacker.decompress(data, OUTPUT_PIECE)
        if not (content or data or unpacker.eof):
            raise Malformed("it ends before its compressed data does")
        data = b""
        yield content
