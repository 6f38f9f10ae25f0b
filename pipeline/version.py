"""Which of two releases is the later one: their tags in Debian's order, with `-` for `~`.

Git allows no `~` in a tag: 3.3-rc1 comes before 3.3, as Debian's 3.3~rc1 does. 3.10 comes after
3.9.
"""

import re

from debian.debian_support import version_compare


def is_older(version: str, than: str) -> bool:
    """Tell whether a release comes before another one."""
    return version_compare(_debian(version), _debian(than)) < 0


def major(version: str) -> str:
    """Return what comes before the first separator: 3 of 3.3, 3-rc1 and 3."""
    return re.split(r"[._+~-]", version, maxsplit=1)[0]


def _debian(version: str) -> str:
    return version.replace("-", "~").replace("_", ".")
