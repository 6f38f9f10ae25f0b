# SPDX-License-Identifier: GPL-3.0-or-later
"""The times that file formats keep in their headers, found where the format says they are."""

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pipeline.look.causes.facts import Cause, Pair
from pipeline.look.causes.times import DAY_S, Stamp, dos_time, instant, judge, moment, read_dates

FIELDS_LIMIT = 20_000
PO_DATE = re.compile(rb"(?:PO-Revision|POT-Creation)-Date: ?([^\\\n\0\"]{1,60})")
TAR_BLOCK = 512
PYC, PYC_HEADER = (".pyc", ".pyo"), 16
PYC_CHECKS = {0: "its source's time", 1: "a hash that is not checked", 3: "a hash that is checked"}
TAR_NUMBER = re.compile(rb"[0-7]{6,11}[\0 ]*")


@dataclass(frozen=True)
class Field:
    """A time in a header: at which offset, of which entry (by its place), and what it says."""

    offset: int
    stamp: Stamp


def _known(offset: int, seconds: float | None, *, zoned: bool = True) -> Iterator[Field]:
    stamp = instant(seconds, zoned=zoned) if seconds else None
    if stamp:
        yield Field(offset, stamp)


def _gzip(path: str, content: bytes) -> Iterator[Field]:
    if content[:3] == b"\x1f\x8b\x08" and len(content) >= 10:
        yield from _known(4, struct.unpack_from("<I", content, 4)[0])


def _zip(path: str, content: bytes) -> Iterator[Field]:
    if content[:4] != b"PK\3\4":
        return
    for match in re.finditer(rb"PK(\x03\x04|\x01\x02)", content):
        at = match.start() + (10 if match[1] == b"\3\4" else 12)
        if at + 4 <= len(content):
            yield from _known(at, dos_time(content[at : at + 4]), zoned=False)


def _tar(path: str, content: bytes) -> Iterator[Field]:
    at = 0
    while content[at + 257 : at + 262] == b"ustar":
        times, size = content[at + 136 : at + 148], content[at + 124 : at + 136]
        if not TAR_NUMBER.fullmatch(times) or not TAR_NUMBER.fullmatch(size):
            return
        yield from _known(at + 136, int(times.strip(b"\0 "), 8))
        at += TAR_BLOCK + -(-int(size.strip(b"\0 "), 8) // TAR_BLOCK) * TAR_BLOCK


def _cpio(path: str, content: bytes) -> Iterator[Field]:
    if content[:6] in (b"070701", b"070702"):
        for match in re.finditer(rb"07070[12][0-9A-Fa-f]{40}([0-9A-Fa-f]{8})", content):
            yield from _known(match.start(1), int(match[1], 16))


def _ar(path: str, content: bytes) -> Iterator[Field]:
    at = 8
    while content[:8] == b"!<arch>\n" and content[at + 58 : at + 60] == b"`\n":
        numbers = content[at + 16 : at + 28].strip(), content[at + 48 : at + 58].strip()
        if not all(number.isdigit() for number in numbers):
            return
        yield from _known(at + 16, int(numbers[0]))
        at += 60 + int(numbers[1]) + int(numbers[1]) % 2


def _png(path: str, content: bytes) -> Iterator[Field]:
    at = 8
    while content[:8] == b"\x89PNG\r\n\x1a\n" and at + 12 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, at)
        if kind == b"tIME" and length == 7 and at + 15 <= len(content):
            yield from _known(at + 8, moment(*struct.unpack_from(">H5B", content, at + 8)))
        at += 12 + length


def _pyc(path: str, content: bytes) -> Iterator[Field]:
    timed = content[2:4] == b"\r\n" and content[4:8] == b"\0\0\0\0" and len(content) >= PYC_HEADER
    if path.endswith(PYC) and timed:
        yield from _known(8, struct.unpack_from("<I", content, 8)[0])


