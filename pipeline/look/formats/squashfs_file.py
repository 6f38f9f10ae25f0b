# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of a SquashFS, decompressed block by block and only where they may differ."""

import struct
from array import array
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from functools import cached_property

from pipeline.look.formats import compression
from pipeline.look.formats.ranges import Ranges, Span
from pipeline.look.formats.source import BadFormat, ByteSource, Spool, check, common
from pipeline.look.formats.squashfs_tables import Tables, cut

NO_INDEX = 2**32 - 1
PLAIN_BLOCK = 0x1000000
SIZE_BITS = 0xFFFFFF
FRAGMENTS_KEPT = 4
BLOCKS_LIMIT = 1_000_000  # of one file


class Blocks:
    """Decompresses the data blocks of one file system; caches the last fragments."""

    def __init__(self, source: ByteSource, tables: Tables, spool: Spool, data_start: int) -> None:
        self.source = source
        self.tables = tables
        self.spool = spool
        self.data_start = data_start
        self.alike: set[int] = set()  # fragments that the other side stores in the same bytes
        self._equal: dict[tuple[int, int], bool] = {}
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._twin: Blocks | None = None

    def elsewhere(self, around: ByteSource) -> "Blocks":
        """Return the blocks of a file system with equal tables in another source."""
        if self._twin is None or self._twin.source is not around:
            self._twin = Blocks(around, self.tables, self.spool, self.data_start)
        return self._twin

    def fragment_span(self, number: int) -> tuple[int, int]:
        """Return the start of a fragment block, and its stored size with the flag PLAIN_BLOCK."""
        start, size = struct.unpack_from("<QI", self.tables.fragments, number * 16)
        return start, size

    def fragment(self, number: int) -> bytes:
        """Return a decompressed fragment block."""
        if number not in self._kept:
            self._kept[number] = self.block(*self.fragment_span(number))
            if len(self._kept) > FRAGMENTS_KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(number)
        return self._kept[number]

    def equal_fragments(self, number: int, other: "Blocks", theirs: int) -> bool:
        """Return whether a fragment block is stored in the same bytes as another file system's."""
        pair = number, theirs
        if pair not in self._equal:
            stored = self.stored(*self.fragment_span(number))
            self._equal[pair] = stored == other.stored(*other.fragment_span(theirs))
            if self._equal[pair]:
                self.alike.add(number)
                other.alike.add(theirs)
        return self._equal[pair]

    def stored(self, start: int, size: int) -> bytes:
        """Return a block as it is stored."""
        self.spool.spend(size & SIZE_BITS)
        return self.source.read(start, size & SIZE_BITS)

    def block(self, start: int, size: int) -> bytes:
        """Return a decompressed block."""
        stored, limit = self.stored(start, size), self.tables.super.block_size
        self.spool.spend(limit)
        if not size & PLAIN_BLOCK:
            return compression.unpack_block(self.tables.new, stored, limit)
        if len(stored) > limit:
            raise BadFormat(f"a block has over {limit} bytes")
        return stored


