# SPDX-License-Identifier: GPL-3.0-or-later
"""The spelling of numbers and names in headers, apart from their values."""

DIGITS = bytes.maketrans(b"0123456789", b"0" * 10)


def written(field: bytes) -> bytes:
    """Return the spelling of a number: its digits become zeros, a binary number a mere mark."""
    return b"\x80" if field[:1] in (b"\x80", b"\xff") else field.translate(DIGITS)


def behind_end(field: bytes) -> bytes:
    """Return the bytes in a field after the zero that terminates its text, without outer zeros."""
    return field.partition(b"\0")[2].strip(b"\0")


def without(field: bytes, text: str) -> bytes:
    """Return a field without a text that is a fact, and without trailing zeros."""
    return field.replace(text.encode("utf-8", "surrogateescape"), b"", 1).rstrip(b"\0")
