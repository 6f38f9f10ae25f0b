# SPDX-License-Identifier: GPL-3.0-or-later
"""Random access to bytes: of a file, of a part of one, or decompressed from one."""

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import zip_longest
from typing import BinaryIO, Protocol

from pipeline.look.formats.ranges import Ranges, Span

READ_LIMIT = 64 * 1024 * 1024  # bytes of a single read
MEMORY_LIMIT = 4 * 1024 * 1024  # bytes of a decompressed content that are kept in memory
PIECE = 128 * 1024  # larger pieces need fresh pages for every read, and take three times as long

Unpack = Callable[[Iterable[bytes]], Iterable[bytes]]


class BadFormat(Exception):
    """Raised, with the reason, if data violates its format or exceeds a limit."""


class NotRead(BadFormat):
    """Raised, with the reason, for valid data in a variant of its format that is not supported."""


class ByteSource(Protocol):
    """Bytes with random access.

    `read` returns exactly `length` bytes or raises BadFormat. `stored` returns the spans of these
    bytes in the surrounding source, nothing if they are not stored there. `elsewhere` returns the
    source at the same place in another surrounding source. `against` returns the spans of this
    source that may differ from another, judging by `outer`, the ranges in which the two surrounding
    sources differ.
    """

    @property
    def size(self) -> int: ...
    def read(self, offset: int, length: int) -> bytes: ...
    def stored(self) -> Sequence[Span]: ...
    def elsewhere(self, around: "ByteSource") -> "ByteSource": ...
    def against(self, other: "ByteSource", outer: Ranges) -> Sequence[Span]: ...


def common(first: ByteSource, second: ByteSource) -> Sequence[Span]:
    """Return the range of bytes that both contents have."""
    return [(0, min(first.size, second.size))]


def check(source: ByteSource, offset: int, length: int) -> None:
    """Raise BadFormat unless there are `length` bytes at `offset`, within READ_LIMIT."""
    if offset < 0 or length < 0 or offset + length > source.size:
        raise BadFormat(f"it ends at byte {source.size}, before byte {offset + length}")
    if length > READ_LIMIT:
        raise BadFormat(f"a part of it has {length} bytes, over {READ_LIMIT}")


@dataclass(frozen=True)
class Memory:
    """Bytes in memory."""

    content: bytes

    @property
    def size(self) -> int:
        return len(self.content)

    def read(self, offset: int, length: int) -> bytes:
        check(self, offset, length)
        return self.content[offset : offset + length]

    def stored(self) -> Sequence[Span]:
        return ()

    def elsewhere(self, around: ByteSource) -> ByteSource:
        return self

    def against(self, other: ByteSource, outer: Ranges) -> Sequence[Span]:
        return common(self, other)


@dataclass(frozen=True)
class OpenFile:
    """An open file."""

    descriptor: int
    size: int

    def read(self, offset: int, length: int) -> bytes:
        check(self, offset, length)
        content = os.pread(self.descriptor, length, offset)
        while len(content) < length:
            more = os.pread(self.descriptor, length - len(content), offset + len(content))
            if not more:
                raise BadFormat(f"it became shorter while it was read, at byte {offset}")
            content += more
        return content

    def stored(self) -> Sequence[Span]:
        return ()

    def elsewhere(self, around: ByteSource) -> ByteSource:
        return self

    def against(self, other: ByteSource, outer: Ranges) -> Sequence[Span]:
        return common(self, other)


class Extents:
    """A content that is stored uncompressed, in ordered pieces of the surrounding source."""

    __slots__ = ("around", "size", "spans")

    def __init__(self, around: ByteSource, spans: Sequence[Span]) -> None:
        for start, end in spans:
            if not 0 <= start <= end <= around.size:
                raise BadFormat(f"a content lies at bytes {start} to {end} of {around.size}")
        self.around = around
        self.spans = tuple(spans)
        self.size = sum(end - start for start, end in spans)

    def read(self, offset: int, length: int) -> bytes:
        check(self, offset, length)
        if len(self.spans) == 1:
            return self.around.read(self.spans[0][0] + offset, length)
        pieces = []
        for start, end in self.spans:
            inside = min(length, end - start - offset)
            if inside > 0:
                pieces.append(self.around.read(start + offset, inside))
                offset, length = 0, length - inside
            else:
                offset -= end - start
            if not length:
                break
        return b"".join(pieces)

    def stored(self) -> Sequence[Span]:
        return self.spans

    def elsewhere(self, around: ByteSource) -> ByteSource:
        return Extents(around, self.spans)

    def against(self, other: ByteSource, outer: Ranges) -> Sequence[Span]:
        if other.stored() != self.spans:
            return common(self, other)
        found, position = [], 0
        for start, end in self.spans:
            for left, right in outer.within(start, end):
                found.append((position + left - start, position + right - start))
            position += end - start
        return found


