# SPDX-License-Identifier: GPL-3.0-or-later
"""Unpacks untrusted gzip, xz, bzip2 or zstd piece by piece, within limits."""

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
ZSTD_WINDOW_LOG = 27  # 128 MiB, what zstd takes without being asked for more
PIECE = 256 * 1024
ERRORS = (OSError, EOFError, zlib.error, lzma.LZMAError, zstd.ZstdError, MemoryError)


class Unreadable(Exception):
    """It is no such archive, or one that goes beyond the limits."""


class Readable(Protocol):
    """What is read some bytes at a time."""

    def read(self, size: int, /) -> bytes:
        """Return at most so many bytes, none at the end."""


class Unpacked:
    """The bytes of a packed file, in order, counted against the limit."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self.count = 0  # of bytes that were read

    def read(self, size: int) -> bytes:
        """Return so many bytes, of which there are few; raise Unreadable if they are not there."""
        return b"".join(self._pieces(size))

    def skip(self, size: int) -> None:
        """Pass over so many bytes; raise Unreadable if they are not there."""
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
    """Unpack what is packed by "gz", "xz", "bz2", "zst" or, with "", not at all.

    Raise Unreadable, also for what the block meets that cannot be unpacked.
    """
    try:
        yield Unpacked(open_packed(packed, compression))
    except ERRORS as error:
        raise Unreadable(str(error) or "it is damaged") from error


def open_packed(packed: BinaryIO, compression: str) -> Readable:
    """Return what reads some bytes at a time, none at the end; it raises one of ERRORS."""
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
    """Reads xz as `lzma.LZMAFile` does, which has no limit to the memory that a stream asks for."""

    def __init__(self, packed: BinaryIO) -> None:
        self._packed, self._stream = packed, _new_stream()

    def read(self, size: int) -> bytes:
        """Return some bytes, none at the end."""
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
        """Return what follows a stream: the next one, if any."""
        following = self._stream.unused_data.lstrip(b"\0")
        while not following and (piece := self._packed.read(PIECE)):
            following = piece.lstrip(b"\0")
        return following


def _new_stream() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY_LIMIT)
