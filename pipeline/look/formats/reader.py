# SPDX-License-Identifier: GPL-3.0-or-later
"""A source as a file object, for the standard library's readers of archives."""

import io

from pipeline.look.formats.source import BadFormat, ByteSource

# The most that they read of a valid archive without seeking: a name, an extended header with its
# sparse map, a zip's central directory.
AT_ONCE = 4 * 1024 * 1024


class Reader(io.RawIOBase):
    """Reads a source; raises BadFormat if too much is read without seeking."""

    def __init__(self, source: ByteSource) -> None:
        super().__init__()
        self._source = source
        self._at = 0
        self._in_a_row = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._source.size}[whence]
        if base + offset < 0:
            raise BadFormat("it points to before its beginning")
        self._at = base + offset
        self._in_a_row = 0
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self._source.size - self._at)
        wanted = left if size is None or size < 0 else min(size, left)
        self._in_a_row += wanted
        if self._in_a_row > AT_ONCE:
            raise BadFormat(f"a part of it has {self._in_a_row} bytes, over {AT_ONCE}")
        content = self._source.read(self._at, wanted) if wanted else b""
        self._at += wanted
        return content
