# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors carry the statuses of the reference page, and read as one line."""

import re
from pathlib import Path

from pipeline.base import errors
from pipeline.base.errors import ExitStatus, InfrastructureFailed, TwinbuildError

PAGE = Path(__file__).parents[3] / "docs/reference/exit-status.md"


def test_an_error_is_what_and_remedy() -> None:
    assert str(InfrastructureFailed("the disk is full")) == "the disk is full"
    error = InfrastructureFailed("the disk is full", remedy="make room", detail="3 lines")
    assert str(error) == "the disk is full; make room"
    assert error.detail == "3 lines"


def test_every_error_has_a_status_of_its_own() -> None:
    kinds = [
        k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, TwinbuildError)
    ]
    statuses = [kind.status for kind in kinds if kind is not TwinbuildError]
    assert sorted(statuses) == [status for status in ExitStatus if status is not ExitStatus.DONE]


def test_the_reference_page_has_every_status() -> None:
    listed = re.findall(r"^\| (\d) \|", PAGE.read_text(), re.MULTILINE)
    assert listed == [str(int(status)) for status in ExitStatus]
