"""SquashFS 4.0, read where it lies: tables as a whole, files only where they may differ.

The libraries for it (PySquashfsImage, dissect.squashfs) take two and six times as long to list a
tree, have no limits on what they read, and do not compare blocks as they are stored.
"""

import struct
from collections.abc import Iterator

from pipeline.compare.formats.container import (
    LINK_LIMIT,
    PATH_LIMIT,
    Container,
    Entry,
    Fact,
    Format,
    Region,
    Structure,
    name_of,
    owner_of,
)
from pipeline.compare.formats.source import Malformed, Source, Spool
from pipeline.compare.formats.squashfs_file import NO_INDEX, Blocks, SquashFile
from pipeline.compare.formats.squashfs_tables import (
    COMPRESSIONS,
    MAGIC,
    SUPERBLOCK,
    Super,
    Tables,
    cut,
    read_tables,
)

HEADER = struct.Struct("<HHHHII")
DIR = struct.Struct("<IIHHI")
LONG_DIR = struct.Struct("<IIIIHHI")
FILE = struct.Struct("<IIII")
LONG_FILE = struct.Struct("<QQQIIII")
LINK = struct.Struct("<II")
LISTING = struct.Struct("<III")
NAME = struct.Struct("<HhHH")
TYPES = ("", "dir", "file", "link", "block", "char", "fifo", "socket")
HAS_OPTIONS = 0x400
NAMES_LIMIT = 300_000  # of folders that are open at one time
NAME_WORK = 2048


def _matches(source: Source) -> bool:
    return source.size >= SUPERBLOCK.size and source.read(0, 4) == MAGIC


def _read(source: Source, spool: Spool) -> Container:
    tables = read_tables(source, spool)
    blocks = Blocks(source, tables, spool)
    return Container(
        structures=_structures(source, tables.super),
        entries=lambda: _walk(tables, blocks),
        regions=_regions(source, tables.super),
    )


SQUASHFS = Format("squashfs", _matches, _read)


def _structures(source: Source, head: Super) -> list[Structure]:
    """Return what the superblock says on its own account; the rest follows from the tree."""
    raw = source.read(0, SUPERBLOCK.size)
    fields = [
        ("time of making", (8, 12), "time", str(head.mkfs_time)),
        ("block size", (12, 16), "structure", str(head.block_size)),
        ("compression", (20, 22), "structure", COMPRESSIONS[head.compression]),
        ("flags", (24, 26), "structure", f"{head.flags:#x}"),
    ]
    found = [
        Structure(name, span, raw[slice(*span)], kind, text) for name, span, kind, text in fields
    ]
    if head.flags & HAS_OPTIONS:
        (length,) = struct.unpack("<H", source.read(SUPERBLOCK.size, 2))
        span = (SUPERBLOCK.size, SUPERBLOCK.size + 2 + (length & 0x7FFF))
        found.append(Structure("compressor options", span, source.read(span[0], span[1] - span[0])))
    return found


def _regions(source: Source, head: Super) -> list[Region]:
    """Return what lies where; a table's list of blocks is counted to the table that follows."""
    places = [
        (head.inode_table, "inode table"),
        (head.directory_table, "directory table"),
        (head.fragment_table, "fragment table"),
        (head.lookup_table, "export table"),
        (head.id_table, "id table"),
        (head.xattr_table, "xattr table"),
    ]
    known = sorted(place for place in places if place[0] < head.used)
    ends = [start for start, _ in known[1:]] + [head.used]
    return [
        Region("superblock", (0, SUPERBLOCK.size)),
        Region("data blocks", (SUPERBLOCK.size, head.inode_table), metadata=False),
        *(Region(name, (start, end)) for (start, name), end in zip(known, ends, strict=True)),
        Region("padding", (head.used, source.size), metadata=False),
    ]


def _walk(tables: Tables, blocks: Blocks) -> Iterator[Entry]:
    """Give every entry, folders in the order of their names; a folder that was seen is refused."""
    root = tables.inodes.position(tables.super.root >> 16, tables.super.root & 0xFFFF)
    pending, seen = [("", "", root)], set()
    while pending:
        folder, name, position = pending.pop()
        path = f"{folder}/{name}" if folder else name
        entry, listing = _inode(tables, blocks, path, position)
        yield entry
        if listing is not None:
            if position in seen:
                raise Malformed(f"the folder {path} contains itself or is in two folders")
            seen.add(position)
            inside = sorted(_names(tables, blocks.spool, *listing), reverse=True)
            if len(path) > PATH_LIMIT:
                raise Malformed(f"a path is longer than {PATH_LIMIT} characters")
            pending += [(path, *member) for member in inside]
            if len(pending) > NAMES_LIMIT:
                raise Malformed(f"its open folders hold over {NAMES_LIMIT} names")


