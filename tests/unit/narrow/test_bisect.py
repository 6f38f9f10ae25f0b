# SPDX-License-Identifier: GPL-3.0-or-later
"""What `bisect` asks of a run, and which machines it lets do the step."""

import gzip
import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pipeline.base import dsse
from pipeline.base.display import Display
from pipeline.base.errors import UsageError
from pipeline.base.files import read_json, write_json
from pipeline.documents import statement
from pipeline.documents.verdict import Difference, Verdict
from pipeline.farm.run import Run
from pipeline.farm.workspace import Workspace
from pipeline.machines.plan import make_plan
from pipeline.machines.trial import Trial
from pipeline.narrow import bisect as bisecting
from tests.prepared_run import make_farm, make_run

STEP = "40-hooks/10-zone.hook.chroot"
STARTED = datetime(2026, 11, 22, 18, tzinfo=UTC)


def write_ledger(path: Path, zone: str) -> None:
    """A hook writes one of two files as the time zone says."""
    entry = {"type": "file", "mode": 420, "uid": 0, "gid": 0, "mtime": 9, "size": 1}
    lines = [
        {"step": "20-bootstrap"},
        {"step": "30-includes"},
        {"step": STEP},
        {**entry, "path": "etc/same", "sha256": "1" * 64},
        {**entry, "path": "etc/zone", "sha256": zone * 64},
        {"step": "50-initramfs"},
    ]
    path.write_bytes(gzip.compress("".join(json.dumps(line) + "\n" for line in lines).encode()))


def state(run: Run, workspace: Workspace, name: str) -> None:
    """Write what a build of the environment leaves, as far as it is asked for."""
    plan = make_plan(run, workspace, name)
    entry = plan.choice.entry
    machine = {"cpus": entry.cpus, "memory_mib": entry.memory_mib}
    machine["varied"] = plan.choice.variation.model_dump()  # type: ignore[assignment]
    document = statement.make(
        statement.Statement(
            environment=name,
            run_id=run.id,
            repository="https://example.org/mini.git",
            commit="c" * 40,
            tag=None,
            image="mini",
            compression="fast",
            lock_sha256="0" * 64,
            job=plan.job.document(),
            machine=machine,
            artifacts={},
            byproducts={},
            started=STARTED,
            finished=STARTED,
        )
    )
    key = dsse.load_key(dsse.key_path(name))
    write_json(run.environment(name) / "statement.json", dsse.sign(document, key))
    write_json(run.environment(name) / "job.json", plan.job.document())


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setenv("TWINBUILD_CACHE", str(tmp_path / "cache"))
    for name in ("alpha", "beta"):
        monkeypatch.setenv(f"TWINBUILD_KEY_{name.upper()}", str(tmp_path / f"{name}.pem"))
        dsse.make_key(tmp_path / f"{name}.pem")
    return make_farm(tmp_path / "farm")


@pytest.fixture
def run(workspace: Workspace) -> Run:
    made = make_run(workspace)
    for name, zone in (("alpha", "a"), ("beta", "b")):
        made.environment(name).mkdir()
        state(made, workspace, name)
        write_ledger(made.environment(name) / "ledger.jsonl.gz", zone)
    verdict = Verdict(
        "differ", ("alpha", "beta"), differences=(Difference(STEP, "etc/zone", "content"),)
    )
    write_json(made.verdict_json, verdict.document())
    return made


@pytest.fixture
def trials(run: Run, monkeypatch: pytest.MonkeyPatch) -> list[Trial]:
    """What is tried, by machines that know the time zone and nothing else."""
    tried: list[Trial] = []

    def run_trial(_: Run, __: Workspace, trial: Trial, folder: Path, *___: object) -> Path:
        tried.append(trial)
        zones = {"alpha": "a", "beta": "b"}
        own = zones[trial.environment]
        zone = {"a": "b", "b": "a"}[own] if "time_zone" in trial.factors else own
        folder.mkdir(parents=True)
        write_ledger(folder / "ledger.jsonl.gz", zone)
        return folder / "ledger.jsonl.gz"

    monkeypatch.setattr(bisecting, "run_trial", run_trial)
    return tried


def bisect(workspace: Workspace, run: Run) -> Any:
    return bisecting.bisect(workspace, run, Display(Console(file=io.StringIO())))


def test_the_factor_is_found_and_written(
    workspace: Workspace, run: Run, trials: list[Trial]
) -> None:
    answer = bisect(workspace, run)
    assert answer.factors == ("time_zone",)
    assert "with America/Anchorage (as in beta) etc/zone has content bbbb" in answer.sentence
    document = read_json(run.folder / "bisect.json", failure=UsageError)
    assert document["paths"] == ["etc/zone"]
    first, *others = trials
    assert (first.environment, first.factors) == ("alpha", {})
    assert first.before == ("20-bootstrap", "30-includes")
    assert first.step == STEP
    assert {trial.at for trial in trials} == {STARTED}
    assert all(trial.environment == "alpha" for trial in others)
    assert others[-1].factors["time_zone"] == "America/Anchorage"
    assert "suite" not in others[0].factors


def test_the_other_environment_does_the_step_with_factors_of_the_first(
    workspace: Workspace, run: Run, trials: list[Trial]
) -> None:
    question = bisecting.ask(workspace, run)
    assert list(question.values)[-1] == "suite"
    display = Display(Console(file=io.StringIO()))
    taken = frozenset({"suite", "time_zone"})
    seen = bisecting._build(workspace, run, question, display, iter([7]), taken)
    (trial,) = trials
    assert trial.environment == "beta"
    assert "time_zone" not in trial.factors  # its own
    assert trial.factors["host_name"] == "alpha-host"
    assert seen == question.seen[1]


@pytest.mark.parametrize("verdict", ["match", "failed"])
def test_a_run_without_difference(verdict: str, workspace: Workspace, run: Run) -> None:
    write_json(run.verdict_json, Verdict(verdict, ("alpha", "beta")).document())
    with pytest.raises(UsageError, match=f"nothing to bisect: .* is {verdict}"):
        bisect(workspace, run)


def test_a_run_that_was_not_compared(workspace: Workspace, run: Run) -> None:
    run.verdict_json.unlink()
    with pytest.raises(UsageError, match="has no verdict"):
        bisect(workspace, run)


def test_a_farm_that_has_changed_since(workspace: Workspace, run: Run) -> None:
    path = workspace.hosts / "beta" / "environment.yaml"
    path.write_text(path.read_text().replace("host_name: b\n", "host_name: c\n"))
    with pytest.raises(UsageError, match=r"beta is not what it was in .*: host_name"):
        bisect(workspace, run)


def test_programs_that_have_changed_since(workspace: Workspace, run: Run) -> None:
    path = run.environment("alpha") / "job.json"
    write_json(path, {**read_json(path, failure=UsageError), "guest_sha256": "0" * 64})
    with pytest.raises(UsageError, match=r"alpha is not what it was in .*: the machine's own"):
        bisect(workspace, run)


def test_while_it_is_built_it_is_not_narrowed(
    workspace: Workspace, run: Run, trials: list[Trial]
) -> None:
    with run.held(), pytest.raises(UsageError, match="another process is at work"):
        bisect(workspace, run)
    assert trials == []
