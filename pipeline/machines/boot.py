# SPDX-License-Identifier: GPL-3.0-or-later
"""Boots a finished image in QEMU until the live system announces itself on the serial console."""

import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.base.command import run, run_until
from pipeline.base.errors import InfrastructureFailed, UsageError
from pipeline.machines.accelerator import EMULATED

Firmware = Literal["bios", "uefi"]
Medium = Literal["cdrom", "disk"]

TIMEOUT_S = 900.0
MEMORY_MIB = 1024
WORDS = re.compile(
    rb"twinbuild: image=(?P<image>\S+) version=(?P<version>\S+)"
    rb" commit=(?P<commit>[0-9a-f]+) squashfs=(?P<squashfs>[0-9]+)"
)
MACHINE = (
    "qemu-system-x86_64",
    *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-nic", "none"),
    *("-machine", "q35", "-accel", EMULATED, "-cpu", "max"),
    *("-smp", "2", "-m", str(MEMORY_MIB), "-serial", "stdio", "-monitor", "none"),
)
# QEMU's trace of what a machine asks of its disk, in sectors.
TRACE = "virtio_blk_handle_read"
READ = re.compile(rf"{TRACE} .*\bsector ([0-9]{{1,12}}) nsectors ([0-9]{{1,6}})$")
TRACE_SECTOR = 512
STOPPED, GRACE_S = 124, 60.0  # timeout(1): its status, and what it may take longer
OVMF = ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd")


@dataclass(frozen=True)
class Announcement:
    """The announcement of a live system: its image, version and commit."""

    image: str
    version: str
    commit: str
    squashfs: int  # how many SquashFS files it runs from


def boot_image(
    image: Path,
    log: Path,
    *,
    firmware: Firmware = "bios",
    medium: Medium = "cdrom",
    writable: bool = False,
) -> Announcement:
    """Boot an ISO or USB image without network or other disks, from a drive or as a disk.

    A disk that is `writable` keeps what the system writes to it. What is printed goes to `log`.
    Raise InfrastructureFailed if the system does not announce itself.
    """
    with tempfile.TemporaryDirectory(prefix="twinbuild-boot-") as scratch:
        argv = [
            *MACHINE,
            *medium_arguments(image, medium, writable=writable),
            *(uefi(Path(scratch)) if firmware == "uefi" else ()),
        ]
        announced = run_until(argv, WORDS, log, timeout_s=TIMEOUT_S)
    words = {name: value.decode() for name, value in announced.groupdict().items()}
    return Announcement(words["image"], words["version"], words["commit"], int(words["squashfs"]))


def watch_boot(iso: Path, log: Path, *, seconds: int | None = None) -> list[tuple[int, int]]:
    """Boot an ISO as a disk; return which of its bytes were read, in order: start and end.

    It ends when the system announces itself, or after so many seconds. What is printed goes to
    `log`. Raise InfrastructureFailed if the machine ends by itself or does not announce itself.
    """
    with tempfile.TemporaryDirectory(prefix="twinbuild-boot-") as scratch:
        trace = Path(scratch) / "trace"
        # A desktop does not come up without a screen, though nobody looks at it.
        argv = [*MACHINE, "-vga", "std", *medium_arguments(iso, "disk", writable=False)]
        argv += ["-trace", TRACE, "-D", str(trace)]
        if seconds is None:
            run_until(argv, WORDS, log, timeout_s=TIMEOUT_S)
        else:
            argv = ["timeout", str(seconds), *argv]
            run(argv, timeout_s=seconds + GRACE_S, stdout_to=log, accept=(STOPPED,))
        with trace.open(encoding="utf-8", errors="replace") as lines:
            reads = list(_reads(lines))
    if not reads:
        raise InfrastructureFailed(f"{iso} was not read at all", remedy=f"see {log}")
    return reads


def _reads(lines: Iterator[str]) -> Iterator[tuple[int, int]]:
    """Give the ranges in bytes that a trace reports as read; its other lines are left out."""
    for line in lines:
        if found := READ.search(line.rstrip()):
            start, count = int(found[1]), int(found[2])
            yield start * TRACE_SECTOR, (start + count) * TRACE_SECTOR


def medium_arguments(image: Path, medium: Medium, *, writable: bool) -> Sequence[str]:
    """Return the arguments that give a machine an image, in a drive or as a disk."""
    readonly = "off" if writable else "on"
    drive = f"if=none,id=medium,format=raw,readonly={readonly},file={str(image).replace(',', ',,')}"
    device = "ide-cd,drive=medium" if medium == "cdrom" else "virtio-blk-pci,drive=medium"
    return "-drive", drive, "-device", device


def uefi(scratch: Path) -> Sequence[str]:
    """Return the arguments that make a machine boot by UEFI; raise UsageError without firmware."""
    code, variables = OVMF
    if not Path(code).exists():
        raise UsageError(f"there is no {code}", remedy="apt-get install ovmf")
    own = scratch / "variables.fd"
    shutil.copyfile(variables, own)
    return (
        *("-drive", f"if=pflash,format=raw,readonly=on,file={code}"),
        *("-drive", f"if=pflash,format=raw,file={own}"),
    )
