# SPDX-License-Identifier: GPL-3.0-or-later
"""How builds run beside each other, and how they are stopped; the stages have their own tests."""

import io
import os
import re
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pipeline import flow
from pipeline.base import command
from pipeline.base.display import Display
from pipeline.base.errors import BuildFailed, Differs, InfrastructureFailed, UsageError
from pipeline.base.files import write_json
from pipeline.compare.verdict import Outcome
from pipeline.farm.run import Request, Run
from pipeline.farm.workspace import Workspace
from pipeline.machines.host import Mirrors
from tests.prepared_run import make_farm, make_run


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setenv("TWINBUILD_CACHE", str(tmp_path / 'it\'s a 50% "cache"'))
    for name in ("ALPHA", "BETA"):
        monkeypatch.setenv(f"TWINBUILD_KEY_{name}", str(tmp_path / f"{name}.pem"))
    made = make_farm(tmp_path / "farm")
    nowhere = {
        name: entry.model_copy(update={"engine": "nowhere://here"})
        for name, entry in made.farm.environments.items()
    }
    return replace(made, farm=made.farm.model_copy(update={"environments": nowhere}))


@pytest.fixture
def run(workspace: Workspace) -> Run:
    return make_run(workspace)


@pytest.fixture
def display() -> Display:
    return Display(Console(file=io.StringIO(), width=200))


def shown(display: Display) -> str:
    file: Any = display.console.file
    return str(file.getvalue())


Build = Callable[[str], None]


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> dict[str, Build]:
    """What the builds of the environments do in the place of stage 3."""
    by_name: dict[str, Build] = {}

    def run_build(_: Run, __: Workspace, name: str, *___: object, **____: object) -> None:
        if name in by_name:
            by_name[name](name)

    monkeypatch.setattr(flow, "run_build", run_build)
    return by_name


def build_all(workspace: Workspace, run: Run, display: Display, **more: Any) -> Any:
    return flow.build_all(workspace, run, display, keep=False, **more)


def test_both_run_at_once(
    workspace: Workspace, run: Run, display: Display, builds: dict[str, Build]
) -> None:
    meet = threading.Barrier(2, timeout=20)

    def meets(_: str) -> None:
        meet.wait()

    builds |= {"alpha": meets, "beta": meets}
    assert build_all(workspace, run, display) == []


def test_a_build_that_contradicts_an_earlier_one_is_reported(
    workspace: Workspace,
    run: Run,
    display: Display,
    builds: dict[str, Build],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where the two environments agree."""

    def contradict(name: str) -> None:
        found = [{"step": "40-hooks/x", "before": "a" * 64, "now": "b" * 64}]
        write_json(run.environment(name) / "trees.json", {"two_values": found})

    builds |= {"beta": contradict}
    for stage in ("take_source", "take_inputs", "_say_what_varies", "explain", "write_report"):
        monkeypatch.setattr(flow, stage, lambda *_, **__: None)
    verdict = Outcome("match", ("alpha", "beta"))
    monkeypatch.setattr(flow, "run_compare", lambda *_, **__: verdict)
    with pytest.raises(Differs, match="beta: 40-hooks/x made another tree than before"):
        flow.build(workspace, run, display)
    (run.environment("beta") / "trees.json").unlink()
    builds.clear()
    flow.build(workspace, run, display)


def test_one_that_fails_does_not_stop_the_other(
    workspace: Workspace, run: Run, display: Display, builds: dict[str, Build]
) -> None:
    failed = threading.Event()
    error = BuildFailed("hook x failed")

    def fail(_: str) -> None:
        failed.set()
        raise error

    def end_later(name: str) -> None:
        if failed.wait(20):
            ended.append(name)

    ended: list[str] = []
    builds |= {"alpha": fail, "beta": end_later}
    assert build_all(workspace, run, display) == [error]
    assert ended == ["beta"]


def test_a_bug_is_not_taken_for_a_failure(
    workspace: Workspace, run: Run, display: Display, builds: dict[str, Build]
) -> None:
    def bug(_: str) -> None:
        raise ZeroDivisionError

    builds["beta"] = bug
    with pytest.raises(ZeroDivisionError):
        build_all(workspace, run, display)


def test_one_alone(
    workspace: Workspace, run: Run, display: Display, builds: dict[str, Build], tmp_path: Path
) -> None:
    ran: list[str] = []
    builds |= dict.fromkeys(("alpha", "beta"), ran.append)
    build_all(workspace, run, display, only=("beta",))
    assert ran == ["beta"]
    assert not (tmp_path / "ALPHA.pem").exists()


def test_missing_keys_are_made_and_reported(
    workspace: Workspace, run: Run, display: Display, builds: dict[str, Build], tmp_path: Path
) -> None:
    build_all(workspace, run, display)
    key = (tmp_path / "ALPHA.pem").read_bytes()
    output = shown(display).replace("\n", "")
    assert f"made a key for alpha: {tmp_path}/ALPHA.pem" in output
    assert re.search(r"pin it in farm.yaml: alpha: [0-9a-f]{64}", output)
    build_all(workspace, run, display)
    assert (tmp_path / "ALPHA.pem").read_bytes() == key


def test_an_interrupt_ends_programs_until_the_builds_have_ended(
    workspace: Workspace, run: Run, display: Display, builds: dict[str, Build]
) -> None:
    """A build may start another program after the first was stopped."""
    started = threading.Barrier(2, timeout=20)
    stopped: list[str] = []

    def work(name: str) -> None:
        for number in range(2):
            if number == 0:
                started.wait()
            if name == "alpha" and number == 0:
                os.kill(os.getpid(), signal.SIGINT)
            try:
                command.run(["sleep", "30"], timeout_s=60)
            except InfrastructureFailed:
                stopped.append(name)

    builds |= dict.fromkeys(("alpha", "beta"), work)
    with pytest.raises(KeyboardInterrupt):
        build_all(workspace, run, display)
    assert sorted(stopped) == ["alpha", "alpha", "beta", "beta"]


def test_the_engines_own_failure_does_not_hide_the_interrupt(
    workspace: Workspace,
    run: Run,
    display: Display,
    builds: dict[str, Build],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(flow, "_wait", interrupted)
    with pytest.raises(KeyboardInterrupt):  # though no Engine can be asked to stop anything
        build_all(workspace, run, display)


def test_a_request_for_an_unknown_environment(workspace: Workspace) -> None:
    request = Request(image="mini", commit="HEAD", environments=("alpha", "gamma"))
    with pytest.raises(UsageError, match="no environment 'gamma'"):
        flow.start(workspace, request)
    assert not workspace.runs.exists()


def test_a_run_is_made_for_a_request_that_can_be_met(workspace: Workspace) -> None:
    request = Request(image="mini", commit="HEAD", environments=("beta",))
    assert flow.start(workspace, request).request() == request


def test_the_mirrors_are_what_the_user_says(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in workspace.farm.archives:
        variable = f"TWINBUILD_MIRROR_{name.upper().replace('-', '_')}"
        monkeypatch.setenv(variable, "http://127.0.0.1:1/x/")
    found = flow.mirrors(workspace)
    assert isinstance(found, Mirrors)
    assert set(found.bases.values()) == {("http://127.0.0.1:1/x",)}
