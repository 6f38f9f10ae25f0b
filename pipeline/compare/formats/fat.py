"""FAT12, FAT16 and FAT32, with long names.

Source: Microsoft's FAT32 File System Specification 1.03.
"""

import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from pipeline.compare.formats.container import (
    PATH_LIMIT,
    Container,
    Entry,
    Fact,
    Format,
    Region,
    Structure,
    listed,
)
from pipeline.compare.formats.ranges import Span
from pipeline.compare.formats.source import Extents, Malformed, Source, Spool

PARAMETERS = struct.Struct("<3s8sHBHBHHBHHHII")
RECORD = struct.Struct("<11sBBBHHHHHHHI")
FOLDER_LIMIT = 2 * 1024 * 1024  # bytes of a folder's records: FAT allows no more
FAT_LIMIT = 32 * 1024 * 1024  # bytes of one FAT: 8 million clusters
EXTENTS_LIMIT = 200_000
READ_ONLY, VOLUME, DIRECTORY, LONG_NAME = 0x01, 0x08, 0x10, 0x0F
SMALL_BASE, SMALL_EXTENSION = 0x08, 0x10
FREE, DELETED, DOT = 0x00, 0xE5, 0x2E


@dataclass(frozen=True)
class Layout:
    """Where everything lies, in bytes; `bits` is the width of an entry of the FAT."""

    cluster: int
    fats: tuple[Span, ...]
    root: Span
    data: int
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
    layout = _layout(source)
    volume = _Volume(source, layout)
    entries, order = listed(volume.entries())
    return Container(
        structures=_structures(source, layout),
        entries=lambda: iter(entries),
        regions=[
            Region("boot sectors", (0, layout.fats[0][0])),
            *(Region(f"FAT {number}", span) for number, span in enumerate(layout.fats, 1)),
            *(Region("directory records", span) for span in volume.folders),
            *(Region("slack after a file's end", span, metadata=False) for span in volume.slack),
        ],
        order=order,
    )


FAT = Format("fat", _matches, _read)


def _layout(source: Source) -> Layout:
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
        raise Malformed("its boot sector describes more than there is")
    bits = 12 if clusters < 4085 else 16 if clusters < 65525 else 32
    return Layout(
        cluster=sectors * size,
        fats=tuple((start, start + length * size) for start in starts),
        root=(root, root + roots * 32),
        data=data,
        clusters=clusters,
        bits=bits,
        root_cluster=root_cluster if bits == 32 else 0,
    )


def _structures(source: Source, layout: Layout) -> list[Structure]:
    raw, at = source.read(0, 512), 67 if layout.bits == 32 else 39
    fields = (
        ("OEM name", (3, 11), "identifier"),
        ("parameters", (11, at), "structure"),
        ("volume serial number", (at, at + 4), "identifier"),
        ("volume label", (at + 4, at + 15), "identifier"),
        ("boot code", (at + 23, 510), "structure"),
    )
    return [Structure(name, span, raw[slice(*span)], kind) for name, span, kind in fields]


