# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes a kit with the build machine's own program: `-m tools.make_one_kit PLAN.json`.

Prints its status, its seconds, and the peak memory in KiB of itself and of its largest child.
"""

import resource
import sys
import time
from pathlib import Path

from pipeline.guest.kits import program

if __name__ == "__main__":
    begin = time.monotonic()
    status = program.main(Path(sys.argv[1]))
    used = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    print(status, time.monotonic() - begin, *(resource.getrusage(who).ru_maxrss for who in used))
