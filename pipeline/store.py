"""The store: files on disk named by their SHA-256, shared by all runs; nothing enters it unverified.

    <store>/sha256/<first two digits>/<digest>

A file appears by one rename after its content was hashed, so any number of processes may use a
store at once. Files in it are read-only and are hashed again wherever they are trusted.
"""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import InputsUnverified
from pipeline.files import new_file, sha256_file


def default_cache() -> Path:
    """Return the folder of what can be had again: `TWINBUILD_CACHE`, or the user's cache folder."""
    configured = os.environ.get("TWINBUILD_CACHE")
    if configured:
        return Path(configured).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "twinbuild"


@dataclass(frozen=True)
class Store:
    """A store below the folder `root`, which need not exist yet."""

    root: Path

    def path(self, sha256: str) -> Path:
        """Return where a file with this digest is, or would be."""
        return self.root / "sha256" / sha256[:2] / sha256

    def has(self, sha256: str, size: int) -> bool:
        """Tell whether a file with this digest and size (in bytes) is there."""
        try:
            return self.path(sha256).stat().st_size == size
        except FileNotFoundError:
            return False

    def add(self, sha256: str, size: int, pieces: Iterable[bytes]) -> Path:
        """Keep what `pieces` give if it has this digest and size; return its path.

        Raise InputsUnverified, and keep nothing, if it has not; no more than `size` bytes are read.
        """
        path = self.path(sha256)
        digest, length = hashlib.sha256(), 0
        with new_file(path, mode=0o444) as file:
            for piece in pieces:
                length += len(piece)
                if length > size:
                    break
                digest.update(piece)
                file.write(piece)
            if length != size or digest.hexdigest() != sha256:
                raise InputsUnverified(
                    f"a file that should be {sha256} with {size} bytes is"
                    f" {digest.hexdigest()} with {length} bytes or more"
                )
        return path

    def damaged(self, sha256: str) -> bool:
        """Tell whether the content of a file in the store is no longer that of its name."""
        return sha256_file(self.path(sha256)) != sha256
