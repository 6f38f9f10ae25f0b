# SPDX-License-Identifier: GPL-3.0-or-later
"""Differences that an image expects for a while: reported separately, and still differences.

`image.yaml` lists them; they are part of the job, which every environment's statement signs. The
verdict of a comparison that finds nothing else is still `differ`, but that is no error, except in a
release.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from pipeline.base.errors import TwinbuildError, UsageError
from pipeline.base.files import read_json
from pipeline.base.plain import plain
from pipeline.documents.verdict import Difference, Expected

LIMIT = 100


@dataclass(frozen=True)
class Expectation:
    """Which of the differences are expected, and a summary in words.

    `all_met` is true if the ledgers name no other path.
    """

    met: tuple[Expected, ...] = ()
    reasons: tuple[str, ...] = ()
    all_met: bool = False


def expect(job: Path, differences: Sequence[Difference], today: date) -> Expectation:
    """Return which of the differences the job expects; one whose date has passed is not."""
    paths = {difference.path for difference in differences}
    found = [expected for expected in _read(job) if expected.path in paths]
    met = tuple(e for e in found if date.fromisoformat(e.until) >= today)
    reasons = [f"{e.path} is expected to differ until {e.until}: {e.reason}" for e in met]
    reasons += [
        f"{e.path} was expected to differ until {e.until}, which has passed: {e.reason}"
        for e in found
        if e not in met
    ]
    all_met = bool(met) and paths == {e.path for e in met}
    return Expectation(met, tuple(map(plain, reasons)), all_met)


def _read(job: Path) -> list[Expected]:
    try:
        document: Any = read_json(job, failure=UsageError)
        listed = document["expected_differences"][:LIMIT]
        found = [Expected(str(e["path"]), str(e["reason"]), str(e["until"])) for e in listed]
        for expected in found:
            date.fromisoformat(expected.until)
    except (TwinbuildError, KeyError, TypeError, ValueError):
        return []
    return found
