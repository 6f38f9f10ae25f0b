# SPDX-License-Identifier: GPL-3.0-or-later
"""A gpg home for a secret key given as a file: in memory, and removed when this process ends.

The home is in a tmpfs if there is one. Its agent is started as `gpg-agent --daemon PROGRAM` and
ends when PROGRAM ends; PROGRAM is a shell that waits for the end of this process, even by SIGKILL,
and then removes the home. If the shell is killed as well, the next start removes what is left: a
home is in use as long as a process holds the lock on its folder.
"""

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.base import command
from pipeline.base.errors import InfrastructureFailed, SignatureInvalid

PREFIX = "twinbuild-key-"
IN_MEMORY = frozenset({"tmpfs", "ramfs"})
AGENT_S = 30.0
# The secret is removed first, as ending agents may take a moment.
KEEPER = """
trap '' HUP INT QUIT TERM PIPE
echo ready
cat >/dev/null
exec >/dev/null 2>&1
rm -rf "$GNUPGHOME/private-keys-v1.d"
gpgconf --kill all
gpgconf --remove-socketdir
rm -rf "$GNUPGHOME"
"""


@contextmanager
def made(notify: Callable[[str], None]) -> Iterator[Path]:
    """Yield an empty gpg home with a running agent; both are gone after the block or process."""
    home, lock = _make(notify)
    env = {"GNUPGHOME": os.fspath(home)}
    agent = ["gpg-agent", "--quiet", "--daemon", "--", "/bin/sh", "-c", KEEPER]
    try:
        with command.beside(agent, env=env, failure=SignatureInvalid):
            yield home
    finally:
        _remove(home)
        os.close(lock)


def remove_leftovers(notify: Callable[[str], None]) -> None:
    """Remove the homes left by killed processes of this user, and report each."""
    for parent in places():
        for home in sorted(parent.glob(f"{PREFIX}*")):
            lock = _locked(home)
            if lock is None:
                continue
            try:
                _remove(home)
            finally:
                os.close(lock)
            gone = not home.exists()
            notify(
                f"removed {home}: a release that was killed had left its secret key there"
                if gone
                else f"cannot remove {home}, where a secret key may lie: remove it"
            )


def places() -> list[Path]:
    """Return folders for homes, the best first; paths must be short for the agent's sockets."""
    candidates = (Path(f"/run/user/{os.getuid()}"), Path("/dev/shm"), Path("/tmp"))  # noqa: S108
    return [path for path in candidates if path.is_dir()]


def lies_in_memory(path: Path) -> bool:
    """Tell whether a path is on a file system in memory, according to /proc/self/mountinfo."""
    device = path.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        mounts = Path("/proc/self/mountinfo").read_text(errors="replace").splitlines()
    except OSError:
        return False
    fields = [line.split() for line in mounts]
    return any(
        mount[2] == wanted and mount[mount.index("-") + 1] in IN_MEMORY
        for mount in fields
        if "-" in mount
    )


def _make(notify: Callable[[str], None]) -> tuple[Path, int]:
    """Make a folder for a home and lock it; return the folder and the lock's descriptor."""
    for parent in sorted(places(), key=lambda place: not lies_in_memory(place)):
        try:
            home = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
            lock = os.open(home, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:  # read-only, or another process took it for a leftover
            continue
        fcntl.flock(lock, fcntl.LOCK_EX)
        if home.exists():
            if not lies_in_memory(home):
                notify(f"no memory file system here: while it signs, the secret key lies in {home}")
            return home, lock
        os.close(lock)
    raise InfrastructureFailed(
        "there is no place for a gpg home", remedy="let this user write to /dev/shm or /tmp"
    )


def _locked(home: Path) -> int | None:
    """Lock a home that no process uses; return the descriptor, None if it must not be removed."""
    try:
        lock = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        if os.fstat(lock).st_uid == os.geteuid() and stat.S_ISDIR(home.lstat().st_mode):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
    except OSError:
        pass
    os.close(lock)
    return None


def _remove(home: Path) -> None:
    """End the agents of a home and remove it."""
    if not home.exists():
        return
    shutil.rmtree(home / "private-keys-v1.d", ignore_errors=True)
    env = {"GNUPGHOME": os.fspath(home)}
    command.run(["gpgconf", "--kill", "all"], timeout_s=AGENT_S, env=env, accept=range(256))
    shutil.rmtree(home, ignore_errors=True)
