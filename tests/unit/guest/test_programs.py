# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs in the machine, and how their end and their output are reported."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.documents.progress import LINE_LIMIT, STATUS_BUILD_FAILED
from pipeline.guest import programs, serial_port
from pipeline.guest.serial_port import Report, StepFailed
from pipeline.machines.machine import _Records

ENV = {"PATH": "/usr/bin:/bin"}


class Port(io.RawIOBase):
    """Takes as much at once as the kernel's driver of the real port does."""

    AT_ONCE = 32 * 1024

    def __init__(self) -> None:
        self.sent = b""

    def open(self, mode: str, buffering: int) -> "Port":
        assert (mode, buffering) == ("wb", 0)
        return self

    def write(self, piece: Any) -> int:
        self.sent += bytes(piece[: self.AT_ONCE])
        return min(len(piece), self.AT_ONCE)

    @property
    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.sent.splitlines()]


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Port:
    made = Port()
    monkeypatch.setattr(serial_port, "_find_port", lambda: made)
    monkeypatch.setattr(serial_port, "ALIVE_EVERY_S", 3600)
    return made


@pytest.fixture
def reporter(port: Port) -> Report:
    return Report()


def sh(reporter: Report, script: str, **more: Any) -> None:
    programs.run(reporter, ["sh", "-c", script], env=ENV, **more)


def test_what_a_program_prints_is_reported(reporter: Report, port: Port) -> None:
    sh(reporter, "echo one; echo two >&2; printf '\\377\\n'; printf '%3000s' x")
    assert [r["line"] for r in port.records[:3]] == ["one", "two", "�"]
    assert len(port.records[3]["line"]) == LINE_LIMIT
    assert {r["record"] for r in port.records} == {"log"}


def test_a_long_record_arrives_whole(reporter: Report, port: Port) -> None:
    reporter.send("failed", detail="ü" * 30_000, what="x")
    reporter.send("alive")
    read = [record for record, _ in _Records().feed(port.sent)]
    assert [record.kind for record in read] == ["failed", "alive"]
    assert len(read[0].detail) == 30_000


def test_all_that_is_sent_is_known_outside(reporter: Report, port: Port) -> None:
    with reporter.step("10-x"):
        reporter.log("line")
    reporter.send("done", facts={})
    assert len(list(_Records().feed(port.sent))) == len(port.records) == 4
    assert reporter.seconds.keys() == {"10-x"}


def test_steps_are_timed_and_named(reporter: Report, port: Port) -> None:
    with pytest.raises(StepFailed), reporter.step("20-y"):
        raise StepFailed(3, "it failed")
    assert reporter.step_name == "20-y"
    assert [r["record"] for r in port.records] == ["step"]


@pytest.mark.parametrize(
    ("script", "status", "what"),
    [
        ("exit 7", 3, "hook x failed with status 7"),
        ("kill -KILL $$", 4, "hook x was killed: the machine has too little memory"),
        ("kill -TERM $$", 3, "hook x failed with status -15"),
        ("echo 'cp: No space left on device'; exit 1", 4, "hook x: the scratch disk is full"),
    ],
)
def test_how_a_program_fails(script: str, status: int, what: str, reporter: Report) -> None:
    with pytest.raises(StepFailed) as caught:
        sh(reporter, f"echo last words; {script}", blame="hook x")
    assert (caught.value.status, caught.value.what) == (status, what)
    assert "last words" in caught.value.detail


def test_a_failure_tells_the_last_lines(reporter: Report) -> None:
    with pytest.raises(StepFailed) as caught:
        sh(reporter, "seq 100; exit 1")
    assert caught.value.detail.split() == [str(n) for n in range(81, 101)]


@pytest.mark.parametrize(
    "script",
    [
        "sleep 100",
        "exec >/dev/null 2>&1; sleep 100",
        "sleep 100 & exit 0",  # what it leaves behind holds its output
        "setsid sleep 5 & exit 0",
        "while :; do echo busy; done",
        "trap '' TERM; sleep 100",
    ],
)
def test_a_program_that_hangs_is_ended(script: str, reporter: Report) -> None:
    with pytest.raises(StepFailed) as caught:
        sh(reporter, f"echo last words; {script}", blame="hook x", limit_s=0.3)
    assert caught.value.status == STATUS_BUILD_FAILED
    assert caught.value.what == "hook x, or what it started, did not end within 0.005 minutes"
    assert caught.value.detail.startswith("busy" if "busy" in script else "last words")


def test_a_line_without_end_is_taken_for_several(reporter: Report, port: Port) -> None:
    sh(reporter, "head -c 200000 /dev/zero | tr '\\0' x; echo; echo after")
    lines = [r["line"] for r in port.records]
    assert len(lines) > 2
    assert lines[-1] == "after"
    assert set("".join(lines[:-1])) == {"x"}


@pytest.mark.parametrize("content", [None, "no interpreter", "#!/no/such\n", "#!/bin/sh\n"])
def test_a_hook_that_cannot_start_is_the_images_fault(
    content: str | None, tmp_path: Path, reporter: Report
) -> None:
    hook = tmp_path / "hook"
    if content is not None:
        hook.write_text(content)
        hook.chmod(0o644 if content == "#!/bin/sh\n" else 0o755)
    with pytest.raises(StepFailed, match="hook x cannot be started") as caught:
        programs.run(reporter, [str(hook)], env=ENV, blame="hook x")
    assert caught.value.status == STATUS_BUILD_FAILED


def test_a_program_gets_nothing_but_its_environment(
    reporter: Report, port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEAKED", "1")
    sh(reporter, "env | grep -v -e PWD -e SHLVL -e _=; umask; cat", umask=0o027)
    assert [r["line"] for r in port.records] == ["PATH=/usr/bin:/bin", "0027"]


def test_the_first_line_of_an_output() -> None:
    assert programs.output_of(["sh", "-c", "echo ' one '; echo two"], ENV) == "one"
    assert programs.output_of(["sh", "-c", "echo err >&2"], ENV) == "err"
    assert programs.output_of(["true"], ENV) == ""
