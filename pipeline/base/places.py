# SPDX-License-Identifier: GPL-3.0-or-later
"""The folders of Twinbuild itself, and of the farm that this process works for.

In a checkout of Twinbuild the two are the same. Once installed, Twinbuild is a folder in Python's
site-packages with the same layout, and the farm is the repository of a distribution.
"""

import os
from pathlib import Path

from pipeline.base.errors import UsageError

ROOT = 0  # this user is trusted, as it can do anything anyway
# Has pipeline/, hooks/, images/, docs/ and verify.py.
PROGRAM = Path(__file__).resolve().parents[2]
# Has farm.yaml, keys/, runs/; set once, by the command line parser.
farm = PROGRAM


def find_farm() -> Path:
    """Return the nearest folder, from the current one upwards, with a `farm.yaml`; else this one.

    Raise UsageError if it is a parent folder of another user, as a farm's checks are programs that
    are run.
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
