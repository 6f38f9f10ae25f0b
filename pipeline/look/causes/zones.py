# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of time zones, and their offsets as numbers."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pipeline.documents.explanation import Cause
from pipeline.look.causes.facts import Facts, Pair
from pipeline.look.causes.spots import Spot, differing_words

WORD = re.compile(r"[A-Za-z][\w/+-]*\w|[+-]?\d[\d:]*(?:\.\d+)?")
HALF_YEAR = timedelta(days=182)


def zone_offset(zone: str | None, local: float) -> float:
    """Return the offset of a zone from UTC in seconds at a local time; 0 if it is unknown."""
    try:
        there = datetime.fromtimestamp(local, UTC).replace(tzinfo=ZoneInfo(zone or "UTC"))
    except (ZoneInfoNotFoundError, ValueError, OverflowError, OSError):
        return 0
    return (there.utcoffset() or timedelta()).total_seconds()


def zone_names(facts: Facts) -> list[str]:
    """Return the names of the build's time zone: as `%Z`, `%z` and `%:z`, and its hours alone."""
    there = next(_seasons(facts), None)
    if there is None:
        return []
    numbers = f"{there:%z}"
    return [f"{there:%Z}", numbers, f"{numbers[:3]}:{numbers[3:]}", numbers[:3]]


def _seasons(facts: Facts) -> Iterator[datetime]:
    """Yield the local time of the build, and that half a year later."""
    at = datetime.fromtimestamp(facts.hours[0] if facts.hours else facts.epoch, UTC)
    try:
        zone = ZoneInfo(facts.time_zone or "UTC")
        yield at.astimezone(zone)
        yield (at + HALF_YEAR).astimezone(zone)
    except (ZoneInfoNotFoundError, ValueError, OverflowError, OSError):
        return


def in_zones(spot: Spot, pair: Pair) -> Cause | None:
    """Find a line in which only names or offsets of each environment's time zone differ.

    These are its names in summer and winter, and its offset from UTC in seconds, minutes or hours.
    """
    if pair[0].time_zone == pair[1].time_zone:
        return None
    differing = differing_words(WORD, spot.text)
    ours, theirs = (_words(facts) for facts in pair)
    known = [bool(ours.get(a, {"-"}) & theirs.get(b, {"+"})) for a, b in differing]
    words = [word.lstrip("+-") for both in differing for word in both]
    named = any(not word.isdigit() or len(word) > 4 for word in words)
    if not differing or not all(known) or not named:
        return None
    evidence = f"{' '.join(a for a, _ in differing)!r} and {' '.join(b for _, b in differing)!r}"
    zones = f"{pair[0].time_zone} and {pair[1].time_zone}"
    return Cause("time-zone", f"{evidence[:120]} are what {zones} are called, or far from UTC")


def _words(facts: Facts) -> dict[str, set[str]]:
    """Return the names and numbers of a zone, each with its meanings: a name, or an offset."""
    found: dict[str, set[str]] = {}
    for there in _seasons(facts):
        ahead = int((there.utcoffset() or timedelta()).total_seconds())
        numbers = f"{there:%z}"
        for name in (f"{there:%Z}", numbers, f"{numbers[:3]}:{numbers[3:]}", numbers[:3]):
            found.setdefault(name, set()).add("name")
        for sign, which in ((1, "ahead"), (-1, "behind")):
            for seconds, unit in ((1, "seconds"), (60, "minutes"), (3600, "hours")):
                evidence = {f"{which} in {unit}"}
                found.setdefault(str(sign * ahead // seconds), set()).update(evidence)
                found.setdefault(f"{sign * ahead / seconds}", set()).update(evidence)
    if facts.time_zone:
        found.setdefault(facts.time_zone, set()).add("name")
    return found
