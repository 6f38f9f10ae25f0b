# SPDX-License-Identifier: GPL-3.0-or-later
"""Files on disk: hashes, and writes that are whole or not there at all."""

import os
import tempfile
from pathlib import Path

from pipeline.kits.install.failure import InfrastructureFailed


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file atomically: a crash leaves the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def put_in_place(temporary: Path, path: Path) -> None:
    """Give a whole file its name, once its content is on the disk."""
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)


def cannot_write(error: OSError, path: Path) -> InfrastructureFailed:
    """Return the error of a failed write to a path."""
    return InfrastructureFailed(
        f"cannot write {path}: {error.strerror or error}", remedy="look at that disk and its limits"
    )
