# SPDX-License-Identifier: GPL-3.0-or-later
"""Check whether entries are numbered and stored in the same order on both sides."""

import itertools
from array import array
from bisect import bisect_left
from collections.abc import Iterator

LOW = 2**64 - 1


class Numbers:
    """The numbers of entries on both sides, such as inode numbers."""

    def __init__(self) -> None:
        self._sides = array("Q"), array("Q")
        self._pairs = array("Q"), array("Q")
        self._linked = bytearray()

    def add(self, first: int | None, second: int | None, *, linked: bool = False) -> None:
        """Add the numbers of an entry; None for a side that lacks it.

        `linked` means that its number of links differs, which is reported as a fact of the entry.
        """
        for number, side in zip((first, second), self._sides, strict=True):
            if number is not None:
                side.append(number)
        if first is not None and second is not None:
            self._pairs[0].append(first)
            self._pairs[1].append(second)
            self._linked.append(linked)

    def follow(self, *, moved: bool) -> bool:
        """Return whether the numbers are equal, or have no gaps and the same order on both sides.

        The order is not compared if entries `moved`.
        """
        if self._pairs[0] == self._pairs[1]:
            return True
        if not all(map(_without_gaps, self._sides)):
            return False
        ordered = sorted(_paired(*self._pairs))
        if not moved and not all(a & LOW <= b & LOW for a, b in itertools.pairwise(ordered)):
            return False
        del ordered
        # an entry with another's number and an unchanged number of links claims to be that inode
        kept = bytes(not linked for linked in self._linked)
        return all(
            _share_alike(itertools.compress(_paired(*pairs), kept))
            for pairs in (self._pairs, self._pairs[::-1])
        )


def _paired(first: "array[int]", second: "array[int]") -> Iterator[int]:
    return (a << 64 | b for a, b in zip(first, second, strict=True))


def _share_alike(pairs: Iterator[int]) -> bool:
    """Return whether all pairs with equal first numbers have equal second numbers."""
    neighbours = itertools.pairwise(sorted(pairs))
    return all(a >> 64 != b >> 64 or a == b for a, b in neighbours)


def _without_gaps(numbers: "array[int]") -> bool:
    if not numbers:
        return True
    first, count = min(numbers), max(numbers) - min(numbers) + 1
    if count > len(numbers):
        return False
    seen = bytearray(count)
    for number in numbers:
        seen[number - first] = 1
    return all(seen)


class StorageOrder:
    """Where contents that are equal on both sides are stored, by class (see `Container.place`)."""

    def __init__(self) -> None:
        self._classes: dict[int, tuple[array[int], array[int], array[int]]] = {}

    def add(
        self, entry: int, first: tuple[int, int] | None, second: tuple[int, int] | None
    ) -> None:
        """Add the places of a content; `entry` is its number among the first side's entries."""
        if first and second and first[0] == second[0]:
            found = self._classes.setdefault(first[0], (array("Q"), array("Q"), array("L")))
            for numbers, number in zip(found, (first[1], second[1], entry), strict=True):
                numbers.append(number)

    def moved(self) -> list[int]:
        """Return the first entry of each class that is out of order, for classes that have one."""
        return [one for found in self._classes.values() for one in _moved(*found)]


def _moved(first: "array[int]", second: "array[int]", entries: "array[int]") -> Iterator[int]:
    """Yield the first entry that is out of order, ignoring contents that share a place."""
    numbers = range(len(first))
    order = sorted(numbers, key=first.__getitem__)
    if all(second[a] <= second[b] for a, b in itertools.pairwise(order)):
        return
    order = _unique(order, first)
    other = set(_unique(sorted(numbers, key=second.__getitem__), second))
    order = [number for number in order if number in other]
    kept = _longest([second[number] for number in order])
    yield from [entries[number] for at, number in enumerate(order) if at not in kept][:1]


def _unique(order: list[int], places: "array[int]") -> list[int]:
    """Return the ordered numbers whose place no other number shares."""
    groups = itertools.groupby(order, key=places.__getitem__)
    return [found[0] for _, group in groups if len(found := list(group)) == 1]


def _longest(places: list[int]) -> set[int]:
    """Return the indices of a longest increasing subsequence: the places that did not move."""
    ends: list[int] = []  # the smallest end of an increasing subsequence of each length
    tops: list[int] = []
    before: list[int] = []
    for at, place in enumerate(places):
        length = bisect_left(ends, place)
        ends[length : length + 1] = [place]
        tops[length : length + 1] = [at]
        before.append(tops[length - 1] if length else -1)
    kept, at = set[int](), tops[-1] if tops else -1
    while at >= 0:
        kept.add(at)
        at = before[at]
    return kept
