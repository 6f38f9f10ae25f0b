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
# QEMU's trace event for a read from the disk, in sectors.
TRACE = "virtio_blk_handle_read"
READ = re.compile(rf"{TRACE} .*\bsector ([0-9]{{1,12}}) nsectors ([0-9]{{1,6}})$")
TRACE_SECTOR = 512
STOPPED, GRACE_S = 124, 60.0  # timeout(1): its exit status, and a grace period
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
    """Boot an ISO or USB image, as an optical medium or a disk, without network or other disks.

    If it is `writable`, what the system writes stays in the file. Output goes to `log`.
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
    """Boot an ISO as a disk; return the ranges of bytes read, in order, as start and end.

    The boot ends when the system announces itself, or, if `seconds` is given, after that time
    instead. Output goes to `log`. Raise InfrastructureFailed if the machine ends by itself, does
    not announce itself, or reads nothing.
    """
    with tempfile.TemporaryDirectory(prefix="twinbuild-boot-") as scratch:
        trace = Path(scratch) / "trace"
        # A desktop does not start without a display adapter, though no display is shown.
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
    """Yield the byte ranges that a trace reports as read; skip its other lines."""
    for line in lines:
        if found := READ.search(line.rstrip()):
            start, count = int(found[1]), int(found[2])
            yield start * TRACE_SECTOR, (start + count) * TRACE_SECTOR


def medium_arguments(image: Path, medium: Medium, *, writable: bool) -> Sequence[str]:
    """Return the QEMU arguments that attach an image, as an optical medium or a disk."""
    readonly = "off" if writable else "on"
    drive = f"if=none,id=medium,format=raw,readonly={readonly},file={str(image).replace(',', ',,')}"
    device = "ide-cd,drive=medium" if medium == "cdrom" else "virtio-blk-pci,drive=medium"
    return "-drive", drive, "-device", device


def uefi(scratch: Path) -> Sequence[str]:
    """Return the QEMU arguments to boot by UEFI; raise UsageError if the firmware is missing."""
    code, variables = OVMF
    if not Path(code).exists():
        raise UsageError(f"there is no {code}", remedy="apt-get install ovmf")
    own = scratch / "variables.fd"
    shutil.copyfile(variables, own)
    return (
        *("-drive", f"if=pflash,format=raw,readonly=on,file={code}"),
        *("-drive", f"if=pflash,format=raw,file={own}"),
    )
