# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a program, discards its output, and prints its status, seconds and peak memory in KiB.

`python3 -m tools.measure PROGRAM [ARGUMENT...]`. The memory is that of the program, or of one that
it started and that used more.
"""

import os
import resource
import sys
import time


def main(argv: list[str]) -> None:
    """Run the program and print the line."""
    begin = time.monotonic()
    silent = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    process = os.posix_spawnp(argv[0], argv, os.environ, file_actions=silent)
    _, status = os.waitpid(process, 0)
    seconds = time.monotonic() - begin
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(os.waitstatus_to_exitcode(status), seconds, memory)


if __name__ == "__main__":
    main(sys.argv[1:])
