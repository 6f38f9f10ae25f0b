# SPDX-License-Identifier: GPL-3.0-or-later
"""The one place that starts programs.

Programs get an argument list (never a shell command line), an environment made from scratch, a
fixed umask, no standard input unless some is given, and a time limit. Outside the guest no other
module imports `subprocess`; a test enforces this.
"""

import contextlib
import os
import re
import select
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.base.disk_room import NO_SPACE, program_found_no_room
from pipeline.base.errors import InfrastructureFailed, TwinbuildError, UsageError

UMASK = 0o022
TAIL_LINES = 15
TERMINATE_GRACE_S = 10.0
BESIDE_S = 60.0
POLL_S = 0.5

# The variables that programs get from the caller's environment, besides proxies.
PASSED_ON = ("HOME", "SSL_CERT_FILE", "TMPDIR")
# Some programs read these in lower case, others in upper case: so they get both.
PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy")

PACKAGE_OF = {
    "bwrap": "bubblewrap",
    "git": "git",
    "gpg": "gnupg",
    "gpg-agent": "gpg-agent",
    "gpgv": "gpgv",
    "mksquashfs": "squashfs-tools",
    "mmdebstrap": "mmdebstrap",
    "apt-get": "apt",
    "prlimit": "util-linux",
    "ssh-keygen": "openssh-client",
    "qemu-system-x86_64": "qemu-system-x86",
    "unsquashfs": "squashfs-tools",
}


@dataclass(frozen=True)
class Completed:
    """A program that has ended: its arguments, exit status and output."""

    argv: tuple[str, ...]
    status: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """Standard output as UTF-8, with undecodable bytes replaced, without final newlines."""
        return self.stdout.decode(errors="replace").rstrip("\n")

    @property
    def tail(self) -> str:
        """The end of standard error, or else of standard output, and a note if there was more."""
        return last_lines(self.stderr.strip() or self.stdout.strip())


def last_lines(printed: bytes) -> str:
    """Return the last lines of a program's output, and a note if there were more."""
    lines = printed.decode(errors="replace").splitlines()
    cut = ["… (the lines before these are left out)"] * (len(lines) > TAIL_LINES)
    return "\n".join(cut + lines[-TAIL_LINES:])


_running: set[subprocess.Popen[bytes]] = set()
_starting = threading.Lock()  # so that `stop_all` does not miss a program that is being started


