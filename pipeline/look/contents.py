# SPDX-License-Identifier: GPL-3.0-or-later
"""Excerpts of two contents around the first difference, of limited size."""

from dataclasses import dataclass

from pipeline.look.formats.source import ByteSource

CONTENT_LIMIT = 8 * 1024 * 1024  # bytes that are read of one content
BEFORE = 4096  # bytes of context before the first difference in a large content


@dataclass(frozen=True)
class Excerpt:
    """A part of a content; `start` is its offset, and `cut` is set if more bytes follow it."""

    data: bytes
    start: int = 0
    cut: bool = False


def read_contents(sides: tuple[ByteSource, ByteSource], near: int) -> tuple[Excerpt, Excerpt]:
    """Return two contents; of large ones, the parts that begin shortly before `near`."""
    start = 0
    if max(side.size for side in sides) > CONTENT_LIMIT and near > BEFORE:
        start = min(near - near % BEFORE - BEFORE, *(side.size for side in sides))
    return _piece(sides[0], start), _piece(sides[1], start)


def _piece(source: ByteSource, start: int) -> Excerpt:
    data = source.read(start, min(CONTENT_LIMIT, source.size - start))
    return Excerpt(data, start, cut=start + len(data) < source.size)
