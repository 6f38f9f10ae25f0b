# SPDX-License-Identifier: GPL-3.0-or-later
"""The directory trees of an ISO 9660 volume, Joliet's too: entries, and other bytes of records."""

import re
import struct
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from pipeline.look.formats.container import PATH_LIMIT, Entry, Fact, Tally, name_of
from pipeline.look.formats.ranges import Span
from pipeline.look.formats.rock_ridge import Extensions, both_orders, read_extensions, say_time
from pipeline.look.formats.source import BadFormat, ByteSource, Extents, Spool

SECTOR = 2048
FOLDER_LIMIT = 16 * 1024 * 1024  # bytes of a folder's records
PARTS_LIMIT = 1024  # of 4 GiB
DIRECTORY, CONTINUES = 0x02, 0x80
LETTERS = re.compile(rb"[^A-Z0-9_.]")
RECORD = struct.Struct("<BBIxxxxIxxxx7sBBBHxxB")


class DirectoryRecord(NamedTuple):
    """A directory record: its identifier, its extent, and its Rock Ridge fields.

    `rest` are the bytes that are not name, location, size, time, flags or known Rock Ridge fields.
    """

    name: bytes
    span: Span
    time: bytes
    flags: int
    rock_ridge: Extensions
    rest: bytes

    def facts(self) -> dict[str, Fact]:
        """Return the facts of its file or folder, by kind of difference."""
        folder = bool(self.flags & DIRECTORY)
        return {
            "type": "dir" if folder else "file",
            "time record": say_time(self.time),
            "structure flags": self.flags,
            **self.rock_ridge.facts,
        }


class Folder(NamedTuple):
    """A folder: its extent, its name as stored, its parent's path, and its first two records.

    These two, `.` and `..`, describe the folder itself and its parent; `own` is their span.
    """

    span: Span
    name: bytes
    parent: str
    pair: tuple[DirectoryRecord, ...]
    own: Span


