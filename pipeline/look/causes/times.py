# SPDX-License-Identifier: GPL-3.0-or-later
"""Times of the build, in the encodings that are usual in files."""

import re
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from pipeline.documents.explanation import Cause
from pipeline.look.causes.facts import Facts, Pair
from pipeline.look.causes.spots import Spot
from pipeline.look.causes.zones import zone_offset

ZONE_S = 14 * 3600  # how far a local time may be from UTC
DAY_S = 86400
SPOT_BYTES = 64  # bytes of a long spot that are tried
FILETIME_S = 11644473600  # from 1601 to 1970
HFS_S = 2082844800  # from 1904 to 1970
NTP_S = 2208988800  # from 1900 to 1970
MAC_S = -978307200  # from 2001 to 1970
JULIAN_S = 210866760000  # from 4713 BC to 1970
SHIFT_LEAST_S = 30 * DAY_S  # clocks must be so far apart to recognise times at equal distances
SHIFT_SLACK_S = 3 * DAY_S  # months and years differ in length
MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]


@dataclass(frozen=True)
class Stamp:
    """A time as read: an interval from `earliest` to `latest`, in seconds since 1970.

    `zoned` times are in UTC; others are local times of an unknown zone.
    """

    earliest: float
    latest: float
    zoned: bool
    words: str

    def of_build(self, facts: Facts) -> bool:
        """Return whether the time may be within the hours of the build."""
        slack = 0 if self.zoned else ZONE_S
        return facts.built_at(self.earliest - slack, self.latest + slack)

    def of_commit(self, facts: Facts) -> bool:
        """Return whether the time may be the commit's date, to which times are clamped."""
        slack = 0 if self.zoned else ZONE_S
        return self.earliest - slack <= facts.epoch <= self.latest + slack


def judge(stamps: tuple[Stamp, Stamp], pair: Pair) -> str | None:
    """Return evidence that two times come from the builds, or a build and the commit; or None."""
    built = [stamp.of_build(facts) for stamp, facts in zip(stamps, pair, strict=True)]
    if all(built):
        evidence = "both are within the builds' hours"
    elif any(built):
        which = built.index(False)
        if not stamps[which].of_commit(pair[which]):
            return None
        builder, other = pair[1 - which].name, pair[which].name
        evidence = f"{builder} has the time of its build, {other} the commit's"
    else:
        return None
    return f"{stamps[0].words} in {pair[0].name}, {stamps[1].words} in {pair[1].name}: {evidence}"


def _apart(stamps: tuple[Stamp, Stamp], pair: Pair) -> str | None:
    """Return evidence if two times are equally far from their builds, such as a year later."""
    begins = [facts.hours[0] for facts in pair if facts.hours]
    if len(begins) < 2:
        return None
    shifts = [stamp.earliest - begin for stamp, begin in zip(stamps, begins, strict=True)]
    clocks = abs(begins[0] - begins[1])
    if clocks < SHIFT_LEAST_S or abs(shifts[0] - shifts[1]) > SHIFT_SLACK_S:
        return None
    evidence = f"{stamps[0].words} in {pair[0].name}, {stamps[1].words} in {pair[1].name}"
    days = round(shifts[0] / DAY_S)
    return f"{evidence}: both are {abs(days)} days {'after' if days >= 0 else 'before'} the build"


def instant(seconds: float, *, zoned: bool = True) -> Stamp | None:
    """Return the stamp of one moment; None if it is before 1970 or implausibly late."""
    if not 0 < seconds < 2**33:
        return None
    words = f"{datetime.fromtimestamp(int(seconds), UTC):%Y-%m-%d %H:%M:%S}"
    return Stamp(seconds, seconds, zoned, words)


@dataclass(frozen=True)
class _Encoding:
    name: str
    width: int
    read: Callable[[bytes], float | None]
    zoned: bool = True


