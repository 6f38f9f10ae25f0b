# SPDX-License-Identifier: GPL-3.0-or-later
"""Show how two contents differ: texts as a diff, others as rows of bytes; of limited length."""

from collections.abc import Iterator, Sequence
from difflib import unified_diff

from pipeline.base.plain import plain
from pipeline.documents.explanation import Row, Shown
from pipeline.look.causes.spots import common_prefix, differing_runs, is_text

LINES_LIMIT = 60
ROWS_LIMIT = 24
LINE_LIMIT = 300
WINDOW = 400  # lines that are compared, from shortly before the first difference on
CONTEXT = 3
ROW = 16


def show(left: bytes, right: bytes) -> Shown:
    """Show where two contents differ; all lines are safe to print on a terminal."""
    if is_text(left) and is_text(right):
        return _diff(left, right)
    rows = _rows(left, right)
    first = [row for row, _ in zip(rows, range(ROWS_LIMIT), strict=False)]
    return Shown(rows=tuple(first), cut=len(first) == ROWS_LIMIT and next(rows, None) is not None)


def _diff(left: bytes, right: bytes) -> Shown:
    sides = [content.decode(errors="replace").splitlines() for content in (left, right)]
    pairs = enumerate(zip(*sides, strict=False))
    first = next((n for n, (a, b) in pairs if a != b), min(map(len, sides)))
    begin = max(0, first - CONTEXT)
    ours, theirs = (side[begin : begin + WINDOW] for side in sides)
    cut = any(len(side) > begin + WINDOW for side in sides)
    if cut:  # nothing is cut off if all lines after the window are equal
        cut = sides[0][begin + WINDOW :] != sides[1][begin + WINDOW :]
    lines = list(unified_diff(ours, theirs, lineterm="", n=CONTEXT))[2:]
    lines = [_shifted(line, begin) for line in lines]
    if not lines:
        lines = ["the lines are equal, their ends are not (line feeds, carriage returns)"]
    safe = tuple(plain(line.expandtabs(4), limit=LINE_LIMIT) for line in lines[:LINES_LIMIT])
    return Shown(lines=safe, cut=cut or len(lines) > LINES_LIMIT)


def _shifted(line: str, by: int) -> str:
    """Shift the line numbers in a diff's hunk header to those of the whole content."""
    if not line.startswith("@@ ") or not by:
        return line
    _, *ranges, _ = line.split(" ")
    moved = []
    for span in ranges:
        start, comma, count = span[1:].partition(",")
        moved.append(f"{span[0]}{int(start) + by}{comma}{count}")
    return f"@@ {' '.join(moved)} @@"


def _rows(left: bytes, right: bytes) -> Iterator[Row]:
    """Yield the rows in which bytes differ."""
    if len(left) != len(right):
        first = common_prefix(left, right)
        starts: Iterator[int] = iter(range(first - first % ROW, max(len(left), len(right)), ROW))
    else:
        starts = _starts(differing_runs(left, right))
    for at in starts:
        ours, theirs = left[at : at + ROW], right[at : at + ROW]
        if ours != theirs:
            yield Row(at, ours.hex(" "), theirs.hex(" "), tuple(_marks(ours, theirs)))


def _starts(runs: Iterator[tuple[int, int]]) -> Iterator[int]:
    """Yield the offsets of the rows that runs of bytes touch, each once."""
    done = -ROW
    for begin, end in runs:
        for at in range(max(begin - begin % ROW, done + ROW), end, ROW):
            yield at
            done = at


def _marks(ours: Sequence[int], theirs: Sequence[int]) -> Iterator[int]:
    for number in range(max(len(ours), len(theirs))):
        if ours[number : number + 1] != theirs[number : number + 1]:
            yield number
