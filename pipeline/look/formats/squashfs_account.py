# SPDX-License-Identifier: GPL-3.0-or-later
"""The account of SquashFS's own bytes: the contents of its tables that do not follow from its tree.

While the tree is walked, a `Walk` records which bytes of the decompressed tables were read, and
what they point to. Bytes that were not read, or that contradict the tree, remain to be compared.
"""

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence

from pipeline.look.formats.container import Region
from pipeline.look.formats.ranges import Span
from pipeline.look.formats.source import ByteSource, pieces
from pipeline.look.formats.squashfs_file import NO_INDEX, PLAIN_BLOCK, SIZE_BITS, Blocks, SquashFile
from pipeline.look.formats.squashfs_inode import CheckedInode, Inode, Name
from pipeline.look.formats.squashfs_tables import METADATA, NONE, SUPERBLOCK, Tables

PADDED = 4096  # mksquashfs pads the image to a multiple of this
EMPTY_FOLDER = 3  # the size of an empty folder's listing in its inode
OFFSET_BITS = 20  # the width of an offset in a block


class Walk:
    """Records what was read of the tables, and where files are stored.

    `number` is the number of the last inode.
    """

    def __init__(self, tables: Tables, blocks: Blocks) -> None:
        self.tables = tables
        self.blocks = blocks
        self.number = 0
        self.holes = 0  # bytes of holes in the last entry's content, according to its inode
        self._rest = b""
        self._file: SquashFile | None = None
        self._inodes = _Spans()
        self._numbers = array("I")
        self._listings = _Spans()
        self._data = _Spans()
        self._slices: dict[int, array[int]] = {}
        self._ids: set[int] = set()
        self._xattrs: set[int] = set()

    def begin(self) -> None:
        """Discard all records, before the tree is walked from its root."""
        self.__init__(self.tables, self.blocks)  # type: ignore[misc]

    def take_down(
        self, start: int, inode: Inode, listed: int, parent: int, names: Sequence[Name]
    ) -> None:
        """Record an inode at `start` of the table; see `CheckedInode` for the other arguments."""
        checked = CheckedInode(self.tables, inode, listed, parent, names)
        self._inodes.add(start, checked.end)
        self._numbers.append(inode.number)
        self.number, self._rest, self.holes = inode.number, checked.rest, checked.holes
        self._ids.update(inode.header[2:4])
        if checked.xattr != NO_INDEX:
            self._xattrs.add(checked.xattr)
        if inode.listing is not None and inode.listing[2] > EMPTY_FOLDER:
            block, offset, size = inode.listing
            begin = self.tables.directories.position(block, offset)
            self._listings.add(begin, begin + size - EMPTY_FOLDER)
        content = inode.entry.content
        self._file = content if isinstance(content, SquashFile) else None
        if self._file is not None:
            self._data.add(self._file.start, self._file.end)
            _slice(self._file, self._slices)

    def rest_of_last(self, *, changed: bool) -> bytes:
        """Return the bytes of the last entry's inode that do not follow from facts and content."""
        return self._rest if changed else self._rest + self.holes.to_bytes(8, "little")

    def place(self) -> tuple[int, int] | None:
        """Return the position of the last entry's content in the order of blocks or of fragments.

        The first number is 0 for blocks, 1 for fragments.
        """
        file = self._file
        if file is None or not file.size:
            return None
        if len(file.sizes):
            return (0, file.start)
        return (1, file.tail[0] << OFFSET_BITS | file.tail[1])

    def regions(self) -> Iterator[Region]:
        """Yield the tables and other regions, with the bytes that do not follow from the tree."""
        tables, head, source = self.tables, self.tables.super, self.blocks.source
        yield Region("superblock", (0, SUPERBLOCK.size), self._superblock)
        start = self.blocks.data_start
        yield Region("data blocks", (start, max(start, head.inode_table)), self._holes)
        rests: dict[str, Callable[[], bytes]] = {
            "inode table": lambda: self._inodes.without(tables.inodes.content),
            "directory table": lambda: self._listings.without(tables.directories.content),
            "fragment table": self._fragments,
            "export table": lambda: self._exports(exports),
            "id table": self._owners,
            "xattr table": lambda: tables.xattrs.unused(self._xattrs),
        }
        exports = tables.exports()
        for name, span in tables.reader.spans:
            yield Region(name, span, rests[name])
            rests[name] = bytes
        yield Region("fragments", (start, start), self._slack)
        yield Region("padding", (head.used, source.size), self._padding)

    def _superblock(self) -> bytes:
        """Return the counts, sizes and offsets, or nothing if all agree with the contents."""
        head, spans = self.tables.super, self.tables.reader.spans
        end = max(span[1] for _, span in spans)
        behind = next(span[1] for name, span in spans if name == "directory table")
        place = head.fragment_table if head.fragments else behind  # where it would begin
        expected = (self._count(), len(self._slices), len(self.tables.ids), end, place)
        table = behind if head.fragment_table == NONE else head.fragment_table
        listed = (head.inodes, head.fragments, head.ids, head.used, table)
        return b"" if listed == expected else repr(listed).encode()

    def _count(self) -> int:
        """Return the number of inodes if they are numbered from 1 without gaps, else -1."""
        if not self._numbers or max(self._numbers) > len(self._numbers):
            return -1
        seen = bytearray(max(self._numbers) + 1)
        for number in self._numbers:
            seen[number] = 1
        return len(seen) - 1 if all(seen[1:]) else -1

    def _holes(self) -> bytes:
        """Return the bytes between the blocks."""
        spans = _Spans()
        spans.extend(self._data)
        for number in range(self.tables.super.fragments):
            start, size = self.blocks.fragment_span(number)
            spans.add(start, start + (size & SIZE_BITS))
        begin, end = self.blocks.data_start, self.tables.super.inode_table
        found = b""
        for left, right in spans.holes(begin, end):
            found += b"".join(pieces(self.blocks.source, left, right))
        return found

    def _fragments(self) -> bytes:
        """Return the entries, without offsets, that have odd fields or that no file uses."""
        found, raw = b"", self.tables.fragments
        for number in range(self.tables.super.fragments):
            size, unused = raw[number * 16 + 8 : number * 16 + 12], raw[number * 16 + 12 :][:4]
            odd = int.from_bytes(size, "little") & ~(PLAIN_BLOCK | SIZE_BITS)
            if number not in self._slices or odd or any(unused):
                found += raw[number * 16 + 8 : number * 16 + 16]
        return found

    def _exports(self, table: "array[int]") -> bytes:
        """Return the entries of the export table that do not point to their inodes."""
        blocks, expected = list(self.tables.inodes.at), array("Q", bytes(8 * len(table)))
        for number, at in zip(self._numbers, self._inodes.starts, strict=True):
            if 0 < number <= len(table):
                expected[number - 1] = blocks[at // METADATA] << 16 | at % METADATA
        odd = (listed for listed, known in zip(table, expected, strict=True) if listed != known)
        return array("Q", odd).tobytes()

    def _owners(self) -> bytes:
        """Return the owners that no inode has; nothing if there are none and no duplicates."""
        ids = self.tables.ids
        odd = [owner for number, owner in enumerate(ids) if number not in self._ids]
        return repr(odd).encode() if odd or len(set(ids)) < len(ids) else b""

    def _slack(self) -> bytes:
        """Return the unused bytes of the fragment blocks that differ from the other side's."""
        other = {n: s for n, s in self._slices.items() if n not in self.blocks.alike}
        return _beyond(self.blocks, other)

    def _padding(self) -> bytes:
        source, start = self.blocks.source, self.tables.super.used
        content = b"".join(pieces(source, start))
        filled = source.size in (start, start + -start % PADDED) and not content.strip(b"\0")
        return b"" if filled else content


def slack(contents: Iterable[ByteSource]) -> bytes:
    """Return the unused bytes in these files' fragments, which no other files may use."""
    slices: dict[int, array[int]] = {}
    blocks = None
    for content in contents:
        if isinstance(content, SquashFile):
            blocks = content.blocks
            _slice(content, slices)
    return _beyond(blocks, slices) if blocks else b""


def _slice(file: SquashFile, slices: "dict[int, array[int]]") -> None:
    """Add the span of a file's end in its fragment."""
    number, offset = file.tail
    if number != NO_INDEX:
        length = file.size % file.blocks.tables.super.block_size
        slices.setdefault(number, array("Q")).append(offset << 32 | offset + length)


def _beyond(blocks: Blocks, slices: "dict[int, array[int]]") -> bytes:
    found = b""
    for number, parts in sorted(slices.items()):
        spans = _Spans()
        for part in parts:
            spans.add(part >> 32, part & 0xFFFFFFFF)
        found += spans.without(blocks.fragment(number))
    return found


class _Spans:
    """A compact list of many spans, in any order."""

    def __init__(self) -> None:
        self.starts = array("Q")
        self.ends = array("Q")

    def add(self, start: int, end: int) -> None:
        self.starts.append(start)
        self.ends.append(end)

    def extend(self, other: "_Spans") -> None:
        self.starts.extend(other.starts)
        self.ends.extend(other.ends)

    def holes(self, begin: int, end: int) -> Iterator[Span]:
        """Yield the gaps between the spans, from `begin` to `end`."""
        order: Sequence[int] = range(len(self.starts))
        for number in sorted(order, key=self.starts.__getitem__):
            start = self.starts[number]
            if start > begin and self.ends[number] > start:
                yield begin, min(start, end)
            begin = max(begin, self.ends[number])
            if begin >= end:
                return
        yield begin, end

    def without(self, content: bytes) -> bytes:
        """Return the bytes of a content outside the spans."""
        return b"".join(content[a:b] for a, b in self.holes(0, len(content)))
