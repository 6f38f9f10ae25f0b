# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare two containers of one format: structures, entries' facts and contents, other bytes.

Data that the other side stores at another offset is matched by name. Bytes that no structure, entry
or region explains are reported; the account of every byte (`account`) ensures that none is missed.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

from pipeline.look.formats.container import Container, Entry, Format, Structure
from pipeline.look.formats.ranges import Ranges, Span
from pipeline.look.formats.scan import Bytes, describe, exact, scan
from pipeline.look.formats.source import (
    READ_LIMIT,
    BadFormat,
    ByteSource,
    Memory,
    NotRead,
    Spool,
    Watched,
    common,
)
from pipeline.look.matching import matched
from pipeline.look.places import (
    REFUSED,
    UNUSED,
    Differing,
    Place,
    fact_place,
    say_reason,
    structure_place,
    weight,
)

EMPTY = Memory(b"")
HEADERS = "headers of entries"
FRAGMENTS = "fragments"

Sides = tuple[ByteSource, ByteSource]


class Position(NamedTuple):
    """The position of a descent: the containers that it is in, and the path in the innermost."""

    where: str
    path: str
    depth: int

    def into(self, format_name: str) -> str:
        """Return the name of the container at this position, with those around it."""
        outer = f"{self.where} {self.path}".strip()
        return f"{outer} > {format_name}" if outer else format_name


class Descent(Protocol):
    """Compares the contents of entries and collects the places that differ."""

    names: tuple[str, str]
    places: list[Place]

    def found(self, place: Place, sides: Sides | None = None) -> None:
        """Add a place; its contents can be read only until this returns."""

    def contents(
        self, at: Position, left: ByteSource, right: ByteSource, outer: Ranges, note: str = ""
    ) -> bool:
        """Compare two contents; return whether they differ.

        A `note` gives the reason for not looking inside.
        """


