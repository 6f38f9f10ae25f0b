# SPDX-License-Identifier: GPL-3.0-or-later
"""Releases by several processes at once: one works, the others wait; nothing is half-done."""

import io
import json
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO

import pytest
from rich.console import Console

from pipeline import flow
from pipeline.base.display import Display
from pipeline.base.errors import TwinbuildError
from pipeline.base.files import alone
from pipeline.farm import policy as policies
from pipeline.farm.config import Farm
from pipeline.farm.policy import Policy
from pipeline.farm.run import Run
from pipeline.farm.tag import VerifiedTag
from pipeline.farm.workspace import Workspace
from tests.releases import COMMIT, SIGNER, MakeRun

pytestmark = [pytest.mark.tools, pytest.mark.usefixtures("caller")]


@pytest.fixture
def workspace(tmp_path: Path, farm: Farm, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A farm whose tags need no repository."""

    @contextmanager
    def judged(
        _farm: object, _checkout: object, name: str, *, source: object
    ) -> Iterator[tuple[VerifiedTag, Policy]]:
        policy = Policy(farm, tmp_path, "here", None)
        yield VerifiedTag(name, "8" * 40, COMMIT, SIGNER), policy

    monkeypatch.setattr(policies, "judged", judged)
    return Workspace(tmp_path, farm)


def release(workspace: Workspace, run: Run) -> str:
    """Release a run; return what was shown."""
    shown = io.StringIO()
    flow.release(workspace, run, Display(Console(file=shown, width=400)))
    return shown.getvalue()


def in_a_process(action: Callable[[], object]) -> tuple[int, BinaryIO]:
    """Start a process that does `action`; return its id and where its words can be read."""
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        outcome = "broke down"
        try:
            os.close(reads)
            outcome = str(action())
        except TwinbuildError as error:
            outcome = f"refused: {error}"
        finally:  # nothing of the child may reach the test runner
            os.write(writes, outcome.encode())
            os._exit(0)
    os.close(writes)
    return child, os.fdopen(reads, "rb")


def end(child: int, words: BinaryIO) -> str:
    with words:
        outcome = words.read().decode()
    os.waitpid(child, 0)
    return outcome


def at_once(actions: Iterable[Callable[[], object]]) -> list[str]:
    """Do all of `actions`, each in a process of its own; return the outcome of each."""
    return [end(*started) for started in [in_a_process(action) for action in actions]]


def test_three_release_one_run(make_run: MakeRun, workspace: Workspace) -> None:
    fake = make_run()
    for _ in range(2):
        outcomes = at_once([lambda: release(workspace, fake.run)] * 3)
        assert sum("3.3 is published" in outcome for outcome in outcomes) <= 1
        assert not [w for w in outcomes if "broke down" in w or "refused" in w]
        assert all("waiting until it has ended" in w or "checking both" in w for w in outcomes)
    assert sorted(path.name for path in workspace.public.iterdir()) == [
        "3.3",
        "index.html",
        "index.json",
        "upgrade.pyz",
        "upgrades",
        "verify.py",
    ]
    assert not list(fake.run.folder.glob(".release-*"))


def test_three_release_three_tags(make_run: MakeRun, workspace: Workspace) -> None:
    fakes = [make_run(tag) for tag in ("3.1", "3.2", "3.3")]
    outcomes = at_once([partial(release, workspace, fake.run) for fake in fakes])
    assert all("is published" in outcome for outcome in outcomes)
    index = json.loads((workspace.public / "index.json").read_bytes())
    assert sorted(entry["tag"] for entry in index["releases"]) == ["3.1", "3.2", "3.3"]


def test_what_a_killed_process_held_is_free_again(
    make_run: MakeRun, workspace: Workspace, tmp_path: Path
) -> None:
    fake = make_run()
    ready, ends = os.pipe()

    def hold() -> None:
        with (
            alone(fake.run.folder / "stages/.release.lock"),
            alone(workspace.public),
            fake.run.held(),
        ):
            os.write(ends, b"x")
            time.sleep(600)

    workspace.public.mkdir()
    child, words = in_a_process(hold)
    assert os.read(ready, 1) == b"x"
    for descriptor in (ready, ends):
        os.close(descriptor)
    waiting, outcome = in_a_process(lambda: release(workspace, fake.run))
    os.kill(child, signal.SIGKILL)
    end(child, words)
    assert "is published" in end(waiting, outcome)
