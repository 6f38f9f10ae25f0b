# SPDX-License-Identifier: GPL-3.0-or-later
"""FAT12, FAT16 and FAT32, with long names. Their records are in documents/fat.py."""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial

from pipeline.documents import fat
from pipeline.documents.fat import DirectoryEntry
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
from pipeline.look.formats.source import BadFormat, ByteSource, Extents, Spool, pieces

EXTENTS_LIMIT = 200_000


@dataclass(frozen=True)
class Geometry:
    """The layout of a volume, in bytes; `bits` is the width of an entry of the FAT."""

    cluster: int
    fats: tuple[Span, ...]
    root: Span
    data: int
    end: int
    clusters: int
    bits: int
    root_cluster: int


def _matches(source: ByteSource) -> bool:
    if source.size < 512:
        return False
    raw = source.read(0, 512)
    boot = fat.read_boot(raw)
    return (
        raw[fat.SIGNATURE_AT :] == fat.SIGNATURE
        and (boot.jump[0] == 0xE9 or (boot.jump[0] == 0xEB and boot.jump[2] == 0x90))
        and boot.sector in fat.SECTOR_SIZES
        and boot.cluster.bit_count() == 1
        and boot.fats in (1, 2)
        and boot.reserved > 0
    )


def _read(source: ByteSource, spool: Spool) -> Container:
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


def _geometry(source: ByteSource) -> Geometry:
    raw = source.read(0, 512)
    boot, more = fat.read_boot(raw), fat.read_boot_32(raw)
    size = boot.sector
    length, total = boot.fat_16 or more.fat, boot.total_16 or boot.total_32
    starts = [(boot.reserved + number * length) * size for number in range(boot.fats)]
    root = (boot.reserved + boot.fats * length) * size
    root_size = boot.roots * fat.RECORD.size
    data = root + -(-root_size // size) * size
    clusters = (total * size - data) // (boot.cluster * size)
    if clusters < 1 or total * size > source.size or length * size > fat.TABLE_LIMIT:
        raise BadFormat("its boot sector describes more than there is")
    bits = 12 if clusters < 4085 else 16 if clusters < 65525 else 32
    return Geometry(
        cluster=boot.cluster * size,
        fats=tuple((start, start + length * size) for start in starts),
        root=(root, root + root_size),
        data=data,
        end=total * size,
        clusters=clusters,
        bits=bits,
        root_cluster=more.root if bits == 32 else 0,
    )


def _structures(source: ByteSource, geometry: Geometry) -> list[Structure]:
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
    """The folders of a file system; `rests` are the bytes of records that are not in facts."""

    def __init__(self, source: ByteSource, geometry: Geometry) -> None:
        self._source = source
        self._geometry = geometry
        self.rests: dict[int, bytes] = {}  # by the entry's id
        self._folders: list[Span] = []
        self._slack: list[Span] = []
        self._root_rest = b""
        self._extents = 0
        self._visited = 0  # clusters, each of which may be in one chain only
        self._used = bytearray(geometry.clusters + 2)
        self._odd_ends: list[int] = []  # unusual end marks of chains

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
        """Yield the extents of a cluster chain, merging adjacent clusters.

        Raise BadFormat if the chain is malformed or endless.
        """
        end = fat.CHAIN_END[self._geometry.bits]
        first = last = cluster
        while self._visited < self._geometry.clusters:
            self._visited += 1
            if not 2 <= last < self._geometry.clusters + 2 or last >= len(self._fat):
                raise BadFormat(f"a file has the cluster {last} of {self._geometry.clusters}")
            following = self._fat[last] & fat.MASK
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
        """Yield every entry; raise BadFormat for a folder that contains itself."""
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
                entry, extents = self._entry(inside, found.record)
                self.rests[id(entry)] = found.rest + self._high(found)
                yield entry
                if extents:
                    pending.append(
                        (inside, entry, extents, (self._cluster(found.record), clusters[0]))
                    )
            self.rests[id(folder)] = self.rests.get(id(folder), b"") + rest
        self._root_rest = self.rests.pop(id(top))

    def _cluster(self, record: DirectoryEntry) -> int:
        return record.cluster if self._geometry.bits == 32 else record.cluster_low

    def _high(self, found: Found) -> bytes:
        """Return the upper half of a cluster number, if it is set though only FAT32 uses it."""
        high = found.record.cluster_high if self._geometry.bits != 32 else 0
        return b"%x" % high if high else b""

    def _entry(self, path: str, record: DirectoryEntry) -> tuple[Entry, list[Span]]:
        """Return an entry, and its extents if it is a folder, else none."""
        attributes = record.attributes
        kind = "dir" if attributes & fat.FOLDER else "label" if attributes & fat.VOLUME else "file"
        facts: dict[str, Fact] = {
            "type": kind,
            "mode attributes": f"{attributes:#04x}",
            "structure case": record.case,
            "time": times_of(record),
        }
        cluster = self._cluster(record)
        spans = [*self._chain(cluster)] if cluster and kind != "label" else []
        if kind != "file":
            return Entry(path, facts), spans if kind == "dir" else []
        used, wasted = _cut(spans, record.size)
        self._slack += wasted
        return Entry(path, facts, Extents(self._source, used)), []

    def regions(self) -> Iterator[Region]:
        """Yield boot sectors, FATs, folders and slack, with bytes that nothing else explains."""
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
        """Return the span of FAT32's free space information; an empty one if there is none."""
        raw = self._source.read(0, 512)
        at = fat.read_boot_32(raw).info * fat.read_boot(raw).sector
        if self._geometry.bits != 32 or not 512 <= at <= self._geometry.fats[0][0] - 512:
            return (0, 0)
        start = at + fat.INFO_AT
        found = self._source.read(at, len(fat.INFO_MAGIC)) == fat.INFO_MAGIC
        return (start, start + fat.INFO.size) if found else (0, 0)

    def _rest_of_info(self) -> bytes:
        """Return the free space information, or nothing if it agrees with the FAT."""
        start, end = self._info()
        raw = self._source.read(start, end - start)
        unknown = fat.INFO_UNKNOWN
        count, following = fat.INFO.unpack(raw) if raw else (unknown, unknown)
        table = self._fat[2 : self._geometry.clusters + 2]
        free = table.count(0)
        used = max((number for number, value in enumerate(table, 2) if value), default=1)
        first = next((number for number, value in enumerate(table, 2) if not value), used + 1)
        places = (unknown, used, used + 1, first, first - 1)
        honest = count in (free, unknown) and following in places
        return b"" if honest else raw

    def _rest_of_fat(self) -> bytes:
        """Return the content of the first FAT other than the chains of files and folders."""
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
        """Return a further FAT, or nothing if it is an exact copy of the first."""
        first, copy = (self._source.read(s, e - s) for s, e in (self._geometry.fats[0], span))
        return b"" if first == copy else copy


def _cut(spans: list[Span], size: int) -> tuple[list[Span], list[Span]]:
    """Split a file's extents at its size into used and unused ones."""
    used, wasted = [], []
    for start, end in spans:
        inside = min(size, end - start)
        used += [(start, start + inside)] if inside else []
        wasted += [(start + inside, end)] if start + inside < end else []
        size -= inside
    if size:
        raise BadFormat("a file is longer than its chain of clusters")
    return used, wasted
