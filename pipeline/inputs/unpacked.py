# SPDX-License-Identifier: GPL-3.0-or-later
"""Decompresses untrusted gzip, xz, bzip2 or zstd piece by piece, within limits."""

import bz2
import gzip
import lzma
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, Protocol

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

UNPACKED_LIMIT = 32 * 1024**3
XZ_MEMORY_LIMIT = 256 * 1024**2  # `xz -9` asks for 65 MiB
ZSTD_WINDOW_LOG = 27  # 128 MiB, the most that zstd accepts by default
PIECE = 256 * 1024
ERRORS = (OSError, EOFError, zlib.error, lzma.LZMAError, zstd.ZstdError, MemoryError)


class Unreadable(Exception):
    """The archive is malformed or exceeds a limit."""


class Readable(Protocol):
    """A stream of bytes."""

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes, none at the end."""


class Unpacked:
    """The decompressed bytes of a file, in order, counted against the limit."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self.count = 0  # bytes read so far

    def read(self, size: int) -> bytes:
        """Return the next `size` bytes, in memory; raise Unreadable if there are fewer."""
        return b"".join(self._pieces(size))

    def skip(self, size: int) -> None:
        """Skip `size` bytes; raise Unreadable if there are fewer."""
        for _ in self._pieces(size):
            pass

    def _pieces(self, size: int) -> Iterator[bytes]:
        if self.count + size > UNPACKED_LIMIT:
            raise Unreadable(f"it unpacks to more than {UNPACKED_LIMIT} bytes")
        while size:
            piece = self._stream.read(min(size, PIECE))
            if not piece:
                raise Unreadable("it breaks off")
            self.count += len(piece)
            size -= len(piece)
            yield piece


@contextmanager
def unpacked(packed: BinaryIO, compression: str) -> Iterator[Unpacked]:
    """Decompress "gz", "xz", "bz2" or "zst"; with "" return the bytes as they are.

    Raise Unreadable, also if the block comes to something that cannot be decompressed.
    """
    try:
        yield Unpacked(open_packed(packed, compression))
    except ERRORS as error:
        raise Unreadable(str(error) or "it is damaged") from error


def open_packed(packed: BinaryIO, compression: str) -> Readable:
    """Return a stream of the decompressed bytes, which raises one of ERRORS if it is damaged."""
    match compression:
        case "":
            return packed
        case "gz":
            return gzip.GzipFile(fileobj=packed)
        case "bz2":
            return bz2.BZ2File(packed)
        case "xz":
            return _Xz(packed)
        case "zst":
            options = {int(zstd.DecompressionParameter.window_log_max): ZSTD_WINDOW_LOG}
            return zstd.ZstdFile(packed, options=options)
    raise Unreadable(f"it is packed by {compression[:20]!r}")


class _Xz:
    """Reads xz as `lzma.LZMAFile` does, but with the memory limit that this one lacks."""

    def __init__(self, packed: BinaryIO) -> None:
        self._packed, self._stream = packed, _new_stream()

    def read(self, size: int) -> bytes:
        """Return at most `size` bytes, none at the end."""
        while True:
            if self._stream.eof:
                following = self._after_padding()
                if not following:
                    return b""
                self._stream = _new_stream()
            elif self._stream.needs_input:
                following = self._packed.read(PIECE)
                if not following:
                    raise EOFError("it breaks off")
            else:
                following = b""
            if piece := self._stream.decompress(following, size):
                return piece

    def _after_padding(self) -> bytes:
        """Return the bytes after a stream's padding: the next stream, if any."""
        following = self._stream.unused_data.lstrip(b"\0")
        while not following and (piece := self._packed.read(PIECE)):
            following = piece.lstrip(b"\0")
        return following


def _new_stream() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY_LIMIT)