class SquashFile:
    """A file's content: consecutive blocks, and a tail in a fragment that is shared with others."""

    def __init__(self, blocks: Blocks, size: int, start: int, sizes_at: int, tail: Span) -> None:
        self.blocks = blocks
        self.size = size
        self.start = start
        self._sizes_at = sizes_at
        self.tail = tail  # number of the fragment, offset in it
        self.unlike = False  # whether the other side was found to store a block in different bytes
        self._last: tuple[int, bytes] = (-1, b"")
        self._sizes: array[int] | None = None

    @property
    def sizes(self) -> "array[int]":
        """The stored size of each block, with the flag PLAIN_BLOCK if it is not compressed."""
        if self._sizes is None:
            self._sizes = self._read_sizes()
        return self._sizes

    def _read_sizes(self) -> "array[int]":
        block_size = self.blocks.tables.super.block_size
        count = self.size // block_size
        if self.tail[0] == NO_INDEX:
            count = -(-self.size // block_size)
        if count > BLOCKS_LIMIT:
            raise BadFormat(f"a file has {count} blocks, over {BLOCKS_LIMIT}")
        self.blocks.spool.spend(count * 16)
        content = self.blocks.tables.inodes.content
        sizes = array("I")
        sizes.frombytes(cut(content, self._sizes_at, count * 4))
        return sizes

    @cached_property
    def starts(self) -> "array[int]":
        """The offset of each block, and that of the last one's end."""
        starts, position = array("Q", [self.start]), self.start
        for size in self.sizes:
            position += size & SIZE_BITS
            starts.append(position)
        return starts

    @property
    def end(self) -> int:
        return self.start + sum([size & SIZE_BITS for size in self.sizes])

    def stored(self) -> Sequence[Span]:
        spans = [(self.start, self.end)]
        if self.tail[0] != NO_INDEX and self.size:
            start, size = self.blocks.fragment_span(self.tail[0])
            spans.append((start, start + (size & SIZE_BITS)))
        return spans

    def elsewhere(self, around: ByteSource) -> ByteSource:
        blocks = self.blocks.elsewhere(around)
        return SquashFile(blocks, self.size, self.start, self._sizes_at, self.tail)

    def read(self, offset: int, length: int) -> bytes:
        check(self, offset, length)
        block_size, pieces = self.blocks.tables.super.block_size, []
        while length:
            number, inside = divmod(offset, block_size)
            piece = self._block(number)[inside : inside + length]
            if not piece:
                raise BadFormat(f"block {number} of a file is too short")
            pieces.append(piece)
            offset, length = offset + len(piece), length - len(piece)
        return b"".join(pieces)

    def _block(self, number: int) -> bytes:
        if self._last[0] != number:
            self._last = number, self._unpack(number)
        return self._last[1]

    def _unpack(self, number: int) -> bytes:
        block_size = self.blocks.tables.super.block_size
        length = min(block_size, self.size - number * block_size)
        if number == len(self.sizes):
            offset = self.tail[1]
            content = self.blocks.fragment(self.tail[0])[offset : offset + length]
            return self._whole(content, number, length)
        size = self.sizes[number]
        if size == 0:
            return bytes(length)
        return self._whole(self.blocks.block(self.starts[number], size), number, length)

    def _whole(self, content: bytes, number: int, length: int) -> bytes:
        if len(content) != length:
            raise BadFormat(f"block {number} of a file has {len(content)} bytes, not {length}")
        return content

    def against(self, other: ByteSource, outer: Ranges) -> Sequence[Span]:
        block_size = self.blocks.tables.super.block_size
        if not isinstance(other, SquashFile):
            return common(self, other)
        if other.blocks.tables.super.block_size != block_size:
            return common(self, other)
        return [
            (start * block_size, min(end * block_size, self.size, other.size))
            for start, end in self._differing(other, outer)
        ]

    def _differing(self, other: "SquashFile", outer: Ranges) -> Iterator[Span]:
        """Yield the ranges of numbers of the blocks whose stored bytes differ.

        If the numbers of blocks or the tails differ, the last range extends from the first block
        that only one file stores as such to the end of the shorter file.
        """
        shared = min(len(self.sizes), len(other.sizes))
        whole = self.start, self.end
        if (whole, self.sizes) != ((other.start, other.end), other.sizes) or (
            outer.touches(*whole)
        ):
            for number in range(shared):
                if self._block_differs(other, number, outer):
                    self.unlike = True
                    yield number, number + 1
        if len(self.sizes) != len(other.sizes) or self._tail_differs(other, outer):
            end = -(-min(self.size, other.size) // self.blocks.tables.super.block_size)
            if shared < end:
                yield shared, end

    def _block_differs(self, other: "SquashFile", number: int, outer: Ranges) -> bool:
        ours = self.starts[number], self.sizes[number]
        theirs = other.starts[number], other.sizes[number]
        if ours == theirs and not outer.touches(ours[0], ours[0] + (ours[1] & SIZE_BITS)):
            return False
        if ours[1] != theirs[1]:
            return True
        return self.blocks.stored(*ours) != other.blocks.stored(*theirs)

    def _tail_differs(self, other: "SquashFile", outer: Ranges) -> bool:
        if NO_INDEX in (self.tail[0], other.tail[0]):
            return self.tail[0] != other.tail[0]
        ours = self.blocks.fragment_span(self.tail[0])
        theirs = other.blocks.fragment_span(other.tail[0])
        if (ours[1], self.tail[1]) != (theirs[1], other.tail[1]):
            return True
        if ours[0] == theirs[0]:
            if outer.touches(ours[0], ours[0] + (ours[1] & SIZE_BITS)):
                return True
            self.blocks.alike.add(self.tail[0])
            other.blocks.alike.add(other.tail[0])
            return False
        return not self.blocks.equal_fragments(self.tail[0], other.blocks, other.tail[0])
