# SPDX-License-Identifier: GPL-3.0-or-later
"""FAT12, FAT16 and FAT32, with long names.

Source: Microsoft's FAT32 File System Specification 1.03.
"""

import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial

from pipeline.look.formats.container import (
    PATH_LIMIT,
    Container,
    Entry,
    Fact,
    Format,
    Region,
    Structure,
    listed,
)
from pipeline.look.formats.fat_records import Found, read_records, times_of
from pipeline.look.formats.ranges import Span
from pipeline.look.formats.source import BadFormat, Extents, Source, Spool, pieces

PARAMETERS = struct.Struct("<3s8sHBHBHHBHHHII")
NOT_KNOWN = 2**32 - 1
FAT_LIMIT = 32 * 1024 * 1024  # bytes of one FAT: 8 million clusters
EXTENTS_LIMIT = 200_000
VOLUME, DIRECTORY = 0x08, 0x10


@dataclass(frozen=True)
class Geometry:
    """Where everything lies, in bytes; `bits` is the width of an entry of the FAT."""

    cluster: int
    fats: tuple[Span, ...]
    root: Span
    data: int
    end: int
    clusters: int
    bits: int
    root_cluster: int


def _matches(source: Source) -> bool:
    if source.size < 512:
        return False
    raw = source.read(0, 512)
    jump, _, size, sectors, reserved, fats, *_ = PARAMETERS.unpack_from(raw)
    return (
        raw[510:] == b"\x55\xaa"
        and (jump[0] == 0xE9 or (jump[0] == 0xEB and jump[2] == 0x90))
        and size in (512, 1024, 2048, 4096)
        and sectors.bit_count() == 1
        and fats in (1, 2)
        and reserved > 0
    )


def _read(source: Source, spool: Spool) -> Container:
    geometry = _geometry(source)
    volume = _Volume(source, geometry)
    entries, order = listed(volume.entries())
    return Container(
        structures=_structures(source, geometry),
        entries=lambda: iter(entries),
        regions=lambda: volume.regions(),
        order=order,
        rest=lambda entry, _: volume.rests[id(entry)],
        align=0,  # free clusters are zeros, wherever they are
    )


FAT = Format("fat", _matches, _read)


