# SPDX-License-Identifier: GPL-3.0-or-later
"""The same items in another order."""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from pipeline.documents.explanation import Cause
from pipeline.look.causes.ext4_order import in_order_of_hashes
from pipeline.look.causes.facts import Facts, Pair
from pipeline.look.causes.spots import STRINGS, Spot, is_text

ITEMS_LIMIT = 100_000
RECORDS = (32, 16, 8, 4)  # sizes of an item in a binary table
BYTES_LEAST, BYTES_LIMIT = 24, 1024 * 1024  # bytes that differ; bytes of a content or table
RECORD_SPOTS = 4  # fewer records may be in another order by chance
TOKEN = re.compile(r"[^\s,;:(){}\[\]\"'=]+")
FILE = re.compile(r"\S*(/\S+|[^\s/]\.[A-Za-z0-9]{1,8})")
NAME_WORD = re.compile(r"[\w.@+~:/-]+")
NUMBERED = re.compile(r"[A-Za-z]\w*[-_.]?\d+")
MARKUP = re.compile(r"</?[A-Za-z][^<>]*>")
ABSOLUTE = re.compile(r"(?<![\w./])/[^\s\"'<>:,;]+")
NUMBERS = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?![\w.])")
NEAR = 0.1  # how far parallel jobs move an item at most, as a share of the list
SORTED_SHARE = 0.95  # the least share of neighbours that are in order
HASHED_LEAST = 5  # names; one in 120 orders of so many is that of the hashes by chance
PART_LEAST, PART_SURE = 3, 5  # items of a list
BY_BYTES = (None, "C", "POSIX", "C.UTF-8")  # locales that sort by bytes
JOBS_LEAST = 10  # fewer items may be near their places by chance
JOBS_NEAR = 4  # places; how far a few parallel jobs move an item
# By distance, the least items of which at most one order in 15 has all items that near by chance.
CHANCES = {1: 5, 2: 7}
BLOCKS_SHARE = 0.5  # the share of items that keep their successor if each file has two lines
DIGITS = re.compile(r"\d{1,18}")


@dataclass(frozen=True)
class Reordering:
    """The cause of a changed order of items; `rest` are the contents that remain to be compared."""

    cause: Cause | None  # None if the items are sorted by numbers that differ
    rest: tuple[bytes, bytes]


def in_order(contents: tuple[bytes, bytes], spots: Sequence[Spot], pair: Pair) -> Reordering | None:
    """Return the reordering of lines, words, strings or records, or None if there is none."""
    if all(map(is_text, contents)):
        found = _lines(contents, pair) or _numbered(contents, pair)
        return found or _alone(_words(spots, pair) or _parts(contents, pair))
    words = [
        [m.group().decode("latin-1") for m in STRINGS.finditer(content)][:ITEMS_LIMIT]
        for content in contents
    ]
    if words[0] != words[1] and sorted(words[0]) == sorted(words[1]):
        return _alone(_name(words[0], words[1], pair))
    return _alone(_records(contents, spots) or _bytes(contents))


def _bytes(contents: tuple[bytes, bytes]) -> Cause | None:
    """Find the same bytes in another order, such as short items of a binary format."""
    left, right = contents
    apart = sum(map(int.__ne__, left, right)) if len(left) == len(right) <= BYTES_LIMIT else 0
    if apart < BYTES_LEAST or Counter(left) != Counter(right):
        return None
    return Cause("hash-order", f"{apart} bytes are the same, in another order")


def _alone(cause: Cause | None) -> Reordering | None:
    return Reordering(cause, (b"", b"")) if cause else None


def _lines(contents: tuple[bytes, bytes], pair: Pair) -> Reordering | None:
    """Find lines that both sides have in another order; all lines are compared, not only spots."""
    ours, theirs = (_texts(content) for content in contents)
    shared = Counter(ours) & Counter(theirs)
    left, right = _parted(ours, shared), _parted(theirs, shared)
    if left[0] == right[0]:
        return None
    moved = _between(left[0], right[0])
    if len(moved[0]) < max(2, len(left[1]), len(right[1])):
        return None
    if len(set(moved[0])) * 2 < len(moved[0]):  # the order of repeated lines means little
        return None
    rest = ["".join(f"{line}\n" for line in side[1]).encode() for side in (left, right)]
    evidence = _by_locale(left[0], right[0], pair)
    evidence = f"{len(left[0])} items are the same: {evidence}" if evidence else ""
    return Reordering(
        Cause("locale", evidence) if evidence else _name(*moved, pair), (rest[0], rest[1])
    )


