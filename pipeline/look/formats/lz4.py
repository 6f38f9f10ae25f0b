# SPDX-License-Identifier: GPL-3.0-or-later
"""Decompress LZ4 blocks, frames and the kernel's legacy frames with the system's liblz4.

Sources: lz4_Block_format.md 1.6.3 and lz4_Frame_format.md 1.6.4. A legacy frame has no checksums.
docs/decisions/0001-lz4.md explains why no Python package is used.
"""

import ctypes
import weakref
from collections.abc import Iterator
from functools import cache

from pipeline.look.formats.source import BadFormat, NotRead

LIBRARY = "liblz4.so.1"
FRAME, LEGACY = b"\x04\x22\x4d\x18", b"\x02\x21\x4c\x18"
LEGACY_BLOCK = 8 * 1024 * 1024
RATIO = 255  # the maximum compression ratio of a block
# Each block costs time, however small: beyond this number, blocks need this size on average.
BLOCKS_FREE, BLOCK_LEAST = 4096, 256
INDEPENDENT, BLOCK_SUMS, SIZE, DICTIONARY = 0x20, 0x10, 0x08, 0x01
STORED = 0x80000000
HIGH = 3  # the lowest level that uses the high-compression algorithm
FLAGS_END = 5  # offset after the flags in a frame's header
VERSION = 100  # of liblz4's frame interface (LZ4F_VERSION)
ROOM = 256 * 1024  # size of the output buffer for a frame


@cache
def _library() -> ctypes.CDLL:
    """Return liblz4, which apt and systemd need, too; raise NotRead if it is not installed."""
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError:
        raise NotRead(f"compressed with lz4, and {LIBRARY} is not installed") from None
    size = ctypes.c_size_t
    library.LZ4F_decompress.restype = library.LZ4F_createDecompressionContext.restype = size
    library.LZ4F_isError.argtypes = library.LZ4F_getErrorName.argtypes = [size]
    library.LZ4F_getErrorName.restype = ctypes.c_char_p
    library.LZ4F_freeDecompressionContext.argtypes = [ctypes.c_void_p]
    return library


def unpack(packed: bytes, limit: int) -> bytes:
    """Decompress a block to at most `limit` bytes.

    Raise BadFormat if it is damaged or exceeds the limit, NotRead if liblz4 is not installed.
    """
    room = min(limit, RATIO * (len(packed) + 1))
    content = ctypes.create_string_buffer(room)
    size = _library().LZ4_decompress_safe(packed, content, len(packed), room)
    if size < 0:
        raise BadFormat(f"an lz4 block is damaged, or unpacks to over {limit} bytes")
    return bytes(memoryview(content)[:size])


def pack(content: bytes, level: int) -> bytes:
    """Compress a block as the program lz4 does at a level; levels 1 and 2 are the same."""
    room = len(content) + len(content) // RATIO + 16
    packed = ctypes.create_string_buffer(room)
    if level < HIGH:
        size = _library().LZ4_compress_default(content, packed, len(content), room)
    else:
        size = _library().LZ4_compress_HC(content, packed, len(content), room, level)
    return bytes(memoryview(packed)[:size])


