# SPDX-License-Identifier: GPL-3.0-or-later
"""What a person sees of a run, on a terminal and in a log."""

import io
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pipeline.base import display as module
from pipeline.base.display import Display
from pipeline.documents.progress import Record

ROOT = Path(__file__).parents[3]


class Clock:
    """The time that the display sees."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module, "time", made)
    return made


@pytest.fixture(autouse=True)
def as_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TWINBUILD_PLAIN", raising=False)


def log() -> Display:
    return Display(Console(file=io.StringIO(), width=200))


def terminal() -> Display:
    environ = {"TERM": "xterm"}  # whatever the terminal of the tests is
    return Display(
        Console(
            file=io.StringIO(), force_terminal=True, width=80, color_system=None, _environ=environ
        )
    )


def shown(display: Display) -> str:
    file: Any = display.console.file
    return str(file.getvalue())


def test_a_log_gets_a_line_a_step(clock: Clock) -> None:
    display = log()
    take = display.tell("alpha")
    with display.watch():
        take(Record("step", step="20-bootstrap"))
        clock.now += 42
        take(Record("log", line="Setting up bash"))
        take(Record("alive"))
        take(Record("step-done", step="20-bootstrap"))
        take(Record.note("builder made"))
        take(Record("failed", what="hook x failed", status=3))
        take(Record("done"))
    assert shown(display).splitlines() == [
        "alpha: 20-bootstrap …",
        "alpha: 20-bootstrap took 42 s",
        "alpha: builder made",
        "alpha: hook x failed",
    ]


def test_a_long_step_gives_signs_of_life(clock: Clock) -> None:
    display = log()
    take = display.tell("beta")
    take(Record("step", step="70-squashfs"))
    for _ in range(130):
        clock.now += 1
        take(Record("log", line="packing"))
    lines = shown(display).splitlines()[1:]
    assert lines == ["beta: 70-squashfs, 61 s: packing", "beta: 70-squashfs, 122 s: packing"]


HOSTILE = "\x1b]0;owned\x07\x1b[2J[red]x[/red]\r\u202e"


@pytest.mark.parametrize("make", [log, terminal])
def test_nothing_that_is_shown_steers_the_terminal(make: Any) -> None:
    display = make()
    take = display.tell("alpha")
    with display.watch():
        for record in (
            Record("step", step=HOSTILE),
            Record("log", line=HOSTILE),
            Record.note(HOSTILE),
            Record("failed", what=HOSTILE),
            Record.of({"record": "step", "step": None}),
            Record("log"),
            Record("step-done"),
        ):
            take(record)
    display.say(HOSTILE)
    for evil in ("\x1b]0", "\x07", "\x1b[2J[red]", "\u202e"):
        assert evil not in shown(display)
    assert "[red]x[/red]" in shown(display)  # and markup is text


def test_a_terminal_shows_the_environments_side_by_side(clock: Clock) -> None:
    display = terminal()
    tell = {name: display.tell(name) for name in ("alpha", "beta")}
    with display.watch():
        for take in tell.values():
            take(Record("step", step="10-inputs"))
            clock.now += 7
            take(Record("step-done", step="10-inputs"))
            take(Record("step", step="20-bootstrap"))
        tell["alpha"](Record("log", line="Setting up bash"))
        display.console.print(display)
    lines = shown(display).splitlines()
    assert any("alpha" in line and "beta" in line for line in lines)
    assert any(line.count("▶ 20-bootstrap") == 2 for line in lines)
    assert any("Setting up bash" in line for line in lines)
    assert lines[-2].endswith("alpha: 10-inputs 7 s")
    assert lines[-1].strip() == "beta: 10-inputs 7 s"


def test_environments_may_come_while_it_is_shown() -> None:
    display = terminal()

    def come(first: int) -> None:
        for number in range(first, first + 40):
            display.tell(f"e{number}")(Record("step", step="x"))

    threads = [threading.Thread(target=come, args=(n * 40,)) for n in range(2)]
    with display.watch():
        for thread in threads:
            thread.start()
        for _ in range(5):
            display.console.print(display)
        for thread in threads:
            thread.join()
    assert shown(display).count(": x") == 80  # a summary each


def test_lines_of_two_threads_do_not_mix() -> None:
    display = log()
    takes = [display.tell(name) for name in ("alpha", "beta")]

    def talk(take: Any) -> None:
        for _ in range(200):
            take(Record.note("x" * 50))

    threads = [threading.Thread(target=talk, args=(take,)) for take in takes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(shown(display).splitlines()) == {f"{n}: {'x' * 50}" for n in ("alpha", "beta")}


@pytest.mark.parametrize("make", [log, terminal])
def test_a_bar_takes_numbers(make: Any) -> None:
    display = make()
    with display.bar("packages") as take:
        take(0, 100)
        take(100, 100)
    assert ("packages" in shown(display)) == (make is terminal)


@pytest.mark.parametrize("make", [log, terminal])
def test_each_step_has_a_bar(make: Any) -> None:
    display = make()
    with display.bars() as watch:
        for step in ("verifying", "writing"):
            watch(step, 0, 100)
            watch(step, 100, 100)
    for step in ("verifying", "writing"):
        assert (step in shown(display)) == (make is terminal)


@pytest.mark.parametrize(
    ("variable", "value"), [("TERM", "dumb"), ("TERM", "unknown"), ("TWINBUILD_PLAIN", "1")]
)
def test_plain_progress_moves_no_cursor(
    variable: str, value: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv(variable, value)
    display = Display(Console(file=io.StringIO(), force_terminal=True, width=80))
    take = display.tell("alpha")
    with display.watch():
        take(Record("step", step="20-bootstrap"))
        clock.now += 42
        take(Record("step-done", step="20-bootstrap"))
    with display.bar("packages") as progress:
        progress(0, 600 * 2**20)
        clock.now += module.REPEAT_EVERY_S + 1
        progress(120 * 2**20, 600 * 2**20)
        progress(600 * 2**20, 600 * 2**20)
    assert shown(display).splitlines() == [
        "alpha: 20-bootstrap …",
        "alpha: 20-bootstrap took 42 s",
        "packages: 120 of 600 MiB",
    ]


@pytest.mark.parametrize("variable", ["FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"])
def test_a_log_is_plain_whatever_a_pipeline_sets(variable: str) -> None:
    """What rich takes for a terminal where there is none: lines would be redrawn in a log."""
    code = """from pipeline.cli.task import open_display
display = open_display()
with display.watch(), display.bar("packages") as progress:
    progress(1, 2)
display.say("done")"""
    env = {"PYTHONPATH": str(ROOT), "TERM": "xterm-256color", variable: "1"}
    argv = [sys.executable, "-c", code]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "done\n"


COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])(?:;\d+)*m")


@pytest.mark.parametrize("asked", [True, False])
def test_no_color_is_honoured(asked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", "1" * asked)  # empty counts as unset, says no-color.org
    display = Display(Console(file=io.StringIO(), force_terminal=True, width=80))
    take = display.tell("alpha")
    with display.watch(), display.bar("packages") as progress:
        progress(1, 2)
        take(Record("step", step="10-inputs"))
        take(Record("step-done", step="10-inputs"))
        display.console.print(display)
    assert "✓ 10-inputs" in shown(display)  # a sign beside the colour
    assert bool(COLOUR.search(shown(display))) is not asked
