# SPDX-License-Identifier: GPL-3.0-or-later
"""The tables of a SquashFS 4.0: superblock, inodes, folders, fragments, owners, attributes.

Source: the kernel's fs/squashfs/squashfs_fs.h.
"""

import struct
from array import array
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass

from pipeline.look.formats import compression, lz4
from pipeline.look.formats.container import Fact, name_of
from pipeline.look.formats.ranges import Span
from pipeline.look.formats.source import BadFormat, ByteSource, NotRead, Spool

MAGIC = b"hsqs"
SUPERBLOCK = struct.Struct("<4sIIIIHHHHHHQQQQQQQQ")
NONE = 2**64 - 1
METADATA = 8192
PLAIN_METADATA = 0x8000
TABLE_LIMIT = 32 * 1024 * 1024  # bytes of a table: about half a million inodes
XATTRS_KEPT = 64
ATTRIBUTE_WORK = 4096
XATTRS_LIMIT = 65_536  # bytes of one inode's attributes
BLOCK_SIZES = frozenset(2**log for log in range(12, 21))
UNPACKERS: dict[int, Callable[[], compression.Unpacker]] = {
    1: compression.new_zlib,
    2: compression.new_lzma,
    4: compression.new_xz,
    5: lz4.Block,
    6: compression.new_zstd,
}
COMPRESSIONS = {1: "gzip", 2: "lzma", 3: "lzo", 4: "xz", 5: "lz4", 6: "zstd"}
PREFIXES = {0: "user.", 1: "trusted.", 2: "security."}


@dataclass(frozen=True)
class Super:
    """The superblock's fields, named as the kernel names them."""

    inodes: int
    mkfs_time: int
    block_size: int
    fragments: int
    compression: int
    flags: int
    ids: int
    version: tuple[int, int]
    root: int
    used: int
    id_table: int
    xattr_table: int
    inode_table: int
    directory_table: int
    fragment_table: int
    lookup_table: int

    @property
    def packing(self) -> tuple[int, int, int]:
        """The fields that determine the compressed bytes, besides the compressor's options."""
        return self.block_size, self.compression, self.flags


@dataclass(frozen=True)
class Table:
    """A decompressed table of metadata; `at` maps each block's place to its offset in `content`."""

    content: bytes
    at: dict[int, int]

    def position(self, block: int, offset: int) -> int:
        """Return the offset in `content` of a reference; raise BadFormat if it is invalid."""
        found = self.at.get(block)
        if found is None or found + offset >= len(self.content):
            raise BadFormat(f"nothing lies at {block}:{offset} of a table")
        return found + offset


class Xattrs:
    """The extended attributes, by number."""

    def __init__(self, entries: bytes, values: Table, spool: Spool) -> None:
        self._spool = spool
        self._entries = entries
        self._values = values
        self._known: dict[int, Fact] = {}
        self._read_parts: dict[int, int] = {}  # the start and end of everything that was read

    def unused(self, numbers: Set[int]) -> bytes:
        """Return the entries whose number is not in `numbers`, and all bytes that were not read."""
        found = b"".join(
            self._entries[at : at + 16]
            for number, at in enumerate(range(0, len(self._entries), 16))
            if number not in numbers
        )
        position, content = 0, self._values.content
        for start, end in sorted(self._read_parts.items()):
            found += content[position:start]
            position = max(position, end)
        return found + content[position:]

    def get(self, number: int) -> Fact:
        """Return the attributes with a number, sorted by name; the values are in hexadecimal."""
        if number not in self._known:
            reference, count, size = struct.unpack_from("<QII", self._entries, number * 16)
            if len(self._known) > XATTRS_KEPT:
                self._known.clear()
            found = sorted(self._read(reference, count))
            if size != sum(len(name) + 1 for name, _ in found):
                found.append(("size of the list", str(size)))
            self._known[number] = tuple(found)
        return self._known[number]

    def _read(self, reference: int, count: int) -> Iterator[tuple[str, str]]:
        content = self._values.content
        position, size = self._values.position(reference >> 16, reference & 0xFFFF), 0
        for _ in range(count):
            self._spool.spend(ATTRIBUTE_WORK)
            begin = position
            kind, length = struct.unpack_from("<HH", content, position)
            name = cut(content, position + 4, length)
            position += 4 + length
            (length,) = struct.unpack_from("<I", content, position)
            if kind & 0x100:  # the value is stored out of line
                (other,) = struct.unpack_from("<Q", content, position + 4)
                there = self._values.position(other >> 16, other & 0xFFFF)
                (size_there,) = struct.unpack_from("<I", content, there)
                value = cut(content, there + 4, size_there)
                self._read_parts[there] = there + 4 + size_there
            else:
                value = cut(content, position + 4, length)
            position += 4 + length
            self._read_parts[begin] = position
            size += len(name) + len(value)
            if size > XATTRS_LIMIT:
                raise BadFormat(f"an inode has over {XATTRS_LIMIT} bytes of attributes")
            yield PREFIXES.get(kind & 0xFF, "?.") + name_of(name), value.hex()


