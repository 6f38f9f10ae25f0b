# SPDX-License-Identifier: GPL-3.0-or-later
"""Which time each file of the image gets, whatever this machine's clock says.

What the build made gets the epoch, and so does all that is newer; a package's own older times stay.
A clock after the epoch tells the two apart by itself. One before it may lie months behind packages
of the same image, so it takes two more looks:

- The build made only what bears a time between its start and now, by this machine's clock.
- Of these, packages and other archives have times of whole seconds; what is written has the
  kernel's, with their fractions. Few programs set whole seconds from the clock (those of `passwd`
  do it for /etc/passwd- and its like), so for what is left the packages themselves are asked.

An explicit time (`touch --date`) that falls into just these hours is taken for the clock's. One
before 1970 becomes the epoch: SquashFS and cpio would show it as one of the year 2106.

A file's times are read in nanoseconds and rounded down to whole seconds, as file systems do: as
floating-point numbers the last hundred nanoseconds of a second would belong to the next one.
"""

import os
import subprocess
import tarfile
import time
from pathlib import Path

from pipeline.documents.progress import STATUS_INPUTS
from pipeline.guest.serial_port import StepFailed

# Of the first member of a .deb, an ar archive: the time when the package was built.
BUILT_AT = slice(24, 36)
DAY = 86400
SECOND = 10**9  # nanoseconds
CHANGED = 2  # the field of shadow(5) with the day of a password's last change


class Times:
    """The times of one build's files; `started` is in seconds of this clock."""

    def __init__(self, epoch: int, started: int) -> None:
        self.epoch = epoch
        self.started = started
        self._of_packages: frozenset[int] = frozenset()
        self._passwords: dict[str, frozenset[bytes]] = {}  # the settled lines of each file

    def take_package_times(self, seconds: frozenset[int]) -> None:
        """Take the times of the packages' files, which are not the build's."""
        self._of_packages |= seconds

    def settled(self, mtime_ns: int) -> int:
        """Return the time in seconds that a file with this time will have in the image."""
        seconds = mtime_ns // SECOND
        return seconds if 0 <= seconds < self.epoch and not self.made(mtime_ns) else self.epoch

    def made(self, mtime_ns: int) -> bool:
        """Tell whether the build made the file that has this time."""
        if not self.started * SECOND <= mtime_ns <= time.time_ns():
            return False
        return mtime_ns % SECOND != 0 or mtime_ns // SECOND not in self._of_packages

    def settle_passwords(self, tree: Path, epoch: int) -> None:
        """Let passwords that were set since the last call be as old as `epoch`, in seconds.

        The programs of `passwd` do not believe in a SOURCE_DATE_EPOCH after their clock. With any
        other, a day of this clock is the fault of who wrote it, and is left to be found.
        """
        days = range(self.started // DAY, int(time.time()) // DAY + 1)
        ours = {str(day).encode() for day in days} if epoch > self.started else set()
        for name in ("etc/shadow", "etc/shadow-"):
            path = tree / name
            if path.is_symlink() or not path.is_file():
                continue
            before = path.read_bytes()
            known = self._passwords.get(name, frozenset())
            users = [line.split(b":") for line in before.split(b"\n")]
            for user in users:
                if len(user) > CHANGED and user[CHANGED] in ours and b":".join(user) not in known:
                    user[CHANGED] = str(epoch // DAY).encode()
            lines = [b":".join(user) for user in users]
            after = b"\n".join(lines)
            if after != before:
                path.write_bytes(after)
            self._passwords[name] = frozenset(lines)


def whole_seconds(mtime_ns: int) -> int:
    """Return a time in nanoseconds as the seconds that an image holds of it: rounded down."""
    return mtime_ns // SECOND


def package_times(pool: Path, since: float) -> frozenset[int]:
    """Return the times of all files in packages that are not before `since`.

    A package that was built before has no such file: it is not opened.
    """
    found: set[int] = set()
    for path in sorted(pool.glob("*.deb")):
        if _built_at(path) >= since:
            found.update(mtime for mtime in _times_in(path) if mtime >= since)
    return frozenset(found)


def _built_at(package: Path) -> float:
    with package.open("rb") as file:
        seconds = file.read(BUILT_AT.stop)[BUILT_AT].strip()
    return int(seconds) if seconds.isdigit() else float("inf")


def _times_in(package: Path) -> set[int]:
    argv = ["dpkg-deb", "--fsys-tarfile", os.fspath(package)]
    try:
        with (
            subprocess.Popen(argv, stdout=subprocess.PIPE) as process,
            tarfile.open(fileobj=process.stdout, mode="r|") as tar,
        ):
            return {int(member.mtime) for member in tar}
    except tarfile.TarError as error:
        what = f"{package.name} cannot be read: {error}"
        raise StepFailed(STATUS_INPUTS, what) from error
