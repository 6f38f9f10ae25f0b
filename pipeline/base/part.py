# SPDX-License-Identifier: GPL-3.0-or-later
"""A download in progress: counted and hashed as it arrives, continued, or restarted."""

import hashlib
from collections.abc import Callable
from typing import BinaryIO

from pipeline.base.disk_room import cannot_write

PIECE = 128 * 1024

Advance = Callable[[int], None]  # called with bytes received; negative when some are discarded


class WrongBytes(Exception):
    """The received bytes are not the expected ones."""


class Part:
    """A download in progress: what has been received so far, hashed as it arrives."""

    def __init__(
        self, file: BinaryIO, size: int | None, sha256: str, limit: int, advance: Advance
    ) -> None:
        self._file, self._size, self._sha256 = file, size, sha256
        self._limit, self._advance = limit, advance
        self._digest, self.length = hashlib.sha256(), 0
        file.seek(0)
        while piece := file.read(PIECE):
            self._digest.update(piece)
            self.length += len(piece)
        advance(self.length)
        if self.length > limit:
            self.restart()

    def append(self, url: str, piece: bytes) -> None:
        """Add bytes; raise WrongBytes beyond the limit, InfrastructureFailed on a full disk."""
        if self.length + len(piece) > self._limit:
            raise WrongBytes(f"{url}: more than {self._limit} bytes")
        try:
            self._file.write(piece)
        except OSError as error:
            raise cannot_write(error, self._file) from error
        self._digest.update(piece)
        self.length += len(piece)
        self._advance(len(piece))

    def restart(self) -> None:
        """Discard what has been received."""
        self._advance(-self.length)
        self._file.seek(0)
        self._file.truncate()
        self._digest, self.length = hashlib.sha256(), 0

    def is_short(self) -> bool:
        """Tell whether it has fewer bytes than expected."""
        return self._size is not None and self.length < self._size

    def complete(self) -> bool:
        """Tell whether it is the expected file."""
        return self._digest.hexdigest() == self._sha256

    def check(self, url: str) -> None:
        """Raise WrongBytes if the complete download from `url` is another file."""
        if not self.complete():
            got = f"{self._digest.hexdigest()} with {self.length} bytes"
            raise WrongBytes(f"{url}: is {got}, not {self._sha256}")
