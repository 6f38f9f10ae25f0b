# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of a release: those that somebody has, and those to be downloaded."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.verify.report import DIFFERS, INFRASTRUCTURE, USAGE, Refused
from pipeline.verify.transfer import FAILURES, RemoteRelease, Trouble, content_length, reason_of

DOWNLOAD_LIMIT = 16 * 1024**3
PIECE = 1024 * 1024
TRIES = 5


class Interrupted(Exception):
    """A download that may be resumed."""


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file of any size."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(PIECE))
    with path.open("rb", buffering=0) as file:
        for length in iter(lambda: file.readinto(buffer) or 0, 0):
            digest.update(buffer[:length])
    return digest.hexdigest()


def check_file(path: Path, manifest: Mapping[str, str]) -> str:
    """Return the name under which the manifest has this file, by its own name and content.

    A file whose own name is not in the manifest, as a browser renames what it downloads twice, is
    known by its content alone.
    """
    try:
        found = sha256(path)
    except OSError as error:
        raise Refused(USAGE, f"cannot read {path}: {error.strerror}") from error
    names = [name for name in manifest if name.rpartition("/")[2] == path.name]
    for name in names or manifest:
        if manifest[name] == found:
            return name
    if not names:
        raise Refused(DIFFERS, f"{path.name} is not in the manifest, nor is its content")
    raise Refused(DIFFERS, f"{path} differs: it has {found}, not {manifest[names[0]]}")


def download(release: RemoteRelease, name: str, digest: str, folder: Path) -> None:
    """Download a file into `folder`; it gets its name once its content is what was signed.

    What an interrupted download has left in `<name>.part` is not downloaded again.
    """
    path = folder / name
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            if sha256(path) != digest:
                raise Refused(DIFFERS, f"{path} is there and differs: move it away")
            return
        resumed = part.exists()
        _download(release, name, part)
        if resumed and sha256(part) != digest:  # the part was of something else: once from scratch
            part.unlink()
            _download(release, name, part)
        if sha256(part) != digest:
            part.unlink()
            raise Refused(DIFFERS, f"{release.address(name)} differs from the manifest")
        part.replace(path)
    except OSError as error:
        raise Refused(INFRASTRUCTURE, f"cannot write {path}: {error.strerror}") from error


def _download(release: RemoteRelease, name: str, part: Path) -> None:
    """Fill `part` from where it ends, and go on after interruptions as long as that helps."""
    problem = ""
    for _ in range(TRIES):
        size = part.stat().st_size if part.exists() else 0
        try:
            if _more(release, name, part, size):
                return
            problem = "the connection was cut off"
        except Trouble as error:
            problem = str(error)
            if error.code == 416 and size:
                part.unlink()
            elif error.absent or 0 < error.code < 500:
                break
        except Interrupted as error:
            problem = str(error)
    raise Refused(INFRASTRUCTURE, f"{release.address(name)}: {problem}; try again to resume")


def _more(release: RemoteRelease, name: str, part: Path, offset: int) -> bool:
    """Add to `part` what a request from `offset` on gives; tell whether that was all."""
    with release.open(name, offset) as response:
        resumed = response.headers.get("Content-Range", "").startswith(f"bytes {offset}-")
        length = content_length(response)
        written = offset if resumed else 0
        end = None if length is None else written + length
        with part.open("ab" if resumed else "wb") as file:
            for piece in _pieces(response):
                written += len(piece)
                if written > DOWNLOAD_LIMIT:
                    raise Refused(DIFFERS, f"{name} is larger than {DOWNLOAD_LIMIT} bytes")
                file.write(piece)
    return end in (None, written)


def _pieces(response: Any) -> Iterator[bytes]:
    while True:
        try:
            piece = response.read(PIECE)
        except FAILURES as error:
            raise Interrupted(reason_of(error)) from error
        if not piece:
            return
        yield piece
