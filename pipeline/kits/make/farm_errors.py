# SPDX-License-Identifier: GPL-3.0-or-later
"""Turns the Failures of kits/install, which knows no errors of the farm, into such errors."""

from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.base import errors
from pipeline.base.errors import ExitStatus, TwinbuildError
from pipeline.kits.install.failure import Failure

ERRORS: dict[int, type[TwinbuildError]] = {
    ExitStatus.USAGE: errors.UsageError,
    ExitStatus.INFRASTRUCTURE: errors.InfrastructureFailed,
    ExitStatus.INPUTS_UNVERIFIED: errors.InputsUnverified,
    ExitStatus.SIGNATURE: errors.SignatureInvalid,
}


@contextmanager
def farm_errors() -> Iterator[None]:
    """Turn a Failure in the block into the farm's error with the same status, text and remedy."""
    try:
        yield
    except Failure as failure:
        error = ERRORS[failure.status]
        raise error(failure.what, remedy=failure.remedy, detail=failure.detail) from failure
