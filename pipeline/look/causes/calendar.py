# SPDX-License-Identifier: GPL-3.0-or-later
"""Parts of the build's date that stand alone: its year, week, day or hour, and numbers of days."""

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
DIFFERING_LIMIT = 9  # words: as many as the fields of a time are
KNOWN_LEAST = 2  # parts of a date that tell of all others, one of them for sure
HOURS_LIMIT = 48  # of a build that are looked at
HEX = re.compile(r"[0-9a-f]{8}")
# What a number of this many digits counts since 1970, in seconds.
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
    """Find a line in which all that differs is the same part of each build's own date."""
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
    # the rest of a time that is written out may be minutes and seconds
    if not known or (
        unknown and (not sure or len(known) < KNOWN_LEAST or not all(map(_short, unknown)))
    ):
        return None
    evidence = "; ".join(dict.fromkeys(evidence for evidence, _ in known))
    return Cause("time-text", evidence, weak=not sure and len(known) < 2)


def _short(both: tuple[str, str]) -> bool:
    return all(token.isdigit() and int(token) < 60 for token in both)


def _known(both: tuple[str, str], pair: Pair) -> tuple[str, bool] | None:
    """Say what two words are of the builds' dates, and whether that is sure."""
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
    """Give the times that a number stands for which counts since 1970."""
    if HEX.fullmatch(token):
        at = int(token, 16)
        yield Stamp(at, at, zoned=True, words=token)
    if token.isdigit() and len(token) in UNITS:
        unit, seconds = UNITS[len(token)]
        at = int(token) * seconds
        yield Stamp(at, at + seconds - 1.0, zoned=False, words=f"{token} {unit} since 1970")


def _parts(token: str, facts: Facts) -> list[str]:
    """Return which parts of the build's date a word is."""
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
    """Give the hours of a build, in UTC and in its own zone."""
    begin, end = facts.hours or (0, 0)
    begin, end = begin - MARGIN_S, min(end + MARGIN_S, begin + HOURS_LIMIT * 3600)
    for offset in {0.0, zone_offset(facts.time_zone, begin)}:
        for at in (*range(begin, end, 3600), end):
            yield datetime.fromtimestamp(at, UTC) + timedelta(seconds=offset)
