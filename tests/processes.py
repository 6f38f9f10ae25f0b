# SPDX-License-Identifier: GPL-3.0-or-later
"""Which processes of this machine run: for tests that look whether something was ended."""

import os
import time
from pathlib import Path

OWN = f"{os.getpid()}"  # in the arguments of what a test starts: other tests may run beside it


def all_gone(word: str, *, within_s: float = 10) -> bool:
    """Wait until no process has `word` in its arguments; return whether that happened in time."""
    end = time.monotonic() + within_s
    while _runs(word.encode()):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)  # the kernel ends a namespace's processes after the first one's end
    return True


def _runs(word: bytes) -> bool:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if word in path.read_bytes():
                return True
        except OSError:
            continue
    return False
