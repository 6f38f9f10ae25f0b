"""The same items in another order."""

import re
from collections import Counter
from collections.abc import Sequence

from pipeline.compare.causes.facts import Cause, Pair
from pipeline.compare.causes.spots import STRINGS, Spot, is_text

ITEMS_LIMIT = 100_000
RECORDS = (32, 16, 8, 4)  # bytes of one item in a binary table
RECORD_SPOTS = 4  # fewer records than this may be in another order by chance
TOKEN = re.compile(r"[^\s,;:(){}\[\]\"'=]+")
FILE = re.compile(r"\S*(/\S+|[^\s/]\.[A-Za-z0-9]{1,8})")


def in_order(contents: tuple[bytes, bytes], spots: Sequence[Spot], pair: Pair) -> Cause | None:
    """Find out whether what differs is the order of lines, words, strings or records."""
    if all(map(is_text, contents)):
        return _lines(contents, spots, pair) or _words(spots, pair)
    words = [
        [m.group().decode("latin-1") for m in STRINGS.finditer(content)][:ITEMS_LIMIT]
        for content in contents
    ]
    if words[0] != words[1] and sorted(words[0]) == sorted(words[1]):
        return _name(words[0], words[1], pair)
    return _records(contents, spots)


def _lines(contents: tuple[bytes, bytes], spots: Sequence[Spot], pair: Pair) -> Cause | None:
    """Find lines that both sides have, elsewhere."""
    changed = [[_line(spot.text[side]) for spot in spots if spot.text[side]] for side in (0, 1)]
    ours, theirs = (Counter(filter(None, lines)) for lines in changed)
    moved = ours & theirs
    if not moved or 2 * moved.total() < max(ours.total(), theirs.total()):
        return None
    if ours == theirs:
        changed = [[_line(text) for text in _texts(content)] for content in contents]
    elif moved.total() > 1:
        changed = [[line for line in lines if line in moved] for lines in changed]
    else:
        return None
    return _name(changed[0], changed[1], pair)


def _texts(content: bytes) -> list[str]:
    return content.decode(errors="replace").splitlines()[:ITEMS_LIMIT]


def _line(text: str) -> str:
    return text.strip().rstrip(",\\")


def _words(spots: Sequence[Spot], pair: Pair) -> Cause | None:
    """Find a line with the same words in another order."""
    for spot in spots:
        ours, theirs = (TOKEN.findall(text)[:ITEMS_LIMIT] for text in spot.text)
        if ours != theirs and len(ours) > 2 and sorted(ours) == sorted(theirs):
            return _name(ours, theirs, pair)
    return None


def _name(ours: Sequence[str], theirs: Sequence[str], pair: Pair) -> Cause | None:
    """Say by what the items are ordered, as far as they show it."""
    items = f"{len(ours)} items are the same, in another order"
    sorts = {"bytes": sorted, "dictionary": lambda x: sorted(x, key=_letters)}
    kinds = [
        next((name for name, sort in sorts.items() if sort(side) == list(side)), "")  # type: ignore[operator]
        for side in (ours, theirs)
    ]
    if all(kinds) and kinds[0] != kinds[1]:
        said = f"sorted by {kinds[0]} in {pair[0].name} and by {kinds[1]} in {pair[1].name}"
        return Cause("locale", f"{items}: {said}")
    if sum(bool(FILE.fullmatch(item)) for item in ours) * 2 > len(ours):
        return Cause("directory-order", f"{items}, and they look like names of files")
    return Cause("hash-order", f"{items}, sorted in {'neither' if not any(kinds) else 'one'}")


def _letters(item: str) -> tuple[str, str]:
    """Order as the locales of people do: by letters and digits, then small before capital."""
    return re.sub(r"[^0-9a-z]", "", item.lower()), item.swapcase()


def _records(contents: tuple[bytes, bytes], spots: Sequence[Spot]) -> Cause | None:
    """Find a table of records of one size in another order."""
    if len(contents[0]) != len(contents[1]) or not spots:
        return None
    first, end = spots[0].offsets[0], spots[-1].offsets[0] + len(spots[-1].left)
    for size in RECORDS:
        begin = first - first % size
        span = slice(begin, end + -(end - begin) % size)
        ours, theirs = (_split(content[span], size) for content in contents)
        different = len({a for a, b in zip(ours, theirs, strict=True) if a != b})
        if different >= RECORD_SPOTS and sorted(ours) == sorted(theirs):
            said = f"{different} records of {size} bytes are the same, in another order"
            return Cause("hash-order", said)
    return None


def _split(content: bytes, size: int) -> list[bytes]:
    return [content[at : at + size] for at in range(0, len(content), size)]
