# SPDX-License-Identifier: GPL-3.0-or-later
"""The order of releases."""

from itertools import pairwise

import pytest

from pipeline.documents.version import in_order, is_older, major

ORDER = ["2.9", "3-rc1", "3", "3.1", "3.2-rc1", "3.2-rc2", "3.2", "3.2+1", "3.2.1", "3.9", "3.10"]


@pytest.mark.parametrize(("older", "newer"), list(pairwise(ORDER)))
def test_releases_have_an_order(older: str, newer: str) -> None:
    assert is_older(older, newer)
    assert not is_older(newer, older)
    assert not is_older(older, older)


@pytest.mark.parametrize(
    ("version", "wanted"),
    [("3", "3"), ("3.1", "3"), ("3-rc1", "3"), ("3+1", "3"), ("30.1", "30"), ("v3.1", "v3")],
)
def test_the_major_version(version: str, wanted: str) -> None:
    assert major(version) == wanted


def test_any_tag_can_be_compared() -> None:
    assert is_older("snow_1", "snow_2")
    assert is_older("alpha", "beta")


def test_versions_are_put_in_order() -> None:
    assert in_order([*reversed(ORDER), *ORDER]) == ORDER
    assert in_order(["3-1", "3~1"]) == in_order(["3~1", "3-1"])
