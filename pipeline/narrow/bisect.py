# SPDX-License-Identifier: GPL-3.0-or-later
"""`./farm bisect`: finds by trials which factor makes a run differ."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from pipeline import flow
from pipeline.base import dsse
from pipeline.base.display import Display
from pipeline.base.errors import UsageError, command_line
from pipeline.base.files import read_json
from pipeline.documents.disks import LEDGER
from pipeline.documents.machine import Factor
from pipeline.documents.statement import Statement, read_statement
from pipeline.farm.run import Run
from pipeline.farm.run_documents import read_verdict
from pipeline.farm.run_view import mapping
from pipeline.farm.variation import OF_ENTRY, Choice
from pipeline.farm.workspace import Workspace
from pipeline.machines.plan import make_plan
from pipeline.machines.trial import Trial, run_trial
from pipeline.narrow import factors
from pipeline.narrow.factors import HOST, Answer, Question, Seen, Taken

PATHS_LIMIT = 100


def bisect(workspace: Workspace, run: Run, display: Display) -> Answer:
    """Find which factor decides what differs in a run; write `bisect.json` and return the answer.

    Raise UsageError if there is nothing to bisect, or the farm is not the one that built the run.
    """
    with run.held(alone=True):
        question = ask(workspace, run)
        more = f" and {len(question.kinds) - 3} more" if len(question.kinds) > 3 else ""
        paths = ", ".join(list(question.kinds)[:3])
        display.say(f"bisect: {question.step} makes {paths}{more} differ")
        names = ", ".join(name.replace("_", " ") for name in question.values)
        display.say(f"bisect: the environments differ in {names or 'no factor'}")
        build = partial(_build, workspace, run, question, display, iter(range(1, 10_000)))
        answer = factors.narrow(question, build, display.say)
        factors.write(run.folder / "bisect.json", question, answer)
    return answer


def ask(workspace: Workspace, run: Run) -> Question:
    """Return the question for a run: the first step that differs, and the factors."""
    if not run.verdict_json.exists():
        raise UsageError(
            f"run {run.id} has no verdict", remedy=command_line(f"stage.compare --run {run.id}")
        )
    verdict = read_verdict(run)
    if verdict.verdict != "differ" or not verdict.differences:
        what = f"there is nothing to bisect: the verdict of {run.id} is {verdict.verdict}"
        raise UsageError(what, remedy="a step must differ")
    step = verdict.differences[0].step
    kinds: dict[str, tuple[str, ...]] = {}
    for found in verdict.differences:
        if found.step == step and (found.path in kinds or len(kinds) < PATHS_LIMIT):
            kinds[found.path] = (*kinds.get(found.path, ()), found.kind)
    names = run.request().environments
    seen = {name: factors.look(_ledger(run, name), step, kinds) for name in names}
    first = names[0]
    second = next((name for name in names if seen[name] != seen[first]), None)
    if second is None:
        raise UsageError(f"the ledgers of {run.id} do not show what {step} made differently")
    values = _differing(*(_choice(workspace, run, name).factors for name in (first, second)))
    before = factors.steps_before(_ledger(run, first), step)
    sides = (seen[first], seen[second])
    return Question((first, second), step, before, kinds, sides, values)


def _differing(
    ours: Mapping[str, Factor], theirs: Mapping[str, Factor]
) -> dict[str, tuple[Factor, Factor]]:
    """Return the factors that differ, with both values; the container host's is last."""
    names = sorted((name for name in ours if ours[name] != theirs[name]), key=HOST.__eq__)
    return {name: (ours[name], theirs[name]) for name in names}


def _choice(workspace: Workspace, run: Run, environment: str) -> Choice:
    """Return the factors of an environment in a run; raise UsageError if they differ now."""
    plan = make_plan(run, workspace, environment)
    folder = run.environment(environment)
    machine = _stated(run, environment).machine
    then = {**mapping(machine.get("varied")), **{name: machine.get(name) for name in OF_ENTRY}}
    changed = [name for name, value in plan.choice.factors.items() if then.get(name) != value]
    if read_json(folder / "job.json", failure=UsageError) != plan.job.document():
        changed.append("the machine's own programs")
    if changed:
        what = f"{environment} is not what it was in {run.id}: {', '.join(changed)}"
        raise UsageError(what, remedy="build again and bisect that run")
    return plan.choice


def _stated(run: Run, environment: str) -> Statement:
    path = run.environment(environment) / "statement.json"
    payload = dsse.unverified_payload(read_json(path, failure=UsageError))
    try:
        return read_statement(payload)
    except ValueError as error:
        what = f"{path} is malformed: {error}"
        raise UsageError(what, remedy="build again and bisect that run") from error


def _ledger(run: Run, environment: str) -> Path:
    return run.environment(environment) / LEDGER


def _build(
    workspace: Workspace,
    run: Run,
    question: Question,
    display: Display,
    numbers: Iterator[int],
    taken: Taken,
) -> Seen:
    """Run the step in one environment with some factors of the other."""
    here = int(HOST in taken)
    theirs = {name: values[1 - here] for name, values in question.values.items()}
    elsewhere = {n for n in question.values if n != HOST and (n in taken) != bool(here)}
    environment = question.environments[here]
    trial = Trial(
        environment,
        {name: theirs[name] for name in sorted(elsewhere)},
        question.before,
        question.step,
        _stated(run, question.environments[0]).started,
    )
    folder = run.folder / "bisect" / f"{next(numbers):02}-{environment}"
    with display.watch():
        ledger = run_trial(
            run,
            workspace,
            trial,
            folder,
            partial(flow.mirrors, workspace),
            display.tell(environment),
        )
    return factors.look(ledger, question.step, question.kinds)
