# SPDX-License-Identifier: GPL-3.0-or-later
"""Locate the differences between any two files: images, file systems, archives or others.

Two contents are compared byte by byte; equal contents are never opened. If contents differ and
both sides have the same format, they are parsed: the differing bytes belong to the format's
structures, to facts of its entries, or to an entry's content, which is then compared in the same
way. Content that is stored at another offset is matched by path. Contents are hostile: they are
read with limits, and a malformed content is compared as plain bytes and reported as malformed.
"""

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.base.errors import UsageError
from pipeline.base.files import open_plain
from pipeline.look.containers import Pair, Position, Sides
from pipeline.look.formats.container import Format
from pipeline.look.formats.ranges import Ranges
from pipeline.look.formats.scan import describe, scan
from pipeline.look.formats.source import Alone, ByteSource, NotRead, OpenFile, Spool
from pipeline.look.places import REFUSED, Place, content_place, say_reason

FORMAT = "twinbuild-places/1"
PLACES_LIMIT = 1000
DEPTH_LIMIT = 16
CONTENT = "content"
PLAIN = "none"  # the packing of a content that is not compressed
# The total of bytes that may be read or decompressed: per byte of the files, and in addition.
WORK_FACTOR, WORK_LEAST = 8, 4 * 1024**3
NAMES = ("first", "second")
# Called with each place; for bytes that differ also with both contents, readable during the call.
Look = Callable[[Place, Sides | None], None]


@dataclass(frozen=True)
class Located:
    """Whether two files are equal, and where they differ; `complete` if no place is left out."""

    equal: bool
    places: tuple[Place, ...]
    complete: bool

    def lines(self) -> list[str]:
        """Return the result for people: a line for each place."""
        more = [] if self.complete else [f"there may be more than these {len(self.places)} places"]
        return [*map(str, self.places), *more] or ["the files are equal"]

    def document(self) -> dict[str, object]:
        """Return the JSON object that `docs/reference/locate.md` describes."""
        return {"format": FORMAT, **asdict(self)}


def locate_files(
    first: Path, second: Path, *, names: tuple[str, str] = NAMES, limit: int = PLACES_LIMIT
) -> Located:
    """Return where two files differ, with at most `limit` places.

    Raise UsageError if one is not a readable plain file, OSError if reading fails later.
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
) -> Located:
    """Return where two contents differ, with at most `limit` places and `work` (see `Spool`).

    Files of a SquashFS whose paths are in `closed` are compared, but not opened.
    """
    with Spool([work]).nested() as spool:
        descent = _Descent(names, limit, spool, look, closed)
        complete = True
        try:
            descent.contents(Position("", "", 0), *sides, Ranges())
        except _Enough:
            complete = False
        return Located(not descent.places, tuple(descent.places), complete)


def open_file(path: Path, stack: ExitStack) -> OpenFile:
    """Open a plain file until `stack` closes; raise UsageError if it is not one or unreadable."""
    try:
        file = stack.enter_context(open_plain(path, follow=True))
    except OSError as error:
        what = f"cannot read {path}: {error.strerror}"
        raise UsageError(what, remedy="name two files to compare") from error
    return OpenFile(file.fileno(), os.fstat(file.fileno()).st_size)


class _Enough(Exception):
    """Raised when the limit of places is reached."""


class _Descent:
    """Compares contents recursively and collects the places where they differ."""

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
        self, at: Position, left: ByteSource, right: ByteSource, outer: Ranges, note: str = ""
    ) -> bool:
        """Compare two contents; return whether they differ.

        With a `note`, which gives the reason, they are not opened.
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
        at: Position,
        left: ByteSource,
        right: ByteSource,
        ranges: Ranges,
        kind: str = "content",
        note: str = "",
    ) -> None:
        """Add the place of bytes that differ, in contents that were not or cannot be opened."""
        sides, found = (left, right), describe(left, right, ranges)
        self.found(content_place(at.where, at.path, sides, found, kind, note), sides)

    def _inside(self, at: Position, left: ByteSource, right: ByteSource, ranges: Ranges) -> bool:
        """Open and compare two contents that differ; return whether places were found."""
        here, there = self._format(left), self._format(right)
        if at.depth >= DEPTH_LIMIT or (at.path in self.closed and at.where.endswith("squashfs")):
            return False
        if here is None or there is None or here.name != there.name:
            return self._packed_otherwise(at, (left, right), (here, there))
        before = len(self.places)
        try:
            with self.spool.nested() as spool:
                pair = Pair(self, Position(at.into(here.name), "", at.depth + 1), spool)
                pair.compare(here, there, left, right, ranges)
        except NotRead as error:
            self.bytes_found(at, left, right, ranges, note=say_reason(error))
        except REFUSED as error:
            self.bytes_found(at, left, right, ranges, "malformed", say_reason(error))
        if len(self.places) == before:
            self.bytes_found(at, left, right, ranges, "layout")
        return True

    def _packed_otherwise(
        self, at: Position, sides: Sides, formats: tuple[Format | None, Format | None]
    ) -> bool:
        """Compare the uncompressed contents if the compression differs, or only one side has it.

        Return whether that was possible.
        """
        if not any(known and known.packs for known in formats):
            return False
        try:
            with self.spool.nested() as spool:
                opened = [self._opened(*pair, spool) for pair in zip(formats, sides, strict=True)]
                inner = [content for content, _ in opened]
                kinds = [self._format(content) for content in inner]
                packed = all(known and known.packs for known in formats)
                if not packed and (kinds[0] is None or kinds[0] is not kinds[1]):
                    return False
                names = [known.name if known and known.packs else PLAIN for known in formats]
                packings = [f"packing {name}" for name in names]
                self.found(
                    Place(at.where, at.path, "structure", first=packings[0], second=packings[1])
                )
                for side, name, (_, around) in zip(self.names, names, opened, strict=True):
                    for path in around:
                        self.found(Place(at.into(name), path, f"only-in-{side}"))
                within = Position(at.into("/".join(names)), "content", at.depth + 1)
                self.contents(within, inner[0], inner[1], Ranges())
        except REFUSED:
            return False
        return True

    def _opened(
        self, known: Format | None, source: ByteSource, spool: Spool
    ) -> tuple[ByteSource, list[str]]:
        """Return the uncompressed content, and the names of optional parts around it."""
        if known is None or not known.packs:
            return Alone(source), []
        container = known.read(source, spool)
        entries = list(container.entries())
        content = next(e.content for e in entries if e.path == CONTENT and e.content)
        around = [e.path for e in entries if e.path != CONTENT]
        optional = [s.name for s in container.structures if s.optional and s.content]
        return content, [*around, *(f"[{name}]" for name in optional)]

    def _say_opaque(self, left: ByteSource, right: ByteSource) -> str:
        """Return a note if the contents are of a known kind that is not opened; else nothing."""
        from pipeline.look.formats.opaque import say_opaque  # equal files do not need it

        try:
            return say_opaque(left) or say_opaque(right)
        except REFUSED:
            return ""

    def _format(self, source: ByteSource) -> Format | None:
        from pipeline.look.formats.known import recognise  # equal files do not need it

        try:
            return recognise(source)
        except REFUSED:
            return None
