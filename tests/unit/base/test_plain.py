# SPDX-License-Identifier: GPL-3.0-or-later
"""What strangers wrote never reaches the terminal as they wrote it, whichever way it comes.

The attacker holds a server, an archive, a repository, a build, or two files to compare: escape
sequences in their texts would retitle, overwrite or paste into the operator's terminal.
"""

import ast
import io
import json
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from invoke.context import Context
from invoke.exceptions import Exit
from rich.console import Console

from pipeline.base.command import run as run_program
from pipeline.base.display import Display
from pipeline.base.errors import BuildFailed, UsageError
from pipeline.base.files import json_text
from pipeline.base.plain import PlainStream, plain, plain_lines, plain_output
from pipeline.cli import overview
from pipeline.cli.task import farm_task
from pipeline.documents.progress import Record
from pipeline.farm.run import Run

ROOT = Path(__file__).parents[3]
EVIL = (
    "\x1b]0;x\x07\x1b[2J\x9b31m\u202e\u2066\u200f\x85\x0b\x0c\r\x7f\x08\u2028\u2029\ufeff\U000e0041"
)
ALLOWED = set("\n\t")


class Gone(io.StringIO):
    """A stream whose reader has left."""

    def flush(self) -> None:
        raise BrokenPipeError


def test_a_stream_that_nothing_refers_to_leaves_the_one_below_alone() -> None:
    """Python 3.13 prints "Exception ignored" where its last flush fails."""
    raw = Gone()
    PlainStream(raw).close()
    assert not raw.closed


def is_safe(text: str) -> bool:
    return all(letter.isprintable() or letter in ALLOWED for letter in text)


@given(st.text())
def test_nothing_that_cannot_be_seen_passes(text: str) -> None:
    assert is_safe(plain(text, limit=10_000))
    assert "\n" not in plain(text)
    assert is_safe(plain_lines(text).replace("\t", ""))
    assert plain_lines(text).count("\n") == text.count("\n")


@given(st.lists(st.text(max_size=5), max_size=5))
def test_pieces_do_not_join_to_an_escape(pieces: list[str]) -> None:
    raw = io.StringIO()
    stream = PlainStream(raw)
    for piece in pieces:
        stream.write(piece)
    assert is_safe(raw.getvalue())


def test_what_is_harmless_stays_as_it_is() -> None:
    raw = io.StringIO()
    text = "grüße → ✓ 日本\n\tx  y\n"
    PlainStream(raw).write(text)
    assert raw.getvalue() == text


def test_a_terminal_that_is_not_utf_8_gets_escapes() -> None:
    raw = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    PlainStream(raw).write("grüße ✓\n")
    raw.seek(0)
    assert raw.read() == "gr\\xfc\\xdfe \\u2713\n"


def task(body: Callable[[], None]) -> Callable[[], None]:
    @farm_task()
    def made(_c: Context) -> None:
        body()

    return lambda: made(Context())


def test_what_a_task_prints(capsys: pytest.CaptureFixture[str]) -> None:
    def body() -> None:
        sys.stdout.write(f"a {EVIL} b\n")
        sys.stderr.write(f"c {EVIL} d\n")

    task(body)()
    shown = capsys.readouterr()
    assert is_safe(shown.out + shown.err)
    assert shown.out.startswith("a \\x1b]0;x\\x07")
    assert (shown.out.count("\n"), shown.err.count("\n")) == (1, 1)


@pytest.mark.parametrize(
    "error",
    [
        UsageError(f"a {EVIL}", remedy=f"b {EVIL}", detail=f"c {EVIL}\nd\te {EVIL}"),
        BuildFailed(f"a\nb {EVIL}"),
        FileNotFoundError(2, f"a {EVIL}", f"b {EVIL}"),
        OSError(f"a {EVIL}"),
    ],
)
def test_what_a_task_fails_with(error: Exception) -> None:
    def body() -> None:
        raise error

    with pytest.raises(Exit) as caught:
        task(body)()
    assert is_safe(str(caught.value))


def test_what_a_program_prints_before_it_fails(tmp_path: Path) -> None:
    """git repeats the messages of a server, apt those of an archive."""
    program = ["sh", "-c", f"printf '%s' '{EVIL}' >&2; exit 9"]

    @task
    def fails() -> None:
        run_program(program, timeout_s=5)

    with pytest.raises(Exit) as caught:
        fails()
    assert is_safe(str(caught.value))