def _number(code: str, scale: float, shift: float = 0) -> Callable[[bytes], float]:
    return lambda piece: struct.unpack(code, piece)[0] / scale - shift


def dos_time(piece: bytes) -> float | None:
    """Parse the local time of a FAT or zip entry: two bytes of time, two of date."""
    clock, date = struct.unpack("<HH", piece)
    return moment(
        1980 + (date >> 9), date >> 5 & 15, date & 31, clock >> 11, clock >> 5 & 63, clock % 32 * 2
    )


def _iso_record(piece: bytes) -> float | None:
    """Parse the time of an ISO 9660 directory record: a byte each, the zone in quarter hours."""
    year, month, day, hour, minute, second, zone = struct.unpack("6Bb", piece)
    local = moment(1900 + year, month, day, hour, minute, second)
    return local and local - zone * 900


def _date_bytes(piece: bytes) -> float | None:
    """Parse the local time of a pickled Python datetime: two bytes for the year, then one each."""
    return moment(*struct.unpack(">H5B", piece))


def _date_numbers(piece: bytes) -> float | None:
    """Parse the time of an ICC colour profile: year to second, two bytes each, big-endian."""
    return moment(*struct.unpack(">6H", piece))


def moment(*fields: int) -> float | None:
    """Convert year, month, day, hour, minute and second in UTC to seconds; None if invalid."""
    try:
        return datetime(*fields, tzinfo=UTC).timestamp()  # type: ignore[misc,arg-type]
    except (ValueError, OverflowError):
        return None


def _numbers() -> Iterator[_Encoding]:
    for sign, order in (("<", "little-endian"), (">", "big-endian")):
        for scale, unit in ((1e9, "nanoseconds"), (1e6, "microseconds"), (1e3, "milliseconds")):
            yield _Encoding(f"64-bit {order} {unit}", 8, _number(f"{sign}q", scale))
        yield _Encoding(f"FILETIME, {order}", 8, _number(f"{sign}Q", 1e7, FILETIME_S))
        yield _Encoding(f"64-bit {order} floating-point seconds", 8, _number(f"{sign}d", 1))
        yield _Encoding(f"64-bit {order} seconds", 8, _number(f"{sign}q", 1))
    for sign, order in (("<", "little-endian"), (">", "big-endian")):
        yield _Encoding(
            f"64-bit {order} days of Julian", 8, _number(f"{sign}d", 1 / DAY_S, JULIAN_S)
        )
        yield _Encoding(f"64-bit {order} seconds since 2001", 8, _number(f"{sign}d", 1, MAC_S))
        yield _Encoding(f"32-bit {order} seconds", 4, _number(f"{sign}I", 1))
        yield _Encoding(f"32-bit {order} seconds since 1900", 4, _number(f"{sign}I", 1, NTP_S))
        yield _Encoding(f"32-bit {order} seconds since 1904", 4, _number(f"{sign}I", 1, HFS_S))


ENCODINGS = (
    *_numbers(),
    _Encoding("an ISO 9660 record", 7, _iso_record),
    _Encoding("year, month, day, hour, minute, second", 7, _date_bytes, zoned=False),
    _Encoding("six numbers of 16 bits, as of ICC", 12, _date_numbers, zoned=False),
    _Encoding("DOS (FAT, zip)", 4, dos_time, zoned=False),
)


def in_binary(contents: tuple[bytes, bytes], spot: Spot, pair: Pair) -> Cause | None:
    """Find a binary time of the build that overlaps the first SPOT_BYTES bytes of a spot."""
    size = min(max(len(spot.left), len(spot.right)), SPOT_BYTES)
    for encoding in ENCODINGS:
        for shift in range(1 - encoding.width, size):
            pieces = [
                content[max(0, at + shift) : at + shift + encoding.width]
                for content, at in zip(contents, spot.offsets, strict=True)
            ]
            if pieces[0] == pieces[1] or any(len(piece) != encoding.width for piece in pieces):
                continue
            evidence = _judge_pieces(encoding, pieces, pair)
            if evidence:
                at = spot.offsets[0] + shift
                return Cause("time-binary", f"at byte {at}, {encoding.name}: {evidence}")
    return None


