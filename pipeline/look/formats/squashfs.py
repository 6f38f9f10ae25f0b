# SPDX-License-Identifier: GPL-3.0-or-later
"""SquashFS 4.0, read in place: tables completely, files only where they may differ.

Existing libraries (PySquashfsImage, dissect.squashfs) take two and six times as long to list a
tree, have no limits on what they read, and do not compare stored blocks.
"""

import struct
from collections.abc import Iterator
from functools import partial

from pipeline.look.formats.container import PATH_LIMIT, Container, Entry, Format, Structure, name_of
from pipeline.look.formats.ranges import Ranges
from pipeline.look.formats.source import BadFormat, ByteSource, Spool
from pipeline.look.formats.squashfs_account import Walk, slack
from pipeline.look.formats.squashfs_file import NO_INDEX, SIZE_BITS, Blocks, SquashFile
from pipeline.look.formats.squashfs_inode import UNLISTED, Inode, Name, read_inode
from pipeline.look.formats.squashfs_tables import (
    COMPRESSIONS,
    MAGIC,
    SUPERBLOCK,
    Super,
    Tables,
    read_tables,
)

LISTING = struct.Struct("<III")
NAME = struct.Struct("<HhHH")
HAS_OPTIONS = 0x400
NAMES_LIMIT = 300_000  # names that are pending during a walk
NAME_WORK = 2048


def _matches(source: ByteSource) -> bool:
    return source.size >= SUPERBLOCK.size and source.read(0, 4) == MAGIC


def _read(source: ByteSource, spool: Spool) -> Container:
    tables = read_tables(source, spool)
    structures = _structures(source, tables.super)
    blocks = Blocks(source, tables, spool, max(SUPERBLOCK.size, structures[-1].span[1]))
    walk = Walk(tables, blocks)
    return Container(
        structures=structures,
        entries=lambda: _walk(tables, blocks),
        unlike=lambda entry: isinstance(entry.content, SquashFile) and entry.content.unlike,
        touched=partial(_touched, tables, blocks),
        taken_down=lambda: _walk(tables, blocks, walk),
        regions=walk.regions,
        rest=lambda _, changed: walk.rest_of_last(changed=changed),
        number=lambda _: walk.number,
        place=lambda _: walk.place(),
        slack=slack,
        packed=tables.reader.packed,
    )


SQUASHFS = Format("squashfs", _matches, _read)


def _structures(source: ByteSource, head: Super) -> list[Structure]:
    """Return the fields of the superblock that do not follow from the tree."""
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


def _walk(tables: Tables, blocks: Blocks, walk: Walk | None = None) -> Iterator[Entry]:
    """Yield every entry in the order of `sort_key`; raise BadFormat if a folder occurs twice.

    With a `walk`, everything that is read is recorded in it.
    """
    if walk:
        walk.begin()
    root = tables.inodes.position(tables.super.root >> 16, tables.super.root & 0xFFFF)
    pending, seen = [("", "", root, UNLISTED, tables.super.inodes + 1)], set()
    while pending:
        folder, name, position, listed, parent = pending.pop()
        path = f"{folder}/{name}" if folder else name
        fields = read_inode(tables, blocks, path, position)
        entry, listing, header, *_ = fields
        names: list[Name] = []
        if listing is not None:
            if position in seen:
                raise BadFormat(f"the folder {path} contains itself or is in two folders")
            seen.add(position)
            names += _names(tables, blocks.spool, *listing)
            if len(path) > PATH_LIMIT:
                raise BadFormat(f"a path is longer than {PATH_LIMIT} characters")
        if walk:
            walk.take_down(position, Inode(*fields), listed, parent, names)
        yield entry
        if names:
            names.sort(reverse=True)
            number = header[5]
            pending += [(path, name, place, listed, number) for name, place, listed in names]
            if len(pending) > NAMES_LIMIT:
                raise BadFormat(f"its open folders hold over {NAMES_LIMIT} names")


def _touched(tables: Tables, blocks: Blocks, ranges: Ranges) -> Iterator[Entry]:
    """Yield the files that may be stored in some ranges, without reading their block sizes."""
    fragments: dict[int, bool] = {NO_INDEX: False}
    for entry in _walk(tables, blocks):
        file = entry.content
        if isinstance(file, SquashFile):
            number = file.tail[0]
            if number not in fragments:
                start, size = blocks.fragment_span(number)
                fragments[number] = ranges.touches(start, start + (size & SIZE_BITS))
            # a stored block is never longer than its content
            if fragments[number] or ranges.touches(file.start, file.start + file.size):
                yield entry


def _names(tables: Tables, spool: Spool, block: int, offset: int, size: int) -> Iterator[Name]:
    """Yield the names in a folder, with the places of their inodes, and their numbers and types."""
    if size <= 3:  # a folder's size counts "." and ".."
        return
    position = tables.directories.position(block, offset)
    end, content = position + size - 3, tables.directories.content
    left = NAMES_LIMIT
    while position < end:
        count, start, first = LISTING.unpack_from(content, position)
        position += LISTING.size
        left -= count
        if left < 0:
            raise BadFormat(f"a folder holds over {NAMES_LIMIT} names")
        spool.spend(count * NAME_WORK)
        for _ in range(count + 1):
            inode, number, kind, length = NAME.unpack_from(content, position)
            position += NAME.size + length + 1
            if position > end:
                raise BadFormat("a folder's list is longer than the folder says")
            name = name_of(content[position - length - 1 : position])
            if "/" in name or "\0" in name or name in (".", ".."):
                raise BadFormat(f"a file cannot be named {name!r}")
            yield name, tables.inodes.position(start, inode), first + number << 16 | kind