def stop_all() -> None:
    """End every program that is running, in any thread: its caller gets the failure."""
    with _starting:
        running = list(_running)
    for process in running:
        _signal(process, signal.SIGTERM)


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment for programs: a fixed locale and time zone, plus `extra`."""
    passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    for name in PROXIES:
        value = os.environ.get(name, os.environ.get(name.upper()))
        if value is not None:
            passed |= {name: value, name.upper(): value}
    fixed = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
    }
    return {**passed, **fixed, **(extra or {})}


def find(program: str) -> Path:
    """Return the path of `program`; raise UsageError, which names its package, if missing."""
    found = shutil.which(program, path=clean_environment()["PATH"])
    if found is None:
        package = PACKAGE_OF.get(program, program)
        raise UsageError(
            f"the program {program} is not installed", remedy=f"apt-get install {package}"
        )
    return Path(found)


def run(
    argv: Sequence[str | os.PathLike[str]],
    *,
    timeout_s: float,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: bytes | None = None,
    stdout_to: Path | None = None,
    stderr_to: Path | None = None,
    accept: Collection[int] = (0,),
    failure: type[TwinbuildError] = InfrastructureFailed,
) -> Completed:
    """Run a program to its end and return its output.

    `env` is added to the clean environment. Large output goes to the files `stdout_to` and
    `stderr_to` instead of memory. If the status is not in `accept`, or if the program does not end
    within `timeout_s` seconds, raise `failure`, with a command line to replay it by hand and the
    last lines of its output.
    """
    arguments = [os.fspath(argument) for argument in argv]
    replay = shlex.join(arguments)
    with _opened(stdout_to) as stdout, _opened(stderr_to) as stderr:
        given = subprocess.DEVNULL if stdin is None else subprocess.PIPE
        process = _start(arguments, given, stdout, stderr, env=env, cwd=cwd)
        try:
            out, err = process.communicate(stdin, timeout=timeout_s)
        except subprocess.TimeoutExpired:
            _stop(process)
            raise failure(f"{arguments[0]} did not end within {timeout_s:g} s: {replay}") from None
        except BaseException:
            _stop(process)
            raise
        finally:
            _running.discard(process)
    completed = Completed(tuple(arguments), process.returncode, out or b"", err or b"")
    if completed.status not in accept:
        output = completed.tail or (_tail_of(stderr_to) if stderr_to else "")
        if NO_SPACE in output:
            raise program_found_no_room(arguments[0], output)
        raise failure(
            f"{arguments[0]} ended with status {completed.status}: {replay}", detail=output
        )
    return completed


def run_until(
    argv: Sequence[str | os.PathLike[str]],
    words: re.Pattern[bytes],
    log: Path,
    *,
    timeout_s: float,
    failure: type[TwinbuildError] = InfrastructureFailed,
) -> re.Match[bytes]:
    """Run a program until its output, which goes to `log`, has `words`; stop it, return the match.

    Raise `failure` if it ends without them, or does not print them within `timeout_s` seconds.
    """
    arguments = [os.fspath(argument) for argument in argv]
    deadline = time.monotonic() + timeout_s
    with log.open("wb") as out:
        process = _start(arguments, subprocess.DEVNULL, out.fileno(), subprocess.STDOUT)
        try:
            while time.monotonic() < deadline:
                ended = process.poll() is not None
                if found := words.search(log.read_bytes()):
                    return found
                if ended:
                    break
                time.sleep(POLL_S)
        finally:
            _stop(process)
            _running.discard(process)
    what = f"{arguments[0]} did not say {words.pattern.decode()!r} within {timeout_s:g} s"
    raise failure(what, remedy=f"see {log}", detail=_tail_of(log))


@contextmanager
def beside(
    argv: Sequence[str | os.PathLike[str]],
    *,
    env: Mapping[str, str] | None = None,
    failure: type[TwinbuildError] = InfrastructureFailed,
) -> Iterator[None]:
    """Run a program that cleans up after this process, however this process ends.

    The program writes the line "ready" and then reads its standard input, which ends when the block
    ends or this process dies, even by SIGKILL. It has a session of its own, so that signals that
    end this process do not end it, and `stop_all` leaves it alone. Raise `failure` if it does not
    get ready.
    """
    program, *arguments = (os.fspath(argument) for argument in argv)
    process = subprocess.Popen(
        [os.fspath(find(program)), *arguments],
        env=clean_environment(env),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        umask=UMASK,
        start_new_session=True,
    )
    with process:
        try:
            printed = _read_until_ready(process)
            if not printed.endswith(b"ready\n"):
                raise failure(f"{argv[0]} did not start", detail=printed.decode(errors="replace"))
            yield
        finally:
            if process.stdin:
                process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(BESIDE_S)
            _signal(process, signal.SIGKILL)


def _read_until_ready(process: subprocess.Popen[bytes]) -> bytes:
    """Return a program's output up to the line "ready", its end, or the time limit."""
    printed, deadline = b"", time.monotonic() + BESIDE_S
    if process.stdout is None:
        return printed
    while not printed.endswith(b"ready\n"):
        patience = max(0.0, deadline - time.monotonic())
        if not select.select([process.stdout], [], [], patience)[0]:
            break
        piece = os.read(process.stdout.fileno(), 4096)
        if not piece:
            break
        printed += piece
    return printed


def _start(
    arguments: Sequence[str],
    stdin: int,
    stdout: int,
    stderr: int,
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program in a process group of its own, where `stop_all` finds it."""
    program = find(arguments[0]) if "/" not in arguments[0] else Path(arguments[0])
    with _starting:
        process = subprocess.Popen(
            [os.fspath(program), *arguments[1:]],
            env=clean_environment(env),
            cwd=cwd,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            umask=UMASK,
            process_group=0,
        )
        _running.add(process)
    return process


@contextmanager
def _opened(path: Path | None) -> Iterator[int]:
    """Yield a file to write to, or a pipe if there is no path."""
    if path is None:
        yield subprocess.PIPE
        return
    with path.open("wb") as file:
        yield file.fileno()


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the program and what it started: by SIGTERM first, then by SIGKILL."""
    _signal(process, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(TERMINATE_GRACE_S)
    _signal(process, signal.SIGKILL)  # for children left behind, which may hold the pipe open
    process.communicate()


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _tail_of(path: Path) -> str:
    """Return the last lines of a file, which may be large."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 8192))
        return last_lines(file.read())