class Pair:
    """The comparison of two containers of one format."""

    def __init__(self, descent: Descent, at: Position, spool: Spool) -> None:
        self.descent = descent
        self.at = at
        self.spool = spool
        self.explained: list[Span] = []  # where differing contents are stored
        self.headers: list[Differing] = []
        self.packed_otherwise = False  # options of the format differ

    def compare(
        self, here: Format, there: Format, left: ByteSource, right: ByteSource, ranges: Ranges
    ) -> None:
        """Compare everything in the containers; raise BadFormat if one is malformed.

        Both have the same format, but may use different variants of it, as with cpio.
        """
        watched = Watched(left)
        first = self._read(here, watched, 0)
        watched.watching = False
        same = left.size == right.size and not any(ranges.touches(*span) for span in watched.reads)
        if same and here is there:
            self._in_place(first, left, right, ranges)
        else:
            packed = here.packs
            self._apart((first, self._read(there, right, 1)), (left, right), ranges, packed=packed)

    def _read(self, here: Format, source: ByteSource, side: int) -> Container:
        try:
            return here.read(source, self.spool)
        except NotRead as error:
            raise NotRead(f"{here.name} {error}") from error
        except REFUSED as error:
            reason = f"{self.descent.names[side]} is no {here.name} that can be read"
            raise BadFormat(f"{reason}: {say_reason(error)}") from error

    def _in_place(
        self, first: Container, left: ByteSource, right: ByteSource, ranges: Ranges
    ) -> None:
        """Compare two sides whose metadata is equal, so that both have the same layout."""
        touched: list[Sides] = []
        for entry in first.touched(ranges) if first.touched else first.entries():
            content = entry.content
            if content and any(ranges.touches(*span) for span in content.stored()):
                sides = content, content.elsewhere(right)
                touched.append(sides)
                self._content(entry, *sides, ranges, entry.note)
        if first.slack and self.explained:
            one, other = (first.slack(side) for side in zip(*touched, strict=True))
            if one != other:
                self._differing(_header(0, one, other, FRAGMENTS))
        remaining = exact(left, right, ranges.without(self.explained))
        if not len(remaining):
            return
        unused = remaining
        for region in first.regions():
            self._in_region(region.name, left, right, remaining, [region.span])
            unused = unused.without([region.span])
        records = [entry.record for entry in first.entries() if entry.record]
        self._in_region(HEADERS, left, right, unused, sorted(records))
        self._report(UNUSED, left, right, unused.without(records))

    def _in_region(
        self,
        name: str,
        left: ByteSource,
        right: ByteSource,
        remaining: Ranges,
        spans: Sequence[Span],
    ) -> None:
        self._report(
            name, left, right, Ranges([s for span in spans for s in remaining.within(*span)])
        )

    def _report(self, name: str, left: ByteSource, right: ByteSource, spans: Ranges) -> None:
        if len(spans):
            sizes = left.size, right.size
            self._differing(Differing(name, sizes, describe(left, right, spans)), (left, right))

    def _differing(self, what: Differing, sides: Sides | None = None) -> None:
        found = what.found
        self.descent.found(
            Place(
                *(self.at.where, f"[{what.name}]", "layout", found.offset, found.count),
                *(what.sizes, found.first.hex(), found.second.hex()),
            ),
            sides,
        )

    def _apart(
        self,
        containers: tuple[Container, Container],
        sides: Sides,
        ranges: Ranges,
        *,
        packed: bool,
    ) -> None:
        """Compare two sides with different layouts, matching their parts by name.

        If the format is `packed` and contents differ, all other bytes follow from the contents.
        """
        from pipeline.look.account import Account, differing  # most pairs do not need it

        first, second = containers
        layouts = self._structures(first.structures, second.structures)
        differs = self._all_entries(containers, sides, ranges)
        accounts = Account(first, sides[0]), Account(second, sides[1])
        for one, other in layouts:
            moved = one.places != other.places
            if not moved or accounts[0].pointed(one.places) != accounts[1].pointed(other.places):
                self.descent.found(structure_place(self.at.where, one, other))
        if self.headers:
            self._differing(_together(self.headers))
        if packed and differs:
            return
        for found in differing(*accounts, ranges, self.spool):
            self._differing(found)

    def _encodings(self, ours: Entry, theirs: Entry, *, changed: bool) -> None:
        """Report two contents that differ if they are known to be compressed in different ways."""
        from pipeline.look.formats.recompress import tell_encodings

        if not changed or self.packed_otherwise:
            return
        if ours.compressed and theirs.compressed:
            made = tell_encodings(ours.compressed, theirs.compressed, self.spool)
            if made:
                where, path = self.at.where, ours.path
                self.descent.found(Place(where, path, "layout", first=made[0], second=made[1]))

    def _all_entries(
        self, containers: tuple[Container, Container], sides: Sides, ranges: Ranges
    ) -> bool:
        """Compare the entries and their order; return whether contents differ."""
        from pipeline.look.orders import Numbers, StorageOrder

        first, second = containers
        numbers, order, differs, count, unlike = Numbers(), StorageOrder(), False, -1, ""
        for ours, theirs, wanted in matched(
            *(c.taken_down() if c.taken_down else c.entries() for c in containers)
        ):
            count += ours is not None
            if first.number and second.number:
                number = first.number(ours) if ours else None
                other = second.number(theirs) if theirs else None
                numbers.add(number, other, linked=_linked_anew(ours, theirs))
            if not wanted:
                continue
            changed = self._entries(ours, theirs, ranges)
            differs |= changed
            if ours and theirs:
                self._records(containers, sides, (ours, theirs), changed=changed)
                self._encodings(ours, theirs, changed=changed)
            if ours and theirs and not changed and first.unlike and first.unlike(ours):
                unlike = unlike or (ours.path if ours.facts == theirs.facts else "")
            if ours and theirs and first.place and second.place and not changed:
                order.add(count, first.place(ours), second.place(theirs))
        if not self.packed_otherwise and (unlike or _packed_unlike(first, second)):
            where = self.at.where
            self.descent.found(Place(where, "[packed data]", "layout", first=unlike, second=unlike))
        moved = self._order(first, second)
        out_of_order = order.moved()
        # all entries are iterated, since the account uses what was read along the way
        paths = [
            e.path
            for n, e in enumerate(first.entries() if out_of_order else ())
            if n in out_of_order
        ]
        for path in paths:
            self.descent.found(Place(self.at.where, path, "order"))
        if not numbers.follow(moved=moved):
            self.descent.found(Place(self.at.where, "[numbers of entries]", "layout"))
        return differs

    def _structures(
        self, left: Sequence[Structure], right: Sequence[Structure]
    ) -> list[tuple[Structure, Structure]]:
        """Compare the format's own structures by name.

        Return the pairs that differ in offsets, which may follow from other differences.
        """
        layouts = []
        ours, theirs = ({s.name: s for s in side} for side in (left, right))
        for name in dict.fromkeys([*ours, *theirs]):
            one, other = ours.get(name), theirs.get(name)
            if one is None or other is None:
                kind = f"only-in-{self.descent.names[one is None]}"
                self.descent.found(Place(self.at.where, f"[{name}]", kind))
            elif one.content != other.content and not (one.follows and other.follows):
                if one.places or other.places:
                    layouts.append((one, other))
                else:
                    self.packed_otherwise |= one.kind in ("structure", "layout")
                    self.descent.found(structure_place(self.at.where, one, other))
        return layouts

    def _entries(self, ours: Entry | None, theirs: Entry | None, ranges: Ranges) -> bool:
        """Compare an entry that both sides have, or report one that only one side has.

        Return whether its contents differ.
        """
        if ours is None or theirs is None:
            entry = ours or theirs
            if entry is not None:
                self._only(entry, 0 if ours else 1)
            return True
        if ours.path != theirs.path:
            self.descent.found(
                Place(self.at.where, ours.path, "name", first=ours.path, second=theirs.path)
            )
        types = ours.facts.get("type"), theirs.facts.get("type")
        same_type = types[0] == types[1]
        if ours.facts != theirs.facts:
            names = sorted({*ours.facts, *theirs.facts}, key=weight) if same_type else ["type"]
            for name in names:
                one, other = ours.facts.get(name), theirs.facts.get(name)
                if one != other:
                    place = fact_place(self.at.where, ours.path, name, one, other)
                    self.descent.found(place)
        if not same_type:
            return True
        note = ours.note or theirs.note
        return self._content(ours, ours.content or EMPTY, theirs.content or EMPTY, ranges, note)

    def _records(
        self,
        containers: tuple[Container, Container],
        sides: Sides,
        pair: tuple[Entry, Entry],
        *,
        changed: bool,
    ) -> None:
        """Compare the bytes of two entries' records that are not facts."""
        if pair[0].facts.get("type") != pair[1].facts.get("type"):
            return
        one, other = (
            container.rest(entry, changed) if container.rest else _bytes(side, entry.record)
            for container, side, entry in zip(containers, sides, pair, strict=True)
        )
        if one != other:
            self.headers.append(_header(pair[0].record[0] if pair[0].record else 0, one, other))

    def _only(self, entry: Entry, side: int) -> None:
        size = entry.content.size if entry.content else None
        sizes = (size, None) if side == 0 else (None, size)
        kind = f"only-in-{self.descent.names[side]}"
        self.descent.found(Place(self.at.where, entry.path, kind, sizes=sizes))

    def _content(
        self, entry: Entry, ours: ByteSource, theirs: ByteSource, ranges: Ranges, note: str
    ) -> bool:
        """Compare an entry's contents; return whether they differ."""
        at = Position(self.at.where, entry.path, self.at.depth)
        differs = self.descent.contents(at, ours, theirs, ranges, note)
        if differs:
            self.explained += [*ours.stored(), *theirs.stored()]
        return differs

    def _order(self, first: Container, second: Container) -> bool:
        """Report the first entry that is out of order; return whether there is one.

        Only entries that both sides have are considered.
        """
        if first.order is None or second.order is None:
            return False
        shared = set(first.order) & set(second.order)
        left, right = ([p for p in side if p in shared] for side in (first.order, second.order))
        moved = [pair for pair in zip(left, right, strict=True) if pair[0] != pair[1]]
        if moved:
            (one, other) = moved[0]
            self.descent.found(
                Place(self.at.where, "[order of entries]", "order", first=one, second=other)
            )
        return bool(moved)


