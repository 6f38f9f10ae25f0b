# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs get what they are meant to get and no more, and end when they are meant to."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pipeline.base import command
from pipeline.base.command import clean_environment, run
from pipeline.base.errors import BuildFailed, InfrastructureFailed, UsageError

ROOT = Path(__file__).parents[3]


def state_of(pid: int) -> str:
    """Return what a process does: R for running, S for waiting, Z and "" for ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def has_ended(pid: int) -> bool:
    """Tell whether a process ends within a moment: the kernel takes one to carry out a kill."""
    end = time.monotonic() + 10
    while state_of(pid) not in ("Z", "") and time.monotonic() < end:
        os.sched_yield()
    return state_of(pid) in ("Z", "")


def wait_for(path: Path) -> str:
    """Return what a program writes into a file, once it has."""
    end = time.monotonic() + 10
    while not (path.exists() and path.read_text().endswith("\n")):
        assert time.monotonic() < end
        os.sched_yield()
    return path.read_text().strip()


def test_the_environment_is_made_from_scratch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_PRELOAD", "/nowhere.so")
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    variables = dict(line.split("=", 1) for line in run(["env"], timeout_s=10).text.splitlines())
    assert not {"LD_PRELOAD", "GIT_DIR"} & variables.keys()
    assert (variables["LC_ALL"], variables["TZ"]) == ("C.UTF-8", "UTC")
    assert variables["https_proxy"] == "http://127.0.0.1:9"
    assert run(["sh", "-c", "echo $X"], env={"X": "y"}, timeout_s=10).text == "y"


@pytest.mark.parametrize("name", ["http_proxy", "https_proxy", "all_proxy", "no_proxy"])
def test_a_proxy_reaches_programs_in_both_spellings(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(name.upper(), "large")
    variables = clean_environment()
    assert (variables[name], variables[name.upper()]) == ("large", "large")
    monkeypatch.setenv(name, "small")
    variables = clean_environment()
    assert (variables[name], variables[name.upper()]) == ("small", "small")


def test_no_proxy_is_made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    assert not [name for name in clean_environment() if name.lower().endswith("_proxy")]


def test_the_umask_is_fixed() -> None:
    old = os.umask(0o000)
    try:
        assert run(["sh", "-c", "umask"], timeout_s=10).text == "0022"
    finally:
        os.umask(old)


def test_arguments_are_no_shell_line() -> None:
    assert run(["echo", "$HOME; `id`", "*"], timeout_s=10).text == "$HOME; `id` *"


def test_input_and_output_are_bytes(tmp_path: Path) -> None:
    done = run(["cat"], stdin=b"\xff\0", timeout_s=10)
    assert done.stdout == b"\xff\0"
    assert run(["cat"], timeout_s=10).stdout == b""  # nobody's terminal
    assert run(["pwd"], cwd=tmp_path, timeout_s=10).text == str(tmp_path)


def test_large_output_goes_to_files(tmp_path: Path) -> None:
    out, err = tmp_path / "out", tmp_path / "err"
    argv = ["sh", "-c", "head -c 3000000 /dev/zero; echo error >&2"]
    done = run(argv, stdout_to=out, stderr_to=err, timeout_s=10)
    assert (done.stdout, done.stderr) == (b"", b"")
    assert out.stat().st_size == 3_000_000
    assert err.read_text() == "error\n"


def test_a_failure_shows_how_to_run_it_again_and_the_output(tmp_path: Path) -> None:
    script = "for i in $(seq 100); do echo line $i >&2; done; exit 7"
    for stderr_to in (None, tmp_path / "err"):
        with pytest.raises(BuildFailed) as caught:
            run(["sh", "-c", script], failure=BuildFailed, stderr_to=stderr_to, timeout_s=10)
        assert str(caught.value) == f"sh ended with status 7: sh -c '{script}'"
        cut, *lines = caught.value.detail.splitlines()
        assert "are left out" in cut
        assert lines == [f"line {n}" for n in range(86, 101)]
    assert run(["sh", "-c", "exit 7"], accept=(0, 7), timeout_s=10).status == 7


def test_a_missing_program_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="apt-get install no-such-program"):
        run(["no-such-program"], timeout_s=10)
    monkeypatch.setitem(command.PACKAGE_OF, "no-such-program", "its-package")
    with pytest.raises(UsageError, match="apt-get install its-package"):
        command.find("no-such-program")


def test_a_program_that_does_not_end_is_ended_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child ignores a polite end and holds the pipe that is read."""
    monkeypatch.setattr(command, "TERMINATE_GRACE_S", 2.0)
    child = tmp_path / "child"
    script = f"(trap \"\" TERM; exec sh -c 'echo $$ > {child}; exec sleep 60') & wait"
    started = time.monotonic()
    with pytest.raises(InfrastructureFailed, match=r"did not end within 0\.5 s"):
        run(["sh", "-c", script], timeout_s=0.5)
    assert time.monotonic() - started < 10
    assert has_ended(int(wait_for(child)))


def test_an_interruption_ends_the_program(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    code = "import sys; from pipeline.base.command import run; run(sys.argv[1:], timeout_s=60)"
    argv = [sys.executable, "-c", code, "sh", "-c", f"echo $$ > {pid}; exec sleep 60"]
    with subprocess.Popen(argv, cwd=ROOT, stderr=subprocess.PIPE) as caller:
        program = int(wait_for(pid))
        while state_of(caller.pid) != "S":  # it waits for the program's end
            os.sched_yield()
        caller.send_signal(signal.SIGINT)
        assert b"KeyboardInterrupt" in caller.communicate(timeout=30)[1]
    assert has_ended(program)


def test_all_programs_can_be_stopped(tmp_path: Path) -> None:
    pid = tmp_path / "pid"

    def stop() -> None:
        wait_for(pid)
        command.stop_all()

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(InfrastructureFailed, match="ended with status -15"):
        run(["sh", "-c", f"echo $$ > {pid}; exec sleep 60"], timeout_s=60)
    thread.join()
