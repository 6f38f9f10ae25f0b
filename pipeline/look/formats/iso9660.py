# SPDX-License-Identifier: GPL-3.0-or-later
"""ISO 9660 with Rock Ridge and El Torito, and the boot records of a hybrid image.

Sources: ECMA-119, IEEE P1282, the El Torito specification 1.0. pycdlib reads these formats, too,
but takes three times as long and has no limits.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from pipeline.look.formats.container import (
    Container,
    Entry,
    Format,
    Region,
    Structure,
    listed,
    name_of,
)
from pipeline.look.formats.iso_account import PATH_TABLES, closes, regions_of_trees, rest_of_entry
from pipeline.look.formats.iso_partition import (
    appended_partitions,
    apple_regions,
    regions_of_partition,
)
from pipeline.look.formats.iso_tree import SECTOR, Tree
from pipeline.look.formats.partitions import boot_structures, gpt_regions
from pipeline.look.formats.rock_ridge import both_orders
from pipeline.look.formats.source import BadFormat, ByteSource, Extents, Spool

SYSTEM_AREA = 16 * SECTOR
DESCRIPTORS_LIMIT = 64
CATALOGUE_PLACE = "boot record: place of the boot catalogue"
BOOT, PRIMARY, SUPPLEMENTARY, LAST = 0, 1, 2, 255

ROOT_RECORD = "root directory record"
# Fields of a volume descriptor: name, first byte, end, kind.
FIELDS = (
    ("system identifier", 8, 40, "identifier"),
    ("volume identifier", 40, 72, "identifier"),
    ("escape sequences", 88, 120, "structure"),
    ("logical block size", 128, 132, "structure"),
    (ROOT_RECORD, 174, 190, "structure"),
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
class Descriptor:
    """A volume descriptor: its type, its sector, and the offset of that."""

    kind: int
    raw: bytes
    start: int

    @property
    def title(self) -> str:
        names = {BOOT: "boot record", PRIMARY: "primary volume descriptor"}
        return names.get(self.kind, "supplementary volume descriptor")


def _matches(source: ByteSource) -> bool:
    return source.size >= SYSTEM_AREA + SECTOR and source.read(SYSTEM_AREA + 1, 5) == b"CD001"


def _read(source: ByteSource, spool: Spool) -> Container:
    descriptors = list(_descriptors(source))
    structures = boot_structures(source)
    boot: list[Entry] = []
    trees: list[Tree] = []
    for descriptor in descriptors:
        if descriptor.kind == BOOT:
            found, images = _el_torito(source, descriptor)
            structures += found
            boot += images
        else:
            structures += _fields(source, descriptor)
            trees.append(Tree(source, descriptor.raw, spool, joliet=descriptor.kind != PRIMARY))
    first = next((d.raw for d in descriptors if d.kind == PRIMARY), bytes(SECTOR))
    volume = int.from_bytes(first[80:84], "little") * SECTOR
    own = [entry for tree in trees if not tree.joliet for entry in tree.entries()]
    joliet = [list(tree.entries()) for tree in trees if tree.joliet]
    primary = next((tree for tree in trees if not tree.joliet), None)
    again = [*regions_of_partition(source, spool, own, primary)] if primary else []
    appended = list(appended_partitions(source, own))
    ordered, _ = listed(_without_doubles([*boot, *own, *appended], structures))
    return Container(
        structures,
        lambda: iter(ordered),
        lambda: [
            Region("system area", (0, SYSTEM_AREA)),
            *(Region(d.title, (d.start, d.start + SECTOR)) for d in descriptors),
            *gpt_regions(source),
            *apple_regions(source),
            *regions_of_trees(trees, own, joliet),
            *again,
        ],
        rest=lambda entry, _: rest_of_entry(trees, entry),
        place=lambda entry: (0, entry.content.stored()[0][0]) if entry.content else None,
        align=SECTOR,
        closes=partial(closes, source.size, volume),
    )


ISO9660 = Format("iso9660", _matches, _read)


def _descriptors(source: ByteSource) -> Iterator[Descriptor]:
    """Yield the known volume descriptors, up to the terminator."""
    for number in range(DESCRIPTORS_LIMIT):
        start = SYSTEM_AREA + number * SECTOR
        raw = source.read(start, SECTOR)
        if raw[1:6] != b"CD001":
            raise BadFormat(f"volume descriptor {number + 1} is none")
        if raw[0] == LAST:
            return
        if raw[0] in (BOOT, PRIMARY, SUPPLEMENTARY):
            yield Descriptor(raw[0], raw, start)
    raise BadFormat(f"it has over {DESCRIPTORS_LIMIT} volume descriptors")


def _fields(source: ByteSource, descriptor: Descriptor) -> Iterator[Structure]:
    if descriptor.raw[128:130] != b"\0\x08":
        raise BadFormat("its logical blocks do not have 2048 bytes")
    for name, first, end, kind in FIELDS:
        content = descriptor.raw[first:end]
        text = None
        if kind in ("identifier", "time") and descriptor.kind == PRIMARY:
            text = name_of(content[:16] if kind == "time" else content).strip(" \0")
        span = (descriptor.start + first, descriptor.start + end)
        follows = name == ROOT_RECORD and content == _root_says(source, descriptor)
        yield Structure(f"{descriptor.title}: {name}", span, content, kind, text, follows=follows)
    for name, first, end, places in _places(descriptor.raw):
        span = (descriptor.start + first, descriptor.start + end)
        content = descriptor.raw[first:end]
        title = f"{descriptor.title}: {name}"
        yield Structure(title, span, content, "layout", places=tuple(n * SECTOR for n in places))


def _root_says(source: ByteSource, descriptor: Descriptor) -> bytes:
    """Return the bytes of the root folder's first record that the descriptor has a copy of."""
    start = int.from_bytes(descriptor.raw[158:162], "little") * SECTOR
    return source.read(start + 18, 16) if start + SECTOR <= source.size else b""


