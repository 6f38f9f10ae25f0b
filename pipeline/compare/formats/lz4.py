"""LZ4 blocks, frames and the older frames of the kernel, unpacked by the system's liblz4.

Sources: lz4_Block_format.md 1.6.3 and lz4_Frame_format.md 1.6.4. The checksums (xxHash) are not
looked at: what is damaged differs. docs/decisions/0001-lz4.md tells why it is not a package's.
"""

import ctypes
from functools import cache

from pipeline.compare.formats.source import Malformed, NotRead

LIBRARY = "liblz4.so.1"
FRAME, LEGACY = b"\x04\x22\x4d\x18", b"\x02\x21\x4c\x18"
WINDOW = 64 * 1024  # how far back a block may refer
LEGACY_BLOCK = 8 * 1024 * 1024
RATIO = 255  # no block unpacks to more times its size
# Each block takes its time, however small: so many are read, and further ones if they hold enough.
BLOCKS_FREE, BLOCK_LEAST = 4096, 256
INDEPENDENT, BLOCK_SUMS, SIZE, SUM, DICTIONARY = 0x20, 0x10, 0x08, 0x04, 0x01
STORED = 0x80000000


@cache
def _library() -> ctypes.CDLL:
    """Return liblz4, which apt and systemd need, too; raise NotRead where there is none."""
    try:
        return ctypes.CDLL(LIBRARY)
    except OSError:
        raise NotRead(f"compressed with lz4, and {LIBRARY} is not installed") from None


def unpack(packed: bytes, limit: int, before: bytes = b"") -> bytes:
    """Return what a block unpacks to, `limit` bytes at most; it may refer to what came `before`.

    Raise Malformed if it is damaged or unpacks to more, NotRead without liblz4.
    """
    room = min(limit, RATIO * (len(packed) + 1))
    content = ctypes.create_string_buffer(room)
    size = _library().LZ4_decompress_safe_usingDict(
        packed, content, len(packed), room, before, len(before)
    )
    if size < 0:
        raise Malformed(f"an lz4 block is damaged, or unpacks to over {limit} bytes")
    return bytes(memoryview(content)[:size])


class Block:
    """Unpacks a single block, as SquashFS has them; see `compression.Unpacker`."""

    def __init__(self) -> None:
        _library()
        self.eof = False
        self.needs_input = True
        self.unused_data = b""

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        self.eof = True
        return unpack(data, max_length)


class _Frames:
    """What frames and older frames have alike: blocks that are preceded by their lengths."""

    def __init__(self) -> None:
        _library()
        self.eof = False
        self.needs_input = True
        self.unused_data = b""
        self._data = bytearray()
        self._blocks = self._size = 0

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        """Return what the blocks unpack to that are all there now, whatever `max_length` is."""
        self._data += data
        blocks = []
        while not self.eof and (content := self._next()) is not None:
            blocks.append(content)
            self._blocks += 1
            self._size += len(content)
            if self._blocks > BLOCKS_FREE and self._size < self._blocks * BLOCK_LEAST:
                raise Malformed(f"its lz4 blocks have fewer than {BLOCK_LEAST} bytes on average")
        if not (data or self.eof):
            self._ends()
        if self.eof:
            self.unused_data = bytes(self._data)
        return b"".join(blocks)

    def _next(self) -> bytes | None:
        raise NotImplementedError

    def _ends(self) -> None:
        """Learn that nothing follows."""

    def _take(self, length: int) -> bytes:
        taken = bytes(self._data[:length])
        del self._data[:length]
        return taken


class Frame(_Frames):
    """Unpacks a frame."""

    def __init__(self) -> None:
        super().__init__()
        self._flags: int | None = None
        self._limit = 0
        self._before = b""

    def _next(self) -> bytes | None:
        if self._flags is None and not self._begin():
            return None
        flags = self._flags or 0
        if len(self._data) < 4:
            return None
        word = int.from_bytes(self._data[:4], "little")
        if word == 0:
            self.eof = len(self._data) >= 4 + 4 * bool(flags & SUM)
            self._take(4 + 4 * bool(flags & SUM) if self.eof else 0)
            return b"" if self.eof else None
        length = word & ~STORED
        if length > self._limit:
            raise Malformed(f"an lz4 block has {length} bytes, over {self._limit}")
        whole = 4 + length + 4 * bool(flags & BLOCK_SUMS)
        if len(self._data) < whole:
            return None
        packed = self._take(whole)[4 : 4 + length]
        content = packed if word & STORED else unpack(packed, self._limit, self._before)
        if not flags & INDEPENDENT:
            self._before = (self._before + content)[-WINDOW:]
        return content

    def _begin(self) -> bool:
        """Read the frame's header; return whether it was all there."""
        if len(self._data) < 7:
            return False
        flags, descriptor = self._data[4], self._data[5]
        length = 7 + 8 * bool(flags & SIZE)
        if flags >> 6 != 1 or not descriptor >> 4 & 7 >= 4:
            raise Malformed("an lz4 frame has a version or block size that there is not")
        if flags & DICTIONARY:
            raise NotRead("compressed with lz4 and a dictionary, which is not read here")
        if len(self._data) < length:
            return False
        self._take(length)
        self._flags, self._limit = flags, 1 << 8 + 2 * (descriptor >> 4 & 7)
        return True


class Legacy(_Frames):
    """Unpacks an older frame, as the kernel's initramfs has it: it has no mark of its end."""

    def __init__(self) -> None:
        super().__init__()
        self._begun = False

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
