# SPDX-License-Identifier: GPL-3.0-or-later
"""The header of a gzip stream (RFC 1952)."""

import struct
from typing import NamedTuple

from pipeline.look.formats.ranges import Span
from pipeline.look.formats.source import BadFormat

MAGIC = b"\x1f\x8b\x08"
FIXED = 10  # bytes of the mandatory fields
TIME, FLAGS, LEVEL, SYSTEM = (4, 8), (3, 4), (8, 9), (9, 10)  # the spans of these fields
CHECKSUM, EXTRA, NAME, COMMENT = 2, 4, 8, 16  # flags


class GzipHeader(NamedTuple):
    """A header: the time in seconds since 1970, or 0; the flags; spans of the optional fields.

    The spans of `name` and `comment` include the terminating zero.
    """

    time: int
    flags: int
    extra: Span | None
    name: Span | None
    comment: Span | None
    length: int


def read_header(raw: bytes) -> GzipHeader:
    """Parse the header at the beginning of a stream; raise BadFormat if it is truncated."""
    if len(raw) < FIXED:
        raise BadFormat("a gzip header is cut off")
    (time,) = struct.unpack_from("<I", raw, TIME[0])
    flags, at = raw[FLAGS[0]], FIXED
    extra = None
    if flags & EXTRA:
        extra = (at, at + 2 + int.from_bytes(raw[at : at + 2], "little"))
        at = extra[1]
    texts: list[Span | None] = []
    for flag in (NAME, COMMENT):
        end = raw.find(b"\0", at) + 1 if flags & flag else at
        if end < at or (flags & flag and not end):
            raise BadFormat("a text of a gzip header does not end")
        texts.append((at, end) if flags & flag else None)
        at = end
    return GzipHeader(time, flags, extra, texts[0], texts[1], at + 2 * bool(flags & CHECKSUM))
