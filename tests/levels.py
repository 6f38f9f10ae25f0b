# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the tests of a level: `python -m tests.levels LEVEL [PATH]`.

Tests that need no Engine run in parallel, the others one after the other: they share it and the
machine's memory. Ends with status 0 if all passed and, for all tests, every test function had an
outcome.
"""

import os
import subprocess
import sys
from pathlib import Path

from pipeline.base.errors import STARTED_AS
from tests import outcomes

ROOT = Path(__file__).parents[1]
REPORTS = Path(".cache/tests")
UNIT = "not tools and not container and not machine"
ALONE = "not container and not machine"  # with and without other people's tools
IN_PARALLEL = (UNIT, ALONE)
LEVELS = {
    "unit": [UNIT],
    "tools": [ALONE],
    "container": [ALONE, "container and not machine"],
    "all": [ALONE, "(container or machine) and not proof"],
    "proof": ["proof"],
}
MOST_WORKERS = 4  # each has tools at work beside it
NO_TESTS = 5  # pytest's status when it found none


def run(level: str, only: str) -> bool:
    """Run a level's tests, or those below the path `only`; return whether all is well."""
    reports = [REPORTS / f"{level}-{number}.xml" for number in range(len(LEVELS[level]))]
    statuses = [_pytest(marks, r, only) for marks, r in zip(LEVELS[level], reports, strict=True)]
    passed = set(statuses) <= {0, NO_TESTS} if only else set(statuses) == {0}
    if level != "all" or only:
        return passed and 0 in statuses
    without = outcomes.missing(ROOT, reports)
    for test in without:
        print(f"no outcome: {test}")
    return passed and not without


def _pytest(marks: str, report: Path, only: str) -> int:
    workers = min(MOST_WORKERS, len(os.sched_getaffinity(0)) + 1)  # one waits for disk or peer
    at_once = [f"-n{workers}", "--dist=worksteal"] if marks in IN_PARALLEL else []
    argv = [sys.executable, "-m", "pytest", *at_once, "-m", marks, f"--junitxml={report}"]
    with subprocess.Popen([*argv, *filter(None, [only])], cwd=ROOT, env=_environment()) as child:
        while True:
            try:
                return child.wait()
            except KeyboardInterrupt:
                continue  # it has the signal too, and stops its machines before it ends


def _environment() -> dict[str, str]:
    """Return this process's environment without what would bend or slow the tests.

    They expect what is typed in the checkout, whatever these were started as, and start hundreds of
    Pythons, each of which would compile all that it imports if none might keep its bytecode.
    """
    unwanted = (STARTED_AS, "PYTHONDONTWRITEBYTECODE")
    return {name: value for name, value in os.environ.items() if name not in unwanted}


if __name__ == "__main__":
    sys.exit(0 if run(sys.argv[1], "".join(sys.argv[2:3])) else 1)
