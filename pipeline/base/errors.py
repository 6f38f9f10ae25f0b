# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors for users: one line that says what happened and what to do, and an exit status.

The statuses are those of `docs/reference/exit-status.md`. Any other exception is a bug.
"""

import os
import shlex
import sys
from enum import IntEnum
from pathlib import Path

STARTED_AS = "TWINBUILD_STARTED_AS"  # set by `./farm` to the name by which it was called


class ExitStatus(IntEnum):
    """The exit status of a Twinbuild command; the same everywhere."""

    DONE = 0
    DIFFERS = 1
    USAGE = 2
    BUILD_FAILED = 3
    INFRASTRUCTURE = 4
    INPUTS_UNVERIFIED = 5
    SIGNATURE = 6


# The wording in each task's help.
MEANINGS = {
    ExitStatus.DONE: "done",
    ExitStatus.DIFFERS: "the builds, or the files and the manifest, differ",
    ExitStatus.USAGE: "wrong usage or configuration",
    ExitStatus.BUILD_FAILED: "a build failed",
    ExitStatus.INFRASTRUCTURE: "the infrastructure failed",
    ExitStatus.INPUTS_UNVERIFIED: "inputs could not be verified",
    ExitStatus.SIGNATURE: "a signature is missing, bad, expired or not from a trusted key, "
    "or too few signers",
}


def command_line(arguments: str) -> str:
    """Return a command line for the user, beginning with the name used now, such as `./farm`."""
    program = Path(sys.argv[0]).name
    default = program if program in ("invoke", "inv", "twinbuild") else "./farm"
    return f"{shlex.quote(os.environ.get(STARTED_AS) or default)} {arguments}"


class TwinbuildError(Exception):
    """An error for the user.

    `what` says what happened and to what, `remedy` what to do next, both without a full stop;
    `detail` is longer text (the last lines of a log, a list of paths), shown below that line.
    """

    status: ExitStatus

    def __init__(self, what: str, *, remedy: str = "", detail: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.what}; {self.remedy}" if self.remedy else self.what


class Differs(TwinbuildError):
    """The builds differ, or the files differ from the manifest."""

    status = ExitStatus.DIFFERS


class UsageError(TwinbuildError):
    """Wrong usage or configuration."""

    status = ExitStatus.USAGE


class BuildFailed(TwinbuildError):
    """The image is at fault: a hook, a package, its configuration."""

    status = ExitStatus.BUILD_FAILED


class InfrastructureFailed(TwinbuildError):
    """The engine, the machine, the disk or the network failed; a retry may help."""

    status = ExitStatus.INFRASTRUCTURE


class InputsUnverified(TwinbuildError):
    """An input of a build could not be verified."""

    status = ExitStatus.INPUTS_UNVERIFIED


class SignatureInvalid(TwinbuildError):
    """A signature is missing, bad, expired or not from a trusted key."""

    status = ExitStatus.SIGNATURE
