# SPDX-License-Identifier: GPL-3.0-or-later
"""Measures the same work without the farm: the three programs as one would type them.

`./farm bench` runs this in the machine before the build, on the same inputs and the same disk.
"""

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.documents.disks import REPOSITORY
from pipeline.documents.lock import Package
from pipeline.guest import media
from pipeline.guest.job import GuestJob
from pipeline.guest.programs import run
from pipeline.guest.serial_port import Report


def measure(
    job: GuestJob, report: Report, env: Mapping[str, str], locked: Sequence[Package]
) -> dict[str, float]:
    """Return how many seconds mmdebstrap, mksquashfs and xorriso take; leave nothing behind."""
    work = job.work / "by-hand"
    tree, live = work / "tree", work / "binary" / "live"
    live.mkdir(parents=True)
    os.chmod(work, 0o755)  # apt's own user must be able to enter
    includes = job.image_folder / "includes.chroot"
    seconds = {}
    for name, argv in (
        ("mmdebstrap", _mmdebstrap(job, tree, includes, locked)),
        ("mksquashfs", _mksquashfs(job, tree, live)),
        ("xorriso", ["xorriso", "-as", "mkisofs", "-quiet", "-R", "-V", "BYHAND"]),
    ):
        if name == "xorriso":
            for kind in ("vmlinuz", "initrd.img"):
                shutil.copyfile(next((tree / "boot").glob(f"{kind}-*")), live / kind)
            argv += ["-o", os.fspath(work / "image.iso"), os.fspath(live.parent)]
        with report.step(f"by hand: {name}"):
            started = time.monotonic()
            run(report, argv, env={**env, "INITRD": "No", "TMPDIR": os.fspath(work)}, umask=0o022)
            seconds[name] = round(time.monotonic() - started, 3)
    shutil.rmtree(work)
    return seconds


def _mmdebstrap(job: GuestJob, tree: Path, includes: Path, locked: Sequence[Package]) -> list[str]:
    suite = job.document.suite
    archive = f"deb [trusted=yes] copy:{job.work / REPOSITORY} {suite} main"
    argv = ["mmdebstrap", "--mode=root", "--variant=essential", "--format=directory"]
    argv += [f"--include={','.join(package.name for package in locked)}"]
    if includes.is_dir():
        argv += [f'--customize-hook=cp -a {includes}/. "$1"']
    argv += ['--customize-hook=chroot "$1" update-initramfs -c -k all']
    return [*argv, suite, os.fspath(tree), archive]


def _mksquashfs(job: GuestJob, tree: Path, live: Path) -> list[str]:
    options = media.SQUASHFS_OPTIONS[job.document.compression]
    argv = ["mksquashfs", os.fspath(tree), os.fspath(live / "filesystem.squashfs")]
    argv += ["-noappend", "-no-progress", "-quiet", "-mem", f"{media.MEMORY_MIB}M", *options]
    return [*argv, "-wildcards", "-e", "boot/vmlinuz-*", "boot/initrd.img-*"]
