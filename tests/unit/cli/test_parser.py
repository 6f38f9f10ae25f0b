# SPDX-License-Identifier: GPL-3.0-or-later
"""What `./farm` makes of the words that are typed: help, tasks and options, or status 2."""

import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from invoke.collection import Collection
from invoke.context import Context
from invoke.exceptions import Exit
from invoke.tasks import task

import tasks
from pipeline.base import errors
from pipeline.base.errors import ExitStatus
from pipeline.cli import parser, program, version
from tests import processes

ROOT = Path(__file__).parents[3]
NAMES = sorted(tasks.namespace.task_names)
CONTEXTS = {context.name: context for context in tasks.namespace.to_contexts()}
Main = Callable[..., tuple[int, str, str]]


@pytest.fixture
def main(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Main:
    """Type a command line in an empty folder and home; return status, output and errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(errors.STARTED_AS, "./farm")

    def typed(*words: str, namespace: Collection | None = None) -> tuple[int, str, str]:
        status = parser.main(namespace or tasks.namespace, words)
        return status, *capsys.readouterr()

    return typed


def filled(name: str) -> list[str]:
    """All of a task's options, as they are typed."""
    words = []
    for option, argument in CONTEXTS[name].flags.items():
        if option.startswith("--"):
            words += [option] if argument.kind is bool else [option, "7"]
    return words


@pytest.mark.parametrize("word", ["--version", "-V"])
def test_the_version_is_shown(word: str, main: Main) -> None:
    number = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert main(word) == (0, f"twinbuild {number}\n", "")


def test_an_installed_package_knows_its_version(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(version, "PROJECT", tmp_path / "pyproject.toml")
    monkeypatch.setattr("importlib.metadata.version", {"twinbuild": "1.2.3"}.__getitem__)
    assert version.version() == "1.2.3"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("asked", ["--help", "-h"])
def test_help_anywhere_after_a_task_shows_it_and_does_nothing(
    name: str, asked: str, main: Main, tmp_path: Path
) -> None:
    words = filled(name)
    places = {0, len(words) // 2, len(words)}
    answers = {main(name, *words[:place], asked, *words[place:]) for place in places}
    answers |= {main(name, asked, "--nonsense"), main(asked, name), main("help", name)}
    ((status, out, err),) = answers
    assert (status, err) == (ExitStatus.DONE, "")
    assert out.startswith(f"Usage: ./farm {name}")
    assert all(word in out for word in words if word.startswith("--"))
    assert list(tmp_path.iterdir()) == []


def test_no_option_is_short_for_something_else_than_help() -> None:
    assert not [name for name in NAMES if "-h" in CONTEXTS[name].flags]


@pytest.mark.parametrize("words", [[], ["--list"], ["-l"], ["--help"], ["help"]])
def test_all_tasks_are_listed(words: list[str], main: Main) -> None:
    status, out, _ = main(*words)
    assert status == ExitStatus.DONE
    assert all(f"\n  {name} " in out for name in NAMES)


@pytest.mark.parametrize("words", [[], ["--list"], ["-l"], ["--version"], ["-V"]])
def test_the_program_answers_as_the_parser_does_and_without_invoke(
    words: list[str], main: Main
) -> None:
    """Importing invoke takes longer than all the rest of `--list`."""
    code = "import sys, tasks; main(tasks.TASKS, sys.argv[1:]); print('invoke' in sys.modules)"
    argv = [sys.executable, "-c", f"from pipeline.cli.program import main; {code}", *words]
    env = {"PYTHONPATH": str(ROOT), errors.STARTED_AS: "./farm"}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=True)
    assert done.stdout == main(*words)[1] + "False\n"


def test_the_program_hands_tasks_over(main: Main, capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(tasks.TASKS, ["keygen", "--help"]) == ExitStatus.DONE
    assert capsys.readouterr().out == main("keygen", "--help")[1]


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("bogus", "there is no task 'bogus'; ./farm --list names them"),
        ("help bogus", "there is no task 'bogus'"),
        ("--help bogus", "there is no task 'bogus'"),
        ("bogus --help", "there is no task 'bogus'"),
        ("--echo build", "there is no option --echo before a task"),
        ("keygen", "keygen needs --environment; see ./farm keygen --help"),
        ("kit.check", "kit.check needs --from and --url"),
        ("kit.check --from 3.1", "kit.check needs --url"),
        ("locate a", "locate needs --second"),
        ("release --tag", "--tag needs a value"),
        ("release --tag --image mini", "--tag needs a value"),
        ("kit.check --from --url x", "--from needs a value"),
        ("release --tag=--image", "the value of --tag begins with --"),
        ("keygen --bogus", "keygen has no option --bogus"),
        ("keygen -x", "keygen has no option -x"),
        ("locate --bogus", "locate has no option --bogus"),
        ("build --imago=mini", "build has no option --imago"),
        ("build --fresh=yes", "--fresh takes no value"),
        ("build mini", "build has no use for 'mini'"),
        ("build --tag 3.3", "build has no option --tag"),
        ("clean --keep few", "--keep takes a number, not 'few'"),
        ("profile-boot --seconds 1s", "--seconds takes a number"),
        ("release --tag 3.3 --tag 3.4", "--tag is given twice"),
        ("release --tag 3.3 -t 3.4", "-t is given twice"),
        ("lint --bogus build", "lint has no option --bogus"),
    ],
)
def test_wrong_usage_is_status_2_and_names_what_was_typed(
    words: str, error: str, main: Main, tmp_path: Path
) -> None:
    status, out, err = main(*words.split())
    assert (status, out) == (ExitStatus.USAGE, "")
    assert err.startswith(f"twinbuild: {error}")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_every_required_option_is_named_as_it_is_typed(main: Main) -> None:
    for name in NAMES:
        missing = CONTEXTS[name].missing_positional_args
        needed = [argument.name for argument in missing if argument.name]
        status, _, err = main(name) if needed else (ExitStatus.USAGE, "", "")
        assert status == ExitStatus.USAGE
        assert all(f"--{argument.strip('_').replace('_', '-')}" in err for argument in needed), err


def test_escape_sequences_do_not_reach_the_terminal(main: Main) -> None:
    for words in (["\x1b[2J"], ["build", "\x1b[2J"], ["clean", "--keep", "\x1b[2J"]):
        _, _, err = main(*words)
        assert "\\x1b[2J" in err
        assert "\x1b" not in err


@pytest.fixture
def two() -> tuple[Collection, list[tuple[Any, ...]]]:
    """Two tasks that note how they are called."""
    calls: list[tuple[Any, ...]] = []

    @task(iterable=["file"])
    def first(_c: Context, from_: str, file: list[str], count: int = 3, most: bool = False) -> None:
        calls.append(("first", from_, file, count, most))

    @task
    def second(_c: Context, to: str, slow: bool = True, tag: str | None = None) -> None:
        calls.append(("second", to, slow, tag))
        if to == "nowhere":
            raise Exit("no", code=5)

    return Collection(first, second), calls


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("first --from a", [("first", "a", [], 3, False)]),
        ("first a --most", [("first", "a", [], 3, True)]),
        (
            "first --file x --file=z --count=-1 -fb",
            [("first", "b", ["x", "z"], -1, False)],
        ),
        ("second -t b --no-slow --tag=", [("second", "b", False, "")]),
        ("second -alow second", [("second", "second", True, "low")]),
        (
            "first second second first",
            [("first", "second", [], 3, False), ("second", "first", True, None)],
        ),
    ],
)
def test_tasks_get_what_was_typed(
    words: str, expected: list[tuple[Any, ...]], two: tuple[Collection, list[Any]], main: Main
) -> None:
    namespace, calls = two
    assert main(*words.split(), namespace=namespace) == (0, "", "")
    assert calls == expected


