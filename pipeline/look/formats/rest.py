# SPDX-License-Identifier: GPL-3.0-or-later
"""What numbers and names in headers say beyond their value: how they are written."""

DIGITS = bytes.maketrans(b"0123456789", b"0" * 10)


def written(field: bytes) -> bytes:
    """Return how a number is written, whatever it is: its digits as zeros; a binary one as is."""
    return b"\x80" if field[:1] in (b"\x80", b"\xff") else field.translate(DIGITS)


def behind_end(field: bytes) -> bytes:
    """Return the bytes in a field after the zero that ends its text."""
    return field.partition(b"\0")[2].strip(b"\0")


def without(field: bytes, text: str) -> bytes:
    """Return a field without a text that is a fact, and without the zeros at its end."""
    return field.replace(text.encode("utf-8", "surrogateescape"), b"", 1).rstrip(b"\0")
