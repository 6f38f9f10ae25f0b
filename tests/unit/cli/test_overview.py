# SPDX-License-Identifier: GPL-3.0-or-later
"""What people are shown of runs, and which runs go."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline.base.files import write_json
from pipeline.cli.overview import clean, describe, list_lines
from pipeline.farm.run import Request, Run, list_runs

NOW = datetime(2026, 11, 22, 18, 0, tzinfo=UTC)


def make_run(folder: Path, age: timedelta = timedelta(hours=3), **asked: object) -> Run:
    name = f"{NOW - age:%Y%m%dT%H%M%SZ}-mini-{len(list(folder.glob('*'))):04x}"
    fields = {"image": "mini", "commit": "main", "environments": ("alpha", "beta"), **asked}
    (folder / name).mkdir(parents=True)
    write_json(folder / name / "run.json", Request.of(fields).model_dump())
    return Run(folder / name)


def build(run: Run, name: str, content: bytes = b"x" * 2**20) -> None:
    artifacts = run.environment(name) / "artifacts"
    artifacts.mkdir(parents=True)
    (artifacts / "mini.iso").write_bytes(content)
    write_json(run.environment(name) / "statement.json", {})


def test_no_runs_are_no_lines() -> None:
    assert list_lines([]) == []


def test_each_state_is_shown(tmp_path: Path) -> None:
    run = make_run(tmp_path)

    def line() -> str:
        return list_lines([run], now=NOW)[0]

    assert line() == f"{run.id}  main  started  1 KiB  3 hours ago"
    write_json(run.source_json, {})
    assert "source complete" in line()
    write_json(run.inputs_json, {})
    assert "inputs complete" in line()
    build(run, "alpha")
    assert "alpha built, beta not built" in line()
    write_json(run.environment("beta") / "failure.json", {"status": 3, "what": "a hook"})
    assert "alpha built, beta failed  1.0 MiB" in line()
    write_json(run.verdict_json, {"verdict": "differ"})
    assert "differ" in line()
    run.release.mkdir()
    (run.release / "SHA256SUMS.asc").touch()
    assert "released" in line()


def test_columns_stand_below_each_other(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path),
        make_run(tmp_path, commit="feature/long-name"),
        make_run(tmp_path, tag="3.3", vary="all"),
    ]
    lines = list_lines(runs, now=NOW)
    assert len({line.index("started") for line in lines}) == 1
    assert "3.3 (release)" in lines[2]


def test_a_run_is_described(tmp_path: Path) -> None:
    run = make_run(tmp_path, source="https://example.org/x.git")
    source = {
        "version": "3.3",
        "commit": "c0ffee" * 6 + "cafe",
        "repository": "https://example.org/x.git",
        "epoch": 1766400000,
        "dirty": True,
        "tag": {"name": "3.3", "signer": "A" * 40},
    }
    write_json(run.source_json, source)
    packages = [{"name": "adduser", "size": 2**20}, {"name": "apt", "size": 2**19}]
    write_json(run.inputs_json, {"packages": packages, "lock_sha256": "ab" * 32})
    build(run, "alpha")
    build(run, "beta")
    reasons = ["step 40: etc/stamp differs in content"]
    write_json(run.verdict_json, {"verdict": "differ", "reasons": reasons, "differences": [{}, {}]})
    text = "\n".join(describe(run, now=NOW))
    for part in (
        "mini, main of https://example.org/x.git, fast, in alpha and beta",
        "source     3.3, commit c0ffeec0ffee of https://example.org/x.git",
        "committed 2025-12-22 10:40 UTC",
        "the working tree had changes",
        "tag signed by AAAA",
        "inputs     2 packages, 1.5 MiB, lock abababababab",
        "alpha      built",
        f"1.0 MiB  {run.folder}/beta/artifacts/mini.iso",
        "verdict    differ",
        "           step 40: etc/stamp differs in content",
        "2 differences are in",
        "release    not made",
        f"folder     {run.folder}, 2.0 MiB",
    ):
        assert part in text


def test_a_failed_build_is_shown_with_the_end_of_its_log(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    folder = run.environment("alpha")
    folder.mkdir()
    write_json(folder / "failure.json", {"status": 3, "what": "the hook 10-x failed"})
    log = b"first\n" * 50_000 + b"\x1b]0;pwned\x07\x1b[2Jlast\r\xff\n"
    (folder / "console.log").write_bytes(log)
    lines = describe(run, now=NOW)
    assert "alpha      failed with status 3: the hook 10-x failed" in lines
    assert any(line.endswith("\\x1b]0;pwned\\x07\\x1b[2Jlast") for line in lines)
    assert sum(line.strip() == "first" for line in lines) <= 10
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b'{"packages": 5, "epoch": "x"}',
    b'{"packages": {"a": 1}, "tag": 3, "reasons": 5, "differences": "x", "verdict": null}',
    b'{"packages": [5, {"size": "x"}], "epoch": 1e300, "reasons": [1], "commit": null}',
])  # fmt: skip
def test_damaged_documents_are_shown_as_what_they_are(tmp_path: Path, content: bytes) -> None:
    run = make_run(tmp_path)
    (run.environment("alpha")).mkdir()
    for path in (run.source_json, run.inputs_json, run.verdict_json):
        path.write_bytes(content)
    (run.environment("alpha") / "failure.json").write_bytes(content)
    assert len(list_lines([run], now=NOW)) == 1
    assert len(describe(run, now=NOW)) > 8
    (run.folder / "run.json").write_bytes(content)
    assert "damaged" in list_lines([run], now=NOW)[0]
    assert "run.json is damaged" in describe(run, now=NOW)[1]


def test_escape_sequences_reach_no_terminal(tmp_path: Path) -> None:
    run = make_run(tmp_path, commit="\x1b[31m")
    write_json(run.source_json, {"version": "\x1b[2J", "repository": "\u202eevil\x9b"})
    write_json(run.verdict_json, {"verdict": "\x1b]52;c;x\x07", "reasons": ["\x1bPq\r\n"]})
    build(run, "alpha")
    (run.environment("alpha") / "artifacts/\x1b[2J.iso").touch()
    assert all(line.isprintable() for line in [*list_lines([run]), *describe(run)])


def test_the_newest_runs_stay(tmp_path: Path) -> None:
    runs = [make_run(tmp_path, timedelta(days=day)) for day in range(5)]
    for run in runs:
        build(run, "alpha")
    freed = clean(runs, keep=2, now=NOW)
    assert list_runs(tmp_path) == runs[:2]
    assert 3 * 2**20 < freed < 3 * 2**20 + 5000


def test_young_runs_stay(tmp_path: Path) -> None:
    runs = [make_run(tmp_path, timedelta(days=day)) for day in range(5)]
    assert clean(runs, keep=0, older_than=timedelta(days=3), now=NOW) > 0
    assert list_runs(tmp_path) == runs[:3]


def test_a_run_at_work_stays(tmp_path: Path) -> None:
    runs = [make_run(tmp_path), make_run(tmp_path)]
    with runs[0].held(), runs[0].held():
        clean(runs, keep=0, now=NOW)
        assert list_runs(tmp_path) == [runs[0]]
    clean([runs[0]], keep=0, now=NOW)
    assert list_runs(tmp_path) == []


def test_what_links_point_to_stays(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_bytes(b"x" * 5000)
    run = make_run(tmp_path / "runs")
    build(run, "alpha", b"y" * 3000)
    (run.folder / "link").symlink_to(outside)
    (outside / "published.iso").hardlink_to(run.environment("alpha") / "artifacts/mini.iso")
    assert clean([run], keep=0, now=NOW) < 3000
    assert (outside / "precious").exists()
    assert (outside / "published.iso").read_bytes() == b"y" * 3000
