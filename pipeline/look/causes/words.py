# SPDX-License-Identifier: GPL-3.0-or-later
"""Differing words, numbers and lines that no known fact of the environments explains.

These are guesses, which are made only if nothing else was found in a content.
"""

import re
from collections.abc import Iterator, Sequence

from pipeline.documents.explanation import Cause
from pipeline.look.causes.facts import Pair
from pipeline.look.causes.spots import Spot, differing_words
from pipeline.look.causes.times import CLOCKS, read_dates

TOKEN = re.compile(r"[^\W_]+(?:[.,'’+-][^\W_]+)*")
BARE = re.compile(r"\d[\d.,]*")  # numbers, which are removed to compare the words
WORDS_LIMIT, NUMBERS_LIMIT = 3, 9  # of a line
SHOWN = 60  # characters of a line


def in_rest(contents: tuple[bytes, bytes], spots: Sequence[Spot], pair: Pair) -> Iterator[Cause]:
    """Guess causes for lines with a few differing words or numbers, or that only one side has."""
    paired = [spot for spot in spots if spot.left and spot.right]
    alone = [spot for spot in spots if not (spot.left and spot.right)]
    if alone:
        yield from _alone(contents, alone, pair) if not paired else ()
        return
    kinds: dict[str, tuple[str, str]] = {}
    for spot in paired:
        found = {} if _dated(spot, pair) else _kinds(spot)
        if not found:
            return
        kinds = {**found, **kinds}
    for kind, (left, right) in sorted(kinds.items()):
        evidence = f"{left!r} and {right!r} follow from no known factor, and all else is alike"
        yield Cause(f"changing-{kind}", f"{evidence}: drawn, counted or chosen", weak=True)


def _alone(contents: tuple[bytes, bytes], alone: Sequence[Spot], pair: Pair) -> Iterator[Cause]:
    """Guess that lines are optional if one side has them in addition to all of the other's."""
    few, many = sorted((content.splitlines() for content in contents), key=len)
    rest = iter(many)
    if all(line in rest for line in few):
        which = 0 if alone[0].left else 1
        line = alone[0].text[which].strip()[:SHOWN]
        evidence = f"{pair[which].name} has {len(many) - len(few)} lines more, {line!r} first"
        yield Cause("only-in-one", f"{evidence}: left to chance or the machine", weak=True)


def _kinds(spot: Spot) -> dict[str, tuple[str, str]]:
    """Return the first difference in a line by its kind, number or word; empty if too many."""
    left, right = (" ".join(text.split()) for text in spot.text)
    differing = differing_words(TOKEN, (left, right))
    words = [(one, other) for one, other in differing if BARE.sub("", one) != BARE.sub("", other)]
    if len(differing) > (WORDS_LIMIT if words else NUMBERS_LIMIT):
        return {}
    if words:
        return {"word": words[0]}
    return {"number": differing[0]} if differing else {}


def _dated(spot: Spot, pair: Pair) -> bool:
    """Return whether dates or times of day differ, which must not be taken for mere numbers."""
    dates = [read_dates(text, facts) for text, facts in zip(spot.text, pair, strict=True)]
    clocks = [CLOCKS.findall(text) for text in spot.text]
    both = all(dates) or all(clocks)
    return both and (dates[0] != dates[1] or clocks[0] != clocks[1])
