# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads the lock of an image from a file, and turns its faults into errors for the user."""

from pathlib import Path

from pipeline.base.errors import InputsUnverified, UsageError, command_line
from pipeline.base.files import read_plain, sha256_bytes
from pipeline.documents import lock
from pipeline.documents.formats import LaterFormat
from pipeline.documents.lock import FILE_LIMIT, Lock
from pipeline.documents.malformed import Malformed


def load(content: bytes, image: str = "NAME") -> Lock:
    """Parse the lock of `image`.

    Raise InputsUnverified if any of it is not in the form that `dump` writes; the error names the
    command that writes a new lock.
    """
    try:
        return lock.load(content)
    except LaterFormat as error:
        raise InputsUnverified(str(error)) from error
    except Malformed as error:
        remedy = f"{command_line(f'lock --image {image}')} writes a new one"
        raise InputsUnverified(str(error), remedy=remedy) from error


def read(path: Path) -> tuple[Lock, str]:
    """Read a lock and its SHA-256; raise UsageError if there is none."""
    try:
        content = read_plain(path, FILE_LIMIT)
    except FileNotFoundError:
        remedy = f"{command_line(f'lock --image {path.parent.name}')}, then commit it"
        raise UsageError(f"there is no lock {path}", remedy=remedy) from None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    return load(content, path.parent.name), sha256_bytes(content)
