# SPDX-License-Identifier: GPL-3.0-or-later
"""Sends records over the progress port: steps, lines of the log, signs of life."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.documents.progress import ALIVE_EVERY_S, LINE_LIMIT, PROGRESS_PORT


class StepFailed(Exception):
    """A step cannot continue; the machine reports that and powers off."""

    def __init__(self, status: int, what: str, detail: str = "") -> None:
        super().__init__(what)
        self.status = status
        self.what = what
        self.detail = detail


class Report:
    """The progress port, and how many seconds each step took."""

    def __init__(self) -> None:
        self._port = _find_port().open("wb", buffering=0)
        self._writing = threading.Lock()
        self.step_name = "00-start"
        self.seconds: dict[str, float] = {}
        threading.Thread(target=self._live, daemon=True).start()

    def send(self, record: str, **fields: object) -> None:
        """Send one record; `documents/progress.py` lists the kinds."""
        line = json.dumps({"record": record, **fields}, sort_keys=True).encode() + b"\n"
        with self._writing:
            while line:  # a write takes at most 32 KiB
                line = line[self._port.write(line) :]

    def log(self, line: str) -> None:
        """Send a line that a program printed."""
        self.send("log", line=line[:LINE_LIMIT])

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Report the block as a step, and measure its time."""
        self.step_name = name
        self.send("step", step=name)
        started = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - started, 3)
        self.send("step-done", step=name, seconds=self.seconds[name])

    def _live(self) -> None:
        while True:
            time.sleep(ALIVE_EVERY_S)
            self.send("alive")


def _find_port() -> Path:
    for name in Path("/sys/class/virtio-ports").glob("*/name"):
        if name.read_text().strip() == PROGRESS_PORT:
            return Path("/dev") / name.parent.name
    raise RuntimeError(f"this machine has no port {PROGRESS_PORT}")
