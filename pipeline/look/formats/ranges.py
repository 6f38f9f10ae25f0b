# SPDX-License-Identifier: GPL-3.0-or-later
"""Ranges of bytes in which two contents differ: ordered, disjoint, and of limited number."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence

Span = tuple[int, int]  # first byte, and the byte after the last

RANGES_LIMIT = 16_384


class Ranges:
    """Ordered ranges; near ones are merged if there would be too many."""

    def __init__(self, spans: Sequence[Span] = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._gap = 0
        for start, end in spans:
            self.add(start, end)

    def __iter__(self) -> Iterator[Span]:
        return zip(self._starts, self._ends, strict=True)

    def __len__(self) -> int:
        return len(self._starts)

    def add(self, start: int, end: int) -> None:
        """Add a range after all others; it may touch or overlap the last."""
        if self._ends and start - self._ends[-1] <= self._gap:
            self._ends[-1] = max(end, self._ends[-1])
            return
        self._starts.append(start)
        self._ends.append(end)
        while len(self._starts) > RANGES_LIMIT:
            self._gap = max(4096, self._gap * 2)
            self._close_gaps()

    def _close_gaps(self) -> None:
        spans = list(self)
        self._starts, self._ends = [], []
        for start, end in spans:
            self.add(start, end)

    def touches(self, start: int, end: int) -> bool:
        """Return whether a range overlaps the bytes from `start` to `end`."""
        at = bisect_right(self._starts, start)
        if at and self._ends[at - 1] > start and end > start:
            return True
        return at < len(self._starts) and self._starts[at] < end

    def within(self, start: int, end: int) -> Iterator[Span]:
        """Yield the parts of the ranges that lie between `start` and `end`."""
        at = max(0, bisect_right(self._starts, start) - 1)
        while at < len(self._starts) and self._starts[at] < end:
            left, right = max(start, self._starts[at]), min(end, self._ends[at])
            if left < right:
                yield left, right
            at += 1

    def without(self, others: Sequence[Span]) -> "Ranges":
        """Return the ranges minus `others`, which may be in any order."""
        remaining, covered = Ranges(), Ranges()
        for start, end in sorted(others):
            covered.add(start, end) if start < end else None
        for start, end in self:
            position = start
            for left, right in covered.within(start, end):
                if position < left:
                    remaining.add(position, left)
                position = right
            if position < end:
                remaining.add(position, end)
        return remaining
