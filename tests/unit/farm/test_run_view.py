# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run folder holds: documents that are there, missing or unreadable, and their fields."""

from pathlib import Path

import pytest

from pipeline.base import dsse
from pipeline.base.files import write_json
from pipeline.farm.run import Request, Run, create
from pipeline.farm.run_view import InputsView, RunView, TimedStep, read_end


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return create(tmp_path, Request(image="mini", commit="HEAD", environments=("alpha", "beta")))


def test_what_is_not_there_is_missing(run: Run) -> None:
    seen = RunView(run)
    alpha = seen.environments["alpha"]
    missing = (seen.source, seen.inputs, seen.verdict, seen.explanation, alpha.failure)
    for document in (*missing, alpha.statement):
        assert (document.content, document.fault, document.exists) == (None, "", False)
    assert (alpha.state, alpha.steps, seen.seconds("source")) == ("not built", (), None)
    assert not seen.released


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff", b'{"a": 1, "a": 2}'])
def test_what_cannot_be_read_is_there_and_has_a_reason(run: Run, content: bytes) -> None:
    run.environment("alpha").mkdir()
    own = [run.environment("alpha") / name for name in ("failure.json", "statement.json")]
    for path in (run.source_json, run.inputs_json, run.verdict_json, *own):
        path.write_bytes(content)
    seen = RunView(run)
    alpha = seen.environments["alpha"]
    for document in (seen.source, seen.inputs, seen.verdict, alpha.failure, alpha.statement):
        assert document.exists
        assert document.content is None
        assert ".json" in document.fault
    assert alpha.state == "failed"


def test_a_request_that_cannot_be_read_has_no_environments(run: Run) -> None:
    (run.folder / "run.json").write_text("{}")
    seen = RunView(run)
    assert "run.json" in seen.request.fault
    assert seen.environments == {}


def test_malformed_fields_are_none(run: Run) -> None:
    write_json(run.source_json, {"commit": [], "version": None, "epoch": -1, "tag": "3.3"})
    write_json(run.inputs_json, {"packages": [5, {"size": "x"}, {"size": 7}], "lock_sha256": {}})
    artifacts = [{"name": "mini.iso", "size": 2**64, "sha256": 5}, "x"]
    write_json(run.verdict_json, {"verdict": [], "reasons": [{}, "a"], "artifacts": artifacts})
    seen = RunView(run)
    source, verdict = seen.source.content, seen.verdict.content
    assert source
    assert (source.commit, source.version, source.epoch) == (None, None, None)
    assert not source.tagged
    assert seen.inputs.content == InputsView(packages=3, size=7, lock_sha256=None)
    assert verdict
    assert (verdict.verdict, verdict.reasons) == (None, ("a",))
    assert [(a.name, a.size, a.sha256) for a in verdict.artifacts] == [
        ("mini.iso", None, None),
        (None, None, None),
    ]


def test_a_malformed_explanation_is_unreadable(run: Run) -> None:
    write_json(run.folder / "explanation.json", {"format": "twinbuild-explanation/1"})
    explanation = RunView(run).explanation
    assert explanation.content is None
    assert "explanation.json: environments is missing" in explanation.fault


def test_a_document_is_read_once(run: Run) -> None:
    seen = RunView(run)
    write_json(run.source_json, {"version": "3.3"})
    first = seen.source
    write_json(run.source_json, {"version": "3.4"})
    assert seen.source is first
    assert first.content
    assert first.content.version == "3.3"


def test_a_statement_is_shown_whoever_signed_it(run: Run, tmp_path: Path) -> None:
    dsse.make_key(tmp_path / "key.pem")
    machine = {"cpus": 2}
    predicate = {
        "buildDefinition": {"internalParameters": {"machine": machine}},
        "runDetails": {"metadata": {"startedOn": "2026-11-22T18:00:00Z"}},
    }
    envelope = dsse.sign(
        {"predicate": predicate, "subject": []}, dsse.load_key(tmp_path / "key.pem")
    )
    write_json(run.environment("alpha") / "statement.json", envelope)
    alpha = RunView(run).environments["alpha"]
    statement = alpha.statement.content
    assert alpha.state == "built"
    assert statement
    assert (statement.machine, statement.started) == (machine, "2026-11-22T18:00:00Z")
    assert statement.finished is None


def test_steps_are_as_timed_or_as_far_as_progress_shows(run: Run) -> None:
    folder = run.environment("alpha")
    folder.mkdir()
    (folder / "progress.jsonl").write_text(
        '{"record": "step", "step": "20-bootstrap"}\n'
        '{"record": "step-done", "step": "20-bootstrap", "seconds": 12.5}\n'
        '{"record": "step", "step": "40-hooks"}\n{"record": "st'
    )
    shown = RunView(run).environments["alpha"].steps
    assert shown == (TimedStep("20-bootstrap", 12.5), TimedStep("40-hooks", None))
    write_json(folder / "timings.json", {"steps": {"a": 1.23456, "b": -1, "c": "x"}})
    timed = RunView(run).environments["alpha"].steps
    assert timed == (TimedStep("a", 1.235), TimedStep("b", None), TimedStep("c", None))


def test_the_end_of_a_file_is_read_and_no_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"0123456789")
    (tmp_path / "link").symlink_to(tmp_path / "log")
    assert read_end(tmp_path / "log", 4) == b"6789"
    assert read_end(tmp_path / "link", 4) == read_end(tmp_path / "none", 4) == b""
