"""A place where a program that reads hostile bytes can do no harm: made with bubblewrap.

What runs in it sees the system's programs and libraries and the files that it is given, all of them
read-only, and an empty folder in memory that goes when it ends. It has no network, no home, no
processes but its own, no terminal, no privileges, and cannot make a namespace to gain some.

Where the kernel refuses user namespaces (in most containers, or by `user.max_user_namespaces`)
there is no sandbox, and nothing must be run instead.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from pipeline import command
from pipeline.errors import InfrastructureFailed, UsageError

PROGRAM = "bwrap"
SCRATCH = Path("/tmp")  # noqa: S108 -- inside, where it is of nobody else
PROBE_TIMEOUT_S = 10.0
SEPARATE = (
    *("--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts"),
    *("--unshare-cgroup-try", "--disable-userns", "--uid", "65534", "--gid", "65534"),
    *("--cap-drop", "ALL", "--new-session", "--die-with-parent", "--clearenv"),
)
ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/usr/sbin:/bin:/sbin",
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
    "HOME": os.fspath(SCRATCH),
    "TMPDIR": os.fspath(SCRATCH),
}
SYSTEM = ("/usr", "/etc/alternatives", "/etc/ld.so.cache")
MERGED = ("/bin", "/sbin", "/lib", "/lib64", "/lib32")  # links into /usr, or folders of their own


def wrapped(
    argv: Sequence[str | os.PathLike[str]], readable: Sequence[Path], *, scratch_limit: int
) -> list[str]:
    """Return what runs `argv` in a sandbox that has the paths `readable` beside the system's.

    `scratch_limit` is how many bytes it may write, all of them in memory.
    """
    words: list[str] = [PROGRAM, *SEPARATE]
    for name, value in ENVIRONMENT.items():
        words += ["--setenv", name, value]
    for name in (*SYSTEM, *MERGED):
        if Path(name).is_symlink():
            words += ["--symlink", os.fspath(Path(name).readlink()), name]
        else:
            words += ["--ro-bind-try", name, name]
    words += ["--dev", "/dev", "--size", str(scratch_limit), "--tmpfs", os.fspath(SCRATCH)]
    for path in readable:
        words += ["--ro-bind", os.fspath(path), os.fspath(path)]
    words += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", os.fspath(SCRATCH), "--"]
    return [*words, *(os.fspath(word) for word in argv)]


def refusal() -> str:
    """Return why there can be no sandbox on this machine; nothing if there can."""
    try:
        command.find(PROGRAM)
    except UsageError:
        return "bubblewrap is not installed (apt-get install bubblewrap)"
    try:
        command.run(
            wrapped(["/usr/bin/true"], (), scratch_limit=1024**2), timeout_s=PROBE_TIMEOUT_S
        )
    except InfrastructureFailed as error:
        last = (error.detail or error.what).splitlines()[-1]
        return f"the kernel refuses its sandbox the namespaces that it needs ({last})"
    return ""
