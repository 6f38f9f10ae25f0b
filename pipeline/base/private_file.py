# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads files with secrets, but only if no other user except root can read or replace them.

The opened file is checked, so that it cannot be replaced between the check and the read.
"""

import os
import stat
from pathlib import Path

from pipeline.base.errors import SignatureInvalid

LIMIT = 1024 * 1024


def read(path: Path, what: str, *, limit: int = LIMIT, remedy: str = "") -> bytes:
    """Return the content of a secret file; `what` names it in messages, as "the key of alpha".

    Raise SignatureInvalid if it cannot be read (with `remedy`), is not a regular file, has more
    than `limit` bytes, belongs to another user, or if it or its folder is open to other users.
    """
    path = path.absolute()
    try:
        _refuse_foreign_link(path, what)
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            for folder in {path.parent, path.resolve().parent}:
                check_folder(folder, what)
            _check_opened(os.fstat(descriptor), path, what)
            content = file.read(limit + 1)
    except OSError as error:
        raise SignatureInvalid(
            f"cannot read {what} {path}: {error.strerror}", remedy=remedy
        ) from error
    if len(content) > limit:
        raise SignatureInvalid(f"{what} {path} is larger than {limit} bytes")
    return content


def check_folder(folder: Path, what: str) -> None:
    """Raise SignatureInvalid if another user can add or remove files in a folder."""
    found = folder.stat()
    if _is_foreign(found):
        raise SignatureInvalid(
            f"{folder}, the folder of {what}, belongs to another user",
            remedy=f"move {what} to a folder of your own",
        )
    if found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX:
        raise SignatureInvalid(
            f"others can write into {folder}, the folder of {what}",
            remedy=f"chmod go-w '{folder}'",
        )


def _check_opened(found: os.stat_result, path: Path, what: str) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise SignatureInvalid(f"{what} {path} is not a plain file")
    if _is_foreign(found):
        raise SignatureInvalid(
            f"{what} {path} belongs to another user (uid {found.st_uid})",
            remedy="use a copy of your own with mode 0600",
        )
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o077:
        raise SignatureInvalid(
            f"{what} {path} has mode {mode:04o}, so that others can read or change it",
            remedy=f"chmod 600 '{path}', and if anybody may have read it, make another",
        )


def _refuse_foreign_link(path: Path, what: str) -> None:
    """Raise SignatureInvalid if another user's symbolic link decides what is read."""
    for step in (path, *path.parents):
        found = step.lstat()
        if stat.S_ISLNK(found.st_mode) and _is_foreign(found):
            raise SignatureInvalid(f"{what} {path}: the link {step} belongs to another user")


def _is_foreign(found: os.stat_result) -> bool:
    return found.st_uid not in (0, os.geteuid())
