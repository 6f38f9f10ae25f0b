# SPDX-License-Identifier: GPL-3.0-or-later
"""Where two contents differ is described from a limited number of their bytes."""

import pytest

from pipeline.look.formats import scan
from pipeline.look.formats.ranges import Ranges
from pipeline.look.formats.source import Memory


def test_counting_ends_at_its_limit_however_many_ranges_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scan, "COUNT_LIMIT", 3)
    ranges = Ranges([(at, at + 1) for at in range(0, 100, 2)])
    found = scan.describe(Memory(b"a" * 100), Memory(b"b" * 100), ranges)
    assert (found.offset, found.count) == (0, 4)
