# SPDX-License-Identifier: GPL-3.0-or-later
"""Decides which time each file of the image gets, whatever this machine's clock says.

Files that the build made get the epoch, and so do all newer ones; older times of packages' files
stay. If the clock is after the epoch, that alone tells the two apart. A clock before the epoch may
be months behind packages of the same image, so there are two more criteria:

- The build made only files with a time between its start and now, by this machine's clock.
- Of these, files from packages and other archives have times in whole seconds; files that were
  written have the kernel's, with fractions. Few programs set whole seconds from the clock (those of
  `passwd` do so for /etc/passwd- and the like), so whole seconds are looked up in the packages.

An explicit time (`touch --date`) within just these hours is mistaken for the clock's. A time before
1970 becomes the epoch: SquashFS and cpio would show it as a date up to the year 2106.

A file's times are read in nanoseconds and rounded down to whole seconds, as file systems do: as
floating-point numbers, the last hundred nanoseconds of a second would round to the next one.
"""

import os
import subprocess
import tarfile
import time
from pathlib import Path

from pipeline.documents.progress import STATUS_INPUTS
from pipeline.guest.serial_port import StepFailed

# The time of the first member of a .deb, which is an ar archive: when the package was built.
BUILT_AT = slice(24, 36)
DAY = 86400
SECOND = 10**9  # nanoseconds
CHANGED = 2  # index of the field of shadow(5) for the day of the last password change


class Times:
    """The times of one build's files; it began at `started`, in seconds by this machine's clock."""

    def __init__(self, epoch: int, started: int) -> None:
        self.epoch = epoch
        self.started = started
        self._of_packages: frozenset[int] = frozenset()
        self._passwords: dict[str, frozenset[bytes]] = {}  # the settled lines of each file

    def take_package_times(self, seconds: frozenset[int]) -> None:
        """Add times of packages' files, so that they are not taken for the build's."""
        self._of_packages |= seconds

    def settled(self, mtime_ns: int) -> int:
        """Return the time in seconds that a file with this time gets in the image."""
        seconds = mtime_ns // SECOND
        return seconds if 0 <= seconds < self.epoch and not self.made(mtime_ns) else self.epoch

    def made(self, mtime_ns: int) -> bool:
        """Tell whether a file with this time was made by the build."""
        if not self.started * SECOND <= mtime_ns <= time.time_ns():
            return False
        return mtime_ns % SECOND != 0 or mtime_ns // SECOND not in self._of_packages

    def settle_passwords(self, tree: Path, epoch: int) -> None:
        """Date passwords that were set since the last call to `epoch`, in seconds.

        The programs of `passwd` ignore a SOURCE_DATE_EPOCH that is after their clock. With any
        other, a day taken from the clock is a fault of its writer, and is left for the comparison.
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
    """Return a time in nanoseconds as whole seconds, rounded down."""
    return mtime_ns // SECOND


def package_times(pool: Path, since: float) -> frozenset[int]:
    """Return the times of all files in packages, as far as they are not before `since`.

    A package that was built before that has no such file, and is not opened.
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