def _packed_unlike(first: Container, second: Container) -> bool:
    """Return whether an equal piece of the format's own data is compressed to different bytes."""
    return any(second.packed.get(held, stored) != stored for held, stored in first.packed.items())


def _linked_anew(ours: Entry | None, theirs: Entry | None) -> bool:
    """Return whether an entry's number of links differs, which is reported as a fact."""
    if ours is None or theirs is None:
        return False
    return ours.facts.get("links") != theirs.facts.get("links")


def _bytes(source: ByteSource, span: Span | None) -> bytes:
    return source.read(span[0], span[1] - span[0]) if span else b""


def _header(offset: int, one: bytes, other: bytes, name: str = HEADERS) -> Differing:
    """Return how two records differ; `offset` is where the first one begins."""
    sides = Memory(one), Memory(other)
    found = scan(*sides, common(*sides), Spool([2 * READ_LIMIT]))
    differing = describe(*sides, found)
    return Differing(
        name,
        (len(one), len(other)),
        Bytes(offset + differing.offset, differing.count, differing.first, differing.second),
    )


def _together(headers: Sequence[Differing]) -> Differing:
    """Return the first of several records that differ, with the sizes and counts of all."""
    first = headers[0]
    sizes = sum(h.sizes[0] for h in headers), sum(h.sizes[1] for h in headers)
    count = sum(header.found.count for header in headers)
    return Differing(first.name, sizes, replace(first.found, count=count))
