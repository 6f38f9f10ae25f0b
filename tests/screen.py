# SPDX-License-Identifier: GPL-3.0-or-later
"""What a booted image shows: pictures of the screen, taken from outside the system."""

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.machines.accelerator import EMULATED
from pipeline.machines.boot import Firmware, uefi

EVERY_S = 5.0


@dataclass(frozen=True)
class Picture:
    """A screen: its size in pixels, and three bytes for each of them, row by row."""

    width: int
    height: int
    pixels: bytes

    def filled(self, colour: tuple[int, int, int]) -> tuple[int, int, float]:
        """Return width and height of the rectangle around a colour, and its share in that."""
        wanted = bytes(colour)
        columns: set[int] = set()
        rows: set[int] = set()
        count, at = 0, -1
        while (at := self.pixels.find(wanted, at + 1)) >= 0:
            if at % 3 == 0:
                count += 1
                rows.add(at // 3 // self.width)
                columns.add(at // 3 % self.width)
        if not count:
            return 0, 0, 0.0
        wide, high = max(columns) - min(columns) + 1, max(rows) - min(rows) + 1
        return wide, high, count / (wide * high)


def read_ppm(content: bytes) -> Picture:
    """Read a binary PPM as QEMU writes it."""
    magic, size, depth, pixels = content.split(b"\n", 3)
    width, height = map(int, size.split())
    assert (magic, depth, len(pixels)) == (b"P6", b"255", width * height * 3)
    return Picture(width, height, pixels)


class Screen:
    """The screen of a running machine, reached through QEMU's own protocol."""

    def __init__(self, monitor: socket.socket, folder: Path) -> None:
        self._stream = monitor.makefile("rwb")
        self._folder = folder
        self._stream.readline()  # QEMU's greeting
        self._ask("qmp_capabilities")

    def look(self) -> Picture:
        """Take a picture."""
        path = self._folder / "screen.ppm"
        self._ask("screendump", filename=os.fspath(path))
        return read_ppm(path.read_bytes())

    def keep(self, path: Path) -> None:
        """Keep a picture as a PNG."""
        self._ask("screendump", filename=os.fspath(path), format="png")

    def wait_until(self, shows: Callable[[Picture], bool], timeout_s: float) -> bool:
        """Look again and again until the screen shows it; tell whether it does."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if shows(self.look()):
                return True
            time.sleep(EVERY_S)
        return False

    def _ask(self, command: str, **arguments: Any) -> None:
        question = {"execute": command, "arguments": arguments}
        self._stream.write(json.dumps(question).encode() + b"\n")
        self._stream.flush()
        while "return" not in (answer := json.loads(self._stream.readline())):
            assert "error" not in answer, answer  # all else is events


@contextmanager
def booted(iso: Path, folder: Path, firmware: Firmware) -> Iterator[Screen]:
    """Boot an ISO with a screen, without network or disks; `folder` gets the console's log."""
    ours, theirs = socket.socketpair()
    argv = [
        "qemu-system-x86_64",
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-nic", "none"),
        *("-machine", "q35", "-accel", EMULATED, "-cpu", "max", "-smp", "2", "-m", "2048"),
        *("-vga", "std", "-device", "usb-ehci", "-device", "usb-tablet"),
        *("-drive", f"if=none,id=medium,format=raw,readonly=on,file={iso}"),
        *("-device", "ide-cd,drive=medium"),
        *("-serial", f"file:{folder / 'console.log'}"),
        *("-chardev", f"socket,id=monitor,fd={theirs.fileno()}", "-mon", "monitor,mode=control"),
        *(uefi(folder) if firmware == "uefi" else ()),
    ]
    with (
        ours,
        (folder / "qemu.log").open("wb") as log,
        subprocess.Popen(argv, stdout=log, stderr=log, pass_fds=[theirs.fileno()]) as process,
    ):
        theirs.close()
        try:
            yield Screen(ours, folder)
        finally:
            process.kill()
