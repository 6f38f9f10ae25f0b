# SPDX-License-Identifier: GPL-3.0-or-later
"""Find where two contents differ: lines of texts, else runs of bytes; of limited number."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher

SPOTS_LIMIT = 400
LINES_LIMIT = 4000  # lines of the parts that differ; longer parts are paired line by line
BLOCK = 4096
GAP = 8  # equal bytes between two runs that belong to one spot
PRINTABLE = re.compile(rb"[\x20-\x7e\t]")
STRINGS = re.compile(rb"[\x20-\x7e\t]{4,}")
STRING_LIMIT = 4096


@dataclass(frozen=True)
class Spot:
    """A place where two contents differ.

    `offsets` is where it begins in each; `left` and `right` are the differing bytes. `text` has
    these with their surroundings: the whole line of a text, the printable string of a binary file.
    """

    offsets: tuple[int, int]
    left: bytes
    right: bytes
    text: tuple[str, str]


def is_text(content: bytes) -> bool:
    """Return whether a content is text: UTF-8 or Latin-1, without control characters."""
    return b"\0" not in content and len(re.findall(rb"[\x01-\x08\x0e-\x1a\x7f]", content)) == 0


def find_spots(left: bytes, right: bytes) -> list[Spot]:
    """Return the first places where two contents differ, at most SPOTS_LIMIT."""
    if is_text(left) and is_text(right):
        found = _lines(left, right)
    elif len(left) == len(right):
        found = _runs(left, right)
    else:
        found = _strings(left, right)
    return [spot for spot, _ in zip(found, range(SPOTS_LIMIT), strict=False)]


def differing_words(words: re.Pattern[str], sides: tuple[str, str]) -> list[tuple[str, str]]:
    """Return the pairs of words that differ, if the text between all words is equal; else nothing.

    The pattern `words` must not have groups.
    """
    left, right = sides
    if words.split(left) != words.split(right):
        return []
    pairs = zip(words.findall(left), words.findall(right), strict=True)
    return [(one, other) for one, other in pairs if one != other]


def common_prefix(left: bytes, right: bytes) -> int:
    """Return the length of the common prefix."""
    low, high = 0, min(len(left), len(right)) + 1
    while high - low > 1:  # the first `low` bytes are equal
        middle = (low + high) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle
    return low


def differing_runs(left: bytes, right: bytes) -> Iterator[tuple[int, int]]:
    """Yield the start and end of the runs of bytes that differ in two contents of equal length."""
    begin = end = -1
    for block in range(0, len(left), BLOCK):
        if left[block : block + BLOCK] == right[block : block + BLOCK]:
            continue
        for at in range(block, min(block + BLOCK, len(left))):
            if left[at] == right[at]:
                continue
            if begin >= 0 and at - end >= GAP:
                yield begin, end
                begin = -1
            begin, end = (at if begin < 0 else begin), at + 1
    if begin >= 0:
        yield begin, end


def _runs(left: bytes, right: bytes) -> Iterator[Spot]:
    for begin, end in differing_runs(left, right):
        shown = min(end, begin + STRING_LIMIT)
        texts = (_around(content, begin, shown) for content in (left, right))
        yield Spot((begin, begin), left[begin:end], right[begin:end], (next(texts), next(texts)))


def _around(content: bytes, begin: int, end: int) -> str:
    """Return a run of bytes with the printable characters on both sides of it."""
    first, last = begin, end
    while first > 0 and begin - first < STRING_LIMIT and PRINTABLE.match(content, first - 1):
        first -= 1
    while last < len(content) and last - end < STRING_LIMIT and PRINTABLE.match(content, last):
        last += 1
    return content[first:last].decode("latin-1")


def _lines(left: bytes, right: bytes) -> Iterator[Spot]:
    ours, theirs = left.splitlines(keepends=True), right.splitlines(keepends=True)
    starts = _starts(ours), _starts(theirs)
    for a, b in pair_up(ours, theirs):
        one, other = (lines[n] if n is not None else b"" for lines, n in ((ours, a), (theirs, b)))
        same = common_prefix(one, other)
        places = [
            start[n if n is not None else -1] for start, n in zip(starts, (a, b), strict=True)
        ]
        yield Spot(
            (places[0] + same, places[1] + same),
            one[same:],
            other[same:],
            (_window(one, same), _window(other, same)),
        )


def _window(line: bytes, at: int) -> str:
    """Return a line; of a very long one, the part around `at`."""
    return line[max(0, at - STRING_LIMIT) : at + STRING_LIMIT].decode(errors="replace")


def _starts(lines: list[bytes]) -> list[int]:
    """Return the offset of each line, and that after the last."""
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    return starts


def pair_up(
    ours: list[bytes], theirs: list[bytes]
) -> Iterator[tuple[int, int] | tuple[int, None] | tuple[None, int]]:
    """Yield the numbers of the lines that differ, corresponding ones in pairs."""
    first = next((n for n, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), None)
    if first is None:
        first = min(len(ours), len(theirs))
    last = 0  # lines at the end that are equal
    while last < min(len(ours), len(theirs)) - first and ours[-1 - last] == theirs[-1 - last]:
        last += 1
    a, b = ours[first : len(ours) - last], theirs[first : len(theirs) - last]
    blocks = [(0, len(a), 0, len(b))]
    if max(len(a), len(b)) <= LINES_LIMIT:
        matcher = SequenceMatcher(None, a, b, autojunk=len(a) > 200)
        blocks = [code[1:] for code in matcher.get_opcodes() if code[0] != "equal"]
    for i, i_end, j, j_end in blocks:
        for number in range(max(i_end - i, j_end - j)):
            x = first + i + number if i + number < i_end else None
            y = first + j + number if j + number < j_end else None
            if x is None or y is None:
                yield (x, None) if x is not None else (None, y or 0)
            elif ours[x] != theirs[y]:
                yield x, y


def _strings(left: bytes, right: bytes) -> Iterator[Spot]:
    """Compare binary contents of unequal length: the first difference, then printable strings."""
    same = common_prefix(left, right)
    pieces = (content[same : same + 64] for content in (left, right))
    texts = (_around(content, same, same) for content in (left, right))
    yield Spot((same, same), next(pieces), next(pieces), (next(texts), next(texts)))
    ours, theirs = (list(STRINGS.finditer(c, max(0, same - 64))) for c in (left, right))
    words = [[m.group()[:STRING_LIMIT] for m in found] for found in (ours, theirs)]
    for a, b in pair_up(*words):
        if a is not None and b is not None:
            one, other = words[0][a], words[1][b]
            yield Spot(
                (ours[a].start(), theirs[b].start()),
                one,
                other,
                (one.decode("latin-1"), other.decode("latin-1")),
            )
