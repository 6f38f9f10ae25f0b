# SPDX-License-Identifier: GPL-3.0-or-later
"""What a verification found: an exit status, lines for people, one JSON object for programs."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field

if sys.version_info < (3, 9):  # noqa: UP036  it would fail below, with a status that means "differs"
    sys.stderr.write("error: verify.py needs Python 3.9 or later\n")
    sys.exit(2)

DONE, DIFFERS, USAGE, INFRASTRUCTURE, SIGNATURE = 0, 1, 2, 4, 6
LINES = 10  # of the report for people


class Refused(Exception):
    """Something does not hold: an exit status and one line for people."""

    def __init__(self, status: int, what: str) -> None:
        super().__init__(what)
        self.status = status


@dataclass
class VerificationReport:
    """The result, as `--json` prints it; `proven` is for people only."""

    tag: str | None
    status: int = DONE
    repository: str | None = None
    image: str | None = None
    commit: str | None = None
    signer: str | None = None
    verified: list[str] = field(default_factory=list)
    proven: list[str] = field(default_factory=list)
    not_proven: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def refuse(self, refused: Refused) -> None:
        """Take up an error; the first one decides the exit status, a bad signature before all."""
        self.errors.append(printable(str(refused))[:500])
        if self.status == DONE or refused.status == SIGNATURE:
            self.status = refused.status

    def as_json(self) -> str:
        """Return the report as one JSON object on one line."""
        keys = ("status", "tag", "repository", "image", "commit", "signer", "verified")
        document = {key: getattr(self, key) for key in (*keys, "not_proven", "errors")}
        return json.dumps({"ok": self.status == DONE, **document}, sort_keys=True)

    def as_text(self) -> str:
        """Return the report in at most `LINES` lines."""
        head = "verified" if self.status == DONE else f"NOT VERIFIED (status {self.status})"
        lines = [f"{self.tag}: {head}"]
        lines += _first([f"  error: {error}" for error in self.errors], 3)
        lines += _first([f"  proven: {sentence}" for sentence in self.proven], 3)
        open_ends = [f"  not proven: {sentence}" for sentence in self.not_proven]
        lines += _first(open_ends, LINES - len(lines))
        return "\n".join(map(printable, lines))


def printable(text: str) -> str:
    """Return text with control characters and invisible ones escaped."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _first(lines: list[str], count: int) -> list[str]:
    more = len(lines) - count
    return lines if more <= 0 else [*lines[: count - 1], f"  and {more + 1} more (see --json)"]
