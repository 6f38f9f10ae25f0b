# SPDX-License-Identifier: GPL-3.0-or-later
"""Real builds in real machines: two that match, two that differ, one that was killed."""

import json
import os
import signal
import subprocess
import time

import pytest

from pipeline import flow
from pipeline.base.errors import BuildFailed, UsageError
from pipeline.farm.run import open_run
from pipeline.farm.workspace import Workspace
from tests.machine.conftest import CHECKOUT, Tiny, display, invoke, left_on_engine, start

pytestmark = [pytest.mark.machine, pytest.mark.timeout(1500)]

WRITES_THE_TIME = "#!/bin/sh\ndate +%s%N >/etc/stamp\n"


def test_a_hook_that_writes_the_time_is_found(workspace: Workspace, tiny: Tiny) -> None:
    commit = tiny.commit({"hooks/normal/10-stamp.hook.chroot": WRITES_THE_TIME})
    done = subprocess.run(
        invoke(workspace, "build", "--image=tiny", f"--source={tiny.folder}", f"--commit={commit}"),
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "40-hooks/10-stamp.hook.chroot" in done.stderr
    assert "etc/stamp" in done.stderr
    run = max(workspace.runs.iterdir())
    verdict = json.loads((run / "verdict.json").read_text())
    assert verdict["verdict"] == "differ"
    first = verdict["differences"][0]
    assert (first["step"], first["path"]) == ("40-hooks/10-stamp.hook.chroot", "etc/stamp")
    assert "content" in first["kind"]
    with pytest.raises(UsageError, match="not one of a tag"):
        flow.release(workspace, open_run(workspace.runs, run.name), display())
    assert not workspace.public.exists()


STAYS_IN_ITS_FOLDER = """#!/bin/sh
set -e
echo note >note
if touch ../written /etc/written || [ -e /dev/vda ]; then exit 9; fi
"""


def test_a_killed_run_goes_on_and_matches(workspace: Workspace, tiny: Tiny) -> None:
    run = start(
        workspace, tiny, tiny.commit({"hooks/normal/10-in.hook.binary": STAYS_IN_ITS_FOLDER})
    )
    argv = invoke(workspace, "build", f"--run={run.id}")
    log = run.environment("alpha") / "progress.jsonl"
    with subprocess.Popen(argv, cwd=CHECKOUT, stdout=subprocess.DEVNULL) as process:
        while not (log.exists() and b"20-bootstrap" in log.read_bytes()):
            assert process.poll() is None
            time.sleep(0.5)
        os.kill(process.pid, signal.SIGKILL)
    assert left_on_engine(run)  # it had no chance to clean up
    done = subprocess.run(argv, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "source: complete, nothing to do" in done.stdout
    assert json.loads(run.verdict_json.read_text())["verdict"] == "match"
    assert not left_on_engine(run)
    again = subprocess.run(argv, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert "alpha: complete, nothing to do" in again.stdout


FAILS_IN_ITS_OWN_WAY = """#!/bin/sh
case $(cat /proc/sys/kernel/hostname) in
b) fallocate -l 100G /big ;;
*) echo the last words; exit 7 ;;
esac
"""


def test_two_builds_that_fail_differently_have_failed(workspace: Workspace, tiny: Tiny) -> None:
    commit = tiny.commit({"hooks/normal/10-bad.hook.chroot": FAILS_IN_ITS_OWN_WAY})
    run = start(workspace, tiny, commit)
    with pytest.raises(BuildFailed, match=r"hook 10-bad\.hook\.chroot failed") as caught:
        flow.build(workspace, run, display())
    assert "the last words" in caught.value.detail
    alpha, beta = (
        json.loads((run.environment(name) / "failure.json").read_text())
        for name in ("alpha", "beta")
    )
    assert (alpha["status"], beta["status"]) == (3, 4)
    assert "scratch disk is full" in beta["what"]
    assert json.loads(run.verdict_json.read_text())["verdict"] == "failed"
    assert not left_on_engine(run)