@dataclass(frozen=True)
class Alone:
    """A content without its surrounding source, for comparison with one from another place."""

    inner: ByteSource

    @property
    def size(self) -> int:
        return self.inner.size

    def read(self, offset: int, length: int) -> bytes:
        return self.inner.read(offset, length)

    def stored(self) -> Sequence[Span]:
        return ()

    def elsewhere(self, around: ByteSource) -> ByteSource:
        return self

    def against(self, other: ByteSource, outer: Ranges) -> Sequence[Span]:
        return common(self, other)


@dataclass
class Watched:
    """A source that records the spans that are read while `watching` is set."""

    around: ByteSource
    reads: list[Span] = field(default_factory=list)
    watching: bool = True

    @property
    def size(self) -> int:
        return self.around.size

    def read(self, offset: int, length: int) -> bytes:
        if self.watching:
            if self.reads and self.reads[-1][1] == offset:
                self.reads[-1] = (self.reads[-1][0], offset + length)
            else:
                self.reads.append((offset, offset + length))
        return self.around.read(offset, length)

    def stored(self) -> Sequence[Span]:
        return self.around.stored()

    def elsewhere(self, around: ByteSource) -> ByteSource:
        return self.around.elsewhere(around)

    def against(self, other: ByteSource, outer: Ranges) -> Sequence[Span]:
        return self.around.against(other, outer)


def pieces(source: ByteSource, start: int = 0, end: int | None = None) -> Iterator[bytes]:
    """Yield the bytes from `start` to `end` in pieces of at most PIECE bytes."""
    end = source.size if end is None else end
    for offset in range(start, end, PIECE):
        yield source.read(offset, min(PIECE, end - offset))


class Spool:
    """Keeps decompressed contents: small ones in memory, others in unnamed temporary files.

    `left` is the work that may still be spent; all spools of a comparison share it.
    """

    def __init__(self, left: list[int]) -> None:
        self._left = left
        self._stack = ExitStack()

    @contextmanager
    def nested(self) -> Iterator["Spool"]:
        """Yield a spool that discards its contents at the end of the block."""
        inner = Spool(self._left)
        with inner._stack:
            yield inner

    def spend(self, amount: int) -> None:
        """Spend work; raise BadFormat if there was too much.

        The unit is the time that comparing a byte takes: about a nanosecond.
        """
        self._left[0] -= amount
        if self._left[0] < 0:
            raise BadFormat("it takes more work than a file of this size should")

    def affords(self, amount: int) -> bool:
        """Return whether at least `amount` of work would be left after spending it."""
        return self._left[0] >= 2 * amount

    def _new_file(self) -> BinaryIO:
        return self._stack.enter_context(tempfile.TemporaryFile())

    def keep(self, content: Iterable[bytes], limit: int | None = None) -> ByteSource:
        """Store a content that arrives in pieces and return it.

        Raise BadFormat if it exceeds `limit` bytes.
        """
        memory, size = bytearray(), 0
        file: BinaryIO | None = None
        for piece in content:
            size += len(piece)
            self.spend(len(piece))
            if limit is not None and size > limit:
                raise BadFormat(f"it unpacks to over {limit} bytes")
            memory += piece
            if len(memory) > MEMORY_LIMIT:
                if file is None:
                    file = self._new_file()
                file.write(memory)
                memory.clear()
        if file is None:
            return Memory(bytes(memory))
        file.write(memory)
        file.flush()
        return OpenFile(file.fileno(), size)


class Packed:
    """A content that is compressed in one span of the surrounding source."""

    def __init__(
        self, around: ByteSource, span: Span, size: int, unpack: Unpack, spool: Spool
    ) -> None:
        self.around = around
        self.span = span
        self._unpack = unpack
        self._spool = spool
        self.size = size
        self.unlike = False  # whether the other side was found to store it in different bytes

    @cached_property
    def _plain(self) -> ByteSource:
        plain = self._spool.keep(self._unpack(pieces(self.around, *self.span)), self.size)
        if plain.size != self.size:
            raise BadFormat(f"it unpacks to {plain.size} bytes instead of {self.size}")
        return plain

    def read(self, offset: int, length: int) -> bytes:
        return self._plain.read(offset, length)

    def stored(self) -> Sequence[Span]:
        return (self.span,)

    def elsewhere(self, around: ByteSource) -> ByteSource:
        return Packed(around, self.span, self.size, self._unpack, self._spool)

    def against(self, other: ByteSource, outer: Ranges) -> Sequence[Span]:
        if not isinstance(other, Packed) or other.size != self.size:
            return common(self, other)
        same = self.span == other.span and not outer.touches(*self.span)
        self.unlike = not same and not self._equals(other)
        return common(self, other) if self.unlike else ()

    def _equals(self, other: "Packed") -> bool:
        """Return whether two contents are stored in the same bytes."""
        self._spool.spend(self.span[1] - self.span[0])
        ours, theirs = (pieces(side.around, *side.span) for side in (self, other))
        return all(a == b for a, b in zip_longest(ours, theirs))
