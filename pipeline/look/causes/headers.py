# SPDX-License-Identifier: GPL-3.0-or-later
"""Times in the headers of file formats, found at the offsets that the formats define."""

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pipeline.documents.explanation import Cause
from pipeline.look.causes.facts import Pair
from pipeline.look.causes.times import DAY_S, Stamp, dos_time, instant, judge, moment, read_dates
from pipeline.look.formats import ar, cpio, gzip_header, tar, zip_account
from pipeline.look.places import REFUSED

FIELDS_LIMIT = 20_000
PO_DATE = re.compile(rb"(?:PO-Revision|POT-Creation)-Date: ?([^\\\n\0\"]{1,60})")
PYC, PYC_HEADER = (".pyc", ".pyo"), 16
PYC_CHECKS = {0: "its source's time", 1: "a hash that is not checked", 3: "a hash that is checked"}
ZIP_HEADER = re.compile(b"|".join(map(re.escape, zip_account.TIMES)))


@dataclass(frozen=True)
class Field:
    """A time in a header, and its offset in the file."""

    offset: int
    stamp: Stamp


def _known(offset: int, seconds: float | None, *, zoned: bool = True) -> Iterator[Field]:
    stamp = instant(seconds, zoned=zoned) if seconds else None
    if stamp:
        yield Field(offset, stamp)


def _gzip(path: str, content: bytes) -> Iterator[Field]:
    if content.startswith(gzip_header.MAGIC):
        yield from _known(gzip_header.TIME[0], gzip_header.read_header(content).time)


def _zip(path: str, content: bytes) -> Iterator[Field]:
    if not content.startswith(zip_account.MEMBER):
        return
    for match in ZIP_HEADER.finditer(content):
        at = match.start() + zip_account.TIMES[match[0]]
        if at + 4 <= len(content):
            yield from _known(at, dos_time(content[at : at + 4]), zoned=False)


def _tar(path: str, content: bytes) -> Iterator[Field]:
    at = 0
    while content[at + 257 : at + 262] == b"ustar":
        header = tar.read_header(content[at : at + tar.BLOCK])
        yield from _known(at + 136, header.mtime)
        at += tar.BLOCK + header.size + -header.size % tar.BLOCK


def _cpio(path: str, content: bytes) -> Iterator[Field]:
    at = 0
    while content[at : at + 6] in cpio.MAGICS:
        fields = cpio.read_header(content[at : at + cpio.HEADER])
        yield from _known(at + 46, fields[5])
        at = cpio.aligned(cpio.aligned(at + cpio.HEADER + fields[11]) + fields[6])


def _ar(path: str, content: bytes) -> Iterator[Field]:
    at = len(ar.MAGIC)
    while content.startswith(ar.MAGIC) and at < len(content):
        header = ar.read_header(content[at : at + ar.HEADER])
        yield from _known(at + 16, int(header.time) if header.time.isdecimal() else None)
        at += ar.HEADER + header.size + header.size % 2


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


# The names of the causes in headers, the most specific formats first.
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
    """Find differences in the headers of the file's format, most of them times of the build."""
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
    """Compare the times of all entries; report the first difference and the number of others."""
    found, count = "", 0
    sides = (_as_far_as_possible(read(path, content)) for content in contents)
    for _, left, right in zip(range(FIELDS_LIMIT), next(sides), next(sides), strict=False):
        if left.stamp == right.stamp:
            continue
        words = judge((left.stamp, right.stamp), pair)
        if words:
            found = found or f"at byte {left.offset}: {words}"
            count += 1
    more = f"; {count - 1} more entries have other times too" if count > 1 else ""
    return Cause(name, found + more) if found else None


def _as_far_as_possible(fields: Iterator[Field]) -> Iterator[Field]:
    """Yield the fields up to the first malformed header: contents may be damaged or truncated."""
    try:
        yield from fields
    except REFUSED:
        return


def _pyc_check(path: str, contents: tuple[bytes, bytes], pair: Pair) -> Cause | None:
    """Find compiled Python files with different invalidation modes (PEP 552)."""
    compiled = all(c[2:4] == b"\r\n" and len(c) >= PYC_HEADER for c in contents)
    if not (path.endswith(PYC) and compiled and contents[0][:4] == contents[1][:4]):
        return None
    flags = [struct.unpack_from("<I", content, 4)[0] for content in contents]
    if flags[0] == flags[1] or not all(flag in PYC_CHECKS for flag in flags):
        return None
    evidence = [f"{PYC_CHECKS[n]} in {facts.name}" for n, facts in zip(flags, pair, strict=True)]
    return Cause("pyc", f"the header has {' and '.join(evidence)}")


def _po_date(contents: tuple[bytes, bytes], pair: Pair) -> Cause | None:
    """Find the dates in message catalogues, as text (PO) or compiled (MO)."""
    ours, theirs = (PO_DATE.findall(content[: 1024 * 1024])[:8] for content in contents)
    for left, right in zip(ours, theirs, strict=False):
        sides = ((left, pair[0]), (right, pair[1]))
        dates = [read_dates(text.decode("latin-1"), facts) for text, facts in sides]
        if left != right and all(dates):
            evidence = judge((dates[0][0], dates[1][0]), pair)
            if evidence:
                return Cause("po-date", evidence)
    return None


def _shadow(path: str, contents: tuple[bytes, bytes], pair: Pair) -> Cause | None:
    """Find the day of a password's last change in shadow(5), counted in days since 1970."""
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
        evidence = judge((stamps[0], stamps[1]), pair)
        if evidence:
            return Cause("shadow-day", f"the account {user.decode(errors='replace')}: {evidence}")
    return None