def _judge_pieces(encoding: _Encoding, pieces: Sequence[bytes], pair: Pair) -> str | None:
    times = [encoding.read(piece) for piece in pieces]
    if times[0] is None or times[1] is None or times[0] != times[0] or times[1] != times[1]:
        return None
    left, right = (instant(time, zoned=encoding.zoned) for time in (times[0], times[1]))
    return judge((left, right), pair) if left and right else None


_MONTH = r"(?P<name>Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*\.?"
_WORD = r"(?:de )?(?P<word>[^\W\d_]{3,})\.?(?: de)?"
_CLOCK = (
    r"(?P<h>[0-2]\d):(?P<m>[0-5]\d)(?::(?P<s>[0-6]\d)(?:\.\d+)?)?(?: ?(?P<half>[AaPp])\.?[Mm]\b)?"
)
_ZONE = r"(?P<zone>Z|UTC|GMT|[+-]\d\d:?\d\d)"
_YEAR, _DAY = r"(?P<year>(?:19|20)\d\d)", r"(?P<day>[0-3]?\d)"
_NUMBERS = (r"(?P<month>[01]?\d)", _DAY, r"(?P<year>(?:20)?\d\d)")
_COMPACT = r"(?P<h>[0-2]\d)(?P<m>[0-5]\d)(?P<s>[0-6]\d)"
_COMPACT_DAY = r"(?P<month>[01]\d)(?P<day>[0-3]\d)"
_THEN = rf"(?:,? +{_CLOCK})?(?: ?{_ZONE})?"
DATES = tuple(
    re.compile(pattern)
    for pattern in (
        rf"(?<!\d){_YEAR}[-/.](?P<month>[01]\d)[-/.]{_DAY}(?:[T _]{_CLOCK})?(?: ?{_ZONE})?(?!\d)",
        rf"\b{_MONTH} +{_DAY} {_CLOCK} (?:{_ZONE} |[A-Z+0-9-]{{1,5}} )?{_YEAR}\b",
        rf"\b{_DAY}[ -]{_MONTH}[ -]{_YEAR}{_THEN}",
        rf"\b{_MONTH} +{_DAY},? +{_YEAR}{_THEN}",
        rf"(?<!\d){_YEAR}{_COMPACT_DAY}(?:[T-]?{_COMPACT})?(?:\d\d(?!\d))?(?P<zone>Z)?(?!\d)",
        rf"(?<![\d-]){_NUMBERS[0]}(?P<by>[/-]){_NUMBERS[1]}(?P=by){_NUMBERS[2]}{_THEN}(?!\d)",
        rf"(?<![\d-]){_NUMBERS[1]}(?P<by>[./-]){_NUMBERS[0]}(?P=by){_NUMBERS[2]}{_THEN}(?!\d)",
        rf"\b{_MONTH} +{_DAY} {_CLOCK}\b",
        rf"(?<!\d)(?P<year>\d\d){_COMPACT_DAY}(?!\d)",
        rf"(?<!\d)(?P<year>\d\d){_COMPACT_DAY}(?P<h>[0-2]\d)(?P<m>[0-5]\d)(?!\d)",
        rf"(?<!\d){_COMPACT_DAY}(?P<year>\d\d)(?P<h>[0-2]\d)(?P<m>[0-5]\d)(?=[23]D\b|(?!\d))",
        rf"(?<!\d){_YEAR}-?(?P<yday>[0-3]\d\d)(?!\d)",
        rf"(?<!\d){_YEAR}-?W(?P<week>[0-5]\d)(?!\d)",
        rf"\b[Ww]eek (?P<week>[0-5]?\d)\b\D{{1,8}}{_YEAR}\b",
        rf"(?<!\d){_DAY}(?:st|nd|rd|th|\.)?(?: of)? {_MONTH}\b{_THEN}",
        rf"\b{_MONTH} +{_DAY}(?:st|nd|rd|th)?\b{_THEN}",
        rf"(?<!\d){_DAY}\.? {_WORD} {_YEAR}{_THEN}",
        rf"(?<!\d){_DAY}\.? {_WORD} {_CLOCK} (?:{_ZONE} |[A-Z+0-9-]{{1,5}} )?{_YEAR}\b",
    )
)
HALVES = re.compile(r"\((\d{5}) (\d{1,5})(?: \d+){0,2}\)")  # high and low 16 bits, as in Emacs
EPOCHS = re.compile(r"(?<!\d)(?<!\d\.)(\d{10})(\d{3}|\d{6}|\d{9})?(?!\d)")
CLOCKS = re.compile(rf"(?<![\d:]){_CLOCK}(?![\d:])")