def test_a_task_that_fails_ends_the_row_with_its_status(
    two: tuple[Collection, list[Any]], main: Main
) -> None:
    namespace, calls = two
    assert main("second", "nowhere", "first", "a", namespace=namespace) == (5, "", "no\n")
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("started_as", "program", "command"),
    [
        ("./farm", "/farm/tasks.py", "./farm show ID"),
        ("/opt/a b/farm", "/opt/a b/tasks.py", "'/opt/a b/farm' show ID"),
        (None, "/farm/.venv/bin/invoke", "invoke show ID"),
        (None, "/opt/venv/bin/twinbuild", "twinbuild show ID"),
        (None, "/farm/tasks.py", "./farm show ID"),
    ],
)
def test_messages_begin_a_command_as_this_one_was(
    started_as: str | None, program: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(errors.STARTED_AS, raising=False)
    if started_as:
        monkeypatch.setenv(errors.STARTED_AS, started_as)
    monkeypatch.setattr(sys, "argv", [program])
    assert errors.command_line("show ID") == command


def test_it_runs_as_a_program_anywhere(tmp_path: Path) -> None:
    argv = [sys.executable, str(ROOT / "tasks.py")]
    done = subprocess.run(
        [*argv, "keygen", "--help"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == ExitStatus.DONE
    assert done.stdout.startswith("Usage: ./farm keygen --environment VALUE")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words", ["keygen --help", "release --help", "snapshot --bogus", "kit.check --from --url"]
)
def test_invoke_itself_takes_no_option_for_a_value(words: str, tmp_path: Path) -> None:
    """`invoke` parses by itself; what it mistakes for a value is refused by the task."""
    argv = [sys.executable, "-m", "invoke", "--search-root", str(ROOT), *words.split()]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != ExitStatus.DONE
    assert list(tmp_path.iterdir()) == []


def test_a_scripts_background_job_ends_well_on_sigterm(tmp_path: Path) -> None:
    """As `nohup ./farm … &` in a script, where SIGINT is ignored: what it started ends, too."""
    for name in ("pipeline", "tools", "verify.py"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copy(ROOT / "tasks.py", tmp_path)
    hook = tmp_path / "hooks" / "source" / "10-slow"
    hook.parent.mkdir(parents=True)
    written = f"echo $$ >{tmp_path}/part; mv {tmp_path}/part {tmp_path}/pid"
    hook.write_text(f"#!/bin/sh\n{written}\nexec sleep 600.{processes.OWN}\n")
    hook.chmod(0o755)
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    ignoring = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh"]
    argv = [*ignoring, sys.executable, str(tmp_path / "tasks.py"), "check"]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as job:
        while not (tmp_path / "pid").exists():
            assert job.poll() is None
            time.sleep(0.05)
        job.terminate()
        _, output = job.communicate(timeout=30)
    assert job.returncode == 130
    assert "interrupted; nothing is left running" in output
    assert processes.all_gone(f"600.{processes.OWN}")
