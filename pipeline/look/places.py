# SPDX-License-Identifier: GPL-3.0-or-later
"""A place where two files differ, as a record and as a line of text."""

import struct
from dataclasses import dataclass
from typing import NamedTuple

from pipeline.base.plain import plain
from pipeline.look.formats.container import Fact, Structure
from pipeline.look.formats.scan import Bytes
from pipeline.look.formats.source import BadFormat, ByteSource

# The exceptions that readers raise for malformed contents.
REFUSED = (BadFormat, struct.error, IndexError, RecursionError)
SHOWN_BYTES = 16
UNUSED = "unused space"
WEIGHTS = ("type", "target", "device", "mode", "owner", "xattr", "links", "time")


class Differing(NamedTuple):
    """Differing bytes of a region or of unused space that nothing else explains."""

    name: str
    sizes: tuple[int, int]
    found: Bytes


@dataclass(frozen=True)
class Place:
    """One place where two files differ.

    `where` names the containers, the outermost first. `path` is a path in the innermost one, or a
    structure or region of its format in brackets. `kind` is content, mode, owner, time, target,
    type, links, device, name, xattr, order, only-in-<name>; structure and identifier for the
    format's own data; layout for the same content stored in another way; malformed, with the reason
    as `first`.
    `offset` is that of the first byte that differs, in the path's content or, for structures, in
    the container; `bytes` is how many differ of those that both sides have; `sizes` are in bytes.
    `first` and `second` are the values, or the first bytes that differ in hexadecimal. `note` says
    why a content was not opened, if opening it could have told more.
    """

    where: str
    path: str
    kind: str
    offset: int | None = None
    bytes: int | None = None
    sizes: tuple[int | None, int | None] = (None, None)
    first: str = ""
    second: str = ""
    note: str = ""

    def __str__(self) -> str:
        at = f": {self.bytes} bytes from {self.offset} on" if self.offset is not None else ""
        sizes = f", sizes {self.sizes[0]} and {self.sizes[1]}" * (self.sizes[0] != self.sizes[1])
        values = f": {self.first or '–'} / {self.second or '–'}" * bool(self.first or self.second)
        within = f"{self.where}: " if self.where else ""
        note = f" ({self.note})" if self.note else ""
        return plain(f"{within}{self.path or '.'}: {self.kind}{at}{sizes}{values}{note}")


def content_place(
    where: str,
    path: str,
    sides: tuple[ByteSource, ByteSource],
    found: Bytes,
    kind: str = "content",
    note: str = "",
) -> Place:
    """Return the place of bytes that differ; `note` says why the contents were not opened.

    For malformed contents, `first` is the reason instead of the bytes.
    """
    first, second = found.first.hex(), found.second.hex()
    if kind == "malformed":
        first, second, note = note, "", ""
    sizes = (sides[0].size, sides[1].size)
    return Place(where, path, kind, found.offset, found.count, sizes, first, second, note)


def structure_place(where: str, one: Structure, other: Structure) -> Place:
    """Return the place of a structure that differs, with its texts or its differing bytes."""
    pairs = enumerate(zip(one.content, other.content, strict=False))
    differing = [number for number, (a, b) in pairs if a != b]
    at = differing[0] if differing else min(len(one.content), len(other.content))
    first, second = (side.content[at : at + SHOWN_BYTES].hex() for side in (one, other))
    if one.text is not None and other.text is not None and one.text != other.text:
        first, second = plain(one.text), plain(other.text)
    return Place(
        *(where, f"[{one.name}]", one.kind, one.span[0] + at, len(differing)),
        sizes=(len(one.content), len(other.content)),
        first=first,
        second=second,
    )


def fact_place(where: str, path: str, name: str, one: Fact | None, other: Fact | None) -> Place:
    """Return the place of a fact that differs; of named values, it has only those that differ."""
    kind, _, which = name.partition(" ")
    if isinstance(one, tuple) and isinstance(other, tuple):
        shared = {*one} & {*other}
        one, other = (tuple(v for v in side if v not in shared) for side in (one, other))
    first, second = (plain(f"{which} {_formatted(kind, fact)}".strip()) for fact in (one, other))
    return Place(where, path, kind, first=first, second=second)


def weight(fact: str) -> tuple[int, str]:
    """Return the sort key of a fact's name: the most informative kinds come first."""
    kind = fact.split(" ")[0]
    return (WEIGHTS.index(kind) if kind in WEIGHTS else len(WEIGHTS), fact)


def say_reason(error: Exception) -> str:
    """Return why a content was refused, as a phrase."""
    if isinstance(error, BadFormat):
        return plain(str(error))
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return "it ends, or points, where nothing is"


def _formatted(kind: str, fact: Fact | None) -> str:
    """Format a fact for people."""
    if fact is None:
        return "–"
    if isinstance(fact, tuple):
        return " ".join(f"{name}={value}" for name, value in fact) or "–"
    return f"{fact:04o}" if kind == "mode" and isinstance(fact, int) else str(fact)
