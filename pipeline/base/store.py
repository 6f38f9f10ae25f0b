# SPDX-License-Identifier: GPL-3.0-or-later
"""The store: files on disk named by their SHA-256, shared by all runs; nothing enters unverified.

    <store>/sha256/<first two digits>/<digest>
    <store>/partial/<digest>                     the part received by an interrupted transfer

A file appears by one rename after its content has been hashed, so that any number of processes may
use a store at once. Its files are read-only, and are hashed again wherever they are relied on.
"""

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pipeline.base.disk_room import cannot_write
from pipeline.base.errors import InputsUnverified
from pipeline.base.files import new_file
from pipeline.documents.digest import sha256_file


@dataclass(frozen=True)
class Store:
    """A store below the folder `root`, which need not exist yet."""

    root: Path

    def path(self, sha256: str) -> Path:
        """Return where a file with this digest is, or would be."""
        return self.root / "sha256" / sha256[:2] / sha256

    def has(self, sha256: str, size: int | None = None) -> bool:
        """Tell whether the store has a file with this digest (and size in bytes, if given)."""
        try:
            found = self.path(sha256).stat().st_size
        except FileNotFoundError:
            return False
        return size is None or found == size

    def add(self, sha256: str, size: int, pieces: Iterable[bytes]) -> Path:
        """Store the content of `pieces` if it has this digest and size; return its path.

        Otherwise raise InputsUnverified and store nothing; reading stops beyond `size` bytes.
        """
        path = self.path(sha256)
        digest, length = hashlib.sha256(), 0
        with _disk_failures(path), new_file(path, mode=0o444) as file:
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

    def add_bytes(self, content: bytes) -> str:
        """Store `content`; return its digest."""
        sha256 = hashlib.sha256(content).hexdigest()
        if not self.has(sha256, len(content)):
            self.add(sha256, len(content), [content])
        return sha256

    @contextmanager
    def receiving(self, sha256: str) -> Iterator[BinaryIO]:
        """Open the part of a file received so far, for reading and writing; store it once complete.

        If the block succeeds, the content must have this digest: it is hashed again and enters the
        store, or else InputsUnverified is raised and nothing of it is kept. If the block raises,
        the part is kept and continued the next time.
        """
        with _disk_failures(self.root):
            (self.root / "partial").mkdir(parents=True, exist_ok=True)
        with _own_part(self.root / "partial" / sha256) as (file, part):
            try:
                yield file
            except BaseException:
                with suppress(OSError):
                    file.flush()
                if not os.fstat(file.fileno()).st_size:
                    part.unlink()
                raise
            with _disk_failures(part):
                file.flush()
                found = sha256_file(part)
                if found != sha256:
                    part.unlink()
                    raise InputsUnverified(f"a file that should be {sha256} is {found}")
                os.fchmod(file.fileno(), 0o444)
                os.fsync(file.fileno())
                self.path(sha256).parent.mkdir(parents=True, exist_ok=True)
                os.replace(part, self.path(sha256))

    def damaged(self, sha256: str) -> bool:
        """Tell whether a file's content in the store no longer has the digest in its name."""
        return sha256_file(self.path(sha256)) != sha256

    def discard(self, sha256: str) -> None:
        """Remove a file, for instance a damaged one."""
        self.path(sha256).unlink(missing_ok=True)


@contextmanager
def _disk_failures(path: Path) -> Iterator[None]:
    """Turn errors of a full or broken disk into InfrastructureFailed."""
    try:
        yield
    except OSError as error:
        raise cannot_write(error, path) from error


@contextmanager
def _own_part(path: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """Open a part for this thread alone; if another thread or process has it, open a new one."""
    while True:
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b")
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                break
            # Between open and lock another process may have moved the file into the store.
            if _is_open_as(file, path):
                yield file, path
                return
    descriptor, name = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(descriptor, "r+b") as file:
        try:
            yield file, Path(name)
        finally:
            Path(name).unlink(missing_ok=True)


def _is_open_as(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
