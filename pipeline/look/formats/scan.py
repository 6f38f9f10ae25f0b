# SPDX-License-Identifier: GPL-3.0-or-later
"""Where two contents differ, byte by byte, as fast as they can be read."""

from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.look.formats.ranges import Ranges, Span
from pipeline.look.formats.source import PIECE, ByteSource, Spool

BLOCK = 4096
SHOWN = 16
COUNT_LIMIT = 64 * 1024 * 1024


@dataclass(frozen=True)
class Bytes:
    """The bytes that differ: where they begin, how many, the first of each side.

    `count` is what was counted of the bytes that both have; it stops at COUNT_LIMIT bytes read.
    """

    offset: int
    count: int
    first: bytes
    second: bytes


def scan(first: ByteSource, second: ByteSource, where: Iterable[Span], spool: Spool) -> Ranges:
    """Return the ranges in `where` in which two contents differ; they begin and end exactly."""
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
    """Return of each range the part from its first to its last byte that differs."""
    found = Ranges()
    for start, end in ranges:
        for at in range(start, end, PIECE):
            length = min(PIECE, end - at)
            begin, stop = _edges(first.read(at, length), second.read(at, length))
            if stop:
                found.add(at + begin, at + stop)
    return found


def _narrow(left: bytes, right: bytes, offset: int, ranges: Ranges) -> None:
    """Add the runs of blocks that differ; only their outer blocks are looked at more closely."""
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
    """Return a byte string that is zero where two, equally long, are equal."""
    number = int.from_bytes(left, "little") ^ int.from_bytes(right, "little")
    return number.to_bytes(len(left), "little")


def _edges(left: bytes, right: bytes) -> Span:
    """Return the first byte in which two blocks differ, and the one after the last."""
    difference = _xor(left, right)
    return len(difference) - len(difference.lstrip(b"\0")), len(difference.rstrip(b"\0"))


def describe(first: ByteSource, second: ByteSource, ranges: Ranges) -> Bytes:
    """Return what differs in two contents that do, in `ranges` or because one is longer."""
    shared = min(first.size, second.size)
    offset = next((start for start, _ in ranges), shared)
    count = looked_at = 0
    for start, end in ranges:
        for position in range(start, end, BLOCK):
            length = min(BLOCK, end - position)
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
