# SPDX-License-Identifier: GPL-3.0-or-later
"""Effects of a locale on letters, numbers and words: one text written in two locales."""

import re

from pipeline.documents.explanation import Cause
from pipeline.look.causes.facts import Pair
from pipeline.look.causes.languages import translated
from pipeline.look.causes.spots import Spot, differing_words

SEPARATORS = re.compile(r"(?<=\d)[.,'\u2019\u202f\xa0](?=\d)")  # between digits, by locale
ESCAPED = 10  # characters that may replace one that a locale lacks
LETTERS_LIMIT = 100_000  # bytes of a content
TOKEN = re.compile(r"[\w.-]+")
# The names of character sets in the output of programs, in lower case.
CHARSETS = {
    "UTF-8": ("utf-8", "utf8"),
    "ASCII": ("ansi_x3.4-1968", "ascii", "us-ascii", "646", "utf-8", "utf8", "posix", "c"),
}


def in_locale(spot: Spot, pair: Pair) -> Cause | None:
    """Find text that the environments' locales render differently.

    That includes characters that one environment wrote and the other replaced by ASCII.
    """
    locales = f"{pair[0].locale} and {pair[1].locale}"
    if pair[0].locale == pair[1].locale:
        return None
    if evidence := _by_locales(spot.text, pair):
        return Cause("locale", f"{evidence} ({locales})")
    for at in (0, 1):
        text, other = spot.text[at], spot.text[1 - at]
        if not text.isascii() and other.isascii() and _same_but_foreign(text, other):
            foreign = "".join(c for c in text if not c.isascii())[:20]
            evidence = f"{pair[at].name} wrote {foreign!r}, {pair[1 - at].name} ASCII instead"
            return Cause("locale", f"{evidence} ({locales})")
    return None


def _by_locales(sides: tuple[str, str], pair: Pair) -> str:
    """Describe the effect of two locales: separators, languages, character sets, letter case."""
    left, right = sides
    evidence = " and ".join(repr(" ".join(text.split())[:60]) for text in sides)
    bare = [SEPARATORS.sub("", text) for text in sides]
    if bare[0] == bare[1] and left != right:
        return f"the same digits with other signs between: {evidence}"
    if words := translated(sides, (pair[0].locale, pair[1].locale)):
        return f"text in two languages: {words}"
    if _charsets(sides, pair):
        return f"names of character sets: {evidence}"
    if left != right and left.casefold() == right.casefold() and _ascii(left) == _ascii(right):
        return f"letters in two cases: {evidence}"
    return ""


def _ascii(text: str) -> str:
    return "".join(filter(str.isascii, text))


def _charsets(sides: tuple[str, str], pair: Pair) -> bool:
    """Return whether only the names of the locales' character sets differ."""
    names = [CHARSETS["UTF-8" if "UTF-8" in (f.locale or "") else "ASCII"] for f in pair]
    differing = differing_words(TOKEN, sides)
    return bool(differing) and all(
        word.lower() in own for both in differing for word, own in zip(both, names, strict=True)
    )


def in_letters(contents: tuple[bytes, bytes], pair: Pair) -> list[Cause]:
    """Find letters that a locale did not recognise, so that they were dropped or split a line."""
    if pair[0].locale == pair[1].locale or max(map(len, contents)) > LETTERS_LIMIT:
        return []
    texts = [content.decode(errors="replace") for content in contents]
    if texts[0].isascii() == texts[1].isascii():
        return []
    bare = ["".join(c for c in text if c.isascii() and not c.isspace()) for text in texts]
    if not bare[0] or bare[0] != bare[1]:
        return []
    which = 1 if texts[0].isascii() else 0
    foreign = "".join(c for c in texts[which] if not c.isascii())[:20]
    evidence = f"{pair[which].name} has {foreign!r}, which {pair[1 - which].name} lacks"
    return [Cause("locale", f"{evidence} ({pair[0].locale} and {pair[1].locale})")]


def _same_but_foreign(text: str, other: str) -> bool:
    """Return whether `other` is `text` with short replacements for the non-ASCII characters."""
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
