# SPDX-License-Identifier: GPL-3.0-or-later
"""Real machines that begin with a kept tree: faster, and with the same result."""

import gzip
import json

import pytest

from pipeline import flow
from pipeline.farm.run import Run
from pipeline.farm.workspace import Workspace
from pipeline.machines import engine
from pipeline.machines.trees import KeptTrees
from tests.machine.conftest import Tiny, display, start

pytestmark = [pytest.mark.proof, pytest.mark.machine, pytest.mark.timeout(1500)]

LOOKS_AT_TIMES = """#!/bin/sh
cd /
find etc usr var -xdev -newer etc/hostname | sort >/etc/newer
stat -c '%n %s %f' etc/* >/etc/looked
touch etc/made
[ etc/made -nt etc/hostname ] && echo newer >>/etc/looked
exit 0
"""


def build(workspace: Workspace, tiny: Tiny, commit: str, *, fresh: bool = False) -> Run:
    run = start(workspace, tiny, commit, "alpha")
    flow.build(workspace, run, display(), fresh=fresh)
    return run


def begun(run: Run) -> list[str]:
    document = json.loads((run.environment("alpha") / "trees.json").read_text())
    assert document["two_values"] == []
    return [layer["step"] for layer in document["begun"]]


def seconds(run: Run) -> float:
    timings = json.loads((run.environment("alpha") / "timings.json").read_text())
    return float(sum(timings["steps"].values()))


def test_a_build_begins_with_a_kept_tree_and_makes_the_same(
    workspace: Workspace, tiny: Tiny
) -> None:
    first = build(workspace, tiny, tiny.commit({}))
    commit = tiny.commit({"hooks/normal/10-look.hook.chroot": LOOKS_AT_TIMES})
    second = build(workspace, tiny, commit)
    assert begun(second) == ["20-bootstrap"]
    assert seconds(second) < seconds(first)
    third = build(workspace, tiny, commit, fresh=True)
    assert begun(third) == []
    ledgers = [
        gzip.decompress((run.environment("alpha") / "ledger.jsonl.gz").read_bytes())
        for run in (second, third)
    ]
    assert ledgers[0] == ledgers[1]
    artifacts = [
        {p.name: p.read_bytes() for p in (run.environment("alpha") / "artifacts").iterdir()}
        for run in (second, third)
    ]
    assert artifacts[0] == artifacts[1]


@pytest.fixture(autouse=True)
def _nothing_kept_before() -> None:
    """Trees of earlier tests have other keys, unless this test ran before."""
    with engine.connect(None) as client:
        engine.remove_volume(client, KeptTrees(client, "alpha", "", "", None).volume)  # type: ignore[arg-type]
