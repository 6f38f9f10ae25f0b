# SPDX-License-Identifier: GPL-3.0-or-later
"""`./farm bench build`: times the farm against the same programs by hand, in the same machine."""

from pipeline import flow
from pipeline.base.display import Display
from pipeline.base.errors import InfrastructureFailed
from pipeline.base.files import read_json
from pipeline.documents.disks import TIMINGS
from pipeline.documents.malformed import Malformed
from pipeline.documents.timings import Timings
from pipeline.farm.run import Request, Run
from pipeline.farm.workspace import Workspace


def run_bench(workspace: Workspace, display: Display, *, image: str = "mini") -> list[str]:
    """Build `image` in all environments at once; return a table, as lines."""
    environments = tuple(workspace.farm.environments)
    run = flow.start(workspace, Request(image=image, commit="HEAD", environments=environments))
    flow.take_source(workspace, run, display)
    flow.take_inputs(workspace, run, display)
    for error in flow.build_all(workspace, run, display, measure=True):
        raise error
    flow.compare(run, display)
    return [line for name in environments for line in _table(run, name)]


def _table(run: Run, name: str) -> list[str]:
    """Return one machine's times: by hand, by the farm, and the ratio of the sums."""
    path = run.environment(name) / TIMINGS
    try:
        timings = Timings.of(read_json(path, failure=InfrastructureFailed))
    except Malformed as error:
        raise InfrastructureFailed(f"{path} is malformed: {error}") from error
    by_hand = timings.by_hand
    steps = {step: s for step, s in timings.steps.items() if not step.startswith("by hand")}
    lines = [f"{name}, by hand"]
    lines += [f"  {program:<28} {seconds:8.1f} s" for program, seconds in by_hand.items()]
    lines += [f"{name}, by the farm"]
    lines += [f"  {step:<28} {seconds:8.1f} s" for step, seconds in sorted(steps.items())]
    sums = sum(by_hand.values()), sum(steps.values())
    lines += [f"  of it for the ledger{timings.ledger:18.1f} s, {timings.ledger / sums[1]:.1%}"]
    lines += [f"{name}: {sums[1]:.0f} s / {sums[0]:.0f} s = {sums[1] / sums[0]:.2f}"]
    return lines
