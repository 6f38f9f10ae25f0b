# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes FAT file systems with files in them, by mtools: without root, loop devices or mounts.

The same files give the same bytes on any machine: they are written in the order of their names to
unused clusters, and all entries have the same time, which mtools takes from SOURCE_DATE_EPOCH, in
UTC.
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from pipeline.documents.progress import STATUS_BUILD_FAILED
from pipeline.guest.programs import run
from pipeline.guest.serial_port import Report, StepFailed

SERIAL = "54574230"  # any fixed number
FILE_LIMIT = 2**32 - 1  # bytes, by the format
# Names that every system reads alike: printable ASCII, and no DOS device names.
NAME = re.compile(r'(?!\s)[^\x00-\x1f"*/:<>?\\|\x7f-\U0010ffff]{1,255}(?<![. ])')
DEVICE = re.compile(r"(?i)(?:con|prn|aux|nul|clock\$|com[0-9]|lpt[0-9])(?:\..*)?")


def files_below(folder: Path) -> list[str]:
    """Return the paths of all files of a folder, sorted by bytes.

    Raise StepFailed for anything that a FAT cannot hold, or not under the same name.
    """
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise _unfit(name, "is neither a file nor a folder")
        if not NAME.fullmatch(path.name) or DEVICE.fullmatch(path.name):
            raise _unfit(name, "has a name that not every system can read there")
        if path.stat().st_size > FILE_LIMIT:
            raise _unfit(name, "has 4 GiB or more")
        if (other := found.setdefault(name.lower(), name)) != name:
            raise _unfit(name, f"has the same name as {other}, as case does not count there")
    return sorted(name for name in found.values() if (folder / name).is_file())


def _unfit(name: str, why: str) -> StepFailed:
    what = f"{name!r} cannot be on the system partition, a FAT: it {why}"
    return StepFailed(STATUS_BUILD_FAILED, what)


def make_fat(
    report: Report,
    env: Mapping[str, str],
    image: Path,
    options: Sequence[str],
    folder: Path,
    names: Sequence[str],
    *,
    offset: int = 0,
) -> None:
    """Make a file system `offset` bytes into `image`, which has only zeros there.

    `options` are those of mformat, for instance label and size. It gets the files of `folder` with
    the paths `names`, as `files_below` returns them, and their parent folders.
    """
    # mtools uses local time, and the locale's character set for names.
    env = {**env, "TZ": "UTC", "LC_ALL": "C.UTF-8", "MTOOLSRC": os.devnull}
    at = ["-i", f"{image}@@{offset}"]
    run(report, ["mformat", *at, "-N", SERIAL, *options, "::"], env=env)
    within: dict[str, list[str]] = {}
    for name in names:
        *parents, _ = PurePosixPath(name).parts
        for depth in range(len(parents) + 1):
            within.setdefault("/".join(parents[:depth]), [])
        within["/".join(parents)].append(name)
    folders = [f"::{parent}" for parent in sorted(within) if parent]
    if folders:
        run(report, ["mmd", *at, *folders], env=env)
    for parent, files in sorted(within.items()):
        if files:
            sources = [os.fspath(folder / name) for name in files]
            run(report, ["mcopy", *at, *sources, f"::{parent}/"], env=env)