def _numbered(contents: tuple[bytes, bytes], pair: Pair) -> Reordering | None:
    """Find lines that are in another order if their numbers are ignored.

    The rest are the lines with their numbers, sorted by their text.
    """
    lines = [content.decode(errors="replace").splitlines()[:ITEMS_LIMIT] for content in contents]
    bare = [[NUMBERS.sub("", line) for line in side] for side in lines]
    if bare[0] == bare[1] or Counter(bare[0]) != Counter(bare[1]):
        return None
    texts = ["\n".join(side).encode() for side in bare]
    found = _lines((texts[0], texts[1]), pair)
    if not found or len(set(bare[0])) < len(bare[0]):
        return None
    cause = None if all(map(_by_number, lines)) else found.cause
    keyed = (sorted(zip(*both, strict=True)) for both in zip(bare, lines, strict=True))
    rest = ["".join(f"{line}\n" for _, line in side).encode() for side in keyed]
    return Reordering(cause, (rest[0], rest[1]))


def _by_number(lines: Sequence[str]) -> bool:
    """Return whether lines are sorted by their first numbers."""
    numbers = [float(found[0]) for line in lines if (found := NUMBERS.search(line))]
    return numbers == sorted(numbers)


def _texts(content: bytes) -> list[str]:
    lines = content.decode(errors="replace").splitlines()[:ITEMS_LIMIT]
    return [line for text in lines if (line := text.strip().rstrip(",\\"))]


def _parted(lines: Sequence[str], shared: Counter[str]) -> tuple[list[str], list[str]]:
    """Split lines into those that both sides have and the others."""
    left = shared.copy()
    common: list[str] = []
    others: list[str] = []
    for line in lines:
        (common if left[line] > 0 else others).append(line)
        left[line] -= 1
    return common, others


def _between(ours: list[str], theirs: list[str]) -> tuple[list[str], list[str]]:
    """Return two lists of equal length without their common beginning and end."""
    begin, end = 0, len(ours)
    while ours[begin] == theirs[begin]:
        begin += 1
    while ours[end - 1] == theirs[end - 1]:
        end -= 1
    return ours[begin:end], theirs[begin:end]


def _words(spots: Sequence[Spot], pair: Pair) -> Cause | None:
    """Find the first line with the same words in another order."""
    for spot in spots:
        ours, theirs = (TOKEN.findall(text)[:ITEMS_LIMIT] for text in spot.text)
        if ours != theirs and len(ours) > 2 and sorted(ours) == sorted(theirs):
            return _name(ours, theirs, pair)
    return None


def _parts(contents: tuple[bytes, bytes], pair: Pair) -> Cause | None:
    """Find parts of two lists, one of which was sorted in a non-C locale, as by `sort | head`."""
    lists = [_texts(content) for content in contents]
    if max(map(len, lists)) == 1:
        lists = [TOKEN.findall(text)[:ITEMS_LIMIT] for items in lists for text in items]
    few = min(len(set(items)) for items in lists)
    if len(lists) != 2 or few < PART_LEAST or set(lists[0]) == set(lists[1]):
        return None
    if evidence := _by_locale(lists[0], lists[1], pair):
        return Cause("locale", f"parts of lists, {evidence}", weak=few < PART_SURE)
    return _of_folders(lists)


def _of_folders(lists: Sequence[Sequence[str]]) -> Cause | None:
    """Guess that unsorted files of the same folders are the first or last of a longer list."""
    folders = [{path.rpartition("/")[0] for path in items} for items in lists]
    paths = all("/" in path and NAME_WORD.fullmatch(path) for items in lists for path in items)
    if not paths or folders[0] != folders[1] or any(list(s) == sorted(s) for s in lists):
        return None
    evidence = f"{len(lists[0])} files of {sorted(folders[0])[0]}, other ones and in no order"
    return Cause(
        "directory-order", f"{evidence}: parts of a list as the file system gives it", weak=True
    )