def _geometry(source: Source) -> Geometry:
    raw = source.read(0, 512)
    _, _, size, sectors, reserved, fats, roots, total16, _, length16, _, _, _, total32 = (
        PARAMETERS.unpack_from(raw)
    )
    length32, _, _, root_cluster = struct.unpack_from("<IHHI", raw, 36)
    length, total = length16 or length32, total16 or total32
    starts = [(reserved + number * length) * size for number in range(fats)]
    root = (reserved + fats * length) * size
    data = root + -(-roots * 32 // size) * size
    clusters = (total * size - data) // (sectors * size)
    if clusters < 1 or total * size > source.size or length * size > FAT_LIMIT:
        raise BadFormat("its boot sector describes more than there is")
    bits = 12 if clusters < 4085 else 16 if clusters < 65525 else 32
    return Geometry(
        cluster=sectors * size,
        fats=tuple((start, start + length * size) for start in starts),
        root=(root, root + roots * 32),
        data=data,
        end=total * size,
        clusters=clusters,
        bits=bits,
        root_cluster=root_cluster if bits == 32 else 0,
    )


def _structures(source: Source, geometry: Geometry) -> list[Structure]:
    raw, at = source.read(0, 512), 67 if geometry.bits == 32 else 39
    fields = (
        ("OEM name", (3, 11), "identifier"),
        ("parameters", (11, at), "structure"),
        ("volume serial number", (at, at + 4), "identifier"),
        ("volume label", (at + 4, at + 15), "identifier"),
        ("boot code", (at + 23, 510), "structure"),
    )
    return [Structure(name, span, raw[slice(*span)], kind) for name, span, kind in fields]


class _Volume:
    """The folders of a file system; `rests` is what records say beyond their entry's facts."""

    def __init__(self, source: Source, geometry: Geometry) -> None:
        self._source = source
        self._geometry = geometry
        self.rests: dict[int, bytes] = {}  # by the entry's id
        self._folders: list[Span] = []
        self._slack: list[Span] = []
        self._root_rest = b""
        self._extents = 0
        self._visited = 0  # clusters, each of which is in one chain at most
        self._used = bytearray(geometry.clusters + 2)
        self._odd_ends: list[int] = []  # of chains, if they are not marked as usual

    @cached_property
    def _fat(self) -> "array[int]":
        """The entries of the first FAT."""
        start, end = self._geometry.fats[0]
        raw = self._source.read(start, end - start)
        if self._geometry.bits == 12:
            pairs = zip(raw[::3], raw[1::3], raw[2::3], strict=False)
            return array(
                "I", (n for a, b, c in pairs for n in (a | (b & 15) << 8, b >> 4 | c << 4))
            )
        code = "H" if self._geometry.bits == 16 else "I"
        return array("I", array(code, raw[: len(raw) // 4 * 4]))

    def _chain(self, cluster: int) -> Iterator[Span]:
        """Give the extents of a chain of clusters, neighbours as one; refuse one without end."""
        end = {12: 0xFF8, 16: 0xFFF8, 32: 0xFFFFFF8}[self._geometry.bits]
        first = last = cluster
        while self._visited < self._geometry.clusters:
            self._visited += 1
            if not 2 <= last < self._geometry.clusters + 2 or last >= len(self._fat):
                raise BadFormat(f"a file has the cluster {last} of {self._geometry.clusters}")
            following = self._fat[last] & 0x0FFFFFFF
            self._used[last] = 1
            if following >= end and following != end | 7:
                self._odd_ends.append(following)
            if following != last + 1:
                self._extents += 1
                if self._extents > EXTENTS_LIMIT:
                    raise BadFormat(f"its files lie in over {EXTENTS_LIMIT} pieces")
                yield self._place(first), self._place(last + 1)
                if following >= end:
                    return
                first = following
            last = following
        raise BadFormat("a chain of clusters has no end, or two share some")

    def _place(self, cluster: int) -> int:
        return self._geometry.data + (cluster - 2) * self._geometry.cluster

    def entries(self) -> Iterator[Entry]:
        """Give every entry; raise BadFormat for a folder that contains itself."""
        root = [self._geometry.root]
        if self._geometry.root_cluster:
            root = [*self._chain(self._geometry.root_cluster)]
        top = Entry("", {})
        pending, seen = [("", top, root, (0, 0))], set()
        while pending:
            path, folder, spans, clusters = pending.pop()
            if spans[0][0] in seen or len(path) > PATH_LIMIT:
                raise BadFormat(f"the folder {path[:80]} contains itself or is in two folders")
            seen.add(spans[0][0])
            self._folders += spans
            rest = bytearray()
            for found in read_records(Extents(self._source, spans), rest, folder, clusters):
                inside = f"{path}/{found.name}" if path else found.name
                entry, extents = self._entry(inside, found.fields)
                self.rests[id(entry)] = found.rest + self._high(found)
                yield entry
                if extents:
                    pending.append(
                        (inside, entry, extents, (self._cluster(found.fields), clusters[0]))
                    )
            self.rests[id(folder)] = self.rests.get(id(folder), b"") + rest
        self._root_rest = self.rests.pop(id(top))

    def _cluster(self, fields: tuple[int, ...]) -> int:
        low, high = fields[9], fields[6]
        return low | (high << 16 if self._geometry.bits == 32 else 0)

    def _high(self, found: Found) -> bytes:
        """Return what older FATs have where FAT32 has the upper half of a cluster's number."""
        high = found.fields[6] if self._geometry.bits != 32 else 0
        return b"%x" % high if high else b""

    def _entry(self, path: str, record: tuple[int, ...]) -> tuple[Entry, list[Span]]:
        """Return an entry, and its extents if it is a folder."""
        attributes, case, *_, size = record
        kind = "dir" if attributes & DIRECTORY else "label" if attributes & VOLUME else "file"
        facts: dict[str, Fact] = {
            "type": kind,
            "mode attributes": f"{attributes:#04x}",
            "structure case": case,
            "time": times_of(record),
        }
        cluster = self._cluster(record)
        spans = [*self._chain(cluster)] if cluster and kind != "label" else []
        if kind != "file":
            return Entry(path, facts), spans if kind == "dir" else []
        used, wasted = _cut(spans, size)
        self._slack += wasted
        return Entry(path, facts, Extents(self._source, used)), []

    def regions(self) -> Iterator[Region]:
        """Give boot sectors, FATs, folders and slack; what they say that nothing else does."""
        start = self._geometry.fats[0][0]
        info = self._info()
        for span in ((0, info[0]), (info[1], start)):
            yield Region("boot sectors", span)
        yield Region("free space information", info, self._rest_of_info)
        first, *others = self._geometry.fats
        yield Region("FAT 1", first, self._rest_of_fat)
        for number, span in enumerate(others, 2):
            yield Region(f"FAT {number}", span, partial(self._rest_of_copy, span))
        for span in self._folders:
            yield Region("directory records", span, bytes)
        yield Region("directory records", (start, start), lambda: self._root_rest)
        yield Region("space behind the volume", (self._geometry.end, self._source.size))
        for span in self._slack:
            yield Region("slack after a file's end", span, partial(self._left_over, span))

    def _left_over(self, span: Span) -> bytes:
        return b"".join(pieces(self._source, *span)).rstrip(b"\0")

    def _info(self) -> Span:
        """Return where a FAT32 says which clusters are free; an empty span if it does not."""
        raw = self._source.read(0, 512)
        at = int.from_bytes(raw[48:50], "little") * int.from_bytes(raw[11:13], "little")
        if self._geometry.bits != 32 or not 512 <= at <= self._geometry.fats[0][0] - 512:
            return (0, 0)
        return (at + 488, at + 496) if self._source.read(at, 4) == b"RRaA" else (0, 0)

    def _rest_of_info(self) -> bytes:
        """Return how many clusters are free and where, unless that follows from the FAT."""
        start, end = self._info()
        raw = self._source.read(start, end - start)
        count, following = struct.unpack("<II", raw) if raw else (NOT_KNOWN, NOT_KNOWN)
        fat = self._fat[2 : self._geometry.clusters + 2]
        free = fat.count(0)
        used = max((number for number, value in enumerate(fat, 2) if value), default=1)
        first = next((number for number, value in enumerate(fat, 2) if not value), used + 1)
        places = (NOT_KNOWN, used, used + 1, first, first - 1)
        honest = count in (free, NOT_KNOWN) and following in places
        return b"" if honest else raw

    def _rest_of_fat(self) -> bytes:
        """Return what a FAT says beside the chains of files and folders."""
        entries, clusters = self._fat, self._geometry.clusters + 2
        odd = [
            (number, value)
            for number, value in enumerate(entries)
            if value >> 28 or (value and (number >= clusters or not self._used[number]))
        ]
        start, end = self._geometry.fats[0]
        length = len(entries) * self._geometry.bits // 8
        behind = self._source.read(start + length, max(0, end - start - length)).rstrip(b"\0")
        return repr((odd, self._odd_ends)).encode() + behind

    def _rest_of_copy(self, span: Span) -> bytes:
        """Return a copy of the FAT, or nothing if it is one."""
        first, copy = (self._source.read(s, e - s) for s, e in (self._geometry.fats[0], span))
        return b"" if first == copy else copy


def _cut(spans: list[Span], size: int) -> tuple[list[Span], list[Span]]:
    """Part a file's extents into what it uses and what it does not."""
    used, wasted = [], []
    for start, end in spans:
        inside = min(size, end - start)
        used += [(start, start + inside)] if inside else []
        wasted += [(start + inside, end)] if start + inside < end else []
        size -= inside
    if size:
        raise BadFormat("a file is longer than its chain of clusters")
    return used, wasted
