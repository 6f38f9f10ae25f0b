# SPDX-License-Identifier: GPL-3.0-or-later
"""Find the differences between two contents of one path, however deeply they are nested."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipeline.base.plain import plain
from pipeline.documents.explanation import Cause, Inside, Shown
from pipeline.look.causes.classify import distinct, find_causes_of_values
from pipeline.look.causes.facts import Pair
from pipeline.look.causes.headers import in_headers
from pipeline.look.causes.inside import find_causes_of_place
from pipeline.look.causes.properties import only_in_one
from pipeline.look.containers import Sides
from pipeline.look.contents import Excerpt, read_contents
from pipeline.look.formats.scan import describe, scan
from pipeline.look.formats.source import Spool, common
from pipeline.look.locate import locate_contents
from pipeline.look.places import Place
from pipeline.look.shown import show
from pipeline.look.twins import find_twins

WORK = 1024**3  # for one pair, in the unit of Spool.spend
INSIDE_LIMIT = 20
EVIDENCE_LIMIT = 400
EQUAL = "the contents are equal"
ONLY = "only-in-"
NOT_CONTENT = "["  # structures and regions of a format are named in brackets


@dataclass(frozen=True)
class Leaf:
    """Two contents that no reader opens further: their file name and their bytes."""

    name: str
    sides: tuple[Excerpt, Excerpt]

    @property
    def whole(self) -> bool:
        """Whether both excerpts are complete contents."""
        return not any(side.cut or side.start for side in self.sides)


@dataclass(frozen=True)
class Findings:
    """The findings, as fields of an explanation; `leaf` is the first leaf that differs."""

    offset: int | None = None
    bytes: int | None = None
    shown: Shown | None = None
    causes: tuple[Cause, ...] = ()
    inside: tuple[Inside, ...] = ()
    note: str = ""
    leaf: Leaf | None = None


def look_into(path: str, sides: Sides, pair: Pair) -> Findings:
    """Return how two contents differ; all texts are safe to print on a terminal.

    Raise one of `REFUSED` if not even their bytes can be read.
    """
    found: list[tuple[Place, Inside, Leaf | None]] = []

    def look(place: Place, contents: Sides | None) -> None:
        found.append((place, *_look_at(place, contents, path, pair)))

    names = pair[0].name, pair[1].name
    compared = locate_contents(sides, work=WORK, names=names, limit=INSIDE_LIMIT, look=look)
    if compared.equal:
        return Findings(note=EQUAL)
    offset, count = _differing(sides)
    inside = _named_alike([one for _, one, _ in found], pair)
    leaf = next((leaf for place, _, leaf in found if leaf and not _own(place)), None)
    notes = [] if compared.complete else ["there may be more differences inside"]
    if leaf and not leaf.whole:
        notes.append("only a part was looked at")
    first = inside[0]
    if not first.where:  # the two are not both containers
        notes += [first.left] if first.kind == "malformed" else []
        return Findings(offset, count, first.shown, first.causes, (), "; ".join(notes), leaf)
    whole = read_contents(sides, offset or 0)
    headers = in_headers(path, (whole[0].data, whole[1].data), pair) if not whole[0].start else []
    return Findings(
        offset,
        count,
        None if any(one.shown for one in inside) else _shown(whole),
        distinct([*headers, *(cause for one in inside for cause in one.causes)]),
        tuple(inside),
        "; ".join(notes),
        leaf,
    )


def _look_at(
    place: Place, contents: Sides | None, outer: str, pair: Pair
) -> tuple[Inside, Leaf | None]:
    """Return the description of a place, and its contents if it has any."""
    leaf, shown, data = None, None, None
    if contents is not None:
        read = read_contents(contents, place.offset or 0)
        name = (place.path or outer).rpartition("/")[2]
        leaf, shown, data = Leaf(name, read), _shown(read), (read[0].data, read[1].data)
    causes = find_causes_of_place(place, data, outer, pair)
    worded = leaf is None or place.kind == "malformed"
    left, right = (plain(side) if worded else "" for side in (place.first, place.second))
    inside = Inside(
        *(plain(place.where), plain(place.path), place.kind, place.offset, place.bytes),
        *(left, right, shown, shortened(causes)),
    )
    return inside, leaf


def _own(place: Place) -> bool:
    return place.path.startswith(NOT_CONTENT)


def _shown(contents: tuple[Excerpt, Excerpt]) -> Shown:
    """Show the differences of two excerpts, with offsets in the whole content."""
    shown = show(contents[0].data, contents[1].data)
    start = contents[0].start
    return replace(shown, rows=tuple(replace(r, offset=r.offset + start) for r in shown.rows))


def _differing(sides: Sides) -> tuple[int, int]:
    """Return the offset of the first difference, and the number of bytes that differ.

    If the sizes differ, all bytes from that offset to the end of the longer content count.
    """
    with Spool([2 * WORK]).nested() as spool:
        ranges = scan(*sides, common(*sides), spool)
    found = describe(*sides, ranges)
    sizes = sides[0].size, sides[1].size
    count = found.count if sizes[0] == sizes[1] else max(sizes) - found.offset
    return found.offset, count


def _named_alike(inside: Sequence[Inside], pair: Pair) -> list[Inside]:
    """Explain the paths that only one side has by their counterparts on the other side."""
    only: tuple[dict[str, list[str]], dict[str, list[str]]] = {}, {}
    for one in inside:
        for number, facts in enumerate(pair):
            if one.kind == f"{ONLY}{facts.name}":
                only[number].setdefault(one.where, []).append(one.path)
    causes: dict[tuple[str, str], tuple[Cause, ...]] = {}
    for where in only[0].keys() | only[1].keys():
        ours, theirs = (side.get(where, []) for side in only)
        twins = find_twins(ours, theirs)
        for number, paths in enumerate((ours, theirs)):
            for path in paths:
                names = path, twins.get(path)
                if names[1] is None:
                    found: tuple[Cause, ...] = (only_in_one(path, number, pair),)
                else:
                    pairwise = names if number == 0 else names[::-1]
                    found = find_causes_of_values("name", pairwise, pair)
                causes[where, path] = shortened(found)
    return [
        replace(one, causes=one.causes or causes.get((one.where, one.path), ())) for one in inside
    ]


def shortened(causes: Sequence[Cause]) -> tuple[Cause, ...]:
    """Return the causes with evidence that is safe for a terminal and not too long."""
    return tuple(Cause(c.name, plain(c.evidence, limit=EVIDENCE_LIMIT), c.weak) for c in causes)