def _name(ours: Sequence[str], theirs: Sequence[str], pair: Pair) -> Cause:
    """Return the cause of another order of items, judging by the items and both orders."""
    ours, theirs = (list(map(_bare, side)) for side in (ours, theirs))
    items = f"{len(ours)} items are the same, in another order"
    if len(ours) > 2 and (evidence := _by_locale(ours, theirs, pair)):
        return Cause("locale", f"{items}: {evidence}")
    folders = _folders_walked(ours, theirs, pair[0])
    if folders > 1:
        return Cause("directory-order", f"{items}, and they are names of files, by folders")
    for names, facts in ((ours, pair[0]), (theirs, pair[1])):
        if len(names) >= HASHED_LEAST and in_order_of_hashes(names, facts.seed or ""):
            evidence = f"in {facts.name} they are by ext4's hashes of names, with its seed"
            return Cause("directory-order", f"{items}: {evidence}")
    near = _farthest(ours, theirs)
    beside = f"none is more than {near} places from where the other has it"
    if len(ours) >= JOBS_LEAST and near <= max(2, NEAR * len(ours)):
        return Cause("job-order", f"{items}; {beside}, as jobs leave it that run at once")
    if folders:
        return Cause("directory-order", f"{items}, and they look like names of files")
    if folder := pair[0].holds(frozenset(item.rpartition(" ")[2] for item in ours)):
        return Cause("directory-order", f"{items}, and they are what is in {folder}")
    if evidence := _in_one_job(ours, theirs, near, pair):
        return Cause("job-order", f"{items}; {beside}, and {evidence}", weak=True)
    if len(ours) >= JOBS_LEAST and _together(ours, theirs) >= BLOCKS_SHARE:
        evidence = "lines that follow each other stay together, as in files that are put together"
        return Cause("directory-order", f"{items}; {evidence}", weak=True)
    sorts = sum(list(side) == sorted(side) for side in (ours, theirs))
    return Cause("hash-order", f"{items}, sorted in {'one' if sorts else 'neither'}")


def _in_one_job(ours: Sequence[str], theirs: Sequence[str], near: int, pair: Pair) -> str:
    """Return evidence if items are near their places and only one side has a single processor.

    The fewer the items, the nearer they must be, unless that side has them numbered in order.
    """
    alone = [
        (side, facts) for side, facts in zip((ours, theirs), pair, strict=True) if facts.cpus == "1"
    ]
    if len(alone) != 1 or near > JOBS_NEAR:
        return ""
    side, facts = alone[0]
    evidence = f"{facts.name} has one processor alone"
    numbers = [tuple(map(int, DIGITS.findall(item))) for item in side]
    if all(numbers) and numbers == sorted(numbers):
        return f"{evidence}, and has them counted"
    return "" if 2 < len(side) < CHANCES.get(near, JOBS_LEAST) else evidence


def _together(ours: Sequence[str], theirs: Sequence[str]) -> float:
    """Return the share of items that have the same successor on both sides."""
    follow = Counter(pairwise(ours)) & Counter(pairwise(theirs))
    return follow.total() / max(1, len(ours) - 1)


def _bare(item: str) -> str:
    """Return an item without HTML and XML tags."""
    return MARKUP.sub("", item) or item.replace("/>", ">")


def _folders_walked(ours: Sequence[str], theirs: Sequence[str], facts: Facts) -> int:
    """Return the number of folders whose files the items name.

    It is 0 if they do not name files, if the tree is known to have lacked most of these, or if they
    are not in the order of a walk.
    """
    files = _files(ours)
    paths = (path[0] if (path := ABSOLUTE.search(file)) else file for file in files.values())
    if files and facts.lacks(frozenset(paths)):
        return 0
    counts = [_walked([files[i] for i in side if i in files]) for side in (ours, theirs)]
    return min(counts) if files else 0


def _by_locale(ours: Sequence[str], theirs: Sequence[str], pair: Pair) -> str:
    """Return evidence if their locales sort one side by bytes and the other as a dictionary."""
    kinds = [("bytes", "dictionary")[facts.locale not in BY_BYTES] for facts in pair]
    found = [_sorted_by(side) for side in (ours, theirs)]
    fit = all(kind in ways for kind, ways in zip(kinds, found, strict=True))
    if kinds[0] == kinds[1] or not fit or all(len(ways) > 1 for ways in found):
        return ""
    locales = f"{pair[0].locale} and {pair[1].locale}"
    evidence = f"sorted by {kinds[0]} in {pair[0].name} and by {kinds[1]} in {pair[1].name}"
    return f"{evidence} ({locales})"


