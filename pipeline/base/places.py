# SPDX-License-Identifier: GPL-3.0-or-later
"""Where Twinbuild itself is, and the farm that this process works for.

Both are one folder in a checkout of Twinbuild. Once installed, Twinbuild is a folder in Python's
site-packages with the same layout, and the farm is a distribution's repository.
"""

import os
from pathlib import Path

from pipeline.base.errors import UsageError

ROOT = 0  # this user may be trusted: it can do everything anyway
# Holds pipeline/, hooks/, images/, docs/ and verify.py.
PROGRAM = Path(__file__).resolve().parents[2]
# Holds farm.yaml, keys/, runs/; whoever reads the command line sets it, once.
farm = PROGRAM


def find_farm() -> Path:
    """Return the current folder or the nearest above it that has a `farm.yaml`; else the current.

    Raise UsageError if a folder above is another user's: a farm's checks are programs that run.
    """
    try:
        start = Path.cwd()
    except FileNotFoundError:
        remedy = "cd to the farm's repository"
        raise UsageError("the current folder was removed", remedy=remedy) from None
    for folder in (start, *start.parents):
        file = folder / "farm.yaml"
        if not os.access(file, os.F_OK):
            continue
        if folder != start and not {folder.stat().st_uid, file.stat().st_uid} <= {
            ROOT,
            os.getuid(),
        }:
            remedy = f"if that is the farm you mean, cd {folder}"
            raise UsageError(f"{file} is another user's", remedy=remedy)
        return folder
    return start


def shared(checkout: Path, name: str) -> Path:
    """Return a folder of a farm's repository, or Twinbuild's own if the repository has none."""
    own = checkout / name
    return own if own.is_dir() else PROGRAM / name
