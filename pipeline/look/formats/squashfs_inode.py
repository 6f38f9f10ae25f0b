# SPDX-License-Identifier: GPL-3.0-or-later
"""The inodes of a SquashFS: their facts, and fields that do not follow from these."""

import itertools
import struct
from collections.abc import Sequence
from typing import NamedTuple

from pipeline.look.formats.container import LINK_LIMIT, Entry, Fact, name_of, owner_of
from pipeline.look.formats.source import BadFormat
from pipeline.look.formats.squashfs_file import NO_INDEX, Blocks, SquashFile
from pipeline.look.formats.squashfs_tables import METADATA, Tables, cut

HEADER = struct.Struct("<HHHHII")
DIR = struct.Struct("<IIHHI")
LONG_DIR = struct.Struct("<IIIIHHI")
INDEX = struct.Struct("<III")
FILE = struct.Struct("<IIII")
LONG_FILE = struct.Struct("<QQQIIII")
LINK = struct.Struct("<II")
TYPES = ("", "dir", "file", "link", "block", "char", "fifo", "socket")
LONG = 7  # added to the type of an inode in its extended form
FOLDER = 1
UNLISTED = -(2**63)  # for the root, which no folder lists

Listing = tuple[int, int, int]  # block, offset and size of a folder's list of names
Name = tuple[str, int, int]  # a name, the place of its inode, and the inode's number and type


class Inode(NamedTuple):
    """An inode: its entry, its listing if it is a folder, and its raw fields.

    `header` are the fields that all types share, `body` those of its type; `end` is the offset
    after them.
    """

    entry: Entry
    listing: Listing | None
    header: tuple[int, ...]
    body: tuple[int, ...]
    end: int

    @property
    def number(self) -> int:
        return self.header[5]

    @property
    def type(self) -> int:
        return (self.header[0] - 1) % LONG + 1


Fields = tuple[Entry, Listing | None, tuple[int, ...], tuple[int, ...], int]  # of an Inode


def read_inode(tables: Tables, blocks: Blocks, path: str, at: int) -> Fields:
    """Parse an inode; raise BadFormat if it is malformed.

    It returns a plain tuple instead of an `Inode` for speed, since there are many.
    """
    content = tables.inodes.content
    header = HEADER.unpack_from(content, at)
    kind, mode, uid, gid, mtime, _ = header
    if not 1 <= kind <= 2 * LONG:
        raise BadFormat(f"{path} has an inode of type {kind}")
    simple, at = (kind - 1) % LONG + 1, at + HEADER.size
    facts: dict[str, Fact] = {
        "type": TYPES[simple],
        "mode": mode,
        "owner": owner_of(tables.ids[uid], tables.ids[gid]),
        "time": mtime,
    }
    entry, listing, xattr = Entry(path, facts), None, NO_INDEX
    body: tuple[int, ...]
    if kind == FOLDER:
        body, end = DIR.unpack_from(content, at), at + DIR.size
        listing = body[0], body[3], body[2]
    elif simple == FOLDER:
        body, end = LONG_DIR.unpack_from(content, at), at + LONG_DIR.size
        listing, xattr = (body[2], body[5], body[1]), body[6]
    elif simple == 2:
        if kind == 2:
            body, end = FILE.unpack_from(content, at), at + FILE.size
            (start, fragment, offset, size), facts["links"] = body, 1
        else:
            body, end = LONG_FILE.unpack_from(content, at), at + LONG_FILE.size
            start, size, _, facts["links"], fragment, offset, xattr = body
        entry.content = SquashFile(blocks, size, start, end, (fragment, offset))
    else:
        body, end, xattr = _read_other(content, kind, at, facts)
    if xattr != NO_INDEX:
        facts["xattr"] = tables.xattrs.get(xattr)
    return entry, listing, header, body, end


