# SPDX-License-Identifier: GPL-3.0-or-later
"""A report of the guest that keeps what it is given: there is no port of a machine in a test."""

from typing import Any

from pipeline.guest.serial_port import Report


class Log(Report):
    """Keeps the lines that are logged, and all other records."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.records: list[dict[str, Any]] = []

    def send(self, record: str, **fields: Any) -> None:
        self.records.append({"record": record, **fields})

    def log(self, line: str) -> None:
        self.lines.append(line)
