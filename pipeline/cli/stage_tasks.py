# SPDX-License-Identifier: GPL-3.0-or-later
"""A task for each stage of the flow: `stage.source` to `stage.release`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.base.errors import ExitStatus
from pipeline.cli.task import farm_task, open_display, open_farm, open_farm_and_run, request

if TYPE_CHECKING:
    from invoke.context import Context


@farm_task(ExitStatus.BUILD_FAILED, ExitStatus.SIGNATURE)
def source(
    _c: Context,
    image: str = "mini",
    commit: str = "HEAD",
    source: str | None = None,
    tag: str = "",
    dotenv: str | None = None,
) -> None:
    """Start a run and export its commit; --dotenv writes RUN_ID for the pipeline's other jobs."""
    from pipeline import flow

    workspace = open_farm()
    asked = {"tag": tag, "compression": "strong", "vary": "all"} if tag else {}
    wanted = request(workspace, image, commit, source=source, **asked)
    run = flow.start(workspace, wanted)
    flow.take_source(workspace, run, open_display(), source=source)
    if tag:
        flow.check_pinned(workspace, tag)
    if dotenv:
        Path(dotenv).write_text(f"RUN_ID={run.id}\n")
    print(run.id)


@farm_task(ExitStatus.INPUTS_UNVERIFIED)
def inputs(_c: Context, run: str) -> None:
    """Bring all packages that a run's lock names into the store, verified."""
    from pipeline import flow

    workspace, chosen = open_farm_and_run(run)
    flow.take_inputs(workspace, chosen, open_display())


@farm_task(ExitStatus.BUILD_FAILED, ExitStatus.INPUTS_UNVERIFIED, ExitStatus.SIGNATURE)
def build(_c: Context, run: str, environment: str | None = None, keep: bool = False) -> None:
    """Build a run's job in one environment, or in all."""
    from pipeline import flow

    workspace, chosen = open_farm_and_run(run)
    only = (environment,) if environment else None
    for error in flow.build_all(workspace, chosen, open_display(), keep=keep, only=only):
        raise error


@farm_task(ExitStatus.DIFFERS, ExitStatus.BUILD_FAILED, ExitStatus.INPUTS_UNVERIFIED)
def compare(_c: Context, run: str) -> None:
    """Compare a run's builds; status 0 only if they match."""
    from pipeline import flow

    flow.compare(open_farm_and_run(run)[1], open_display())


@farm_task(
    ExitStatus.DIFFERS, ExitStatus.BUILD_FAILED, ExitStatus.INPUTS_UNVERIFIED, ExitStatus.SIGNATURE
)
def release(_c: Context, run: str, source: str | None = None) -> None:
    """Sign and publish a run whose builds match; its tag is verified again.

    --source is the address of the tag's repository where it needs a password, which no run keeps.
    """
    from pipeline import flow

    workspace, chosen = open_farm_and_run(run)
    print(f"published: {flow.release(workspace, chosen, open_display(), source=source).folder}")
