# SPDX-License-Identifier: GPL-3.0-or-later
"""The run folder: what is complete, why a stage runs again, and names that lead nowhere else."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.base.errors import UsageError
from pipeline.base.files import write_bytes, write_json
from pipeline.farm.run import RUN_ID, Request, Run, create, list_runs, open_run

ASKED: dict[str, Any] = {"image": "mini", "commit": "HEAD", "environments": ("alpha", "beta")}
READS = {"the lock": "a" * 64, "the image": "b" * 64}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return create(tmp_path, Request.of(ASKED))


def complete(run: Run) -> Path:
    path = run.folder / "alpha/artifacts/x.iso"
    write_bytes(path, b"content")
    run.complete("build-alpha", READS, [path])
    return path


def test_a_new_run_keeps_what_was_asked(run: Run, tmp_path: Path) -> None:
    assert RUN_ID.fullmatch(run.id)
    assert open_run(tmp_path, run.id) == run
    assert run.request() == Request.of(ASKED)
    assert re.sub(r"\D", "", str(run.started))[:14] == re.sub(r"\D", "", run.id)[:14]


@pytest.mark.parametrize(
    "change",
    [
        {"image": "../x"},
        {"image": "Mini"},
        {"environments": ()},
        {"environments": ("alpha", "alpha")},
        {"environments": ("alpha", "release")},
        {"environments": ("stages",)},
        {"environments": ("../alpha",)},
        {"compression": "best"},
        {"commit": None},
        {"more": 1},
        {"tag": "3.3"},  # and less than all varied
        {"tag": "3.3", "vary": "none"},
    ],
)
def test_impossible_requests_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"what was asked for is not possible: \w+"):
        Request.of({**ASKED, **change})


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("https://user:secret@example.org/x.git", "https://example.org/x.git"),
        ("https://secret@example.org/x.git", "https://example.org/x.git"),
        ("https://example.org:8443/x.git?token=secret#secret", "https://example.org:8443/x.git"),
        ("ssh://git:secret@example.org/x.git", "ssh://git@example.org/x.git"),
        ("git@example.org:x.git", "git@example.org:x.git"),
        ("../mini", "../mini"),
    ],
)
def test_no_password_is_kept(typed: str, kept: str, tmp_path: Path) -> None:
    run = create(tmp_path, Request.of({**ASKED, "source": typed}))
    assert run.request().source == kept
    assert b"secret" not in (run.folder / "run.json").read_bytes()


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"null", b'{"image": 5}'])
def test_a_damaged_request_is_reported(run: Run, content: bytes) -> None:
    (run.folder / "run.json").write_bytes(content)
    with pytest.raises(UsageError, match=r"run\.json"):
        run.request()


def test_a_stage_runs_once(run: Run) -> None:
    assert run.why_again("build-alpha", READS) == "it has not run yet"
    complete(run)
    assert run.why_again("build-alpha", READS) is None
    assert run.why_again("build-beta", READS) == "it has not run yet"


def test_a_stage_runs_again_when_what_it_reads_changes(run: Run) -> None:
    complete(run)
    changed = {**READS, "the lock": "c" * 64}
    assert run.why_again("build-alpha", changed) == "changed since: the lock"
    more = {**READS, "the kernel": "c" * 64}
    assert run.why_again("build-alpha", more) == "changed since: the kernel"
    assert run.why_again("build-alpha", {}) == "changed since: the image, the lock"


def test_a_stage_runs_again_when_what_it_wrote_is_not_there(run: Run) -> None:
    path = complete(run)
    path.write_bytes(b"other")
    reason = "alpha/artifacts/x.iso was changed after it was written"
    assert run.why_again("build-alpha", READS) == reason
    path.unlink()
    assert run.why_again("build-alpha", READS) == "alpha/artifacts/x.iso is missing"


@pytest.mark.parametrize(
    "record", [{}, {"reads": 1, "writes": 2}, {"reads": {}}, {"reads": [1], "writes": {}}]
)
def test_a_damaged_record_makes_a_stage_run_again(run: Run, record: dict[str, Any]) -> None:
    complete(run)
    write_json(run.folder / "stages/build-alpha.json", record)
    assert run.why_again("build-alpha", READS) == "its record is damaged"
    (run.folder / "stages/build-alpha.json").write_bytes(b"[]")
    assert run.why_again("build-alpha", READS) == "its record is damaged"


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "/etc", "20261122T180000Z-mini-ab12/../../x", "a\n",
     "20261122T180000Z-mini-ab12", "20269922T180000Z-mini-ab12"],
)  # fmt: skip
def test_names_of_no_run_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="there is no run"):
        open_run(tmp_path, name)


def test_runs_are_listed_newest_first(tmp_path: Path) -> None:
    assert list_runs(tmp_path / "nowhere") == []
    names = [f"202611{day:02d}T180000Z-mini-ab12" for day in (3, 1, 2)]
    for name in [*names, "20269901T180000Z-mini-ab12", "notes"]:
        write_json(tmp_path / name / "run.json", {})
    (tmp_path / "20261104T180000Z-mini-ab12").mkdir()
    assert [run.id[6:8] for run in list_runs(tmp_path)] == ["03", "02", "01"]


HOLD = """
import fcntl, sys
with open(sys.argv[1], "wb") as file:
    fcntl.flock(file, fcntl.LOCK_SH)
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_run_that_another_process_holds_is_not_ours_alone(run: Run) -> None:
    argv = [sys.executable, "-c", HOLD, str(run.folder / ".lock")]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == b"held\n"
        with run.held():  # together is possible
            pass
        with pytest.raises(UsageError, match="another process is at work"), run.held(alone=True):
            pass
        other.kill()  # as a crash would
    with run.held(alone=True), pytest.raises(UsageError), run.held():
        pass
