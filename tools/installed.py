# SPDX-License-Identifier: GPL-3.0-or-later
"""Twinbuild as it is installed: the package `twinbuild`, whose folder is laid out as a checkout is.

In a checkout this is `tools/installed.py`, in a wheel `twinbuild/__init__.py`. Only this package
stands in Python's own folder; the rooms inside are found because importing it adds its folder.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from invoke.collection import Collection

    from pipeline.cli.collection import Tasks

if __name__ == "twinbuild":
    # First: a distribution's repository may have a folder `tools`, too.
    sys.path.insert(0, str(Path(__file__).parent))


def farm_tasks(file: str) -> Collection:
    """Return all tasks, for the farm in whose folder `file` is: what its `tasks.py` needs."""
    from pipeline.base import places

    places.farm = Path(file).parent.absolute()
    return all_of_a_farm()


def main() -> int:
    """Do what a command line asks for, for the farm that the current folder is in."""
    from pipeline.base import places
    from pipeline.base.errors import UsageError
    from pipeline.base.plain import print_plain
    from pipeline.cli import program

    try:
        places.farm = places.find_farm()
    except UsageError as error:
        print_plain(f"twinbuild: {error}", error=True)
        return int(error.status)
    return program.main(_tasks(), sys.argv[1:])


def all_of_a_farm() -> Collection:
    """Return the tasks of a farm; those of Twinbuild's developers stay in its checkout."""
    from pipeline.cli.collection import collection

    return collection(_tasks())


def _tasks() -> Tasks:
    from pipeline.cli.collection import all_tasks
    from tools.profile_tasks import profile_boot

    return all_tasks(profile_boot)