def _sorted_by(items: Sequence[str]) -> tuple[str, ...]:
    """Return how items are sorted: by bytes, or nearly as in a dictionary, or both.

    The order need only be near, since locales differ in the places of punctuation and foreign
    letters.
    """
    by_bytes = list(items) in (sorted(items), sorted(items, key=os.fsencode))
    keys = [_letters(item) for item in items]
    right = sum(one <= other for one, other in pairwise(keys))
    by_letters = right >= SORTED_SHARE * (len(keys) - 1)
    return ("bytes",) * by_bytes + ("dictionary",) * by_letters


def _letters(item: str) -> str:
    """Return the primary sort key of non-C locales: letters and digits alone, without case."""
    bare = unicodedata.normalize("NFKD", item.lower())
    return "".join(c for c in bare if c.isalnum())


def _farthest(ours: Sequence[str], theirs: Sequence[str]) -> int:
    """Return the largest number of places that an item moved."""
    places: dict[str, list[int]] = {}
    for number in range(len(theirs) - 1, -1, -1):
        places.setdefault(theirs[number], []).append(number)
    return max(abs(number - places[item].pop()) for number, item in enumerate(ours))


def _files(items: Sequence[str]) -> dict[str, str]:
    """Map each item to the file that it names; return an empty mapping if most name none.

    Items are names, or lines with names in one column, next to checksums, sizes or permissions.
    """
    if all(NAME_WORD.fullmatch(item) for item in items) and len(set(items)) * 4 > len(items) * 3:
        named = [item for item in items if FILE.fullmatch(item) or NUMBERED.fullmatch(item)]
        if 2 * len(named) > len(items):
            return {item: item for item in items}
        return {}
    for column in (-1, 0, 1):
        words = {item: word for item in items if (word := _word(item, column))}
        if 2 * len(words) > len(items) and 2 * len(set(words.values())) > len(words):
            return words
    return {item: item for item in items} if _most_are_paths(items) else {}


def _word(item: str, column: int) -> str:
    words = item.split()
    word = words[column].strip("\"'") if -len(words) <= column < len(words) else ""
    return word if FILE.fullmatch(word) and not re.fullmatch(r"[\d.,]+", word) else ""


def _most_are_paths(items: Sequence[str]) -> bool:
    """Return whether most items are paths, even with spaces in them."""
    return 2 * sum(item.startswith(("/", "./")) for item in items) > len(items)


def _walked(paths: Sequence[str]) -> int:
    """Return the number of folders with files; 0 if the contents of one are not contiguous.

    A walk of a tree lists everything below a folder before it continues with the next one.
    """
    seen: set[str] = set()
    open_ones: list[str] = []
    filled: set[str] = set()
    for path in paths:
        above = list(_folders(path.rstrip("/")))
        while open_ones and open_ones[-1] not in above:
            open_ones.pop()
        for folder in above[len(open_ones) :]:
            if folder in seen and folder != path:  # files of several folders may have the same name
                return 0
            seen.add(folder)
            open_ones.append(folder)
        filled.add("/".join(above[-2:-1]))
    return len(filled)


def _folders(path: str) -> Iterator[str]:
    """Yield the folders that contain a path, and the path itself, the outermost first."""
    parts = path.split("/")
    for end in range(1, len(parts) + 1):
        yield "/".join(parts[:end])


def _records(contents: tuple[bytes, bytes], spots: Sequence[Spot]) -> Cause | None:
    """Find a table whose records of equal size are in another order."""
    if len(contents[0]) != len(contents[1]) or not spots:
        return None
    first, end = spots[0].offsets[0], spots[-1].offsets[0] + len(spots[-1].left)
    if end - first > BYTES_LIMIT:
        return None
    for size in RECORDS:
        begin = first - first % size
        span = slice(begin, end + -(end - begin) % size)
        ours, theirs = (_split(content[span], size) for content in contents)
        different = len({a for a, b in zip(ours, theirs, strict=True) if a != b})
        if different >= RECORD_SPOTS and sorted(ours) == sorted(theirs):
            evidence = f"{different} records of {size} bytes are the same, in another order"
            return Cause("hash-order", evidence)
    return None


def _split(content: bytes, size: int) -> list[bytes]:
    return [content[at : at + size] for at in range(0, len(content), size)]
