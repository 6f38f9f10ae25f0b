"""Text from builds, made safe to show: no control or escape character reaches a terminal."""

LINE_LIMIT = 500


def plain(text: str, *, limit: int = LINE_LIMIT) -> str:
    """Return `text` on one line of at most `limit` characters, whatever cannot be seen escaped.

    Control characters, escape sequences, changes of writing direction and undecodable bytes are
    shown as Python writes them in a string.
    """
    seen = text[:limit]
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in seen)
    return shown if len(shown) <= limit and seen == text else shown[: limit - 1] + "…"
