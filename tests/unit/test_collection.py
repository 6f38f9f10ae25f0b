# SPDX-License-Identifier: GPL-3.0-or-later
"""No test and no source is passed over because of its name."""

import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests import levels, outcomes

ROOT = Path(__file__).parents[2]


def tracked(*patterns: str) -> set[str]:
    """Return the files of the checkout that git would commit."""
    argv = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    listed = subprocess.run(argv, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return {name for name in listed.splitlines() if (ROOT / name).exists()}


def test_pytest_descends_into_every_folder_of_tests(pytestconfig: pytest.Config) -> None:
    passed_over = pytestconfig.getini("norecursedirs")
    folders = {parent for name in tracked("tests") for parent in Path(name).parents}
    assert [f for f in folders if any(fnmatch(f.name, pattern) for pattern in passed_over)] == []


def test_tests_set_the_signals_that_they_need() -> None:
    """As `nohup ./farm test &` in a script, where SIGINT is ignored."""
    test = "tests/unit/base/test_command.py::test_an_interruption_ends_the_program"
    ignoring = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh"]
    argv = [*ignoring, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test]
    done = subprocess.run(argv, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_every_python_file_is_linted() -> None:
    argv = [sys.executable, "-m", "ruff", "check", "--show-files", "."]
    shown = subprocess.run(argv, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    linted = {str(Path(line).relative_to(ROOT)) for line in shown.splitlines()}
    assert python_files() - linted == set()


def python_files() -> set[str]:
    """Return what is Python by its name or its first line."""
    programs = {name for name in tracked() if "." not in Path(name).name and is_python(ROOT / name)}
    return tracked("*.py") | programs


def is_python(path: Path) -> bool:
    with path.open("rb") as file:
        return b"python" in file.readline(80) and not path.is_symlink()


def test_no_source_is_ignored_by_git() -> None:
    argv = ["git", "ls-files", "--others", "--ignored", "--exclude-standard", "--", "*.py"]
    ignored = subprocess.run(argv, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    ours = ("pipeline/", "tests/", "hooks/", "images/", "tools/")
    assert [name for name in ignored.splitlines() if name.startswith(ours)] == []


REPORT = """<testsuites><testsuite>
<testcase classname="tests.unit.machines.test_a" name="test_one[x-1]"/>
<testcase classname="tests.unit.machines.test_a" name="test_skipped"><skipped/></testcase>
</testsuite></testsuites>"""
SOURCE = """
import pytest
def test_one(): ...
def test_skipped(): ...
def test_never_run(): ...
@pytest.mark.proof
def test_of_another_level(): ...
def helper(): ...
"""


def test_a_test_without_an_outcome_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "tests/unit/machines"
    folder.mkdir(parents=True)
    (folder / "test_a.py").write_text(SOURCE)
    (folder / "test_proof.py").write_text("pytestmark = pytest.mark.proof\ndef test_x(): ...\n")
    (tmp_path / "report.xml").write_text(REPORT)
    missing = outcomes.missing(tmp_path, [tmp_path / "report.xml"])
    assert missing == ["tests.unit.machines.test_a::test_never_run"]


def test_no_python_of_the_tests_compiles_what_another_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    argv = [sys.executable, "-c", "import sys; print(sys.dont_write_bytecode)"]
    done = subprocess.run(argv, env=levels._environment(), capture_output=True, text=True)
    assert done.stdout == "False\n"
