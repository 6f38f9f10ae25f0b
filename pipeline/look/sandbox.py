# SPDX-License-Identifier: GPL-3.0-or-later
"""A bubblewrap sandbox for programs that read hostile data.

A program in it sees the system's programs and libraries and the given files, all of them read-only,
and an empty folder in memory that is removed when it ends. It has no network, no home directory, no
processes but its own, no terminal and no privileges. Where /proc/sys is writable, as outside of
containers, it cannot create further namespaces, which reduces the kernel's attack surface.

Where the kernel refuses user namespaces (in most containers, or by `user.max_user_namespaces`)
there is no sandbox, and the program must not be run without one.
"""

import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from pipeline.base import command
from pipeline.base.errors import InfrastructureFailed, UsageError

PROGRAM = "bwrap"
SCRATCH = Path("/tmp")  # noqa: S108 -- in the sandbox, where nobody else can write to it
PROBE_TIMEOUT_S = 10.0
SEPARATE = (
    *("--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts"),
    *("--unshare-cgroup-try", "--uid", "65534", "--gid", "65534"),
    *("--cap-drop", "ALL", "--new-session", "--die-with-parent", "--clearenv"),
)
ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/usr/sbin:/bin:/sbin",
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
    "HOME": os.fspath(SCRATCH),
    "TMPDIR": os.fspath(SCRATCH),
}
NO_FURTHER = "--disable-userns"
SYSTEM = ("/usr", "/etc/alternatives", "/etc/ld.so.cache")
MERGED = ("/bin", "/sbin", "/lib", "/lib64", "/lib32")  # links into /usr, or real folders


def wrapped(
    argv: Sequence[str | os.PathLike[str]], readable: Sequence[Path], *, scratch_limit: int
) -> list[str]:
    """Return the command that runs `argv` in a sandbox, with `readable` paths besides the system.

    `scratch_limit` is how many bytes it may write, all of them in memory.
    """
    further = [NO_FURTHER] if _can(NO_FURTHER, PROGRAM) else []
    return _wrapped(argv, readable, [*further, "--size", str(scratch_limit)])


def _wrapped(
    argv: Sequence[str | os.PathLike[str]], readable: Sequence[Path], options: Sequence[str]
) -> list[str]:
    """Return the command line; the last of the options applies to the scratch folder."""
    words: list[str] = [PROGRAM, *SEPARATE]
    for name, value in ENVIRONMENT.items():
        words += ["--setenv", name, value]
    for name in (*SYSTEM, *MERGED):
        if Path(name).is_symlink():
            words += ["--symlink", os.fspath(Path(name).readlink()), name]
        else:
            words += ["--ro-bind-try", name, name]
    words += ["--dev", "/dev", *options, "--tmpfs", os.fspath(SCRATCH)]
    for path in readable:
        words += ["--ro-bind", os.fspath(path), os.fspath(path)]
    words += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", os.fspath(SCRATCH), "--"]
    return [*words, *(os.fspath(word) for word in argv)]


def refusal() -> str:
    """Return why this machine cannot run a sandbox; an empty string if it can."""
    try:
        command.find(PROGRAM)
    except UsageError:
        return "bubblewrap is not installed (apt-get install bubblewrap)"
    failure = _failure([])
    return failure and f"the kernel refuses its sandbox the namespaces that it needs ({failure})"


@cache
def _can(option: str, _program: str) -> bool:
    """Return whether a sandbox can be created with an option; cached for each program."""
    return not _failure([option])


def _failure(options: Sequence[str]) -> str:
    """Return bubblewrap's error if it cannot create a sandbox; an empty string if it can."""
    try:
        command.run(_wrapped(["/usr/bin/true"], (), options), timeout_s=PROBE_TIMEOUT_S)
    except InfrastructureFailed as error:
        return (error.detail or error.what).splitlines()[-1]
    return ""
