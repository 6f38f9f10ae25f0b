# SPDX-License-Identifier: GPL-3.0-or-later
"""Real machines whose programs were replaced by worse ones: what the outside makes of them."""

import shutil
import textwrap
from pathlib import Path

import pytest

from pipeline import flow
from pipeline.base.errors import InfrastructureFailed
from pipeline.farm.run import Run
from pipeline.farm.workspace import Workspace
from pipeline.machines import machine, plan, stage
from tests.machine.conftest import Tiny, display, left_on_engine, start

pytestmark = [pytest.mark.machine, pytest.mark.timeout(600)]

WORSE = {
    "panics": ("alpha", "Path('/proc/sysrq-trigger').write_text('c')", "panicked"),
    "takes all memory": (
        "beta",
        "hoard = []\nwhile True: hoard.append(b'x' * 2**26)",
        "ran out of memory",
    ),
    "hangs": ("alpha", "os.kill(os.getpid(), signal.SIGSTOP)", "no sign of life for 45 s"),
    "floods": ("beta", "report = Report()\nwhile True: report.log('x' * 1900)", "floods its ports"),
    "sends nonsense": ("alpha", "Report()._port.write(b'{]\\n')", "malformed record"),
    "says it is done and is not": (
        "beta",
        "Report().send('done')",
        "did not hand back artifacts/tiny",
    ),
    "leaves the folder": ("alpha", "hand('../../evil')", "'../../evil', which nobody asked for"),
    "hands back a device": ("beta", "hand('timings.json', tarfile.CHRTYPE)", "no plain file"),
    "hands back too much": (
        "alpha",
        "hand('timings.json', size=2**40)",
        "with 1099511627776 bytes",
    ),
    "says nothing": ("beta", "pass", "ended without a result"),
}
GUEST = """\
import os, signal, tarfile
from pathlib import Path
from pipeline.documents.disks import OUTPUT_DISK
from pipeline.guest.job import disk
from pipeline.guest.serial_port import Report


def hand(name, kind=tarfile.REGTYPE, size=0):
    member = tarfile.TarInfo(name)
    member.type, member.size = kind, size
    with disk(OUTPUT_DISK).open("r+b") as device:
        device.write(member.tobuf(tarfile.GNU_FORMAT))
        os.fsync(device.fileno())
    Report().send("done")


def main():
    os.sync()
"""


@pytest.fixture(scope="module")
def prepared(workspace: Workspace, tiny: Tiny) -> Path:
    """A run folder with source and inputs, to be copied."""
    run = start(workspace, tiny, tiny.commit({}))
    flow.take_source(workspace, run, display())
    flow.take_inputs(workspace, run, display())
    return run.folder


@pytest.mark.parametrize("what", WORSE)
def test_it_is_refused(
    what: str,
    prepared: Path,
    workspace: Workspace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    environment, body, words = WORSE[what]
    pipeline = tmp_path / "pipeline"
    shutil.copytree(plan.PIPELINE, pipeline)
    (pipeline / "guest" / "main.py").write_text(GUEST + textwrap.indent(body, "    ") + "\n")
    monkeypatch.setattr(plan, "PIPELINE", pipeline)
    monkeypatch.setattr(machine, "PORTS_LIMIT", 4 * 2**20)
    run = Run(workspace.runs / f"{prepared.name[:-4]}{list(WORSE).index(what):04x}")
    shutil.copytree(prepared, run.folder)
    with pytest.raises(InfrastructureFailed, match=words):
        stage.run_build(
            run,
            workspace,
            environment,
            lambda: flow.mirrors(workspace),
            notify=lambda _: None,
            silence_s=45,
        )
    assert not list((run.environment(environment)).rglob("evil*"))
    assert not (run.environment(environment) / "statement.json").exists()
    assert not left_on_engine(run)