def test_a_branch_and_a_file_of_git(tmp_path: Path) -> None:
    """git allows C1 controls and changes of writing direction in the names of branches."""
    branch = "x\x9b31m\u202e"
    git = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run([*git, "init", "-q", "-b", branch], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", EVIL], check=True)

    @task
    def fails() -> None:
        run_program([*git, "checkout", f"{branch}y"], timeout_s=9)

    with pytest.raises(Exit) as caught:
        fails()
    assert is_safe(str(caught.value))


def screen(*, terminal: bool) -> Display:
    made = Console(
        file=io.StringIO(), force_terminal=terminal, width=80, color_system=None, _environ={}
    )
    return Display(made)


RECORDS = ("step", "step-done", "note", "failed", "log", EVIL)


@pytest.mark.parametrize("terminal", [True, False])
def test_what_a_build_says_while_it_runs(terminal: bool) -> None:
    display = screen(terminal=terminal)
    take = display.tell(f"alpha{EVIL}")
    with display.watch():
        for kind in RECORDS:
            take(Record(kind, step=EVIL, line=EVIL, what=EVIL))
        display.say(EVIL)
    with display.bar(f"[bold]{{task.nothing}} {EVIL}") as progress:
        progress(1, 2)
    shown = display.console.file.getvalue()  # type: ignore[attr-defined]
    for letter in "\x07\x9b\u202e\u2066\u200f\x85\x0b\x7f\x08\u2028\ufeff":
        assert letter not in shown
    assert "\x1b]" not in shown
    assert "\x1b[2J\\x9b" not in shown
    assert "[bold]{task.nothing}" in shown or not terminal


@pytest.fixture
def hostile_run(tmp_path: Path) -> Run:
    """A run whose every document and log says what it should not."""
    run = Run(tmp_path / "20261122T000000Z-mini-12345678")
    (run.folder / "alpha/artifacts").mkdir(parents=True)
    evil = json.dumps(
        dict.fromkeys(("verdict", "commit", "version", "repository", "what", "status"), EVIL)
        | {"reasons": [EVIL], "differences": [EVIL], "tag": {"signer": EVIL}, "dirty": True}
    )
    for name in ("source.json", "inputs.json", "verdict.json", "alpha/failure.json"):
        (run.folder / name).write_text(evil)
    request = {"image": "mini", "commit": EVIL, "environments": ["alpha"], "source": EVIL}
    (run.folder / "run.json").write_text(json.dumps({**request, "vary": "default"}))
    (run.folder / "alpha/console.log").write_text(f"{EVIL}\n" * 20)
    (run.folder / f"alpha/artifacts/{EVIL[:60]}").write_text("x")
    return run


def test_a_run_that_is_shown(hostile_run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with plain_output():
        sys.stdout.writelines(overview.describe(hostile_run))
        sys.stdout.writelines(overview.list_lines([hostile_run]))
    assert is_safe(capsys.readouterr().out)


def tar_with(path: Path, content: bytes) -> Path:
    with tarfile.open(path, "w") as tar:
        member = tarfile.TarInfo(f"x{EVIL}")
        member.size, member.uname = len(content), EVIL[:30]
        tar.addfile(member, io.BytesIO(content))
    return path


def locate(*arguments: object, encoding: str = "utf-8") -> subprocess.CompletedProcess[bytes]:
    argv = [sys.executable, "-m", "invoke", "--search-root", str(ROOT), "locate"]
    environ = {**os.environ, "PYTHONIOENCODING": encoding}
    return subprocess.run(
        [*argv, *map(str, arguments)], capture_output=True, check=False, env=environ, cwd=ROOT
    )


def test_names_inside_of_files_that_are_compared(tmp_path: Path) -> None:
    first = tar_with(tmp_path / "a.tar", f"one {EVIL}\n".encode())
    second = tar_with(tmp_path / "b.tar", b"two\n")
    done = locate(first, second, encoding="ascii")
    assert done.returncode == 1
    assert is_safe(done.stdout.decode("ascii") + done.stderr.decode("ascii"))
    document = locate(first, second, "--json").stdout.decode("ascii")
    assert is_safe(document)
    json.loads(document)


def test_a_document_is_printed_in_ascii() -> None:
    text = json_text({"a": EVIL + "\ud800"})
    assert text.isascii()
    assert is_safe(text)
    assert json.loads(text) == {"a": EVIL + "\ud800"}


def test_nothing_else_writes_to_the_terminal() -> None:
    """ruff's T20 keeps `print` out of pipeline/; the machine's console is a file."""
    found = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "pipeline").rglob("*.py")
        if re.search(r"sys\.(std|__std)(out|err)|\bConsole\(", path.read_text())
    }
    assert {path for path in found if "/guest/" not in path} == {
        "pipeline/base/plain.py",
        "pipeline/cli/task.py",  # flushes, and gives the display its screen
        # Programs that are carried alone; each has one place that prints, and escapes there.
        "pipeline/kits/install/program.py",
        "pipeline/kits/make/client.py",  # the text of upgrade.pyz's first module
        "pipeline/verify/command.py",
        "pipeline/verify/report.py",  # a line of its own for a Python that is too old
    }


def test_every_task_that_prints_does_so_in_safe_form() -> None:
    """`verify` is a program of its own, which cleans; `test` and `lint` run the checkout's own."""
    printing = []
    beside = [
        path for room in ("pipeline/cli", "tools") for path in ROOT.glob(f"{room}/*_tasks.py")
    ]
    for path in (ROOT / "tasks.py", *beside):
        for function in ast.parse(path.read_text()).body:
            if isinstance(function, ast.FunctionDef) and "print(" in ast.unparse(function):
                decorators = [ast.unparse(decorator) for decorator in function.decorator_list]
                assert not decorators or decorators[0].startswith("farm_task("), function.name
                printing.append(function.name)
    assert len(printing) > 20