@dataclass(frozen=True)
class Tables:
    """Everything that is read before the files."""

    super: Super
    new: Callable[[], compression.Unpacker]
    inodes: Table
    directories: Table
    fragments: bytes
    ids: "array[int]"
    xattrs: Xattrs
    reader: "_Reader"

    def exports(self) -> "array[int]":
        """Return the references to inodes, ordered by inode number; none without such a table."""
        place, count = self.super.lookup_table, self.super.inodes
        if place == NONE:
            return array("Q")
        return array("Q", self.reader.lookup("export table", place, count, 8)[0])


def cut(content: bytes, start: int, length: int) -> bytes:
    """Return a part of a table; raise BadFormat if the table ends before it does."""
    if length < 0 or start + length > len(content):
        raise BadFormat(f"a table ends before byte {start + length}")
    return content[start : start + length]


def read_tables(source: ByteSource, spool: Spool) -> Tables:
    """Read the superblock and all tables; raise BadFormat for what is not SquashFS 4.0."""
    head = read_super(source)
    new = UNPACKERS.get(head.compression)
    if new is None:
        name = COMPRESSIONS.get(head.compression, f"number {head.compression}")
        raise NotRead(f"compressed with {name}, which is not read here")
    reader = _Reader(source, new)
    fragments, first = reader.lookup("fragment table", head.fragment_table, head.fragments, 16)
    ids, first_id = reader.lookup("id table", head.id_table, head.ids, 4)
    first_inode_number = reader.first_block(head.lookup_table)
    ends = [first, first_id, first_inode_number, head.fragment_table, head.id_table, head.used]
    end = min(end for end in ends if end is not None and end > head.directory_table)
    return Tables(
        head,
        new,
        reader.table("inode table", head.inode_table, head.directory_table),
        reader.table("directory table", head.directory_table, end),
        fragments,
        array("I", struct.unpack(f"<{head.ids}I", ids)),
        _read_xattrs(reader, head, spool),
        reader,
    )


def read_super(source: ByteSource) -> Super:
    """Parse the superblock; raise BadFormat if it is malformed, NotRead for other versions."""
    magic, *fields = SUPERBLOCK.unpack(source.read(0, SUPERBLOCK.size))
    inodes, time, block_size, fragments, compressor, log, flags, ids, major, minor, *places = fields
    head = Super(
        *(inodes, time, block_size, fragments, compressor, flags, ids, (major, minor)), *places
    )
    if magic != MAGIC or head.version != (4, 0):
        raise NotRead(f"version {major}.{minor}; only 4.0 is read here")
    if block_size not in BLOCK_SIZES or block_size != 1 << log:
        raise BadFormat(f"its blocks have {block_size} bytes")
    if not SUPERBLOCK.size <= head.inode_table < head.directory_table < head.used <= source.size:
        raise BadFormat("its tables do not lie in it")
    return head