def read_dates(text: str, facts: Facts) -> list[Stamp]:
    """Return the dates in a text, each once, in the order of the patterns."""
    found: list[Stamp] = []
    taken: set[int] = set()
    for pattern in DATES:
        for match in pattern.finditer(text):
            stamp = _read(match, _year(match, facts), facts)
            if stamp and not taken & set(range(*match.span())):
                taken |= set(range(*match.span()))
                found.append(stamp)
    for match in HALVES.finditer(text):
        at = int(match[1]) * 65536 + int(match[2])
        found.append(Stamp(at, at, zoned=True, words=match[0]))
    for match in EPOCHS.finditer(text):
        at = int(match[1])
        if not taken & set(range(*match.span())):
            found.append(Stamp(at, at, zoned=True, words=match[0]))
    return found


def _year(match: re.Match[str], facts: Facts) -> int:
    """Return a date's year; if it has none, that of the commit or else that of the build."""
    got = match.groupdict()
    if got.get("year"):
        return int(got["year"]) + 2000 * (len(got["year"]) == 2)
    commit = datetime.fromtimestamp(facts.epoch, UTC).year
    build = datetime.fromtimestamp(facts.hours[0], UTC).year if facts.hours else commit
    of_commit, of_build = _read(match, commit, facts), _read(match, build, facts)
    if of_commit and of_commit.of_commit(facts):
        return commit
    # On the first and last day of a year, the year may differ in other time zones.
    near = [build, build - 1, build + 1] if of_build else []
    stamps = {year: _read(match, year, facts) for year in near}
    return next((y for y, s in stamps.items() if s and s.of_build(facts)), build)


def _read(match: re.Match[str], year: int, facts: Facts) -> Stamp | None:
    got = {key: value for key, value in match.groupdict().items() if value is not None}
    clock = [int(got.get(key, 0)) for key in "hms"]
    local = _day(got, year, facts)
    if local is None:
        return None
    if "half" in got:
        clock[0] = clock[0] % 12 + 12 * (got["half"] in "Pp")
    local += clock[0] * 3600 + clock[1] * 60 + clock[2]
    zone = got.get("zone")
    day = DAY_S - 1.0 + 6 * DAY_S * ("week" in got)
    length = 0.0 if "s" in got else 59.0 if "m" in got else day
    at = local - _zone_seconds(zone)
    return Stamp(at, at + length, zoned=zone is not None and "h" in got, words=match[0].strip())


def _day(got: Mapping[str, str], year: int, facts: Facts) -> float | None:
    """Return the beginning of a day, read as UTC, in seconds since 1970; None if it is invalid."""
    if "yday" in got:
        first = moment(year, 1, 1, 0, 0, 0)
        return first + (int(got["yday"]) - 1) * DAY_S if first and got["yday"] != "000" else None
    if "week" in got:
        try:
            monday = datetime.fromisocalendar(year, int(got["week"]), 1)
        except ValueError:
            return None
        return monday.replace(tzinfo=UTC).timestamp()
    if "word" in got:  # a month in any language: try which one matches the build or the commit
        days = [moment(year, month, int(got["day"]), 0, 0, 0) for month in range(1, 13)]
        stamps = [Stamp(day, day + DAY_S, zoned=False, words="") for day in days if day]
        return next((s.earliest for s in stamps if s.of_build(facts) or s.of_commit(facts)), None)
    month = MONTHS.index(got["name"]) + 1 if "name" in got else int(got["month"])
    return moment(year, month, int(got["day"]), 0, 0, 0)


