# SPDX-License-Identifier: GPL-3.0-or-later
"""Stage 4 on run folders as the stages before leave them."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.base.errors import ExitStatus, UsageError
from pipeline.base.files import read_json, write_json
from pipeline.compare.verdict import Outcome, run_compare
from pipeline.documents.json_form import json_bytes
from pipeline.farm.run import Request, Run, create

ISO, PACKAGES = "mini-amd64-3.3.iso", "mini-amd64-3.3.packages"
CONTENT = {ISO: b"iso" * 1000, PACKAGES: b"adduser 3.152 all 0\n"}


def write_ledger(run: Run, name: str, *documents: dict[str, Any]) -> None:
    lines = "".join(json.dumps(d, sort_keys=True, separators=(",", ":")) + "\n" for d in documents)
    (run.environment(name) / "ledger.jsonl.gz").write_bytes(gzip.compress(lines.encode(), mtime=0))


def build(run: Run, name: str, artifacts: dict[str, bytes] | None = None) -> Path:
    folder = run.environment(name)
    (folder / "artifacts").mkdir(parents=True)
    for artifact, content in (CONTENT if artifacts is None else artifacts).items():
        (folder / "artifacts" / artifact).write_bytes(content)
    write_json(folder / "job.json", {"format": "twinbuild-job/1"})
    write_json(folder / "statement.json", {})
    stamp = {"path": "etc/stamp", "type": "file", "sha256": f"{len(name):064x}"}
    write_ledger(run, name, {"step": "40-hooks/10-stamp.hook.chroot"}, stamp)
    return folder / "artifacts"


def make_run(tmp_path: Path, *names: str) -> Run:
    return create(tmp_path, Request(image="mini", commit="HEAD", environments=names))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make_run(tmp_path, "alpha", "beta")


def compare(run: Run) -> Outcome:
    messages: list[str] = []
    verdict = run_compare(run, notify=messages.append)
    document = read_json(run.verdict_json, failure=UsageError)
    assert document["format"] == "twinbuild-verdict/1"
    assert document["verdict"] == verdict.verdict
    assert document["reasons"] == list(verdict.reasons)
    error = verdict.error(run.id)
    assert (error.status if error else ExitStatus.DONE) == verdict.status
    assert (error is None) == (verdict.verdict == "match")
    assert json_bytes(document) == run.verdict_json.read_bytes()
    assert all(line.isprintable() for line in messages)
    return verdict


def test_equal_builds_match(run: Run) -> None:
    build(run, "alpha")
    build(run, "beta")
    verdict = compare(run)
    assert (verdict.verdict, verdict.status) == ("match", ExitStatus.DONE)
    assert [a.name for a in verdict.artifacts] == [ISO, PACKAGES]
    assert verdict.artifacts[0].size == 3000
    assert (verdict.reasons, verdict.differences) == ((), ())
    document = read_json(run.verdict_json, failure=UsageError)
    assert sorted(document) == [
        "artifacts",
        "differences",
        "environments",
        "expected",
        "format",
        "only_expected",
        "reasons",
        "verdict",
    ]


def test_one_byte_makes_them_differ(run: Run) -> None:
    build(run, "alpha")
    artifacts = build(run, "beta")
    (artifacts / ISO).write_bytes(b"iso" * 600 + b"X" + b"iso" * 400)
    verdict = compare(run)
    assert (verdict.verdict, verdict.status) == ("differ", ExitStatus.DIFFERS)
    assert verdict.artifacts[0].sha256 is None
    assert verdict.artifacts[1].sha256 is not None
    assert verdict.reasons[0] == (
        "step 40-hooks/10-stamp.hook.chroot: etc/stamp differs in content"
    )
    assert verdict.reasons[1].startswith(f"{ISO} differs from byte 1800 on: alpha 3000 bytes")
    assert [(d.path, d.kind) for d in verdict.differences] == [("etc/stamp", "content")]


def test_a_longer_artifact_differs(run: Run) -> None:
    build(run, "alpha")
    build(run, "beta", {**CONTENT, ISO: CONTENT[ISO] + b"\0"})
    verdict = compare(run)
    assert verdict.verdict == "differ"
    assert verdict.artifacts[0].size is None
    assert any("differs from byte 3000 on" in reason for reason in verdict.reasons)


@pytest.mark.parametrize("more", ["alpha", "beta"])
def test_a_missing_artifact_differs(run: Run, more: str) -> None:
    for name in ("alpha", "beta"):
        build(run, name, CONTENT | ({"extra": b"x"} if name == more else {}))
    verdict = compare(run)
    less = "beta" if more == "alpha" else "alpha"
    assert verdict.verdict == "differ"
    assert f"extra of {more} is missing in {less}" in verdict.reasons
    assert [(a.name, a.sha256) for a in verdict.artifacts if a.sha256 is None] == [("extra", None)]


def test_a_renamed_artifact_differs(run: Run) -> None:
    build(run, "alpha", {"one.iso": b"x", "same": b"y"})
    build(run, "beta", {"two.iso": b"x", "same": b"y"})
    verdict = compare(run)
    assert verdict.verdict == "differ"
    assert "one.iso of alpha and two.iso of beta are the same file, renamed" in verdict.reasons


def test_swapped_artifacts_differ(run: Run) -> None:
    build(run, "alpha", {"a": b"1", "b": b"2"})
    build(run, "beta", {"a": b"2", "b": b"1"})
    assert compare(run).verdict == "differ"


def test_three_environments_must_all_match(tmp_path: Path) -> None:
    run = make_run(tmp_path, "alpha", "beta", "gamma")
    for name in ("alpha", "beta", "gamma"):
        artifacts = build(run, name)
    assert compare(run).verdict == "match"
    (artifacts / PACKAGES).write_bytes(b"other")
    verdict = compare(run)
    assert verdict.verdict == "differ"
    assert any("gamma 5 bytes" in reason for reason in verdict.reasons)


def test_an_unreadable_ledger_does_not_hide_the_difference(run: Run) -> None:
    build(run, "alpha")
    build(run, "beta", {**CONTENT, ISO: b""})
    (run.environment("beta") / "ledger.jsonl.gz").write_bytes(b"\x1b]0;evil\x07")
    verdict = compare(run)
    assert verdict.verdict == "differ"
    assert verdict.reasons[0].startswith("the step is not known: the ledger")
    (run.environment("beta") / "ledger.jsonl.gz").unlink()
    assert compare(run).verdict == "differ"


@pytest.mark.parametrize(
    ("failures", "status"),
    [
        ({"alpha": 3}, 3),
        ({"beta": 4}, 4),
        ({"alpha": 4, "beta": 3}, 3),
        ({"alpha": 5, "beta": 4}, 5),
        ({"alpha": 0}, 4),
        ({"alpha": "3"}, 4),
        ({"alpha": None}, 4),
    ],
)
def test_a_failed_build_makes_no_match(run: Run, failures: dict[str, Any], status: int) -> None:
    for name in ("alpha", "beta"):
        build(run, name)
    for name, written in failures.items():
        failure = {"status": written, "what": "the hook \x1b[2J failed", "detail": "x"}
        write_json(run.environment(name) / "failure.json", failure)
    verdict = compare(run)
    assert (verdict.verdict, verdict.status) == ("failed", status)
    assert verdict.reasons == tuple(f"{n}: the hook \\x1b[2J failed" for n in sorted(failures))


@pytest.mark.parametrize("content", [b"", b"[]", b"not json", b'{"status": 3}'])
def test_a_damaged_failure_is_still_a_failure(run: Run, content: bytes) -> None:
    for name in ("alpha", "beta"):
        build(run, name)
    (run.environment("beta") / "failure.json").write_bytes(content)
    assert compare(run).verdict == "failed"


def test_other_jobs_make_no_match(run: Run) -> None:
    for name in ("alpha", "beta"):
        build(run, name)
    write_json(run.environment("beta") / "job.json", {"format": "twinbuild-job/1", "epoch": 1})
    verdict = compare(run)
    assert (verdict.verdict, verdict.status) == ("failed", ExitStatus.INFRASTRUCTURE)
    (run.environment("beta") / "job.json").unlink()
    assert compare(run).verdict == "failed"


def test_links_and_missing_artifacts_make_no_match(run: Run) -> None:
    build(run, "alpha")
    artifacts = build(run, "beta")
    (artifacts / ISO).unlink()
    (artifacts / ISO).symlink_to(run.environment("alpha") / "artifacts" / ISO)
    verdict = compare(run)
    assert (verdict.verdict, verdict.status) == ("failed", ExitStatus.INFRASTRUCTURE)
    assert "not a plain file" in verdict.reasons[0]


def test_two_builds_of_nothing_do_not_match(run: Run) -> None:
    build(run, "alpha", {})
    build(run, "beta", {})
    verdict = compare(run)
    assert verdict.verdict == "failed"
    assert "there are no artifacts" in verdict.reasons[0]


def test_one_environment_gets_no_verdict(tmp_path: Path) -> None:
    run = make_run(tmp_path, "alpha")
    build(run, "alpha")
    with pytest.raises(UsageError, match="nothing to compare it with"):
        run_compare(run, notify=print)
    assert not run.verdict_json.exists()


def test_an_earlier_verdict_does_not_outlive_its_builds(run: Run) -> None:
    build(run, "alpha")
    artifacts = build(run, "beta")
    assert compare(run).verdict == "match"
    (artifacts.parent / "statement.json").unlink()
    with pytest.raises(UsageError, match="beta has not been built"):
        run_compare(run, notify=print)
    assert not run.verdict_json.exists()


def test_names_from_the_guest_are_made_printable(run: Run) -> None:
    build(run, "alpha", {"x\x1b[2J\n": b"1"})
    build(run, "beta", {"x\x1b[2J\n": b"2"})
    verdict = compare(run)
    assert verdict.artifacts[0].name == "x\\x1b[2J\\n"
    assert all(reason.isprintable() for reason in verdict.reasons)
