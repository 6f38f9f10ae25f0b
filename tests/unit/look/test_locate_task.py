# SPDX-License-Identifier: GPL-3.0-or-later
"""`./farm locate`: what it prints, and its exit status."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from invoke.program import Program

import tasks

ROOT = Path(tasks.__file__).parent


def locate(*words: str | Path) -> int:
    """Run the task in this process; return its exit status."""
    argv = ["invoke", "locate", *map(str, words)]
    try:
        Program(namespace=tasks.namespace).run(argv)
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for name, content in (("one", "the same"), ("same", "the same"), ("other", "the Same")):
        (tmp_path / name).write_text(content)
    return tmp_path


def test_equal_files(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert locate(files / "one", files / "same") == 0
    assert capsys.readouterr().out == "the files are equal\n"


def test_different_files(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert locate(files / "one", files / "other") == 1
    assert capsys.readouterr().out == ".: content: 1 bytes from 4 on: 73 / 53\n"


def test_json(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert locate("--json", files / "one", files / "other") == 1
    document = json.loads(capsys.readouterr().out)
    (place,) = document.pop("places")
    assert document == {"format": "twinbuild-places/1", "equal": False, "complete": True}
    assert (place["kind"], place["offset"], place["sizes"]) == ("content", 4, [8, 8])


def test_a_file_that_cannot_be_read(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert locate(files / "one", files / "none") == 2
    assert "cannot read" in capsys.readouterr().err


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_reader_that_has_seen_enough(options: tuple[str, ...], files: Path) -> None:
    """As `| head -c 0`: the pipe is closed before anything is written."""
    read, write = os.pipe()
    os.close(read)
    argv = [
        sys.executable,
        "-m",
        "invoke",
        "locate",
        *options,
        str(files / "one"),
        str(files / "other"),
    ]
    ended = subprocess.run(argv, stdout=write, stderr=subprocess.PIPE, cwd=ROOT, check=False)
    os.close(write)
    assert (ended.returncode, ended.stderr) == (141, b"")