def _zone_seconds(zone: str | None) -> int:
    if zone is None or zone[0] not in "+-":
        return 0
    digits = zone[1:].replace(":", "")
    return (-1 if zone[0] == "-" else 1) * (int(digits[:2]) * 3600 + int(digits[2:]) * 60)


def in_text(spot: Spot, pair: Pair) -> list[Cause]:
    """Find dates of the build in the text of a spot, or one moment in two time zones."""
    dates = [read_dates(text, facts) for text, facts in zip(spot.text, pair, strict=True)]
    found = []
    for left, right in zip(*dates, strict=False):
        if left.words == right.words:
            continue
        if evidence := judge((left, right), pair):
            found.append(Cause("time-text", evidence))
        elif moment_of_both := _same_moment(left, right, pair):
            found.append(moment_of_both)
        elif evidence := _apart((left, right), pair):
            found.append(Cause("time-text", evidence))
    if not found and not any(dates):
        found += _clocks(spot, pair)
    return found


def _same_moment(left: Stamp, right: Stamp, pair: Pair) -> Cause | None:
    """Find one moment in the time zones of both environments; adjacent days are a weak guess."""
    moments = [
        stamp.earliest - (0 if stamp.zoned else zone_offset(facts.time_zone, stamp.earliest))
        for stamp, facts in ((left, pair[0]), (right, pair[1]))
    ]
    days = all(stamp.latest - stamp.earliest > DAY_S / 2 for stamp in (left, right))
    commits = all(stamp.of_commit(facts) for stamp, facts in ((left, pair[0]), (right, pair[1])))
    if pair[0].time_zone == pair[1].time_zone:
        return None
    evidence = (
        f"{left.words} and {right.words}, seen from {pair[0].time_zone} and {pair[1].time_zone}"
    )
    if moments[0] == moments[1] or (days and commits):
        return Cause("time-zone", f"one moment: {evidence}")
    # of two adjacent days, the later one belongs to the zone that is ahead
    ahead = [zone_offset(facts.time_zone, left.earliest) for facts in pair]
    if days and left.earliest - right.earliest == (DAY_S if ahead[0] > ahead[1] else -DAY_S):
        return Cause("time-zone", f"one moment of two days: {evidence}", weak=True)
    return None


def _clocks(spot: Spot, pair: Pair) -> Iterator[Cause]:
    """Find times of day without a date that are within each build's hours, in UTC or its zone."""
    ours, theirs = ([m[0] for m in CLOCKS.finditer(text)] for text in spot.text)
    for left, right in zip(ours, theirs, strict=False):
        if left != right and _within(left, pair[0]) and _within(right, pair[1]):
            evidence = f"{left} in {pair[0].name}, {right} in {pair[1].name}: both are within"
            yield Cause("time-text", f"{evidence} the builds' hours")


def _within(clock: str, facts: Facts) -> bool:
    if not facts.hours:
        return False
    hour, minute, second = (*map(int, re.findall(r"\d+", clock)[:3]), 0)[:3]
    begin = facts.hours[0] - facts.hours[0] % DAY_S
    of_day = hour * 3600 + minute * 60 + second
    offsets = {0.0, zone_offset(facts.time_zone, facts.hours[0])}
    return any(
        facts.built_at(begin + day * DAY_S + of_day - offset, begin + day * DAY_S + of_day - offset)
        for day in (-1, 0, 1)
        for offset in offsets
    )
