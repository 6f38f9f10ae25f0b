# SPDX-License-Identifier: GPL-3.0-or-later
"""Sets the machine up as `machine.json` says: the factors, which must not affect what is built."""

import os
import resource
import subprocess
from pathlib import Path

from pipeline.documents.disks import SCRATCH_DISK
from pipeline.documents.machine import Factors
from pipeline.documents.progress import STATUS_INFRASTRUCTURE
from pipeline.guest.job import disk
from pipeline.guest.serial_port import StepFailed

KERNEL = Path("/proc/sys/kernel")


def settle(factors: Factors) -> None:
    """Set umask, host name, time zone, limits and address randomisation; programs inherit them."""
    os.umask(int(factors.umask, 8))
    (KERNEL / "hostname").write_text(factors.host_name)
    (KERNEL / "randomize_va_space").write_text("2" if factors.randomized_addresses else "0")
    time_zone = Path("/etc/localtime")
    time_zone.unlink(missing_ok=True)
    time_zone.symlink_to(f"/usr/share/zoneinfo/{factors.time_zone}")
    set_limits(factors)


def set_limits(factors: Factors) -> None:
    """Limit the open files of a process and the processes of a user."""
    for kind, limit in (
        (resource.RLIMIT_NOFILE, factors.open_files),
        (resource.RLIMIT_NPROC, factors.processes),
    ):
        resource.setrlimit(kind, (limit, limit))


def make_scratch(factors: Factors) -> Path:
    """Make the scratch file system, and mount it at this machine's build path; return that."""
    kind, work = factors.scratch_filesystem, Path(factors.build_path)
    work.mkdir(parents=True, exist_ok=True)
    device = os.fspath(disk(SCRATCH_DISK))
    if kind == "tmpfs":
        device = "tmpfs"
    else:
        _run(mkfs(factors, device))
    options = "mode=755" if kind == "tmpfs" else "noatime"
    _run(["mount", "-t", kind, "-o", options, device, os.fspath(work)])
    os.chmod(work, 0o755)  # apt's own user reads the repository through it
    return work


def mkfs(factors: Factors, device: str) -> list[str]:
    """Return the command that makes the scratch file system.

    ext4 lists a folder in the order of hashes, and so in another order with another seed; XFS and
    btrfs list entries in the order of their creation, tmpfs in reverse.
    """
    kind = factors.scratch_filesystem
    seed = {"ext4": ["-E", f"hash_seed={factors.directory_seed}"]}.get(kind, [])
    return [f"mkfs.{kind}", "-qF" if kind == "ext4" else "-qf", *seed, device]


def _run(argv: list[str]) -> None:
    done = subprocess.run(argv, capture_output=True, check=False)
    if done.returncode != 0:
        detail = (done.stdout + done.stderr).decode(errors="replace")
        raise StepFailed(STATUS_INFRASTRUCTURE, f"{argv[0]} failed in the machine", detail)
