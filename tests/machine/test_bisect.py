# SPDX-License-Identifier: GPL-3.0-or-later
"""The factor that decides, found by real machines that begin with the tree before the step."""

import shutil
import subprocess
from pathlib import Path

import pytest

from pipeline import flow
from pipeline.base.errors import Differs, UsageError
from pipeline.base.files import read_json
from pipeline.farm.workspace import Workspace, open_workspace
from tests.machine.conftest import CHECKOUT, Tiny, display, invoke, left_on_engine, start

pytestmark = [pytest.mark.proof, pytest.mark.machine, pytest.mark.timeout(1500)]

WRITES_THE_TIME_ZONE = """#!/bin/sh
printf '%s\\n' "$TZ" >/etc/zone
"""
# Beta has all else as alpha has it, but for its container host: fewer factors, fewer trials.
BETA = {"time_zone: ": "America/Anchorage", "user: ": "barbara", "host_name: ": "b"}


@pytest.fixture
def farm(workspace: Workspace, tmp_path: Path) -> Workspace:
    folder = tmp_path / "farm"
    shutil.copytree(workspace.checkout, folder, ignore=shutil.ignore_patterns("runs", "public"))
    alpha, beta = (folder / "images/hosts" / n / "environment.yaml" for n in ("alpha", "beta"))
    lines = []
    for line in alpha.read_text().splitlines():
        value = next((BETA[key] for key in BETA if line.startswith(key)), None)
        lines.append(f"{line.split(': ')[0]}: {value}" if value else line)
    text = "\n".join(lines).replace("suite: trixie", "suite: bookworm")
    beta.write_text(
        text.replace("cpu_model_tcg: max,-erms,-fsrm", 'cpu_model_tcg: "Nehalem,-cx16"')
    )
    return open_workspace(folder)


def test_the_time_zone_is_found(farm: Workspace, tiny: Tiny) -> None:
    commit = tiny.commit({"hooks/normal/10-zone.hook.chroot": WRITES_THE_TIME_ZONE})
    run = start(farm, tiny, commit)
    with pytest.raises(Differs):
        flow.build(farm, run, display())
    done = subprocess.run(
        invoke(farm, "bisect", f"--run={run.id}"),
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    answer = done.stdout.splitlines()[-1]
    assert answer.startswith("time zone decides: with Pacific/Kiritimati (as in alpha) etc/zone")
    assert "with America/Anchorage (as in beta) etc/zone has" in answer
    document = read_json(run.folder / "bisect.json", failure=UsageError)
    assert document["factors"] == ["time_zone"]
    assert document["step"] == "40-hooks/10-zone.hook.chroot"
    assert document["trials"][0] == {"taken": [], "like": "alpha"}
    assert len(document["trials"]) <= 8
    assert not left_on_engine(run)
    timings = read_json(run.folder / "bisect" / "02-alpha" / "timings.json", failure=UsageError)
    assert max(timings["steps"], key=timings["steps"].get) != "60-clean"  # it stopped before
    assert "60-clean" not in timings["steps"]
