# SPDX-License-Identifier: GPL-3.0-or-later
"""The usual causes of differences inside images and archives: in entries' facts, headers, order."""

import re

from pipeline.documents.explanation import Cause
from pipeline.look.causes.classify import find_causes, find_causes_of_values
from pipeline.look.causes.facts import Pair
from pipeline.look.causes.spots import Spot, common_prefix
from pipeline.look.causes.times import in_text, instant, judge
from pipeline.look.places import Place

# The names of the causes that are times in the headers of these formats.
HEADER_TIMES = {
    "gzip": "gzip-time",
    "zip": "zip-time",
    "tar": "tar-time",
    "cpio": "cpio-time",
    "ar": "ar-time",
}
UNIQUE = ("GUID", "serial number", "disk identifier", "UUID")  # identifiers that are random
LEFT_OVER = ("[slack", "[unused space", "[padding")  # bytes that belong to no content
SECONDS = re.compile(r"[0-9]{1,11}(\.[0-9]+)?")
HEXADECIMAL = re.compile(r"(?:[0-9a-f]{2}){4,}")
AROUND = 512
# The paths of contents without a name of their own.
NAMELESS = frozenset({"", "content"})


def find_causes_of_place(
    place: Place, contents: tuple[bytes, bytes] | None, outer: str, pair: Pair
) -> tuple[Cause, ...]:
    """Return the likely causes of a place; `contents` are both sides, if bytes differ.

    `outer` is the path of the outermost file, for contents without a name of their own.
    """
    own = place.path.startswith("[")
    if contents is not None:
        if own:
            return _left_over(place, contents, pair)
        return find_causes(outer if place.path in NAMELESS else place.path, contents, pair)
    return _of_property(place, pair, own=own)


def _of_property(place: Place, pair: Pair, *, own: bool) -> tuple[Cause, ...]:
    """Return the causes of a place that is not a content.

    `own` is set for the format's own data, in contrast to an entry's.
    """
    values = place.first, place.second
    match place.kind:
        case "time":
            return _times(place, pair)
        case "order":
            evidence = f"{place.first!r} where the other has {place.second!r}"
            return (Cause("directory-order", f"the same entries in another order: {evidence}"),)
        case "layout" if place.path == "[numbers of entries]":
            return _inodes(place)
        case "mode" if not own:
            return _mode(place, pair)
        case "identifier":
            return _identifier(place, pair)
        case "structure" if place.path.endswith(("name]", "comment]")):
            return find_causes_of_values("name", values, pair)
        case "owner" | "target" | "xattr" | "device":
            return find_causes_of_values(place.kind, values, pair)
        case "links" if not own:
            return find_causes_of_values(place.kind, values, pair)
    return ()


def _inodes(place: Place) -> tuple[Cause, ...]:
    """Return the cause of other inode numbers in cpio, which come from the packed file system."""
    if place.where.rpartition(" > ")[2] != "cpio":
        return ()
    evidence = (
        "the entries have the numbers of inodes of the file system that they were packed from"
    )
    return (Cause("file-system", evidence),)


def _left_over(place: Place, contents: tuple[bytes, bytes], pair: Pair) -> tuple[Cause, ...]:
    """Return the causes of bytes outside all contents, judging by those near the difference."""
    if not place.path.startswith(LEFT_OVER):
        return ()
    at = common_prefix(*contents)
    near = slice(max(0, at - AROUND), at + AROUND)
    known = find_causes("", (contents[0][near], contents[1][near]), pair)
    evidence = f"{place.bytes} bytes at byte {place.offset} belong to no content"
    return known or (Cause("uninitialised", evidence, weak=True),)


def _times(place: Place, pair: Pair) -> tuple[Cause, ...]:
    image = "image-time" if place.path.startswith("[") else "file-time"
    name = HEADER_TIMES.get(place.where.rpartition(" > ")[2], image)
    numbers = _number(place.first), _number(place.second)
    if numbers[0] is not None and numbers[1] is not None:
        stamps = instant(numbers[0]), instant(numbers[1])
        evidence = stamps[0] and stamps[1] and judge((stamps[0], stamps[1]), pair)
        if not evidence and not place.path.startswith("["):
            return find_causes_of_values("time", (int(numbers[0]), int(numbers[1])), pair)
        return (Cause(name, evidence),) if evidence else ()
    sides = place.first, place.second
    left, right = (side.encode(errors="replace") for side in sides)
    found = in_text(Spot((0, 0), left, right, sides), pair)
    return tuple(Cause(name, c.evidence) if c.name == "time-text" else c for c in found[:1])


def _number(text: str) -> float | None:
    """Parse seconds since 1970; return None for other texts and for longer numbers, the dates."""
    return float(text) if SECONDS.fullmatch(text) else None


def _mode(place: Place, pair: Pair) -> tuple[Cause, ...]:
    try:
        modes = int(place.first, 8), int(place.second, 8)
    except ValueError:
        return ()
    return find_causes_of_values("mode", modes, pair)


def _identifier(place: Place, pair: Pair) -> tuple[Cause, ...]:
    values = _letters(place.first), _letters(place.second)
    known = find_causes_of_values("identifier", values, pair)
    if any(word in place.path for word in UNIQUE):
        return (Cause("uuid", f"{place.path}: {place.first} and {place.second}"),)
    return known


def _letters(value: str) -> str:
    """Decode a value that is a text in hexadecimal digits; return others unchanged."""
    if not HEXADECIMAL.fullmatch(value):
        return value
    text = bytes.fromhex(value).rstrip(b" \0").decode("latin-1")
    return text if text.isascii() and text.isprintable() and text else value
