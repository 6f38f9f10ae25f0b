# SPDX-License-Identifier: GPL-3.0-or-later
"""Which of two releases is the later one: their tags in Debian's order, with `-` for `~`.

Git allows no `~` in a tag: 3.3-rc1 comes before 3.3, as Debian's 3.3~rc1 does. 3.10 comes after
3.9.
"""

import re
from collections.abc import Iterable

PARTS = re.compile(r"([^0-9]*)([0-9]*)")  # the last pair is always empty: the end
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

Key = list[tuple[list[int], int]]


def is_older(version: str, than: str) -> bool:
    """Tell whether a release comes before another one."""
    return _key(version) < _key(than)


def in_order(versions: Iterable[str]) -> list[str]:
    """Return versions, each once, the oldest first."""
    return sorted(sorted(set(versions)), key=_key)


def major(version: str) -> str:
    """Return what comes before the first separator: 3 of 3.3, 3-rc1 and 3."""
    return re.split(r"[._+~-]", version, maxsplit=1)[0]


def _key(version: str) -> Key:
    """Return what orders versions as Debian policy 5.6.12 does: words and numbers in turn."""
    debian = version.replace("-", "~").replace("_", ".")
    return [([*map(_weight, word), 0], int(number or 0)) for word, number in PARTS.findall(debian)]


def _weight(letter: str) -> int:
    """Return what orders a character: `~` before the end of a word, letters before all others."""
    if letter == "~":
        return -1
    return ord(letter) if letter in LETTERS else ord(letter) + 256