def blocks(packed: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield the start and end of each block of a frame, and the most that it decompresses to.

    The last is 0 for a block that is stored uncompressed. Raise NotRead if blocks depend on earlier
    ones.
    """
    if packed.startswith(LEGACY):
        at, limit, flags = 4, LEGACY_BLOCK, 0
    else:
        flags, limit = packed[4], 1 << 8 + 2 * (packed[5] >> 4 & 7)
        at = 7 + 8 * bool(flags & SIZE)
    found = []
    while at + 4 <= len(packed) and (word := int.from_bytes(packed[at : at + 4], "little")):
        end = at + 4 + (word & ~STORED)
        found.append((at + 4, end, 0 if word & STORED else limit))
        at = end + 4 * bool(flags & BLOCK_SUMS)
    if len(found) > 1 and flags and not flags & INDEPENDENT:
        raise NotRead("packed in blocks that refer to earlier ones")
    yield from found


class Block:
    """Decompresses a single block, as in SquashFS; implements `compression.Unpacker`."""

    def __init__(self) -> None:
        _library()
        self.eof = False
        self.needs_input = True
        self.unused_data = b""

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        self.eof = True
        return unpack(data, max_length)


class Frame:
    """Decompresses a frame and checks its checksums; implements `compression.Unpacker`."""

    def __init__(self) -> None:
        library, context = _library(), ctypes.c_void_p()
        failed = library.LZ4F_createDecompressionContext(ctypes.byref(context), VERSION)
        if library.LZ4F_isError(failed):
            raise BadFormat("there is no memory for an lz4 frame")
        weakref.finalize(self, library.LZ4F_freeDecompressionContext, context)
        self._context = context
        self._room = ctypes.create_string_buffer(ROOM)
        self._begun = self._full = self._ended = False
        self._data = self._coming = b""  # remaining input, and output decompressed in advance

    @property
    def eof(self) -> bool:
        return self._ended and not self._coming

    @property
    def needs_input(self) -> bool:
        return not (self._coming or self._data) or not self._begun

    @property
    def unused_data(self) -> bytes:
        return self._data if self.eof else b""

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        """Return the next output, at most ROOM bytes; `max_length` is ignored."""
        self._data += data
        if not self._begun and len(self._data) < FLAGS_END:
            return b""
        if not self._begun and self._data[4] & DICTIONARY:
            raise NotRead("compressed with lz4 and a dictionary, which is not read here")
        self._begun, content, self._coming = True, self._coming, b""
        while self._data and not (content or self._ended):
            content = self._step()
        if self._full and not self._ended:  # only another step shows whether there is more
            self._coming = self._step()
        return content

    def _step(self) -> bytes:
        library = _library()
        size, read = ctypes.c_size_t(ROOM), ctypes.c_size_t(len(self._data))
        left = library.LZ4F_decompress(
            *(self._context, self._room, ctypes.byref(size)),
            *(self._data, ctypes.byref(read), None),
        )
        if library.LZ4F_isError(left):
            reason = library.LZ4F_getErrorName(left).decode("ascii", "replace")
            raise BadFormat(f"an lz4 frame is damaged: {reason}")
        self._full, self._data = size.value == ROOM, self._data[read.value :]
        self._ended = left == 0
        return bytes(memoryview(self._room)[: size.value])


class Legacy:
    """Decompresses a legacy frame, as used for initramfs; it has no end mark."""

    def __init__(self) -> None:
        _library()
        self.eof = False
        self.needs_input = True
        self.unused_data = b""
        self._data = bytearray()
        self._blocks = self._size = 0
        self._begun = False

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        """Return the content of all blocks that are now complete; `max_length` is ignored."""
        self._data += data
        blocks = []
        while not self.eof and (content := self._next()) is not None:
            blocks.append(content)
            self._blocks += 1
            self._size += len(content)
            if self._blocks > BLOCKS_FREE and self._size < self._blocks * BLOCK_LEAST:
                raise BadFormat(f"its lz4 blocks have fewer than {BLOCK_LEAST} bytes on average")
        if not (data or self.eof):
            self._ends()
        if self.eof:
            self.unused_data = bytes(self._data)
        return b"".join(blocks)

    def _next(self) -> bytes | None:
        if not self._begun and len(self._data) >= 4:
            self._take(4)
            self._begun = True
        if not self._begun or len(self._data) < 4:
            return None
        length = int.from_bytes(self._data[:4], "little")
        if not 0 < length <= LEGACY_BLOCK + LEGACY_BLOCK // 255 + 16:  # something else follows
            self.eof = True
            return b""
        if len(self._data) < 4 + length:
            return None
        return unpack(self._take(4 + length)[4:], LEGACY_BLOCK)

    def _ends(self) -> None:
        self.eof = self._begun and not self._data

    def _take(self, length: int) -> bytes:
        taken = bytes(self._data[:length])
        del self._data[:length]
        return taken
