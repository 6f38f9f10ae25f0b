# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes wrong on an installed system: one line that says what and what to do, and a status.

The statuses are those of `docs/reference/exit-status.md`. Any other exception is a bug.
"""

import os
import sys
from pathlib import Path

CONTAINER = ".pyz"  # the client as one file


class Failure(Exception):
    """A failure for people.

    `what` says what happened and to what, `remedy` what to do next, both without a final full stop;
    `detail` is longer text, shown below the line.
    """

    status: int

    def __init__(self, what: str, *, remedy: str = "", detail: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.what}; {self.remedy}" if self.remedy else self.what


class UsageError(Failure):
    """Wrong usage: the wrong target, kit or option."""

    status = 2


class InfrastructureFailed(Failure):
    """The medium, the network or a program failed; a retry may help."""

    status = 4


class InputsUnverified(Failure):
    """A kit or a description is not as expected."""

    status = 5


class SignatureInvalid(Failure):
    """A signature is missing, bad, expired or not from a trusted key."""

    status = 6


def command(words: str) -> str:
    """Return a command for the user to type, begun as this one was: alone or by the farm."""
    program = Path(sys.argv[0]).name
    if program.endswith(CONTAINER):
        return f"python3 {sys.argv[0]} {words}"
    started_as = os.environ.get("TWINBUILD_STARTED_AS") or "./farm"
    return f"{program if program in ('invoke', 'inv') else started_as} kit.{words}"