def _read_other(
    content: bytes, kind: int, at: int, facts: dict[str, Fact]
) -> tuple[tuple[int, ...], int, int]:
    """Return the fields of a link, device, fifo or socket, their end, and the xattr index."""
    body: tuple[int, ...]
    simple = (kind - 1) % LONG + 1
    if simple == 3:
        body = LINK.unpack_from(content, at)
        facts["links"], length = body
        if length > LINK_LIMIT:
            raise BadFormat(f"a link leads along {length} bytes")
        facts["target"] = name_of(cut(content, at + LINK.size, length))
        at += LINK.size + length
    elif simple in (4, 5):
        body = LINK.unpack_from(content, at)
        facts["links"], device = body
        facts["device"] = f"{device >> 8 & 0xFFF}:{device & 0xFF | device >> 12 & 0xFFF00}"
        at += LINK.size
    else:
        body = struct.unpack_from("<I", content, at)
        (facts["links"],) = body
        at += 4
    if kind <= LONG:
        return body, at, NO_INDEX
    (xattr,) = struct.unpack_from("<I", content, at)
    return (*body, xattr), at + 4, xattr


class CheckedInode:
    """Checks an inode against the rest of the tree; `rest` are the fields that contradict it.

    `listed` is the number and type in its folder's listing, or UNLISTED; `parent` is the number of
    that folder's inode; `names` are the names in its own listing.
    """

    def __init__(
        self, tables: Tables, inode: Inode, listed: int, parent: int, names: Sequence[Name]
    ) -> None:
        self._tables = tables
        self._inode = inode
        self._long = inode.header[0] > LONG
        self._odd: list[tuple[str, int]] = []
        self.holes = 0  # bytes of holes in a file, according to the inode
        self.xattr = inode.body[-1] if self._long else NO_INDEX
        self.end = inode.end
        if listed not in (UNLISTED, inode.number << 16 | inode.type):
            self._odd.append(("listed", listed))
        if inode.listing is not None:
            self._check_folder(inode.listing, parent, names)
        elif isinstance(inode.entry.content, SquashFile):
            self._check_file(inode.entry.content)
        elif self._long and self.xattr == NO_INDEX:
            self._odd.append(("type", inode.header[0]))

    @property
    def rest(self) -> bytes:
        """The odd fields; empty if all of them follow from the facts and the tree."""
        return repr(self._odd).encode() if self._odd else b""

    def _check_folder(self, listing: Listing, parent: int, names: Sequence[Name]) -> None:
        body = self._inode.body
        links, above = (body[0], body[3]) if self._long else (body[1], body[4])
        folders = sum(listed & 0xFFFF == FOLDER for _, _, listed in names)
        if links != folders + 2:
            self._odd.append(("links", links))
        if above != parent:
            self._odd.append(("parent", above))
        raw = [name.encode("utf-8", "surrogateescape") for name, _, _ in names]
        if any(a >= b for a, b in itertools.pairwise(raw)):
            self._odd.append(("order", len(raw)))
        if self._long:
            self._check_index(body[4], *listing)
        if self._long and self.xattr == NO_INDEX and not body[4]:
            self._odd.append(("type", self._inode.header[0]))

    def _check_index(self, count: int, block: int, offset: int, size: int) -> None:
        """Check a folder's index against its listing: the first name and offset of each part."""
        table, content = self._tables.directories, self._tables.inodes.content
        starts = list(table.at)
        for _ in range(count):
            at, start, length = INDEX.unpack_from(content, self.end)
            name = cut(content, self.end + INDEX.size, length + 1)
            self.end += INDEX.size + length + 1
            place = table.position(block, offset) + at
            known = table.content[place + 20 : place + 20 + len(name)] if at + 20 < size else b""
            if known != name or starts[place // METADATA] != start:
                self._odd.append((name.hex(), at))

    def _check_file(self, file: SquashFile) -> None:
        self.end += 4 * len(file.sizes)
        links = 1
        if self._long:
            self.holes, links = self._inode.body[2:4]
        if file.tail[0] == NO_INDEX and file.tail[1]:
            self._odd.append(("offset", file.tail[1]))
        if not len(file.sizes) and file.start:
            self._odd.append(("start", file.start))
        short = links == 1 and not self.holes and max(file.start, file.size) < 2**32
        if self._long and short and self.xattr == NO_INDEX:
            self._odd.append(("type", self._inode.header[0]))