class _Reader:
    """Reads metadata blocks; `spans` are the spans that were read of each table.

    `packed` maps a hash of each compressed block's content to a hash of its stored bytes.
    """

    def __init__(self, source: ByteSource, new: Callable[[], compression.Unpacker]) -> None:
        self.source = source
        self.spans: list[tuple[str, Span]] = []
        self.packed: dict[int, int] = {}
        self._new = new

    def table(self, name: str, start: int, end: int) -> Table:
        """Read the blocks from `start` to `end` as one table."""
        if end - start > TABLE_LIMIT:
            raise BadFormat(f"a table has over {TABLE_LIMIT} bytes")
        stored = self.source.read(start, end - start)
        content, at, position = bytearray(), {}, 0
        while position + 2 < len(stored):
            if len(content) % METADATA:  # only the last may be short, which bounds their number
                raise BadFormat("a block of a table is short, and not the last")
            at[position] = len(content)
            position = self._unpack(stored, position, content)
        self.spans.append((name, (start, start + position)))
        return Table(bytes(content), at)

    def _unpack(self, stored: bytes, position: int, content: bytearray) -> int:
        """Decompress the block at `position`; return the position of the next one."""
        header = int.from_bytes(cut(stored, position, 2), "little")
        end = position + 2 + (header & ~PLAIN_METADATA)
        block = cut(stored, position + 2, end - position - 2)
        if not header & PLAIN_METADATA:
            stored_hash = hash(block)
            block = compression.unpack_block(self._new, block, METADATA)
            self.packed[hash(block)] = stored_hash
        if not 0 < len(block) <= METADATA:
            raise BadFormat(f"a block of a table has {len(block)} bytes")
        content += block
        if len(content) > TABLE_LIMIT:
            raise BadFormat(f"a table unpacks to over {TABLE_LIMIT} bytes")
        return end

    def first_block(self, place: int) -> int | None:
        """Return the place of a table's first block; the table's list of blocks is at `place`."""
        if place == NONE:
            return None
        first: int = struct.unpack("<Q", self.source.read(place, 8))[0]
        return first

    def lookup(self, name: str, place: int, count: int, size: int) -> tuple[bytes, int | None]:
        """Return a table of `count` entries of `size` bytes, and the place of its first block."""
        if not count:
            return b"", None
        if count * size > TABLE_LIMIT:
            raise BadFormat(f"a table has {count} entries")
        blocks = -(-count * size // METADATA)
        content = bytearray()
        for start in struct.unpack(f"<{blocks}Q", self.source.read(place, blocks * 8)):
            length = max(0, min(METADATA + 2, self.source.size - start))
            end = self._unpack(self.source.read(start, length), 0, content)
            self.spans.append((name, (start, start + end)))
        self.spans.append((name, (place, place + blocks * 8)))
        if len(content) > count * size:
            raise BadFormat(f"its {name} is longer than {count} entries")
        return cut(bytes(content), 0, count * size), self.first_block(place)


def _read_xattrs(reader: _Reader, head: Super, spool: Spool) -> Xattrs:
    if head.xattr_table == NONE:
        return Xattrs(b"", Table(b"", {}), spool)
    values, count, unused = struct.unpack("<QII", reader.source.read(head.xattr_table, 16))
    if unused:
        raise BadFormat("its table of attributes has a field that is not used")
    reader.spans.append(("xattr table", (head.xattr_table, head.xattr_table + 16)))
    entries, first = reader.lookup("xattr table", head.xattr_table + 16, count, 16)
    end = head.xattr_table if first is None else first
    if end < values:
        raise BadFormat("its attributes end before they begin")
    return Xattrs(entries, reader.table("xattr table", values, end), spool)
