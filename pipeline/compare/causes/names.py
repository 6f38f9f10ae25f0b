"""What an environment is called and made of, where it got into a content.

A fact is the cause only if it explains the difference: with each environment's own value taken
out, the two places must be the same.
"""

import re
from collections.abc import Iterator

from pipeline.compare.causes.facts import Cause, Facts, Pair
from pipeline.compare.causes.spots import Spot
from pipeline.compare.causes.times import zone_names
from pipeline.guest.protocol import BUILD_FOLDER

PARALLEL = re.compile(r"cpu|core|proc|job|thread|worker|parallel|-j|smp", re.IGNORECASE)
SEPARATORS = re.compile(r"(?<=\d)[.,'\u2019\u202f\xa0](?=\d)")  # between digits, by locale
NUMBER = re.compile(r"\d{1,9}")
ESCAPED = 10  # characters that may stand for one that a locale lacks
# Other factors that causes of their own look for, in more than their values.
OF_OWN_CAUSE = ("memory", "scratch filesystem", "environment variables", "directory order")
# What must not stand before a value that begins with these.
BEFORE = {"/": r"(?:(?<![\w.])|(?<=-[IL]))", "+": r"(?<!\d)", "-": r"(?<!\d)"}
OUT = "\0"  # stands where a value was; no text has it


def _values(facts: Facts) -> dict[str, list[str]]:
    """Return the values to look for by cause, longer ones first."""
    kernel, path = facts.kernel or "", facts.build_path
    found: dict[str, list[str | None]] = {
        "build-path": [f"/{BUILD_FOLDER}{path}" if path else None, path],
        "kernel": [kernel, kernel.partition("+")[0], re.split(r"[+-]", kernel)[0]],
        "host-name": [facts.host_name],
        "user": [facts.user],
        "time-zone": [facts.time_zone, *zone_names(facts)],
        "locale": [facts.locale],
        "cpu-count": [facts.cpus],
        **{f"machine {factor}": [value] for factor, value in facts.others.items()},
    }
    for factor in OF_OWN_CAUSE:
        found.pop(f"machine {factor}", None)
    return {name: [value or OUT for value in values] for name, values in found.items()}


def in_names(spot: Spot, pair: Pair) -> Iterator[Cause]:
    """Give the facts that explain a spot, alone or together; nothing if they do not."""
    left, right = spot.text
    if left == right or OUT in left + right:
        return
    causes = []
    values = _values(pair[0]), _values(pair[1])
    for name, own in values[0].items():
        if left == right:
            break
        for ours, theirs in zip(own, values[1].get(name, []), strict=False):
            if ours == theirs or OUT in (ours, theirs):
                continue
            taken = _taken_out((left, right), (ours, theirs))
            if taken:
                left, right = taken
                weak = name == "cpu-count" and not PARALLEL.search(spot.text[0])
                said = f"{ours!r} in {pair[0].name}, {theirs!r} in {pair[1].name}"
                cause, _, factor = name.partition(" ")
                said = f"{factor}: {said}" if factor else said
                causes.append(Cause(cause, said, weak=weak))
                break
    if left == right:
        yield from causes
    elif PARALLEL.search(left) and (derived := _from_cpus(spot.text, pair)):
        yield derived


def _from_cpus(sides: tuple[str, str], pair: Pair) -> Cause | None:
    """Find numbers that were reckoned from the processors: as many more, or as many times."""
    cpus = [facts.cpus or "" for facts in pair]
    bare = [NUMBER.sub("", text) for text in sides]
    if bare[0] != bare[1] or cpus[0] == cpus[1] or not all(map(str.isdigit, cpus)):
        return None
    numbers = [list(map(int, NUMBER.findall(text))) for text in sides]
    ours, theirs = map(int, cpus)
    for left, right in zip(*numbers, strict=True):
        if left != right and left - right != ours - theirs and left * theirs != right * ours:
            return None
    said = f"{sides[0].strip()[:60]!r} and {sides[1].strip()[:60]!r}"
    return Cause("cpu-count", f"{said} follow from {ours} and {theirs} processors")


def _taken_out(sides: tuple[str, str], values: tuple[str, str]) -> tuple[str, str] | None:
    """Return both sides without their values, or None if that brings them no nearer."""
    left, right = sides
    if (
        _replaced(left, values[0], values[1]) == right
        or _replaced(right, values[1], values[0]) == left
    ):
        return OUT, OUT
    taken = _replaced(left, values[0], OUT), _replaced(right, values[1], OUT)
    counts = taken[0].count(OUT), taken[1].count(OUT)
    return taken if counts[0] == counts[1] > left.count(OUT) else None


def _replaced(text: str, value: str, by: str) -> str:
    """Replace a value where it stands as a word of its own."""
    before = BEFORE.get(value[:1], r"(?<!\w)")
    return re.sub(rf"{before}{re.escape(value)}(?!\w)", lambda _: by, text)


def in_locale(spot: Spot, pair: Pair) -> Cause | None:
    """Find characters that one environment wrote and the other's locale could not, or would not."""
    bare = [SEPARATORS.sub("", text) for text in spot.text]
    if bare[0] == bare[1] and spot.text[0] != spot.text[1] and pair[0].locale != pair[1].locale:
        said = f"{spot.text[0].strip()[:40]!r} and {spot.text[1].strip()[:40]!r}"
        locales = f"{pair[0].locale} and {pair[1].locale}"
        return Cause("locale", f"the same digits with other signs between: {said} ({locales})")
    for at in (0, 1):
        text, other = spot.text[at], spot.text[1 - at]
        if not text.isascii() and other.isascii() and _same_but_foreign(text, other):
            foreign = "".join(c for c in text if not c.isascii())[:20]
            said = f"{pair[at].name} wrote {foreign!r}, {pair[1 - at].name} ASCII instead"
            return Cause("locale", f"{said} ({pair[0].locale} and {pair[1].locale})")
    return None


def _same_but_foreign(text: str, other: str) -> bool:
    """Tell whether `other` is `text` with something short and ASCII for what is not ASCII."""
    at = 0
    pieces = re.split(r"([^\x00-\x7f]+)", text)
    if not other.startswith(pieces[0]) or not other.endswith(pieces[-1]):
        return False
    for foreign, piece in zip(["", *pieces[1::2]], pieces[::2], strict=True):
        found = other.find(piece, at) if piece else at
        if found < 0 or found - at > ESCAPED * len(foreign):
            return False
        at = found + len(piece)
    return len(other) - at <= ESCAPED * len(pieces[-2])
