# SPDX-License-Identifier: GPL-3.0-or-later
"""Text from others in a form that is safe to show: invisible characters are escaped."""

LINE_LIMIT = 500  # characters


def plain(text: str, *, limit: int = LINE_LIMIT) -> str:
    """Return `text` on one line of at most `limit` characters, invisible characters escaped.

    Control characters, escape sequences, changes of writing direction and undecodable bytes are
    shown as Python writes them in a string.
    """
    seen = text[:limit]
    shown = _shown(seen)
    return shown if len(shown) <= limit and seen == text else shown[: limit - 1] + "…"


def plain_lines(text: str) -> str:
    """Return a text of any length in its lines, the same characters escaped as by `plain`."""
    return "\n".join(_shown(line) for line in text.split("\n"))


def _shown(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
