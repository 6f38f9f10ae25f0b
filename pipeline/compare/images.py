"""Where two files differ, told from the files alone: images, file systems, archives, anything.

Two contents are compared byte by byte; what is equal is never opened. What differs is read as its
format demands, if both sides have the same one: the differing bytes are those of its structures, of
its entries' facts, or of an entry's content, which is then compared in the same way. What is stored
elsewhere is matched by path. Contents are hostile: they are read with limits, and what does not
follow its format is compared as mere bytes and told to be malformed.
"""

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.compare.formats.container import Container, Entry, Format, Structure, sort_key
from pipeline.compare.formats.ranges import Ranges, Span
from pipeline.compare.formats.scan import describe, exact, scan
from pipeline.compare.formats.source import File, Malformed, Memory, NotRead, Source, Spool, Watched
from pipeline.compare.places import (
    REFUSED,
    Place,
    content_place,
    fact_place,
    say_reason,
    structure_place,
    weight,
)
from pipeline.errors import UsageError
from pipeline.guest.protocol import without_digest

FORMAT = "twinbuild-places/1"
PLACES_LIMIT = 1000
DEPTH_LIMIT = 16
# Bytes that are read or unpacked in all: so many for each byte of the files, and a start.
WORK_FACTOR, WORK_LEAST = 8, 4 * 1024**3
NAMES = ("first", "second")
EMPTY = Memory(b"")

Sides = tuple[Source, Source]
# Is shown each place while its contents can be read: bytes that differ come with both sides.
Look = Callable[[Place, Sides | None], None]


@dataclass(frozen=True)
class Compared:
    """Whether two files are equal, and where they are not; `complete` if all places are told."""

    equal: bool
    places: tuple[Place, ...]
    complete: bool

    def lines(self) -> list[str]:
        """Return what people read: a line a place."""
        more = [] if self.complete else [f"there may be more than these {len(self.places)} places"]
        return [*map(str, self.places), *more] or ["the files are equal"]

    def document(self) -> dict[str, object]:
        """Return what `docs/reference/locate.md` describes."""
        return {"format": FORMAT, **asdict(self)}


def locate_files(
    first: Path, second: Path, *, names: tuple[str, str] = NAMES, limit: int = PLACES_LIMIT
) -> Compared:
    """Say where two files differ, `limit` places at most.

    Raise UsageError if one is not a file that can be read, OSError if reading fails later.
    """
    with ExitStack() as stack:
        left, right = (open_file(path, stack) for path in (first, second))
        work = WORK_FACTOR * (left.size + right.size) + WORK_LEAST
        return locate_contents((left, right), names=names, limit=limit, work=work)


def locate_contents(
    sides: Sides,
    *,
    work: int,
    names: tuple[str, str] = NAMES,
    limit: int = PLACES_LIMIT,
    look: Look | None = None,
    closed: frozenset[str] = frozenset(),
) -> Compared:
    """Say where two contents differ, `limit` places at most, in at most `work` (see `Spool`).

    What lies at one of the paths `closed` of a SquashFS is compared, but not looked into.
    """
    with Spool([work]).nested() as spool:
        descent = _Descent(names, limit, spool, look, closed)
        complete = True
        try:
            descent.contents(_Position("", "", 0), *sides, Ranges())
        except _Enough:
            complete = False
        return Compared(not descent.places, tuple(descent.places), complete)


