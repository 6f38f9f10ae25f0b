# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line: `./farm --list` shows the tasks, `./farm TASK --help` explains one.

The tasks are in `pipeline/cli/`, by subject; here are those for developers.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.base import places
from pipeline.base.errors import UsageError
from pipeline.cli.collection import all_tasks, collection
from pipeline.cli.task import bare_task, end_with, farm_task, open_display, open_farm
from tools.profile_tasks import profile_boot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from invoke.collection import Collection
    from invoke.context import Context


@farm_task()
def bench(_c: Context, what: str) -> None:
    """Measure: `bench build`, `bench kit` or `bench locate`.

    build: the farm against the same programs run by hand, in the same machine. kit: making a kit
    against the way Tails makes one. locate: `locate` against cmp and, if installed, diffoscope.
    """
    from tools.bench import run_bench
    from tools.kit_bench import bench_kit
    from tools.locate_bench import bench_locate

    subjects: dict[str, Callable[[], Iterable[str]]] = {
        "build": lambda: run_bench(open_farm(), open_display()),
        "kit": bench_kit,
        "locate": lambda: bench_locate(places.farm),
    }
    if what not in subjects:
        raise UsageError(f"there is no bench of {what!r}", remedy=" or ".join(subjects))
    for line in subjects[what]():
        print(line, flush=True)


@bare_task()
def test(c: Context, level: str = "all", only: str = "") -> None:
    """Run the tests: --level unit, tools, container, all or proof; --only PATH.

    unit needs a minute. tools adds the tests that run other programs, container those that need
    a Docker Engine, all those that build and boot in machines.
    proof is not part of all: it takes an hour and a half. It upgrades a system three times and
    boots it, finds the factor that decides, begins from kept trees, and varies nothing and all.

    Exit status: 0 if all pass, 1 if one fails, 2 for wrong usage.
    """
    levels = ("unit", "tools", "container", "all", "proof")
    if level not in levels:
        raise end_with(2, f"twinbuild: there is no level {level!r}: {', '.join(levels)}")
    result = c.run(f"{sys.executable} -m tests.levels {level} {shlex.quote(only)}", warn=True)
    if result is None or not result.ok:
        raise end_with(1)


@bare_task()
def lint(c: Context) -> None:
    """Check style, types and shell scripts.

    Exit status: 0 if nothing is found, otherwise that of the program that found something.
    """
    python = f"{sys.executable} -m"
    c.run(f"{python} ruff format --check . && {python} ruff check . && {python} mypy")
    shell = "hooks/source/10-nothing-generated hooks/source/20-modes"
    c.run(f"shellcheck farm .ci/run images/builder/make-builder images/builder/init {shell}")


places.farm = Path(__file__).parent.absolute()
TASKS = all_tasks(profile_boot, bench, test, lint)


def __getattr__(name: str) -> Collection:
    """Return `namespace`, which invoke asks for; `./farm` imports invoke only for what needs it."""
    if name == "namespace":
        return collection(TASKS)
    raise AttributeError(name)


if __name__ == "__main__":  # as `./farm` runs it
    from pipeline.cli.program import main

    sys.exit(main(TASKS, sys.argv[1:]))
