"""Starts programs in the machine and sends what they print to the log."""

import os
import signal
import subprocess
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from . import protocol
from .report import Report, StepFailed

TAIL_LINES = 20
# Maintainer scripts and hooks are written for this umask; all else runs under the varied one.
SCRIPT_UMASK = 0o022


def run(
    report: Report,
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path | None = None,
    umask: int = -1,
    blame: str = "",
) -> None:
    """Run a program; raise StepFailed with its last lines if it does not end well.

    `blame` is what the user knows it by, for instance the name of a hook.
    """
    last: deque[str] = deque(maxlen=TAIL_LINES)
    name = blame or argv[0]
    try:
        process = subprocess.Popen(
            argv,
            env=dict(env),
            cwd=cwd,
            umask=umask,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
    except OSError as error:
        what = f"{name} cannot be started: {error.strerror}"
        raise StepFailed(protocol.STATUS_BUILD_FAILED, what) from error
    with process:
        assert process.stdout is not None
        for raw in process.stdout:
            line = raw.decode(errors="replace").rstrip()
            last.append(line)
            report.log(line)
    if process.returncode != 0:
        detail = "\n".join(last)
        if process.returncode == -signal.SIGKILL:
            what = f"{name} was killed: the machine has too little memory"
            raise StepFailed(protocol.STATUS_INFRASTRUCTURE, what, detail)
        if "No space left on device" in detail:
            what = f"{name}: the scratch disk is full"
            raise StepFailed(protocol.STATUS_INFRASTRUCTURE, what, detail)
        raise StepFailed(
            protocol.STATUS_BUILD_FAILED, f"{name} failed with status {process.returncode}", detail
        )


def output_of(argv: Sequence[str], env: Mapping[str, str]) -> str:
    """Return the first line that a program prints, or an empty text."""
    done = subprocess.run(argv, env=dict(env), capture_output=True, check=False)
    lines = (done.stdout or done.stderr).decode(errors="replace").splitlines()
    return lines[0].strip() if lines else ""


def environment(machine: Mapping[str, Any], epoch: int) -> dict[str, str]:
    """Return the environment of every program: what is varied, and SOURCE_DATE_EPOCH."""
    home = f"/home/{machine['user']}"
    os.makedirs(home, exist_ok=True)
    return {
        **machine["environment_variables"],
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "DEBIAN_FRONTEND": "noninteractive",
        "DEBCONF_NONINTERACTIVE_SEEN": "true",
        "SOURCE_DATE_EPOCH": str(epoch),
        "HOME": home,
        "USER": machine["user"],
        "LOGNAME": machine["user"],
        "TZ": machine["time_zone"],
        "LANG": machine["locale"],
        "LC_ALL": machine["locale"],
    }
