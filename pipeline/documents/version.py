# SPDX-License-Identifier: GPL-3.0-or-later
"""Which of two releases is the later one: their tags in Debian's order, with `-` for `~`.

Git allows no `~` in a tag: 3.3-rc1 comes before 3.3, as Debian's 3.3~rc1 does. 3.10 comes after
3.9.
"""

import re
from collections.abc import Iterable
from functools import cmp_to_key

from debian.debian_support import version_compare


def is_older(version: str, than: str) -> bool:
    """Tell whether a release comes before another one."""
    return _compare(version, than) < 0


def in_order(versions: Iterable[str]) -> list[str]:
    """Return versions, each once, the oldest first."""
    return sorted(sorted(set(versions)), key=cmp_to_key(_compare))


def major(version: str) -> str:
    """Return what comes before the first separator: 3 of 3.3, 3-rc1 and 3."""
    return re.split(r"[._+~-]", version, maxsplit=1)[0]


def _compare(one: str, other: str) -> int:
    return int(version_compare(_debian(one), _debian(other)))


def _debian(version: str) -> str:
    return version.replace("-", "~").replace("_", ".")
