"""ISO 9660 with Rock Ridge and El Torito, and the boot records of a hybrid image.

Sources: ECMA-119, IEEE P1282, the El Torito specification 1.0. pycdlib reads them too, in three
times the time and without limits.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.compare.formats.container import (
    PATH_LIMIT,
    Container,
    Entry,
    Fact,
    Format,
    Region,
    Structure,
    Tally,
    listed,
    name_of,
)
from pipeline.compare.formats.partitions import boot_structures
from pipeline.compare.formats.ranges import Span
from pipeline.compare.formats.rock_ridge import Extensions, read_extensions, say_time
from pipeline.compare.formats.source import Extents, Malformed, Source, Spool

SECTOR = 2048
SYSTEM_AREA = 16 * SECTOR
DESCRIPTORS_LIMIT = 64
FOLDER_LIMIT = 16 * 1024 * 1024  # bytes of a folder's records
PARTS_LIMIT = 1024  # of 4 GiB
DIRECTORY, CONTINUES = 0x02, 0x80
RECORD = struct.Struct("<BBIxxxxIxxxx7sBBBHxxB")
BOOT, PRIMARY, SUPPLEMENTARY, LAST = 0, 1, 2, 255

# Fields of a volume descriptor: name, first byte, end, kind.
FIELDS = (
    ("system identifier", 8, 40, "identifier"),
    ("volume identifier", 40, 72, "identifier"),
    ("volume size", 80, 88, "layout"),
    ("escape sequences", 88, 120, "structure"),
    ("logical block size", 128, 132, "structure"),
    ("path table size and places", 132, 156, "layout"),
    ("root directory record", 156, 190, "layout"),
    ("volume set identifier", 190, 318, "identifier"),
    ("publisher", 318, 446, "identifier"),
    ("preparer", 446, 574, "identifier"),
    ("application", 574, 702, "identifier"),
    ("file identifiers", 702, 813, "identifier"),
    ("creation time", 813, 830, "time"),
    ("modification time", 830, 847, "time"),
    ("expiration time", 847, 864, "time"),
    ("effective time", 864, 881, "time"),
    ("application use", 883, 1395, "structure"),
)


@dataclass(frozen=True)
class Record:
    """A directory record: its identifier, extent, and what Rock Ridge adds."""

    name: bytes
    span: Span
    time: bytes
    flags: int
    rock_ridge: Extensions


@dataclass(frozen=True)
class Descriptor:
    """A volume descriptor: what it describes, and where it lies."""

    kind: int
    raw: bytes
    start: int

    @property
    def title(self) -> str:
        names = {BOOT: "boot record", PRIMARY: "primary volume descriptor"}
        return names.get(self.kind, "supplementary volume descriptor")


def _matches(source: Source) -> bool:
    return source.size >= SYSTEM_AREA + SECTOR and source.read(SYSTEM_AREA + 1, 5) == b"CD001"


def _read(source: Source, spool: Spool) -> Container:
    descriptors = list(_descriptors(source))
    structures = boot_structures(source)
    regions = [Region("system area", (0, SYSTEM_AREA))]
    entries: list[Entry] = []
    for descriptor in descriptors:
        span = (descriptor.start, descriptor.start + SECTOR)
        regions.append(Region(descriptor.title, span))
        if descriptor.kind == BOOT:
            found, images = _el_torito(source, descriptor)
            structures += found
            entries += images
        else:
            structures += _fields(descriptor)
            regions += _path_tables(descriptor)
            tree = _Tree(source, descriptor, spool)
            names = "directory" if descriptor.kind == PRIMARY else "Joliet directory"
            found_entries = list(tree.entries())
            entries += found_entries if descriptor.kind == PRIMARY else []
            regions += [Region(f"{names} records", span) for span in tree.folders]
    ordered, _ = listed(_without_doubles(entries))
    return Container(structures, lambda: iter(ordered), regions)


ISO9660 = Format("iso9660", _matches, _read)


def _descriptors(source: Source) -> Iterator[Descriptor]:
    """Give the volume descriptors, except for the one that ends them."""
    for number in range(DESCRIPTORS_LIMIT):
        start = SYSTEM_AREA + number * SECTOR
        raw = source.read(start, SECTOR)
        if raw[1:6] != b"CD001":
            raise Malformed(f"volume descriptor {number + 1} is none")
        if raw[0] == LAST:
            return
        if raw[0] in (BOOT, PRIMARY, SUPPLEMENTARY):
            yield Descriptor(raw[0], raw, start)
    raise Malformed(f"it has over {DESCRIPTORS_LIMIT} volume descriptors")


def _fields(descriptor: Descriptor) -> Iterator[Structure]:
    if descriptor.raw[128:130] != b"\0\x08":
        raise Malformed("its logical blocks do not have 2048 bytes")
    for name, first, end, kind in FIELDS:
        content = descriptor.raw[first:end]
        text = None
        if kind in ("identifier", "time") and descriptor.kind == PRIMARY:
            text = name_of(content[:16] if kind == "time" else content).strip(" \0")
        span = (descriptor.start + first, descriptor.start + end)
        yield Structure(f"{descriptor.title}: {name}", span, content, kind, text)


def _path_tables(descriptor: Descriptor) -> Iterator[Region]:
    (size,) = struct.unpack_from("<I", descriptor.raw, 132)
    for order, at in (("<", 140), ("<", 144), (">", 148), (">", 152)):
        (block,) = struct.unpack_from(f"{order}I", descriptor.raw, at)
        if block:
            yield Region("path table", (block * SECTOR, block * SECTOR + size))


class _Tree:
    """The folders of a volume; `folders` are the extents of those that were read."""

    def __init__(self, source: Source, descriptor: Descriptor, spool: Spool) -> None:
        self._source = source
        self._spool = spool
        self._joliet = descriptor.kind != PRIMARY
        self._root = self._record(descriptor.raw[156:190], skip=0)
        self._skip = 0
        self.folders: list[Span] = []

    def entries(self) -> Iterator[Entry]:
        """Give every entry; raise Malformed for a folder that contains itself."""
        pending, seen, tally = [("", self._root)], set(), Tally()
        while pending:
            path, record = pending.pop()
            if record.span[0] in seen or len(path) > PATH_LIMIT:
                raise Malformed(f"the folder {path[:80]} contains itself or is in two folders")
            seen.add(record.span[0])
            self.folders.append(record.span)
            for parts in self._members(record.span):
                name = self._name(parts[0])
                inside = f"{path}/{name}" if path else name
                yield tally.count(self._entry(inside, parts))
                if parts[0].flags & DIRECTORY:
                    pending.append((inside, parts[0]))

    def _members(self, span: Span) -> Iterator[list[Record]]:
        """Give what a folder holds: the records of each file, of which large ones have several."""
        parts: list[Record] = []
        for number, record in enumerate(self._records(span)):
            if number < 2:  # the folder itself, and the one it is in
                if number == 0 and span == self._root.span:
                    self._skip = record.rock_ridge.skip
                continue
            parts.append(record)
            if len(parts) > PARTS_LIMIT:
                raise Malformed(f"a file is in over {PARTS_LIMIT} parts")
            if not record.flags & CONTINUES:
                yield parts
                parts = []

    def _records(self, span: Span) -> Iterator[Record]:
        if span[1] - span[0] > FOLDER_LIMIT:
            raise Malformed(f"a folder has over {FOLDER_LIMIT} bytes")
        for start in range(span[0], span[1], SECTOR):
            self._spool.spend(SECTOR)
            sector, at = self._source.read(start, min(SECTOR, span[1] - start)), 0
            while at < len(sector) and sector[at]:
                yield self._record(sector[at : at + sector[at]], skip=self._skip)
                at += sector[at]

    def _record(self, raw: bytes, *, skip: int) -> Record:
        length, _, block, size, time, flags, unit, gap, _, name_length = RECORD.unpack_from(raw)
        if len(raw) < length or RECORD.size + name_length > length:
            raise Malformed("a directory record is shorter than it says")
        if unit or gap:
            raise Malformed("it has interleaved files")
        name = raw[RECORD.size : RECORD.size + name_length]
        use = raw[RECORD.size + name_length + (name_length + 1) % 2 : length]
        extensions = Extensions()
        if not self._joliet:
            extensions = read_extensions(self._source, use[skip:], self._spool)
        start = block * SECTOR
        return Record(name, (start, start + size), time, flags, extensions)

    def _name(self, record: Record) -> str:
        if self._joliet:
            name = record.name.decode("utf-16-be", "replace")
        else:
            name = name_of(record.rock_ridge.name or record.name.removesuffix(b";1"))
        if "/" in name or "\0" in name or name in ("", ".", ".."):
            raise Malformed(f"a file cannot be named {name[:80]!r}")
        return name

    def _entry(self, path: str, parts: list[Record]) -> Entry:
        first = parts[0]
        folder = bool(first.flags & DIRECTORY)
        facts: dict[str, Fact] = {
            "type": "dir" if folder else "file",
            "time record": say_time(first.time),
            "structure flags": first.flags,
            **first.rock_ridge.facts,
        }
        empty = folder or "target" in facts or all(start == end for start, end in _spans(parts))
        return Entry(path, facts, None if empty else Extents(self._source, _spans(parts)))


def _spans(parts: list[Record]) -> list[Span]:
    return [part.span for part in parts]


def _el_torito(source: Source, descriptor: Descriptor) -> tuple[list[Structure], list[Entry]]:
    """Return the boot catalogue's entries, and the boot images."""
    if not descriptor.raw[7:39].startswith(b"EL TORITO SPECIFICATION"):
        return [], []
    (block,) = struct.unpack_from("<I", descriptor.raw, 71)
    start = block * SECTOR
    raw = source.read(start, SECTOR)
    structures: list[Structure] = []
    images: list[Entry] = []
    for number in range(SECTOR // 32):
        entry, at = raw[number * 32 : number * 32 + 32], start + number * 32
        if any(entry):
            name, place = f"boot catalogue entry {number}", (at + 8, at + 12)
            structures.append(Structure(name, (at, at + 32), entry[:8] + entry[12:]))
            structures.append(Structure(f"{name}: its place", place, entry[8:12], "layout"))
        if entry[0] in (0x88, 0x00) and number:
            sectors, image = struct.unpack_from("<HI", entry, 6)
            begin = image * SECTOR
            if image and begin + sectors * 512 <= source.size:
                content = Extents(source, [(begin, begin + sectors * 512)])
                images.append(Entry(f"[boot image {len(images) + 1}]", {}, content))
    return structures, images


def _without_doubles(entries: list[Entry]) -> Iterator[Entry]:
    """Leave out the boot images that are files, too."""
    files = [entry.content.stored()[0] for entry in entries if entry.content and entry.facts]
    starts = {start for start, _ in files}
    for entry in entries:
        boot = not entry.facts and entry.content is not None
        if not boot or (entry.content and entry.content.stored()[0][0] not in starts):
            yield entry
