# SPDX-License-Identifier: GPL-3.0-or-later
"""Files and documents on disk: hashes, and atomic writes."""

import errno
import fcntl
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from pipeline.base.disk_room import cannot_write, no_room
from pipeline.base.errors import TwinbuildError
from pipeline.documents.formats import LaterFormat, refuse_later
from pipeline.documents.json_form import json_bytes, parse_json

DOCUMENT_LIMIT = 64 * 1024 * 1024


def sha256_bytes(content: bytes) -> str:
    """Return the SHA-256 of `content` in lower-case hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def open_plain(path: Path, *, follow: bool = False) -> BinaryIO:
    """Open a regular file for reading; raise OSError for anything else.

    A FIFO or device in its place could block or never end. Links are refused unless `follow`.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    file = os.fdopen(os.open(path, flags), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is not a plain file", str(path))
    return file


def read_plain(path: Path, limit: int, *, follow: bool = False) -> bytes:
    """Return the content of a regular file of at most `limit` bytes; raise OSError otherwise.

    Links are refused unless `follow`.
    """
    with open_plain(path, follow=follow) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"it is larger than {limit} bytes", str(path))
    return content


@contextmanager
def new_file(path: Path, *, mode: int = 0o644) -> Iterator[BinaryIO]:
    """Open a file that appears as `path` if the block succeeds; otherwise nothing is left.

    Its content is synced to disk before the rename: a crash leaves the old file or the new one.
    Raise InfrastructureFailed if the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        full = cannot_write(error, path) if isinstance(error, OSError) and no_room(error) else None
        Path(temporary).unlink(missing_ok=True)  # only now: `cannot_write` has to count it
        if full:
            raise full from error
        raise


def write_pieces(file: BinaryIO, pieces: Iterable[bytes]) -> None:
    """Write a file's content; pieces that are all zeros, as in USB images, become holes."""
    for piece in pieces:
        if piece == bytes(len(piece)):
            file.seek(len(piece), os.SEEK_CUR)
        else:
            file.write(piece)
    file.truncate()  # to the current offset, as the file may end in a hole


def put_in_place(temporary: Path, path: Path) -> None:
    """Sync a file that another program wrote to disk, and rename it to its final name."""
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)


def write_bytes(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Write a whole file atomically."""
    with new_file(path, mode=mode) as file:
        file.write(content)


def json_text(document: Mapping[str, Any]) -> str:
    """Return a JSON document for printing, in ASCII, with invisible characters escaped."""
    return json.dumps(document, indent=2, sort_keys=True).replace("\x7f", "\\u007f")


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write a JSON document atomically."""
    write_bytes(path, json_bytes(document))


@contextmanager
def alone(path: Path, busy: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Keep other processes on this machine out of blocks with the same lock, a file or a folder.

    If another one holds it, `busy` is called before this waits; it may raise instead. The kernel
    releases the lock when the process that holds it ends, however it ends.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = os.O_RDONLY if path.is_dir() else os.O_WRONLY | os.O_CREAT
    descriptor = os.open(path, mode | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            busy()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def read_json(
    path: Path, *, failure: type[TwinbuildError], limit: int = DOCUMENT_LIMIT, known: str = ""
) -> Any:
    """Read a JSON document of at most `limit` bytes; raise `failure` if it is not one.

    Also raise it if the document's format is later than `known`, the one of this version.
    """
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
        if len(content) > limit:
            raise failure(f"{path} is larger than {limit} bytes")
        document = parse_json(content)
        if known and isinstance(document, dict):
            refuse_later(document.get("format"), known)
    except OSError as error:
        raise failure(f"cannot read {path}: {error.strerror}") from error
    except LaterFormat as error:
        raise failure(f"cannot read {path}: {error}") from error
    except (ValueError, RecursionError) as error:
        raise failure(f"{path} is not a JSON document: {error}") from error
    return document