def _places(raw: bytes) -> Iterator[tuple[str, int, int, tuple[int, ...]]]:
    """Yield the fields of a descriptor that depend on the layout: name, first byte, end, blocks.

    A field whose two byte orders contradict each other has no blocks, since it does not follow
    from the layout.
    """
    size = both_orders(raw[80:88])
    yield "volume size", 80, 88, (size,) if size is not None else ()
    tables = [int.from_bytes(raw[at : at + 4], order) for order, at in PATH_TABLES]
    length = both_orders(raw[132:140])
    yield "path table size", 132, 140, (tables[0],) if length is not None else ()
    yield "path table places", 140, 156, tuple(tables)
    start = both_orders(raw[158:166])
    honest = start is not None and both_orders(raw[166:174]) is not None and not raw[157]
    yield "root directory place", 156, 174, (start,) if honest and start else ()


def _el_torito(source: ByteSource, descriptor: Descriptor) -> tuple[list[Structure], list[Entry]]:
    """Return the boot catalogue's entries as structures, and the boot images as entries."""
    if not descriptor.raw[7:39].startswith(b"EL TORITO SPECIFICATION"):
        return [], []
    (block,) = struct.unpack_from("<I", descriptor.raw, 71)
    start, at = block * SECTOR, descriptor.start + 71
    structures = [
        Structure(CATALOGUE_PLACE, (at, at + 4), descriptor.raw[71:75], "layout", places=(start,))
    ]
    raw = source.read(start, SECTOR)
    images: list[Entry] = []
    for number in range(SECTOR // 32):
        entry, at = raw[number * 32 : number * 32 + 32], start + number * 32
        sectors, image = struct.unpack_from("<HI", entry, 6)
        if any(entry):
            name, place = f"boot catalogue entry {number}", (at + 8, at + 12)
            structures.append(Structure(name, (at, at + 32), entry[:8] + entry[12:]))
            where = entry[8:12]
            structures.append(
                Structure(f"{name}: its place", place, where, "layout", places=(image * SECTOR,))
            )
        if entry[0] in (0x88, 0x00) and number:
            begin = image * SECTOR
            if image and begin + sectors * 512 <= source.size:
                content = Extents(source, [(begin, begin + sectors * 512)])
                images.append(Entry(f"[boot image {len(images) + 1}]", {}, content))
    return structures, images


def _without_doubles(entries: list[Entry], structures: list[Structure]) -> Iterator[Entry]:
    """Yield the entries without boot images that are also files.

    The boot catalogue loses its content as a file, since its entries are structures.
    """
    catalogues = {s.places[0] for s in structures if s.name == CATALOGUE_PLACE}
    files = [entry.content.stored()[0] for entry in entries if entry.content and entry.facts]
    starts = {start for start, _ in files}
    for entry in entries:
        boot = not entry.facts and entry.content is not None
        if entry.content and entry.facts and entry.content.stored()[0][0] in catalogues:
            entry.content = None
        if not boot or (entry.content and entry.content.stored()[0][0] not in starts):
            yield entry
