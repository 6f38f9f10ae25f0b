# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the machine what `machine.json` says: all that must not matter to what is built in it."""

import os
import resource
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.documents.disks import SCRATCH_DISK
from pipeline.documents.progress import STATUS_INFRASTRUCTURE
from pipeline.guest.job import disk
from pipeline.guest.serial_port import StepFailed

KERNEL = Path("/proc/sys/kernel")


def settle(machine: Mapping[str, Any]) -> None:
    """Take on umask, names, time zone, limits and the layout of memory; programs inherit them."""
    os.umask(int(machine["umask"], 8))
    (KERNEL / "hostname").write_text(machine["host_name"])
    (KERNEL / "randomize_va_space").write_text("2" if machine["randomized_addresses"] else "0")
    time_zone = Path("/etc/localtime")
    time_zone.unlink(missing_ok=True)
    time_zone.symlink_to(f"/usr/share/zoneinfo/{machine['time_zone']}")
    set_limits(machine)


def set_limits(machine: Mapping[str, Any]) -> None:
    """Limit the files that a process may open and the processes that a user may have."""
    for kind, name in (
        (resource.RLIMIT_NOFILE, "open_files"),
        (resource.RLIMIT_NPROC, "processes"),
    ):
        resource.setrlimit(kind, (machine[name], machine[name]))


def make_scratch(machine: Mapping[str, Any]) -> Path:
    """Make the file system that the build works on, and mount it where this machine builds."""
    kind, work = machine["scratch_filesystem"], Path(machine["build_path"])
    work.mkdir(parents=True, exist_ok=True)
    device = os.fspath(disk(SCRATCH_DISK))
    if kind == "tmpfs":
        device = "tmpfs"
    else:
        _run(mkfs(machine, device))
    options = "mode=755" if kind == "tmpfs" else "noatime"
    _run(["mount", "-t", kind, "-o", options, device, os.fspath(work)])
    os.chmod(work, 0o755)  # apt's own user reads the repository through it
    return work


def mkfs(machine: Mapping[str, Any], device: str) -> list[str]:
    """Return how the scratch file system is made.

    ext4 lists a folder in the order of hashes, and so in another order with another seed; XFS and
    btrfs list it in the order in which it was filled, tmpfs the other way round.
    """
    kind = machine["scratch_filesystem"]
    seed = {"ext4": ["-E", f"hash_seed={machine['directory_seed']}"]}.get(kind, [])
    return [f"mkfs.{kind}", "-qF" if kind == "ext4" else "-qf", *seed, device]


def _run(argv: list[str]) -> None:
    done = subprocess.run(argv, capture_output=True, check=False)
    if done.returncode != 0:
        detail = (done.stdout + done.stderr).decode(errors="replace")
        raise StepFailed(STATUS_INFRASTRUCTURE, f"{argv[0]} failed in the machine", detail)
