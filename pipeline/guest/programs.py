# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs programs in the machine and sends their output to the log."""

import os
import select
import signal
import subprocess
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence

from pipeline.documents.machine import Factors
from pipeline.documents.progress import SCRATCH_FULL, STATUS_BUILD_FAILED, STATUS_INFRASTRUCTURE
from pipeline.guest.serial_port import Report, StepFailed

TAIL_LINES = 20
# Maintainer scripts and hooks expect this umask; everything else runs under the varied one.
SCRIPT_UMASK = 0o022
# Time limits in seconds: of a hook, and of programs that install or compress everything.
SCRIPT_LIMIT_S = 3600.0
LIMIT_S = 4 * 3600.0
PIECE = 64 * 1024  # bytes of output; a longer line is split


def run(
    report: Report,
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    umask: int = -1,
    blame: str = "",
    limit_s: float = LIMIT_S,
) -> None:
    """Run a program; raise StepFailed with its last lines if it fails or does not end in time.

    `blame` is its name for the user, for instance that of a hook.
    """
    last: deque[str] = deque(maxlen=TAIL_LINES)
    name = blame or argv[0]
    deadline = time.monotonic() + limit_s
    try:
        process = subprocess.Popen(
            argv,
            env=dict(env),
            umask=umask,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
    except OSError as error:
        what = f"{name} cannot be started: {error.strerror}"
        raise StepFailed(STATUS_BUILD_FAILED, what) from error
    assert process.stdout is not None
    with process.stdout:
        try:
            for raw in _lines(process.stdout.fileno(), deadline):
                line = raw.decode(errors="replace").rstrip()
                last.append(line)
                report.log(line)
            process.wait(max(0.0, deadline - time.monotonic()))
        except (TimeoutError, subprocess.TimeoutExpired):
            os.killpg(process.pid, signal.SIGKILL)  # not reaped yet: the group is still its own
            process.wait()
            what = f"{name}, or what it started, did not end within {limit_s / 60:g} minutes"
            raise StepFailed(STATUS_BUILD_FAILED, what, "\n".join(last)) from None
    if process.returncode != 0:
        raise _failure(name, process.returncode, "\n".join(last))


def _lines(pipe: int, deadline: float) -> Iterator[bytes]:
    """Yield the lines from a pipe until its end; raise TimeoutError at the deadline."""
    rest = b""
    while (left_s := deadline - time.monotonic()) > 0 and select.select([pipe], [], [], left_s)[0]:
        piece = os.read(pipe, PIECE)
        *lines, rest = (rest + piece).split(b"\n")
        yield from lines
        if rest and (not piece or len(rest) > PIECE):
            yield rest
            rest = b""
        if not piece:
            return
    raise TimeoutError


def _failure(name: str, status: int, detail: str) -> StepFailed:
    """Return the error for a failed program, with a status that tells whose fault it is."""
    if status == -signal.SIGKILL:
        what = f"{name} was killed: the machine has too little memory"
        return StepFailed(STATUS_INFRASTRUCTURE, what, detail)
    if "No space left on device" in detail:
        what = f"{name}: {SCRATCH_FULL}"
        return StepFailed(STATUS_INFRASTRUCTURE, what, detail)
    what = f"{name} failed with status {status}"
    return StepFailed(STATUS_BUILD_FAILED, what, detail)


def output_of(argv: Sequence[str], env: Mapping[str, str]) -> str:
    """Return the first line of a program's output, or an empty text."""
    done = subprocess.run(argv, env=dict(env), capture_output=True, check=False)
    lines = (done.stdout or done.stderr).decode(errors="replace").splitlines()
    return lines[0].strip() if lines else ""


def environment(factors: Factors, epoch: int) -> dict[str, str]:
    """Return the environment for every program: the varied factors, and SOURCE_DATE_EPOCH."""
    home = f"/home/{factors.user}"
    os.makedirs(home, exist_ok=True)
    return {
        **factors.environment_variables,
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "DEBIAN_FRONTEND": "noninteractive",
        "DEBCONF_NONINTERACTIVE_SEEN": "true",
        "SOURCE_DATE_EPOCH": str(epoch),
        "HOME": home,
        "USER": factors.user,
        "LOGNAME": factors.user,
        "TZ": factors.time_zone,
        "LANG": factors.locale,
        "LC_ALL": factors.locale,
    }