def open_file(path: Path, stack: ExitStack) -> File:
    """Open a plain file until `stack` ends; raise UsageError if it is none or cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    stack.callback(os.close, descriptor)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise UsageError(f"{path} is not a plain file", remedy="name two files to compare")
    return File(descriptor, os.fstat(descriptor).st_size)


class _Enough(Exception):
    """As many places as are wanted have been found."""


@dataclass(frozen=True)
class _Position:
    """Where a descent is: containers and path so far."""

    where: str
    path: str
    depth: int

    def into(self, format_name: str) -> str:
        """Return what to call the container that lies here."""
        outer = f"{self.where} {self.path}".strip()
        return f"{outer} > {format_name}" if outer else format_name


class _Descent:
    """Compares contents and what is in them, and keeps the places where they differ."""

    def __init__(
        self,
        names: tuple[str, str],
        limit: int,
        spool: Spool,
        look: Look | None,
        closed: frozenset[str],
    ) -> None:
        self.names = names
        self.limit = limit
        self.spool = spool
        self.look = look
        self.closed = closed
        self.places: list[Place] = []

    def found(self, place: Place, sides: Sides | None = None) -> None:
        self.places.append(place)
        if self.look:
            self.look(place, sides)
        if len(self.places) >= self.limit:
            raise _Enough

    def contents(
        self, at: _Position, left: Source, right: Source, outer: Ranges, note: str = ""
    ) -> bool:
        """Compare two contents; return whether they differ.

        With a `note`, which says why, they are not looked into.
        """
        try:
            ranges = scan(left, right, left.against(right, outer), self.spool)
        except REFUSED as error:
            sizes = (left.size, right.size)
            self.found(Place(at.where, at.path, "malformed", sizes=sizes, first=say_reason(error)))
            return True
        if not len(ranges) and left.size == right.size:
            return False
        if note or not self._inside(at, left, right, ranges):
            self.bytes_found(at, left, right, ranges, note=note or self._say_opaque(left, right))
        return True

    def bytes_found(
        self,
        at: _Position,
        left: Source,
        right: Source,
        ranges: Ranges,
        kind: str = "content",
        note: str = "",
    ) -> None:
        """Keep the place of bytes that differ and were not, or cannot be, looked into."""
        sides, found = (left, right), describe(left, right, ranges)
        self.found(content_place(at.where, at.path, sides, found, kind, note), sides)

    def _inside(self, at: _Position, left: Source, right: Source, ranges: Ranges) -> bool:
        """Look into two contents that differ; return whether the difference was found there."""
        here = self._format(left)
        if here is None or here is not self._format(right) or at.depth >= DEPTH_LIMIT:
            return False
        if at.path in self.closed and at.where.endswith("squashfs"):
            return False
        before = len(self.places)
        try:
            with self.spool.nested() as spool:
                pair = _Pair(self, _Position(at.into(here.name), "", at.depth + 1), spool)
                pair.compare(here, left, right, ranges)
        except NotRead as error:
            self.bytes_found(at, left, right, ranges, note=say_reason(error))
        except REFUSED as error:
            self.bytes_found(at, left, right, ranges, "malformed", say_reason(error))
        if len(self.places) == before:
            self.bytes_found(at, left, right, ranges, "layout")
        return True

    def _say_opaque(self, left: Source, right: Source) -> str:
        """Say of which known kind the contents are, if it is one that is not looked into."""
        from pipeline.compare.formats.opaque import say_opaque  # as with the readers

        try:
            return say_opaque(left) or say_opaque(right)
        except REFUSED:
            return ""

    def _format(self, source: Source) -> Format | None:
        from pipeline.compare.formats.known import recognise  # equal files need no reader

        try:
            return recognise(source)
        except REFUSED:
            return None


class _Pair:
    """Two containers of one format that are compared."""

    def __init__(self, descent: _Descent, at: _Position, spool: Spool) -> None:
        self.descent = descent
        self.at = at
        self.spool = spool
        self.explained: list[Span] = []
        self.metadata_explained = False
        self.moved = False  # something is stored at another place than on the other side

    def compare(self, here: Format, left: Source, right: Source, ranges: Ranges) -> None:
        """Compare all that the containers hold; raise Malformed if one is not as it should be."""
        before = len(self.descent.places)
        watched = Watched(left)
        first = self._read(here, watched, 0)
        watched.watching = False
        same = left.size == right.size and not any(ranges.touches(*span) for span in watched.reads)
        second = None if same else self._read(here, right, 1)
        if second is None:
            for entry in first.entries():
                content = entry.content
                if content and any(ranges.touches(*span) for span in content.stored()):
                    self._content(entry, content, content.elsewhere(right), ranges, entry.note)
        else:
            consequences = self._structures(first.structures, second.structures)
            for ours, theirs in _matched(first.entries(), second.entries()):
                self._entries(ours, theirs, ranges)
            self._order(first, second)
            for place in consequences if len(self.descent.places) == before else ():
                self.descent.found(place)
        if here.packs or (second and (first.regions != second.regions or left.size != right.size)):
            return
        if not self.moved or (first.regions and len(self.descent.places) == before):
            self._unexplained(first, left, right, ranges)

    def _read(self, here: Format, source: Source, side: int) -> Container:
        try:
            return here.read(source, self.spool)
        except NotRead as error:
            raise NotRead(f"{here.name} {error}") from error
        except REFUSED as error:
            reason = f"{self.descent.names[side]} is no {here.name} that can be read"
            raise Malformed(f"{reason}: {say_reason(error)}") from error

    def _structures(self, left: Sequence[Structure], right: Sequence[Structure]) -> list[Place]:
        """Compare the format's own structures, by name; return those that follow from the rest."""
        consequences = []
        ours, theirs = ({s.name: s for s in side} for side in (left, right))
        for name in dict.fromkeys([*ours, *theirs]):
            one, other = ours.get(name), theirs.get(name)
            if one is None or other is None:
                known = one or other
                kind = f"only-in-{self.descent.names[one is None]}"
                self.descent.found(Place(self.at.where, f"[{name}]", kind))
                self.explained += [known.span] if known else []
            elif one.content != other.content:
                self.explained += [one.span, other.span]
                place = structure_place(self.at.where, one, other)
                consequences.append(place) if place.kind == "layout" else self.descent.found(place)
        return consequences

    def _entries(self, ours: Entry | None, theirs: Entry | None, ranges: Ranges) -> None:
        """Compare an entry that is on both sides, or tell that it is not."""
        if ours is None or theirs is None:
            entry = ours or theirs
            if entry is not None:
                self._only(entry, 0 if ours else 1)
            return
        if ours.path != theirs.path:
            self.metadata_explained = True
            self.descent.found(
                Place(self.at.where, ours.path, "name", first=ours.path, second=theirs.path)
            )
        types = ours.facts.get("type"), theirs.facts.get("type")
        same_type = types[0] == types[1]
        if ours.facts != theirs.facts:
            self.metadata_explained = True
            self.explained += [entry.record for entry in (ours, theirs) if entry.record]
            names = sorted({*ours.facts, *theirs.facts}, key=weight) if same_type else ["type"]
            for name in names:
                one, other = ours.facts.get(name), theirs.facts.get(name)
                if one != other:
                    place = fact_place(self.at.where, ours.path, name, one, other)
                    self.descent.found(place)
        note = ours.note or theirs.note
        if same_type and self._content(
            ours, ours.content or EMPTY, theirs.content or EMPTY, ranges, note
        ):
            records = [entry.record for entry in (ours, theirs) if entry.record]
            self.explained += records  # sizes and checksums are there
            self.metadata_explained |= bool(records)

    def _only(self, entry: Entry, side: int) -> None:
        self.metadata_explained = self.moved = True
        size = entry.content.size if entry.content else None
        sizes = (size, None) if side == 0 else (None, size)
        kind = f"only-in-{self.descent.names[side]}"
        self.descent.found(Place(self.at.where, entry.path, kind, sizes=sizes))
        self.explained += entry.content.stored() if entry.content else ()

    def _content(
        self, entry: Entry, ours: Source, theirs: Source, ranges: Ranges, note: str
    ) -> bool:
        """Compare an entry's contents; return whether they differ."""
        at = _Position(self.at.where, entry.path, self.at.depth)
        differs = self.descent.contents(at, ours, theirs, ranges, note)
        spans = ours.stored(), theirs.stored()
        moved = spans[0] != spans[1]
        self.moved |= moved
        if differs:
            self.explained += [*spans[0], *spans[1]]
            self.metadata_explained |= moved
        return differs

    def _order(self, first: Container, second: Container) -> None:
        """Tell the first entry that both have and that stands at another place in the order."""
        if first.order is None or second.order is None:
            return
        shared = set(first.order) & set(second.order)
        left, right = ([p for p in side if p in shared] for side in (first.order, second.order))
        moved = [pair for pair in zip(left, right, strict=True) if pair[0] != pair[1]]
        if moved:
            self.metadata_explained = self.moved = True
            (one, other) = moved[0]
            self.descent.found(
                Place(self.at.where, "[order of entries]", "order", first=one, second=other)
            )

    def _unexplained(
        self, container: Container, left: Source, right: Source, ranges: Ranges
    ) -> None:
        """Tell the differing bytes that nothing told so far has to do with, region by region."""
        regions = container.regions
        told = [r.span for r in regions if r.metadata and self.metadata_explained]
        remaining = ranges.without([*self.explained, *told])
        for region in regions:
            self._region(region.name, left, right, remaining.within(*region.span))
        remaining = remaining.without([region.span for region in regions])
        if not len(remaining):
            return
        records = [entry.record for entry in container.entries() if entry.record]
        headers = [part for record in sorted(records) for part in remaining.within(*record)]
        self._region("headers of entries", left, right, headers)
        self._region("unused space", left, right, remaining.without(records))

    def _region(self, name: str, left: Source, right: Source, spans: Iterable[Span]) -> None:
        """Tell the bytes that differ in `spans`: what was scanned is known by blocks only."""
        differing = exact(left, right, spans)
        if len(differing):
            at = _Position(self.at.where, f"[{name}]", self.at.depth)
            self.descent.bytes_found(at, left, right, differing, "layout")


def _same_but_digest(left: str, right: str) -> bool:
    """Whether two files are named by their contents, and are else called the same."""
    return without_digest(left) == without_digest(right)


def _matched(
    left: Iterator[Entry], right: Iterator[Entry]
) -> Iterator[tuple[Entry | None, Entry | None]]:
    """Give the entries of both sides by path; of a folder that only one has, only the folder."""
    ours, theirs = next(left, None), next(right, None)
    missing: str | None = None
    while ours is not None or theirs is not None:
        keys = [sort_key(side.path) if side else None for side in (ours, theirs)]
        if ours and theirs and keys[0] != keys[1] and _same_but_digest(ours.path, theirs.path):
            keys[1] = keys[0]
        first = min(key for key in keys if key is not None)
        pair = (ours if keys[0] == first else None, theirs if keys[1] == first else None)
        if None not in pair:
            yield pair
        elif missing is None or not first.startswith(missing):
            missing = f"{first}\0"
            yield pair
        if pair[0]:
            ours = next(left, None)
        if pair[1]:
            theirs = next(right, None)
