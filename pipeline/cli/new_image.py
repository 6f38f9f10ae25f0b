# SPDX-License-Identifier: GPL-3.0-or-later
"""A new image: a copy of the smallest one that boots, under a name of its own."""

import os
import shutil
import tarfile
import tempfile
from pathlib import Path

from pipeline.base import places
from pipeline.base.errors import UsageError
from pipeline.documents.lock import NAME
from pipeline.farm.config import load_image

PATTERN = "mini"


def new_image(images: Path, name: str) -> Path:
    """Make `images/<name>` from the image `mini`, without its lock; return the folder.

    It appears in one step. Raise UsageError for a name that is invalid or taken.
    """
    check_name(name)
    folder = images / name
    if folder.exists():
        raise UsageError(f"there is an image {name} already: {folder}")
    images.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=images) as scratch:
        copy = Path(scratch) / name
        _copy_pattern(images, copy)
        lists = copy / "package-lists"
        (lists / f"{PATTERN}.list.chroot").rename(lists / f"{name}.list.chroot")
        _describe(copy / "image.yaml", name)
        os.rename(copy, folder)  # noqa: PTH104  beside the other one-step writes
    return folder


def check_name(name: str) -> None:
    """Raise UsageError if no image can have this name."""
    if not NAME.fullmatch(name):
        remedy = "a name has small letters, digits and hyphens, 40 at most, a letter first"
        raise UsageError(f"{name!r} cannot be the name of an image", remedy=remedy)


def _copy_pattern(images: Path, copy: Path) -> None:
    """Copy the pattern, without its lock, from beside the new image or from Twinbuild's own."""
    folders = (images, places.PROGRAM / "images" / "live")
    found = next((one / PATTERN for one in folders if (one / PATTERN).is_dir()), None)
    if found:
        ignored = shutil.ignore_patterns("lock")
        shutil.copytree(found, copy, symlinks=True, ignore=ignored)
    else:
        _unpack(places.PROGRAM / "images" / "live" / f"{PATTERN}.tar", copy)


def _unpack(packed: Path, folder: Path) -> None:
    """Unpack what `tools/wheel_backend.py` has packed: files and symbolic links, no folders."""
    with tarfile.open(packed) as archive:
        for member in archive:
            path = folder / member.name
            path.parent.mkdir(parents=True, exist_ok=True)
            content = archive.extractfile(member) if member.isfile() else None
            if content:
                path.write_bytes(content.read())
                path.chmod(member.mode)
            else:
                path.symlink_to(member.linkname)


def _describe(path: Path, name: str) -> None:
    """Give the copy a description and volume id of its own; the rest of the file stays."""
    volume_id = name.upper().replace("-", "_")[:32]
    values = {"description": f"{name}, which began as a copy of {PATTERN}", "volume_id": volume_id}
    lines = path.read_text().splitlines()
    path.write_text("".join(f"{_line(line, values)}\n" for line in lines))
    load_image(path)


def _line(line: str, values: dict[str, str]) -> str:
    key = line.partition(":")[0]
    return f"{key}: {values[key]}" if key in values else line
