# SPDX-License-Identifier: GPL-3.0-or-later
"""Tasks that show runs and this machine, and find what differs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.base import places
from pipeline.base.errors import ExitStatus
from pipeline.cli.task import end_with, farm_task, open_display, open_farm, open_farm_and_run

if TYPE_CHECKING:
    from invoke.context import Context


@farm_task()
def runs(_c: Context) -> None:
    """List the runs, the newest first."""
    from pipeline.cli import overview
    from pipeline.farm.run import list_runs

    print("\n".join(overview.list_lines(list_runs(open_farm().runs))) or "there are no runs yet")


@farm_task()
def show(_c: Context, run: str) -> None:
    """Show a run: its stages, verdict, files and logs."""
    from pipeline.cli import overview

    print("\n".join(overview.describe(open_farm_and_run(run)[1])))


@farm_task()
def clean(_c: Context, keep: int = 3, all: bool = False) -> None:
    """Remove old runs; --keep says how many stay. --all: also what is kept on the Engines."""
    from pipeline import flow
    from pipeline.cli import overview
    from pipeline.farm.run import list_runs

    workspace = open_farm()
    freed = overview.clean(list_runs(workspace.runs), keep=0 if all else keep)
    removed = flow.clean_engines(workspace) if all else []
    print("\n".join([*(f"removed {name}" for name in removed), f"{freed / 2**20:.0f} MiB freed"]))


@farm_task(ExitStatus.INPUTS_UNVERIFIED, ExitStatus.SIGNATURE)
def doctor(_c: Context) -> None:
    """Show what this machine has and lacks: a line each, OK, or what to do about it."""
    from pipeline.cli.doctor import examine, exit_status

    findings = []
    for finding in examine(places.farm):
        print(finding, flush=True)
        findings.append(finding)
    status = exit_status(findings)
    if status is not ExitStatus.DONE:
        raise end_with(int(status))


@farm_task(ExitStatus.DIFFERS)
def locate(_c: Context, first: str, second: str, json: bool = False) -> None:
    """Show where two files differ: images, kits, packages, anything; status 0 only if they do not.

    ISO, disk, FAT and SquashFS images and archives are opened. --json prints one JSON object.
    """
    from pipeline.base.files import json_text
    from pipeline.look.locate import locate_files

    compared = locate_files(Path(first), Path(second))
    print("\n".join(compared.lines()) if not json else json_text(compared.document()))
    if not compared.equal:
        raise end_with(int(ExitStatus.DIFFERS))


@farm_task(
    ExitStatus.DIFFERS, ExitStatus.BUILD_FAILED, ExitStatus.INPUTS_UNVERIFIED, ExitStatus.SIGNATURE
)
def bisect(_c: Context, run: str) -> None:
    """Find the factor behind a difference, by running the step again with fewer and fewer factors.

    Status 0 if factors are named, 1 if an environment gives another result each time.
    """
    from pipeline.narrow.bisect import bisect as search

    answer = search(*open_farm_and_run(run), open_display())
    error = answer.error()
    if error:
        raise error
    print(answer.sentence)
