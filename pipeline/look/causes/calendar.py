# SPDX-License-Identifier: GPL-3.0-or-later
"""Parts of the build's date: year, week, day or hour, and counts such as days since 1970."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from pipeline.documents.explanation import Cause
from pipeline.look.causes.facts import MARGIN_S, Facts, Pair
from pipeline.look.causes.languages import number_of
from pipeline.look.causes.spots import Spot, differing_words
from pipeline.look.causes.times import Stamp, judge
from pipeline.look.causes.zones import zone_offset

TOKEN = re.compile(r"(?<![0-9a-zA-Z])[0-9a-f]{8}(?![0-9a-zA-Z])|\d+|[^\W\d_]+")
DIFFERING_LIMIT = 9  # words: as many as a time has fields
KNOWN_LEAST = 2  # known parts, one of them certain, that are needed if others are unknown
HOURS_LIMIT = 48  # hours of a build that are tried
HEX = re.compile(r"[0-9a-f]{8}")
# The unit of a number that counts from 1970, by its number of digits, and the unit's seconds.
UNITS = {5: ("days", 86400), 6: ("hours", 3600), 8: ("minutes", 60)}
FORMS = {
    "year": "%Y",
    "year of the century": "%y",
    "day of the year": "%j",
    "week": "%V",
    "week from Sunday on": "%U",
    "week from Monday on": "%W",
    "month": "%m",
    "day of the month": "%d",
    "hour": "%H",
    "hour of twelve": "%I",
}
SURE = ("year", "day of the year", "name of the day", "name of the month")


def in_parts(spot: Spot, pair: Pair) -> Cause | None:
    """Find a line in which only the same part of each build's own date differs."""
    differing = differing_words(TOKEN, spot.text)
    if not all(facts.hours for facts in pair) or not 0 < len(differing) <= DIFFERING_LIMIT:
        return None
    known, unknown = [], []
    for both in differing:
        if found := _known(both, pair):
            known.append(found)
        else:
            unknown.append(both)
    sure = sum(certain for _, certain in known)
    # the unknown parts may be the minutes and seconds of the same time
    if not known or (
        unknown and (not sure or len(known) < KNOWN_LEAST or not all(map(_short, unknown)))
    ):
        return None
    evidence = "; ".join(dict.fromkeys(evidence for evidence, _ in known))
    return Cause("time-text", evidence, weak=not sure and len(known) < 2)


def _short(both: tuple[str, str]) -> bool:
    return all(token.isdigit() and int(token) < 60 for token in both)


def _known(both: tuple[str, str], pair: Pair) -> tuple[str, bool] | None:
    """Return which part of the builds' dates two words are, and whether that is certain."""
    for left, right in zip(*map(_counted, both), strict=False):
        if evidence := judge((left, right), pair):
            return evidence, True
    ours, theirs = (_parts(token, facts) for token, facts in zip(both, pair, strict=True))
    for part in ours:
        if part in theirs:
            evidence = f"{both[0]} and {both[1]} are the {part} of each build"
            return evidence, part in SURE
    return None


def _counted(token: str) -> Iterator[Stamp]:
    """Yield the times that a number may stand for that counts from 1970."""
    if HEX.fullmatch(token):
        at = int(token, 16)
        yield Stamp(at, at, zoned=True, words=token)
    if token.isdigit() and len(token) in UNITS:
        unit, seconds = UNITS[len(token)]
        at = int(token) * seconds
        yield Stamp(at, at + seconds - 1.0, zoned=False, words=f"{token} {unit} since 1970")


def _parts(token: str, facts: Facts) -> list[str]:
    """Return the parts of the build's date that a word may be."""
    times = list(_times(facts))
    if token.isdigit():
        return [
            part
            for part, form in FORMS.items()
            if len(token) > 1 and token in {f"{there:{form}}" for there in times}
        ]
    found = []
    for kind, numbers in (
        ("day", {there.weekday() for there in times}),
        ("month", {there.month - 1 for there in times}),
    ):
        if number_of(token, kind) in numbers:
            found.append(f"name of the {kind}")
    return found


def _times(facts: Facts) -> Iterator[datetime]:
    """Yield the hours of a build, in UTC and in its own time zone."""
    begin, end = facts.hours or (0, 0)
    begin, end = begin - MARGIN_S, min(end + MARGIN_S, begin + HOURS_LIMIT * 3600)
    for offset in {0.0, zone_offset(facts.time_zone, begin)}:
        for at in (*range(begin, end, 3600), end):
            yield datetime.fromtimestamp(at, UTC) + timedelta(seconds=offset)
