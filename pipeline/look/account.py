# SPDX-License-Identifier: GPL-3.0-or-later
"""Account for every byte of a container: parts that cover it without gaps or overlaps.

A part belongs to a structure, to an entry's record or content, or to a region of the format; the
remainder is unused space, named after the part before it. Two containers of one format are
compared part by part, by these names and never by offset, so that data that moved is compared with
its counterpart. Structures, facts and contents are compared elsewhere; `differing` finds all other
differences.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

from pipeline.look.formats.container import Container, Region
from pipeline.look.formats.ranges import Ranges, Span
from pipeline.look.formats.scan import Bytes, describe, scan
from pipeline.look.formats.source import ByteSource, Extents, Memory, Spool, common, pieces
from pipeline.look.places import UNUSED, Differing

BEGINNING = "the beginning"
EMPTY = Memory(b"")

Sides = tuple[ByteSource, ByteSource]


class NamedPart(NamedTuple):
    """A part of a container; an `unused` one has the name of the part before it."""

    name: str
    span: Span
    unused: bool = False


class Account:
    """The parts of one side; create it only after the container's entries have been iterated."""

    def __init__(self, container: Container, source: ByteSource) -> None:
        self._container = container
        self.source = source

    @cached_property
    def _named_things(self) -> list[tuple[int, int, str]]:
        """The spans of structures, records and contents with their names, in order of offset."""
        found = [(*structure.span, structure.name) for structure in self._container.structures]
        for entry in () if self._container.taken_down else self._container.entries():
            if entry.record:
                found.append((*entry.record, entry.path))
            if entry.content:
                found += [(*span, entry.path) for span in entry.content.stored()]
        size = self.source.size
        return sorted((a, min(b, size), name) for a, b, name in found if 0 <= a < min(b, size))

    @cached_property
    def _regions(self) -> list[Region]:
        size = self.source.size
        clipped = [
            Region(r.name, (r.span[0], min(r.span[1], size)), r.rest)
            for r in self._container.regions()
        ]
        return [region for region in clipped if 0 <= region.span[0] <= region.span[1]]

    @cached_property
    def _own(self) -> list[NamedPart]:
        """The parts of the regions that no structure, record or content covers."""
        covered = _merged(self._named_things)
        return [NamedPart(r.name, s) for r in self._regions for s in _uncovered(r.span, covered)]

    def parts(self) -> Iterator[NamedPart]:
        """Yield the parts in order; together they cover the whole container.

        Unless Python runs with -O, raise AssertionError if they do not.
        """
        covered = 0
        for part in self._parts():
            if __debug__ and not part.span[0] == covered < part.span[1]:
                raise AssertionError(f"{part} does not begin at byte {covered}")
            covered = part.span[1]
            yield part
        if __debug__ and covered != self.source.size:
            raise AssertionError(f"the parts end at byte {covered} of {self.source.size}")

    def _parts(self) -> Iterator[NamedPart]:
        own = [(*part.span, part.name) for part in self._own]
        position, last = 0, BEGINNING
        for start, end, name in sorted([*self._named_things, *own]):
            if start > position:
                yield NamedPart(last, (position, start), unused=True)
            if end > position:
                yield NamedPart(name, (max(start, position), end))
                position, last = end, name
        if position < self.source.size:
            yield NamedPart(last, (position, self.source.size), unused=True)

    @cached_property
    def regions(self) -> dict[str, ByteSource]:
        """The bytes of the regions that nothing else accounts for, by the regions' name."""
        found: dict[str, list[Region]] = {}
        for region in self._regions:
            found.setdefault(region.name, []).append(region)
        bare: dict[str, list[Span]] = {}
        for part in self._own:
            bare.setdefault(part.name, []).append(part.span)
        return {
            name: Extents(self.source, sorted(bare.get(name, ())))
            if any(region.rest is None for region in same)
            else Memory(b"".join(region.rest() for region in same if region.rest))
            for name, same in found.items()
        }

    def unused(self) -> dict[str, Span]:
        """Return the spans of unused space, by the name of the part before each."""
        found: dict[str, Span] = {}
        for part in self.parts():
            name, number = part.name, 1
            while part.unused and name in found:
                number += 1
                name = f"{part.name} ({number})"
            if part.unused:
                found[name] = part.span
        return found

    def says_nothing(self, span: Span, other_size: int) -> bool:
        """Return whether a span has only the zeros that the format's tools use as padding."""
        (start, end), align, size = span, self._container.align, self.source.size
        expected = end == start + -start % align if align else size == other_size
        if not expected and not self._container.closes(start, end):
            return False
        return not any(piece.strip(b"\0") for piece in pieces(self.source, start, end))

    @cached_property
    def _starts(self) -> tuple[list[int], list[tuple[int, str]]]:
        """The outermost parts: the offset of each, and the end and name of each."""
        starts: list[int] = []
        things: list[tuple[int, str]] = []
        reach = 0
        regions = [(*region.span, region.name) for region in self._regions]
        things_by_place = sorted([*self._named_things, *regions], key=lambda t: (t[0], -t[1], t[2]))
        for start, end, name in things_by_place:
            if end > reach:
                starts.append(start)
                things.append((end, name))
                reach = end
        return starts, things

    def pointed(self, places: Sequence[int]) -> list[tuple[str, int]]:
        """Return the name of the part at each offset, and the distance from its beginning.

        The end of the container has a name of its own.
        """
        return [self._pointed(place) for place in places]

    def _pointed(self, place: int) -> tuple[str, int]:
        if place == self.source.size:
            return ("the end", 0)
        starts, things = self._starts
        at = bisect_right(starts, place) - 1
        if at < 0:
            return ("", place)
        end, name = things[at]
        align = self._container.align or 1
        if place < end:
            return (name, place - starts[at])
        return (f"behind {name}", place - end - -end % align)


