# SPDX-License-Identifier: GPL-3.0-or-later
"""A file on its way from a server, whose size and SHA-256 are known."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from pipeline.kits.install.files import cannot_write

PIECE = 128 * 1024

Advance = Callable[[int], None]  # called with bytes gained; negative when some are thrown away


class WrongBytes(Exception):
    """The bytes are not those that were asked for."""


class Part:
    """A file on its way: counted and hashed as it arrives, continued or begun anew."""

    def __init__(
        self, file: BinaryIO, path: Path, size: int, sha256: str, advance: Advance
    ) -> None:
        self._file, self._path, self._advance = file, path, advance
        self._size, self._sha256 = size, sha256
        self._digest, self.length = hashlib.sha256(), 0
        while piece := file.read(PIECE):
            self._digest.update(piece)
            self.length += len(piece)
        advance(self.length)
        if self.length > size:
            self.restart()

    def append(self, piece: bytes) -> None:
        """Add bytes; raise WrongBytes beyond the size, InfrastructureFailed on a full disk."""
        if self.length + len(piece) > self._size:
            raise WrongBytes(f"more than {self._size} bytes")
        try:
            self._file.write(piece)
        except OSError as error:
            raise cannot_write(error, self._path) from error
        self._digest.update(piece)
        self.length += len(piece)
        self._advance(len(piece))

    def restart(self) -> None:
        """Throw away what has arrived."""
        self._advance(-self.length)
        self._file.seek(0)
        self._file.truncate()
        self._digest, self.length = hashlib.sha256(), 0

    def is_complete(self) -> bool:
        """Tell whether it is the file that is wanted."""
        return self._digest.hexdigest() == self._sha256

    def check(self) -> None:
        """Raise a network error for a file that is cut off, WrongBytes for another one."""
        if self.length < self._size:
            raise ConnectionError(f"ended after {self.length} of {self._size} bytes")
        if not self.is_complete():
            raise WrongBytes(f"is {self._digest.hexdigest()}, not {self._sha256}")
