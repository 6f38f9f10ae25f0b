# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether entries are numbered and stored in one order on both sides of a comparison."""

import itertools
from array import array
from bisect import bisect_left
from collections.abc import Iterator

LOW = 2**64 - 1


class Numbers:
    """The numbers that entries have on both sides, as inodes have them."""

    def __init__(self) -> None:
        self._sides = array("Q"), array("Q")
        self._pairs = array("Q"), array("Q")
        self._linked = bytearray()

    def add(self, first: int | None, second: int | None, *, linked: bool = False) -> None:
        """Add the numbers of an entry; None where it is not there.

        It is `linked` if its links are not those of the other side: that is a fact of the entry.
        """
        for number, side in zip((first, second), self._sides, strict=True):
            if number is not None:
                side.append(number)
        if first is not None and second is not None:
            self._pairs[0].append(first)
            self._pairs[1].append(second)
            self._linked.append(linked)

    def follow(self, *, moved: bool) -> bool:
        """Whether they are the same, or on both sides without a gap and in the same order.

        That is another one if entries `moved`.
        """
        if self._pairs[0] == self._pairs[1]:
            return True
        if not all(map(_without_gaps, self._sides)):
            return False
        ordered = sorted(_paired(*self._pairs))
        if not moved and not all(a & LOW <= b & LOW for a, b in itertools.pairwise(ordered)):
            return False
        del ordered
        # one that takes another's number while its count of links stays says that it is that other
        kept = bytes(not linked for linked in self._linked)
        return all(
            _share_alike(itertools.compress(_paired(*pairs), kept))
            for pairs in (self._pairs, self._pairs[::-1])
        )


def _paired(first: "array[int]", second: "array[int]") -> Iterator[int]:
    return (a << 64 | b for a, b in zip(first, second, strict=True))


def _share_alike(pairs: Iterator[int]) -> bool:
    """Whether pairs of numbers with the same first one have the same second, too."""
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
    """Where the contents that are equal on both sides are stored, by class (see `Container`)."""

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
        """Return an entry of each class that stands at another place than the others around it."""
        return [one for found in self._classes.values() for one in _moved(*found)]


def _moved(first: "array[int]", second: "array[int]", entries: "array[int]") -> Iterator[int]:
    """Give the first that is out of order; contents that share a place with others do not count."""
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
    """Return those of ordered numbers that have a place for themselves."""
    groups = itertools.groupby(order, key=places.__getitem__)
    return [found[0] for _, group in groups if len(found := list(group)) == 1]


def _longest(places: list[int]) -> set[int]:
    """Return which of some places are the most that can stay if the others are moved."""
    ends: list[int] = []  # of chains of each length, the one that ends first
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