# The names of the causes that are found in headers, the most particular formats first.
FORMATS: dict[str, Callable[[str, bytes], Iterator[Field]]] = {
    "gzip-time": _gzip,
    "zip-time": _zip,
    "tar-time": _tar,
    "cpio-time": _cpio,
    "ar-time": _ar,
    "png-time": _png,
    "pyc": _pyc,
}


def in_headers(path: str, contents: tuple[bytes, bytes], pair: Pair) -> list[Cause]:
    """Find the times of the build in the headers of the file's format."""
    found = [_compare(name, read, path, contents, pair) for name, read in FORMATS.items()]
    return [
        cause
        for cause in (
            *found,
            _pyc_check(path, contents, pair),
            _po_date(contents, pair),
            _shadow(path, contents, pair),
        )
        if cause
    ]


def _compare(
    name: str,
    read: Callable[[str, bytes], Iterator[Field]],
    path: str,
    contents: tuple[bytes, bytes],
    pair: Pair,
) -> Cause | None:
    """Compare the times of entry after entry; tell of the first and how many there are."""
    said, count = "", 0
    sides = (read(path, content) for content in contents)
    for _, left, right in zip(range(FIELDS_LIMIT), next(sides), next(sides), strict=False):
        if left.stamp == right.stamp:
            continue
        words = judge((left.stamp, right.stamp), pair)
        if words:
            said = said or f"at byte {left.offset}: {words}"
            count += 1
    more = f"; {count - 1} more entries have other times too" if count > 1 else ""
    return Cause(name, said + more) if said else None


def _pyc_check(path: str, contents: tuple[bytes, bytes], pair: Pair) -> Cause | None:
    """Find compiled Python that is checked against its source in different ways (PEP 552)."""
    compiled = all(c[2:4] == b"\r\n" and len(c) >= PYC_HEADER for c in contents)
    if not (path.endswith(PYC) and compiled and contents[0][:4] == contents[1][:4]):
        return None
    flags = [struct.unpack_from("<I", content, 4)[0] for content in contents]
    if flags[0] == flags[1] or not all(flag in PYC_CHECKS for flag in flags):
        return None
    said = [f"{PYC_CHECKS[n]} in {facts.name}" for n, facts in zip(flags, pair, strict=True)]
    return Cause("pyc", f"the header has {' and '.join(said)}")


def _po_date(contents: tuple[bytes, bytes], pair: Pair) -> Cause | None:
    """Find the dates of message catalogues, as text (PO) or compiled (MO)."""
    ours, theirs = (PO_DATE.findall(content[: 1024 * 1024])[:8] for content in contents)
    for left, right in zip(ours, theirs, strict=False):
        sides = ((left, pair[0]), (right, pair[1]))
        dates = [read_dates(text.decode("latin-1"), facts) for text, facts in sides]
        if left != right and all(dates):
            said = judge((dates[0][0], dates[1][0]), pair)
            if said:
                return Cause("po-date", said)
    return None


def _shadow(path: str, contents: tuple[bytes, bytes], pair: Pair) -> Cause | None:
    """Find the day of the last change of a password, counted since 1970."""
    if path.rpartition("/")[2] not in ("shadow", "shadow-", "gshadow"):
        return None
    sides = [
        dict(line.split(b":")[0:3:2] for line in content.splitlines() if line.count(b":") > 2)
        for content in contents
    ]
    for user in sorted(sides[0].keys() & sides[1].keys()):
        days = [side[user] for side in sides]
        if days[0] == days[1] or not all(re.fullmatch(rb"\d{4,6}", day) for day in days):
            continue
        stamps = [
            Stamp(int(day) * DAY_S, int(day) * DAY_S + DAY_S - 1, zoned=False, words=day.decode())
            for day in days
        ]
        said = judge((stamps[0], stamps[1]), pair)
        if said:
            return Cause("shadow-day", f"the account {user.decode(errors='replace')}: {said}")
    return None
