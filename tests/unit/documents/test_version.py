# SPDX-License-Identifier: GPL-3.0-or-later
"""The order of releases."""

from itertools import pairwise

import pytest
from debian.debian_support import version_compare
from hypothesis import given
from hypothesis import strategies as st

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


TAGS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._+~-]{0,11}", fullmatch=True)
NEAR = st.text("019aZ.+-~", min_size=1, max_size=5).map(lambda text: f"1{text}")


@given(one=TAGS | NEAR, other=TAGS | NEAR)
def test_the_order_is_the_one_of_python_debian(one: str, other: str) -> None:
    debian = [version.replace("-", "~").replace("_", ".") for version in (one, other)]
    assert is_older(one, other) == (version_compare(*debian) < 0)