class Tree:
    """A directory tree of a volume; `folders` has the folders that were read, by path."""

    def __init__(self, source: ByteSource, raw: bytes, spool: Spool, *, joliet: bool) -> None:
        self.source = source
        self.raw = raw
        self.joliet = joliet
        self.folders: dict[str, Folder] = {}
        self.areas: list[Span] = []  # continuation areas of records
        self.rests: dict[int, bytes] = {}  # bytes of records not in facts or locations, by offset
        self._spool = spool
        self._skip = 0
        self._root = self._record(raw[156:190], skip=0)

    def entries(self) -> Iterator[Entry]:
        """Yield every entry; raise BadFormat for a folder that contains itself."""
        pending, seen, tally = [("", "", self._root)], set(), Tally()
        while pending:
            path, parent, record = pending.pop()
            if record.span[0] in seen or len(path) > PATH_LIMIT:
                raise BadFormat(f"the folder {path[:80]} contains itself or is in two folders")
            seen.add(record.span[0])
            for span, parts in self._members(path, parent, record):
                name = self._name(parts[0])
                inside = f"{path}/{name}" if path else name
                yield tally.count(self._entry(inside, span, parts))
                if parts[0].flags & DIRECTORY:
                    pending.append((inside, path, parts[0]))
            if not path and not self.joliet and self.folders[""].pair:
                yield tally.count(self._root_entry(self.folders[""]))

    def _root_entry(self, root: Folder) -> Entry:
        """Return the root folder's entry, whose facts are in the folder's own first record."""
        self.rests[root.own[0]] = b""
        return Entry("", root.pair[0].facts(), None, root.own)

    def _members(
        self, path: str, parent: str, folder: DirectoryRecord
    ) -> Iterator[tuple[Span, list[DirectoryRecord]]]:
        """Yield the records of each member of a folder; a large file has several."""
        parts: list[DirectoryRecord] = []
        own: list[DirectoryRecord] = []
        begin = end = folder.span[0]
        for at, record in self._records(folder.span):
            if len(own) < 2:  # the folder itself and its parent
                if not own and folder is self._root:
                    self._skip = record.rock_ridge.skip
                own.append(record)
                end = at[1]
                continue
            begin = begin if parts else at[0]
            parts.append(record)
            if len(parts) > PARTS_LIMIT:
                raise BadFormat(f"a file is in over {PARTS_LIMIT} parts")
            if not record.flags & CONTINUES:
                yield (begin, at[1]), parts
                parts = []
        span = folder.span[0], end
        self.folders[path] = Folder(folder.span, folder.name, parent, tuple(own), span)

    def _records(self, span: Span) -> Iterator[tuple[Span, DirectoryRecord]]:
        """Yield the records of a folder with their spans."""
        if span[1] - span[0] > FOLDER_LIMIT:
            raise BadFormat(f"a folder has over {FOLDER_LIMIT} bytes")
        for start in range(span[0], span[1], SECTOR):
            self._spool.spend(SECTOR)
            sector, at = self.source.read(start, min(SECTOR, span[1] - start)), 0
            while at < len(sector) and sector[at]:
                place = start + at, start + at + sector[at]
                yield place, self._record(sector[at : at + sector[at]], skip=self._skip)
                at += sector[at]

    def _record(self, raw: bytes, *, skip: int) -> DirectoryRecord:
        length, _, block, size, time, flags, unit, gap, _, name_length = RECORD.unpack_from(raw)
        if len(raw) < length or RECORD.size + name_length > length:
            raise BadFormat("a directory record is shorter than it says")
        if unit or gap:
            raise BadFormat("it has interleaved files")
        end = RECORD.size + name_length
        name, fill = raw[RECORD.size : end], (name_length + 1) % 2
        use = raw[end + fill : length]
        extensions = Extensions(rest=use)
        if not self.joliet:
            extensions = read_extensions(self.source, use[skip:], self._spool)
            self.areas += extensions.areas
        numbers = [raw[at : at + 8] for at in (2, 10) if both_orders(raw[at : at + 8]) is None]
        rest = raw[1:2] + raw[28:32] + b"".join(numbers) + raw[end : end + fill].strip(b"\0")
        start = block * SECTOR
        rest += use[:skip] + extensions.rest + bytes([length]) * (length % 2)  # must not be odd
        return DirectoryRecord(name, (start, start + size), time, flags, extensions, rest)

    def _name(self, record: DirectoryRecord) -> str:
        if self.joliet:
            name = record.name.decode("utf-16-be", "replace").removesuffix(";1")
        else:
            name = name_of(record.rock_ridge.name or record.name.removesuffix(b";1"))
        if "/" in name or "\0" in name or name in ("", ".", ".."):
            raise BadFormat(f"a file cannot be named {name[:80]!r}")
        return name

    def _odd_name(self, record: DirectoryRecord) -> bytes:
        """Return a file's identifier unless it is its Rock Ridge name, shortened as required."""
        long = LETTERS.sub(b"_", record.rock_ridge.name.upper()).rpartition(b".")
        short = record.name.removesuffix(b";1").rpartition(b".")
        names = (long[0] or long[2], short[0] or short[2]), (long[2], short[2])
        known = all(one.startswith(other) for one, other in names)
        return b"" if self.joliet or not record.rock_ridge.name or known else record.name

    def _entry(self, path: str, at: Span, parts: list[DirectoryRecord]) -> Entry:
        facts = parts[0].facts()
        spans = [part.span for part in parts]
        empty = facts["type"] == "dir" or "target" in facts or all(a == b for a, b in spans)
        self.rests[at[0]] = b"".join(self._odd_name(part) + part.rest for part in parts)
        return Entry(path, facts, None if empty else Extents(self.source, spans), at)

    def rest_of_folder(self, path: str, facts: Mapping[str, Fact] | None) -> bytes:
        """Return the rest of a folder's `.` and `..` records, and where they contradict the tree.

        `facts` are those of the folder's record in its parent; the root has none.
        """
        folder = self.folders[path]
        found, names = b"", (b"\0", b"\1")
        above = self.folders[folder.parent]
        honest = (folder.span, facts), (above.span, above.pair[0].facts() if above.pair else {})
        for record, name, (span, known) in zip(folder.pair, names, honest, strict=False):
            says = record.facts()
            # in Joliet folders, libisofs lets the `..` record point to the folder itself
            there = record.span == span or (self.joliet and record.span == folder.span)
            # facts may be missing: extended attributes are in one record only
            odd = {fact: value for fact, value in says.items() if (known or {}).get(fact) != value}
            found += record.rest
            if odd or not there or record.name != name:
                found += repr((record.name, odd, there)).encode()
        return found
