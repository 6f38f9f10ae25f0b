# SPDX-License-Identifier: GPL-3.0-or-later
"""Parts of a build's date, dates reckoned from it, and what its time zone is called."""

from dataclasses import replace

import pytest

from pipeline.look.causes.classify import find_causes
from tests.unit.look.test_causes import ALPHA, ALPHA_AT, BETA, BETA_AT, PAIR

# The builds: Wednesday, 2027-06-23 18:40 and Saturday, 2027-12-25 18:40 UTC.
LATER = replace(BETA, hours=(BETA_AT + 86400 * 365, BETA_AT + 86400 * 365 + 600))


def named(left: str, right: str, beta: object = BETA) -> list[tuple[str, bool]]:
    pair = (ALPHA, beta if isinstance(beta, type(BETA)) else BETA)
    found = find_causes("x", (left.encode(), right.encode()), pair)
    return [(cause.name, cause.weak) for cause in found]


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("Wednesday\n", "Saturday\n"),
        ("on a Mittwoch\n", "on a Saturday\n"),
        ("Thu\n", "Sat\n"),  # it is Thursday already in alpha's zone
        ("June 2027\n", "December 2027\n"),
        ("Juni\n", "Dezember\n"),
        ("day 174\n", "day 359\n"),
        (f"{ALPHA_AT // 86400}\n", f"{BETA_AT // 86400}\n"),
        (f"build {ALPHA_AT // 3600}\n", f"build {BETA_AT // 3600}\n"),
        (f"{ALPHA_AT:x}\n", f"{BETA_AT:x}\n"),
        ("expires 2028-06-23\n", "expires 2028-12-25\n"),
        ("since 2027-06-22\n", "since 2027-12-24\n"),
        ("6-23-2027\n", "12-25-2027\n"),
        ("23-06-2027\n", "25-12-2027\n"),
        ("x-06232718403D\n", "x-12252718403D\n"),
        ("build 2706231840\n", "build 2712251840\n"),
        (
            f'("x.el") ({ALPHA_AT >> 16} {ALPHA_AT & 65535} 0 0)\n',
            f'("x.el") ({BETA_AT >> 16} {BETA_AT & 65535} 0 0)\n',
        ),
        (
            "tm(2027, mon=6, mday=23, 18:40, s=1, yday=174)\n",
            "tm(2027, mon=12, mday=25, 18:40, s=7, yday=359)\n",
        ),
    ],
)
def test_a_part_of_the_date_is_named(left: str, right: str) -> None:
    assert named(left, right)[:1] == [("time-text", False)]


def test_years() -> None:
    assert named("(c) 2020-2027 x\n", "(c) 2020-2028 x\n", LATER) == [("time-text", False)]
    assert named("(c) 2020-2027 x\n", "(c) 2020-2029 x\n", LATER) != [("time-text", False)]


def test_numbers_of_two_digits_are_a_guess() -> None:
    assert named("week 25\n", "week 51\n") == [("time-text", True)]


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("Monday\n", "Friday\n"),
        ("Wednesday\n", "Wednesday evening\n"),
        ("day 174\n", "day 360\n"),
        ("day 359\n", "day 174\n"),
        ("20000\n", "20001\n"),
        ("5f5e0f10\n", "5f5e0f11\n"),
        ("Satz 7\n", "Wednes 8\n"),
        ("since 2020-06-22\n", "since 2020-06-24\n"),
    ],
)
def test_what_only_looks_like_the_builds_date(left: str, right: str) -> None:
    assert "time-text" not in dict(named(left, right))


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("('+14', '+14') -50400\n", "('AKST', 'AKDT') 32400\n"),
        ("offset=50400 name=+14\n", "offset=-32400 name=AKST\n"),
        ("TZ=+14 840 minutes\n", "TZ=AKST -540 minutes\n"),
    ],
)
def test_what_a_zone_is_called(left: str, right: str) -> None:
    assert named(left, right)[:1] == [("time-zone", False)]


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("14 lines\n", "-9 lines\n"),
        ("('+14', '+14') -50400\n", "('AKST', 'AKDT') 32401\n"),
        ("name=AKST\n", "name=+14\n"),
        ("name=+14 a\n", "name=AKST b\n"),
    ],
)
def test_what_only_looks_like_a_zone(left: str, right: str) -> None:
    assert "time-zone" not in dict(named(left, right))


def test_without_hours_there_is_no_date() -> None:
    pair = (replace(ALPHA, hours=None), PAIR[1])
    found = find_causes("x", (b"day 174\n", b"day 359\n"), pair)
    assert "time-text" not in {cause.name for cause in found}
