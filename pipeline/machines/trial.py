# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs one step of a run again for `bisect`, from the tree before it and with other factors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from pipeline.base.errors import InfrastructureFailed
from pipeline.documents.disks import LEDGER, TIMINGS
from pipeline.documents.machine import Factor
from pipeline.documents.steps import BOOTSTRAP, LAST_KEPT
from pipeline.farm.run import Run
from pipeline.farm.workspace import Workspace
from pipeline.machines import engine, output
from pipeline.machines.attempt import Notify, attempt
from pipeline.machines.host import AskMirrors
from pipeline.machines.plan import Course, make_plan
from pipeline.machines.stage import disk_failures

LIMITS = {LEDGER: output.LIST_LIMIT, TIMINGS: output.MIB}


@dataclass(frozen=True)
class Trial:
    """A trial: `factors` are the values that the environment takes from the other one.

    `before` are all steps before `step`, in order; the clock starts from `at`.
    """

    environment: str
    factors: Mapping[str, Factor]
    before: Sequence[str]
    step: str
    at: datetime


def run_trial(
    run: Run,
    workspace: Workspace,
    trial: Trial,
    folder: Path,
    ask_mirrors: AskMirrors,
    notify: Notify,
) -> Path:
    """Run a step again; return the ledger up to that step. Logs and ledger go to `folder`.

    With the environment's own factors, trees that are not kept yet are made and kept; with other
    factors, raise InfrastructureFailed if the tree before the step is not kept. Raise what a build
    raises.
    """
    plan = make_plan(run, workspace, trial.environment)
    choice = plan.choice.with_factors(trial.factors)
    begin = tuple(s for s in trial.before if BOOTSTRAP <= s <= LAST_KEPT)
    course = Course(begin, keep=not trial.factors, stop=trial.step)
    folder.mkdir(parents=True, exist_ok=True)
    changed = replace(plan, choice=choice, course=course, limits=LIMITS, folder=folder)
    with disk_failures(trial.environment), engine.connect(choice.entry.engine) as client:
        result = attempt(client, changed, workspace, ask_mirrors, notify, at=trial.at)
    if trial.factors and len(result.begun) < len(begin):
        what = f"{trial.environment} has no kept tree from before {trial.step}"
        raise InfrastructureFailed(what, remedy="try again: it is made by the first trial")
    return folder / LEDGER
