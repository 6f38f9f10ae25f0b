# SPDX-License-Identifier: GPL-3.0-or-later
"""Causes of differing properties of a path: times, modes, links, extended attributes, names."""

import base64
import re
from collections.abc import Sequence

from pipeline.documents.explanation import Cause
from pipeline.documents.json_form import parse_json
from pipeline.look.causes.facts import Pair
from pipeline.look.causes.times import instant, judge

SHOWN = 60  # characters of a value
RANDOM_PART = re.compile(r"[A-Za-z0-9]{4,16}|[A-Za-z0-9_-]{6,16}")
Attribute = tuple[str, bytes | None, bytes | None]  # its name, and its value on each side


def of_times(values: tuple[int, int], pair: Pair) -> tuple[Cause, ...]:
    """Return the cause of two modification times: the clock, or else that a program set them."""
    stamps = instant(values[0]), instant(values[1])
    if stamps[0] and stamps[1] and (evidence := judge((stamps[0], stamps[1]), pair)):
        return (Cause("file-time", evidence),)
    words = [stamp.words if stamp else f"{at} s" for stamp, at in zip(stamps, values, strict=True)]
    evidence = f"{words[0]} in {pair[0].name}, {words[1]} in {pair[1].name}"
    return (Cause("set-time", f"{evidence}: not both are of a build or the commit, so it was set"),)


def of_modes(values: tuple[int, int], pair: Pair) -> tuple[Cause, ...]:
    """Return the umasks as the cause if they explain the modes; else that a program set them."""
    left, right = (value & 0o7777 for value in values)
    if left == right:
        return ()
    masks = pair[0].umask, pair[1].umask
    if masks[0] is None or masks[1] is None:
        return ()
    if _taken_away((left, right), (masks[0], masks[1])):
        evidence = f"{left:04o} where the umask is {masks[0]:04o}"
        return (Cause("umask", f"{evidence}, {right:04o} where it is {masks[1]:04o}"),)
    evidence = f"{left:04o} in {pair[0].name}, {right:04o} in {pair[1].name}"
    umasks = f"the umasks {masks[0]:04o} and {masks[1]:04o}"
    return (Cause("set-mode", f"{evidence}: {umasks} do not leave that, so it was set"),)


def _taken_away(modes: tuple[int, int], masks: tuple[int, int]) -> bool:
    """Return whether modes differ only in bits that exactly one of two umasks clears."""
    apart = modes[0] ^ modes[1]
    taken = not apart & (modes[0] & masks[0] | modes[1] & masks[1])
    return taken and not apart & ~(masks[0] ^ masks[1])


def of_types(kind: str, values: tuple[object, object], pair: Pair) -> tuple[Cause, ...]:
    """Return a cause that names the type, or device, of a path on each side."""
    evidence = [f"{value} in {facts.name}" for value, facts in zip(values, pair, strict=True)]
    what = "a device " if kind == "device" else ""
    return (Cause("file-type", f"{what}{evidence[0]}, {what}{evidence[1]}"),)


def of_links(values: tuple[object, object], pair: Pair) -> tuple[Cause, ...]:
    """Return a cause that describes the hard links of a path on each side.

    A value is None, a number of names, or another path of the same file.
    """
    evidence = []
    for value, facts in zip(values, pair, strict=True):
        if value is None or value in ("", "1", 1):
            evidence.append(f"a file of its own in {facts.name}")
        elif str(value).isdigit():
            evidence.append(f"a file with {value} names in {facts.name}")
        else:
            evidence.append(f"one file with {value} in {facts.name}")
    return (Cause("hard-link", " and ".join(evidence)),)


def attributes(values: tuple[str, str]) -> list[Attribute]:
    """Return the extended attributes that differ in two JSON objects with values in base64.

    If the values are not such objects, which other formats have, return one unnamed attribute.
    """
    try:
        ours, theirs = (dict(parse_json(value)) for value in values)
        return [
            (name, _value(ours.get(name)), _value(theirs.get(name)))
            for name in sorted(ours.keys() | theirs.keys())
            if ours.get(name) != theirs.get(name)
        ]
    except (ValueError, TypeError, RecursionError):
        left, right = (value.encode(errors="replace") or None for value in values)
        return [("", left, right)]


def _value(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text)


def of_attributes(differing: Sequence[Attribute], pair: Pair) -> tuple[Cause, ...]:
    """Return a cause with both values of the first extended attribute that differs."""
    for name, left, right in differing:
        evidence = f"{_shown(left)} in {pair[0].name}, {_shown(right)} in {pair[1].name}"
        return (Cause("extended-attribute", f"{name}: {evidence}" if name else evidence),)
    return ()


def _shown(value: bytes | None) -> str:
    if value is None:
        return "none"
    text = value.rstrip(b"\0").decode("latin-1")
    return repr(text[:SHOWN]) if text.isascii() and text.isprintable() else value[:SHOWN].hex()


def of_names(values: tuple[str, str]) -> tuple[Cause, ...]:
    """Find two paths that are equal except for a random part of equal length, as from mktemp."""
    for left, right in zip(values[0].split("/"), values[1].split("/"), strict=False):
        if left == right:
            continue
        begin, end = shared(left, right)
        parts = left[begin : len(left) - end], right[begin : len(right) - end]
        return _temporary(left, right, (begin, end)) if len(parts[0]) == len(parts[1]) else ()
    return ()


def _temporary(left: str, right: str, ends: tuple[int, int]) -> tuple[Cause, ...]:
    begin, end = ends
    while begin and left[begin - 1].isalnum() and left[:begin].lower() not in ("tmp", "temp"):
        begin -= 1  # random parts may begin with equal characters
    while end and left[len(left) - end].isalnum():
        end -= 1
    parts = left[begin : len(left) - end], right[begin : len(right) - end]
    drawn = all(RANDOM_PART.fullmatch(part) and _mixed(part) for part in parts)
    if len(parts[0]) != len(parts[1]) or not drawn or not begin + end:
        return ()
    evidence = f"{left} and {right} are alike but for {len(parts[0])} characters"
    return (Cause("temporary-name", f"{evidence}, drawn as mktemp does"),)


def _mixed(part: str) -> bool:
    """Return whether there are at least two kinds of characters: lower case, upper case, digits."""
    kinds = (str.islower, str.isupper, str.isdigit)
    return sum(any(map(kind, part)) for kind in kinds) > 1


def shared(left: str, right: str) -> tuple[int, int]:
    """Return the lengths of the common beginning and the common end of two texts."""
    most = min(len(left), len(right))
    begin = next((n for n in range(most) if left[n] != right[n]), most)
    end = next((n for n in range(most - begin) if left[-1 - n] != right[-1 - n]), most - begin)
    return begin, end


def only_in_one(path: str, which: int, pair: Pair) -> Cause:
    """Return the cause of a path that only one environment has; `which` is its number."""
    evidence = f"{pair[which].name} has {path}, and {pair[1 - which].name} nothing in its place"
    return Cause("only-in-one", f"{evidence}: whether it is made is left to chance or the machine")