class _Volume:
    """The folders of a file system; `folders` and `slack` are where records and waste lie."""

    def __init__(self, source: Source, layout: Layout) -> None:
        self._source = source
        self._layout = layout
        self.folders: list[Span] = []
        self.slack: list[Span] = []
        self._extents = 0
        self._visited = 0  # clusters, each of which is in one chain at most

    @cached_property
    def _fat(self) -> "array[int]":
        """The entries of the first FAT."""
        start, end = self._layout.fats[0]
        raw = self._source.read(start, end - start)
        if self._layout.bits == 12:
            pairs = zip(raw[::3], raw[1::3], raw[2::3], strict=False)
            return array(
                "I", (n for a, b, c in pairs for n in (a | (b & 15) << 8, b >> 4 | c << 4))
            )
        code = "H" if self._layout.bits == 16 else "I"
        return array("I", array(code, raw[: len(raw) // 4 * 4]))

    def _chain(self, cluster: int) -> Iterator[Span]:
        """Give the extents of a chain of clusters, neighbours as one; refuse one without end."""
        end = {12: 0xFF8, 16: 0xFFF8, 32: 0xFFFFFF8}[self._layout.bits]
        first = last = cluster
        while self._visited < self._layout.clusters:
            self._visited += 1
            if not 2 <= last < self._layout.clusters + 2 or last >= len(self._fat):
                raise Malformed(f"a file has the cluster {last} of {self._layout.clusters}")
            following = self._fat[last] & 0x0FFFFFFF
            if following != last + 1:
                self._extents += 1
                if self._extents > EXTENTS_LIMIT:
                    raise Malformed(f"its files lie in over {EXTENTS_LIMIT} pieces")
                yield self._place(first), self._place(last + 1)
                if following >= end:
                    return
                first = following
            last = following
        raise Malformed("a chain of clusters has no end, or two share some")

    def _place(self, cluster: int) -> int:
        return self._layout.data + (cluster - 2) * self._layout.cluster

    def entries(self) -> Iterator[Entry]:
        """Give every entry; raise Malformed for a folder that contains itself."""
        root = [self._layout.root]
        if self._layout.root_cluster:
            root = [*self._chain(self._layout.root_cluster)]
        pending, seen = [("", root)], set()
        while pending:
            path, spans = pending.pop()
            if spans[0][0] in seen or len(path) > PATH_LIMIT:
                raise Malformed(f"the folder {path[:80]} contains itself or is in two folders")
            seen.add(spans[0][0])
            self.folders += spans
            for name, record in _records(Extents(self._source, spans)):
                inside = f"{path}/{name}" if path else name
                entry, folder = self._entry(inside, record)
                yield entry
                if folder:
                    pending.append((inside, folder))

    def _entry(self, path: str, record: tuple[int, ...]) -> tuple[Entry, list[Span]]:
        """Return an entry, and its extents if it is a folder."""
        attributes, case, fine, made, day, read, high, written, changed, low, size = record
        kind = "dir" if attributes & DIRECTORY else "label" if attributes & VOLUME else "file"
        times = (
            ("created", f"{_stamp(day, made)}+{fine / 100:.2f}s"),
            ("accessed", _stamp(read, 0)[:10]),
            ("written", _stamp(changed, written)),
        )
        facts: dict[str, Fact] = {
            "type": kind,
            "mode attributes": f"{attributes:#04x}",
            "structure case": case,
            "time": times,
        }
        cluster = low | (high << 16 if self._layout.bits == 32 else 0)
        spans = [*self._chain(cluster)] if cluster and kind != "label" else []
        if kind != "file":
            return Entry(path, facts), spans if kind == "dir" else []
        used, wasted = _cut(spans, size)
        self.slack += wasted
        return Entry(path, facts, Extents(self._source, used)), []


def _cut(spans: list[Span], size: int) -> tuple[list[Span], list[Span]]:
    """Part a file's extents into what it uses and what it does not."""
    used, wasted = [], []
    for start, end in spans:
        inside = min(size, end - start)
        used += [(start, start + inside)] if inside else []
        wasted += [(start + inside, end)] if start + inside < end else []
        size -= inside
    if size:
        raise Malformed("a file is longer than its chain of clusters")
    return used, wasted


def _records(folder: Source) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Give name and record of all that a folder holds."""
    if folder.size > FOLDER_LIMIT:
        raise Malformed(f"a folder has over {FOLDER_LIMIT} bytes")
    raw = folder.read(0, folder.size)
    parts: dict[int, bytes] = {}  # of a long name, by number
    for short, *record in RECORD.iter_unpack(raw[: len(raw) // 32 * 32]):
        at, first = record[0], short[0]
        if first == FREE:
            return
        if at & 0x3F == LONG_NAME and first != DELETED:
            record_bytes = RECORD.pack(short, *record)
            parts[first & 0x1F] = record_bytes[1:11] + record_bytes[14:26] + record_bytes[28:]
        elif first not in (DELETED, DOT):
            yield _name(short, record[1], parts), tuple(record)
            parts = {}
        else:
            parts = {}


def _name(short: bytes, case: int, parts: dict[int, bytes]) -> str:
    """Return a long name, or a short one, whose parts may be in small letters."""
    long = b"".join(parts[number] for number in sorted(parts)).decode("utf-16-le", "replace")
    base = short[:8].decode("cp437").rstrip()
    extension = short[8:].decode("cp437").rstrip()
    base = base.lower() if case & SMALL_BASE else base
    extension = extension.lower() if case & SMALL_EXTENSION else extension
    name = long.partition("\0")[0] or (f"{base}.{extension}" if extension else base)
    if "/" in name or name in (".", ".."):
        raise Malformed(f"a file cannot be named {name!r}")
    return name


def _stamp(day: int, time: int) -> str:
    """Return how people write a FAT date and time, which have no zone."""
    date = f"{1980 + (day >> 9)}-{day >> 5 & 15:02}-{day & 31:02}"
    return f"{date} {time >> 11:02}:{time >> 5 & 63:02}:{(time & 31) * 2:02}"