def differing(first: Account, second: Account, ranges: Ranges, spool: Spool) -> Iterator[Differing]:
    """Yield the differences between regions of one name, then those of all unused space as one.

    `ranges` are the ranges in which the two sources differ, up to the length of the shorter one.
    """
    ours, theirs = first.regions, second.regions
    for name in dict.fromkeys([*ours, *theirs]):
        sides = ours.get(name, EMPTY), theirs.get(name, EMPTY)
        found = _compared(name, sides, ranges, spool)
        if found:
            yield found
    yield from _unused(first, second, ranges, spool)


def _unused(first: Account, second: Account, ranges: Ranges, spool: Spool) -> Iterator[Differing]:
    """Yield one difference for all unused space that differs and is not mere zero padding."""
    gaps = first.unused(), second.unused()
    sizes = first.source.size, second.source.size
    spans: tuple[list[Span], list[Span]] = ([], [])
    for name in dict.fromkeys([*gaps[0], *gaps[1]]):
        ours, theirs = ([side[name]] if name in side else [] for side in gaps)
        filled = (
            all(first.says_nothing(span, sizes[1]) for span in ours),
            all(second.says_nothing(span, sizes[0]) for span in theirs),
        )
        sides = Extents(first.source, ours), Extents(second.source, theirs)
        if filled[0] != filled[1] or (
            not filled[0] and _compared(UNUSED, sides, ranges, spool) is not None
        ):
            spans[0].extend(ours)
            spans[1].extend(theirs)
    sides = Extents(first.source, spans[0]), Extents(second.source, spans[1])
    found = _compared(UNUSED, sides, ranges, spool)
    if found is None and any(spans):  # equal bytes, but only one side is regular padding
        start, _ = next(span for side in spans for span in side)
        found = Differing(UNUSED, (sides[0].size, sides[1].size), Bytes(start, 0, b"", b""))
    if found:
        yield found


def _compared(name: str, sides: Sides, ranges: Ranges, spool: Spool) -> Differing | None:
    """Return how two sources differ, or None; the offset is that in the container, if known."""
    where = common(*sides)
    if isinstance(sides[0], Extents) and isinstance(sides[1], Extents):
        same = sides[0].stored() == sides[1].stored()
        where = sides[0].against(sides[1], ranges) if same else where
        shared = min(side.around.size for side in sides if isinstance(side, Extents))
        if same and any(end > shared for _, end in sides[0].stored()):
            where = common(*sides)
    found = scan(*sides, where, spool)
    if not len(found) and sides[0].size == sides[1].size:
        return None
    bytes_found = describe(*sides, found)
    offset = _offset(sides, bytes_found.offset)
    return Differing(
        name,
        (sides[0].size, sides[1].size),
        Bytes(offset, bytes_found.count, bytes_found.first, bytes_found.second),
    )


def _offset(sides: tuple[ByteSource, ByteSource], offset: int) -> int:
    """Return the offset in the container for an offset in one of two sources."""
    for side in sides:
        left = offset
        for start, end in side.stored() if left < side.size else ():
            if left < end - start:
                return start + left
            left -= end - start
    return offset


def _merged(spans: Sequence[tuple[int, int, str]]) -> tuple[list[int], list[int]]:
    """Return the starts and ends of the ranges that ordered spans cover."""
    starts: list[int] = []
    ends: list[int] = []
    for start, end, _ in spans:
        if ends and start <= ends[-1]:
            ends[-1] = max(end, ends[-1])
        else:
            starts.append(start)
            ends.append(end)
    return starts, ends


def _uncovered(span: Span, covered: tuple[list[int], list[int]]) -> Iterator[Span]:
    """Yield the parts of a span that are not covered."""
    starts, ends = covered
    position, end = span
    at = max(0, bisect_right(starts, position) - 1)
    while at < len(starts) and starts[at] < end:
        if position < starts[at]:
            yield position, starts[at]
        position = max(position, ends[at])
        at += 1
    if position < end:
        yield position, end
