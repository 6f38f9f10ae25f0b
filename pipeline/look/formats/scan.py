# SPDX-License-Identifier: GPL-3.0-or-later
"""Find the bytes in which two contents differ, about as fast as they can be read."""

from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.look.formats.ranges import Ranges, Span
from pipeline.look.formats.source import PIECE, ByteSource, Spool

BLOCK = 4096
SHOWN = 16
COUNT_LIMIT = 64 * 1024 * 1024


@dataclass(frozen=True)
class Bytes:
    """The bytes that differ: their offset, their count, and the first ones of each side.

    `count` covers only bytes that both sides have; counting ends after about COUNT_LIMIT bytes.
    """

    offset: int
    count: int
    first: bytes
    second: bytes


def scan(first: ByteSource, second: ByteSource, where: Iterable[Span], spool: Spool) -> Ranges:
    """Return the ranges in `where` in which two contents differ, exact at both ends."""
    ranges = Ranges()
    for start, end in where:
        for offset in range(start, end, PIECE):
            length = min(PIECE, end - offset)
            left, right = first.read(offset, length), second.read(offset, length)
            if left != right:
                _narrow(left, right, offset, ranges)
        spool.spend(end - start)
    return ranges


def exact(first: ByteSource, second: ByteSource, ranges: Iterable[Span]) -> Ranges:
    """Return the ranges, each narrowed to its first and last byte that differs."""
    found = Ranges()
    for start, end in ranges:
        for at in range(start, end, PIECE):
            length = min(PIECE, end - at)
            begin, stop = _edges(first.read(at, length), second.read(at, length))
            if stop:
                found.add(at + begin, at + stop)
    return found


def _narrow(left: bytes, right: bytes, offset: int, ranges: Ranges) -> None:
    """Add the runs of blocks that differ; only their outer blocks are examined byte by byte."""
    run: int | None = None
    for at in range(0, len(left) + BLOCK, BLOCK):
        differs = left[at : at + BLOCK] != right[at : at + BLOCK]
        if differs and run is None:
            run = at
        elif not differs and run is not None:
            start, _ = _edges(left[run : run + BLOCK], right[run : run + BLOCK])
            last = at - BLOCK
            _, end = _edges(left[last:at], right[last:at])
            ranges.add(offset + run + start, offset + last + end)
            run = None


def _xor(left: bytes, right: bytes) -> bytes:
    """Return the exclusive or of two byte strings of equal length."""
    number = int.from_bytes(left, "little") ^ int.from_bytes(right, "little")
    return number.to_bytes(len(left), "little")


def _edges(left: bytes, right: bytes) -> Span:
    """Return the offset of the first byte in which two blocks differ, and that after the last."""
    difference = _xor(left, right)
    return len(difference) - len(difference.lstrip(b"\0")), len(difference.rstrip(b"\0"))


def describe(first: ByteSource, second: ByteSource, ranges: Ranges) -> Bytes:
    """Describe the difference of two contents, which is in `ranges` or in their sizes alone."""
    shared = min(first.size, second.size)
    offset = next((start for start, _ in ranges), shared)
    count = looked_at = 0
    blocks = (
        (at, min(BLOCK, end - at)) for start, end in ranges for at in range(start, end, BLOCK)
    )
    for position, length in blocks:
        difference = _xor(first.read(position, length), second.read(position, length))
        count += length - difference.count(0)
        looked_at += length
        if looked_at > COUNT_LIMIT:
            break
    end = next((end for _, end in ranges), shared + SHOWN)
    shown = [
        side.read(min(offset, side.size), max(0, min(end - offset, SHOWN, side.size - offset)))
        for side in (first, second)
    ]
    return Bytes(offset, count, *shown)
