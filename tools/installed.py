# SPDX-License-Identifier: GPL-3.0-or-later
"""The installed package `twinbuild`, whose folder has the layout of a checkout.

In a checkout this file is `tools/installed.py`, in a wheel `twinbuild/__init__.py`. It is the only
package in site-packages; those inside are found as importing it adds its folder to the path.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from invoke.collection import Collection

    from pipeline.cli.collection import Tasks

if __name__ == "twinbuild":
    # First, as a distribution's repository may have a folder `tools`, too.
    sys.path.insert(0, str(Path(__file__).parent))


def farm_tasks(file: str) -> Collection:
    """Return all tasks, for a farm's `tasks.py`, whose path is `file`."""
    from pipeline.base import places

    places.farm = Path(file).parent.absolute()
    return all_of_a_farm()


def main() -> int:
    """Run the command line, for the farm that the current folder is in."""
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
    """Return the tasks of a farm, without those for Twinbuild's developers."""
    from pipeline.cli.collection import collection

    return collection(_tasks())


def _tasks() -> Tasks:
    from pipeline.cli.collection import all_tasks
    from tools.profile_tasks import profile_boot

    return all_tasks(profile_boot)