def _names(
    tables: Tables, spool: Spool, block: int, offset: int, size: int
) -> Iterator[tuple[str, int]]:
    """Give what a folder lists: names, and the places of their inodes."""
    if size <= 3:  # a folder's size counts "." and ".."
        return
    position = tables.directories.position(block, offset)
    end, content = position + size - 3, tables.directories.content
    left = NAMES_LIMIT
    while position < end:
        count, start, _ = LISTING.unpack_from(content, position)
        position += LISTING.size
        left -= count
        if left < 0:
            raise Malformed(f"a folder holds over {NAMES_LIMIT} names")
        spool.spend(count * NAME_WORK)
        for _ in range(count + 1):
            inode, _, _, length = NAME.unpack_from(content, position)
            position += NAME.size + length + 1
            if position > end:
                raise Malformed("a folder's list is longer than the folder says")
            name = name_of(content[position - length - 1 : position])
            if "/" in name or "\0" in name or name in (".", ".."):
                raise Malformed(f"a file cannot be named {name!r}")
            yield name, tables.inodes.position(start, inode)


Listing = tuple[int, int, int]


def _inode(tables: Tables, blocks: Blocks, path: str, at: int) -> tuple[Entry, Listing | None]:
    """Return an inode as an entry, and where its list lies if it is a folder."""
    content = tables.inodes.content
    kind, mode, uid, gid, mtime, _ = HEADER.unpack_from(content, at)
    if not 1 <= kind <= 14:
        raise Malformed(f"{path} has an inode of type {kind}")
    simple, at = (kind - 1) % 7 + 1, at + HEADER.size
    facts: dict[str, Fact] = {
        "type": TYPES[simple],
        "mode": mode,
        "owner": owner_of(tables.ids[uid], tables.ids[gid]),
        "time": mtime,
    }
    entry = Entry(path, facts)
    if simple == 1:
        return entry, _folder(tables, kind, at, facts)
    if simple == 2:
        entry.content = _file(tables, blocks, kind, at, facts)
    elif simple == 3:
        facts["links"], length = LINK.unpack_from(content, at)
        if length > LINK_LIMIT:
            raise Malformed(f"{path} leads along {length} bytes")
        facts["target"] = name_of(cut(content, at + LINK.size, length))
        _attributes(tables, kind, at + LINK.size + length, facts)
    elif simple in (4, 5):
        facts["links"], device = LINK.unpack_from(content, at)
        facts["device"] = f"{device >> 8 & 0xFFF}:{device & 0xFF | device >> 12 & 0xFFF00}"
        _attributes(tables, kind, at + LINK.size, facts)
    else:
        (facts["links"],) = struct.unpack_from("<I", content, at)
        _attributes(tables, kind, at + 4, facts)
    return entry, None


def _folder(tables: Tables, kind: int, at: int, facts: dict[str, Fact]) -> Listing:
    if kind == 1:
        block, _, size, offset, _ = DIR.unpack_from(tables.inodes.content, at)
        return block, offset, size
    _, size, block, _, _, offset, xattr = LONG_DIR.unpack_from(tables.inodes.content, at)
    if xattr != NO_INDEX:
        facts["xattr"] = tables.xattrs.get(xattr)
    return block, offset, size


def _file(tables: Tables, blocks: Blocks, kind: int, at: int, facts: dict[str, Fact]) -> SquashFile:
    content = tables.inodes.content
    if kind == 2:
        start, fragment, offset, size = FILE.unpack_from(content, at)
        facts["links"] = 1
        return SquashFile(blocks, size, start, at + FILE.size, (fragment, offset))
    start, size, _, links, fragment, offset, xattr = LONG_FILE.unpack_from(content, at)
    facts["links"] = links
    if xattr != NO_INDEX:
        facts["xattr"] = tables.xattrs.get(xattr)
    return SquashFile(blocks, size, start, at + LONG_FILE.size, (fragment, offset))


def _attributes(tables: Tables, kind: int, at: int, facts: dict[str, Fact]) -> None:
    if kind > 7:
        (number,) = struct.unpack_from("<I", tables.inodes.content, at)
        if number != NO_INDEX:
            facts["xattr"] = tables.xattrs.get(number)
