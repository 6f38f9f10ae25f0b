# SPDX-License-Identifier: GPL-3.0-or-later
"""diffoscope is asked where nothing else explains a difference, and cannot do harm."""

import shutil
import time
from pathlib import Path

import pytest

from pipeline.look import diffoscope
from pipeline.look.diffoscope import ask
from tests.differing_run import make_run
from tests.processes import OWN, all_gone
from tests.unit.compare.test_explain import explained

SAYS = "--- a\n+++ b\n@@ -1 +1 @@\n-one \\033[31m\n+two\n"
UNKNOWN = {name: {"x.bin": b"\0\1" + name.encode() * 3} for name in ("alpha", "beta")}


def stand_in(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = folder / "diffoscope"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(diffoscope, "PROGRAM", str(program))


def test_what_it_says_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path, f"printf '%b' '{SAYS}'; exit 1", monkeypatch)
    document, messages = explained(make_run(tmp_path, UNKNOWN))
    (file,) = document["files"]
    assert file["diffoscope"]["lines"] == ["@@ -1 +1 @@", "-one \\x1b[31m", "+two"]
    assert (
        "explain: diffoscope looked at 1 of the differences, which had no known cause" in messages
    )


def test_what_is_explained_is_not_asked_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(tmp_path, f"printf '%b' '{SAYS}'; exit 1", monkeypatch)
    hosts = {"alpha": b"\0\1alpha-host\0", "beta": b"\0\1b\0"}
    trees = {name: {"x": host, "text": name.encode()} for name, host in hosts.items()}
    document, messages = explained(make_run(tmp_path, trees))
    assert [file["diffoscope"] for file in document["files"]] == [None, None]
    assert any("diffoscope looked at 0 of the differences" in line for line in messages)


def test_it_is_not_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diffoscope, "PROGRAM", "no-such-program")
    document, messages = explained(make_run(tmp_path, UNKNOWN))
    assert document["diffoscope"] == "diffoscope is not installed, and not needed"
    assert f"explain: {document['diffoscope']}" in messages


def test_one_that_hangs_is_ended_with_all_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diffoscope, "TIMEOUT_S", 1.0)
    stand_in(tmp_path, f"sleep 61.7{OWN} & sleep 61.7{OWN}", monkeypatch)
    begin = time.monotonic()
    assert "did not end within 1 s" in ask("x", (b"1", b"2")).note
    assert time.monotonic() - begin < 15
    assert all_gone(f"61.7{OWN}")


@pytest.mark.parametrize(
    "script",
    [
        "yes",
        "exec python3 -c 'bytearray(2 * 1024**3)'",
        "exec python3 -c 'while True: pass'",
        "exit 2",
    ],
)
def test_one_without_bounds_is_bounded(
    script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diffoscope, "FILE_LIMIT", 1024 * 1024)
    monkeypatch.setattr(diffoscope, "TIMEOUT_S", 1.0)
    stand_in(tmp_path, script, monkeypatch)
    assert ask("x", (b"1", b"2")).note.startswith("diffoscope failed: ")


def test_much_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path, "yes | head -1000; exit 1", monkeypatch)
    answer = ask("x", (b"1", b"2"))
    assert (len(answer.lines), answer.cut) == (60, True)


@pytest.mark.parametrize("name", ["../../../etc/passwd", "-x", "a b\n", "x" * 300, "n\udcff", ""])
def test_names_of_builds_are_no_paths(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(tmp_path, 'printf "\\n\\n"; for x; do echo "$x"; done | tail -2; exit 1', monkeypatch)
    lines = ask(name, (b"1", b"2")).lines
    assert [line.split("/")[-2] for line in lines] == ["first", "second"]
    assert all(line.split("/")[-1].startswith("x") for line in lines)


def test_the_real_one() -> None:
    answer = ask("x.bin", (b"\0one", b"\0two"))
    if shutil.which("diffoscope"):
        assert any(line.startswith("+") for line in answer.lines)
    else:
        assert answer.note
