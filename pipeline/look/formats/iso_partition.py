# SPDX-License-Identifier: GPL-3.0-or-later
"""Second metadata of a hybrid ISO: for its partition, and for Macintosh computers.

With `-partition_offset`, xorriso writes descriptors, path tables and folders a second time, with
locations relative to the first partition, so that the partition can be mounted by itself. With
`-hfsplus`, an HFS+ file system has the files, too; it is not opened.
"""

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from pipeline.documents import gpt, mbr
from pipeline.look.formats.container import Entry, Region
from pipeline.look.formats.iso_account import PATH_TABLES, path_table
from pipeline.look.formats.iso_tree import SECTOR, Tree
from pipeline.look.formats.partitions import has_boot_record, partitions
from pipeline.look.formats.ranges import Span
from pipeline.look.formats.rock_ridge import both_orders
from pipeline.look.formats.source import ByteSource, Extents, Spool

SYSTEM_AREA = 16 * SECTOR
DESCRIPTORS_LIMIT = 64
PRIMARY, LAST = 1, 255
MAP_ENTRY = 512  # bytes of an entry of an Apple partition map, at least
MAP_LIMIT = 16


def partition_start(source: ByteSource) -> int:
    """Return the offset of the first partition if it has a volume descriptor; else 0."""
    if not has_boot_record(source):
        return 0
    record = source.read(mbr.ENTRIES_AT, mbr.ENTRY.size)
    start = mbr.read_entry(record).first * gpt.SECTOR
    at = start + SYSTEM_AREA
    found = start > 0 and at + SECTOR <= source.size and source.read(at + 1, 5) == b"CD001"
    return start if found else 0


def regions_of_partition(
    source: ByteSource, spool: Spool, own: Sequence[Entry], primary: Tree
) -> Iterator[Region]:
    """Yield the regions of a partition's own metadata, which should agree with the volume's.

    `own` are the entries of the volume's `primary` tree.
    """
    start = partition_start(source)
    if not start:
        return
    inner = Extents(source, [(start, source.size)])
    for number in range(DESCRIPTORS_LIMIT):
        at = SYSTEM_AREA + number * SECTOR
        raw = inner.read(at, SECTOR)
        if raw[1:6] != b"CD001" or raw[0] == LAST:
            return
        if raw[0] == PRIMARY:
            rest = partial(_rest_of_descriptor, raw, primary.raw, start)
            yield Region("partition's volume descriptor", (start + at, start + at + SECTOR), rest)
            for region in _tree(Tree(inner, raw, spool, joliet=False), own, primary, start):
                span = start + region.span[0], start + region.span[1]
                yield Region(f"partition's {region.name}", span, region.rest)


def _rest_of_descriptor(raw: bytes, known: bytes, start: int) -> bytes:
    """Return the partition's descriptor, or nothing if all of it follows from the volume's."""
    sizes = both_orders(raw[80:88]), both_orders(known[80:88])
    shorter = sizes[1] is not None and sizes[0] == sizes[1] - start // SECTOR
    roots = both_orders(raw[158:166]), both_orders(raw[166:174])
    tables = all(any(raw[at : at + 4]) == any(known[at : at + 4]) for _, at in PATH_TABLES)
    same = all(raw[a:b] == known[a:b] for a, b in ((0, 80), (88, 140), (156, 158), (174, SECTOR)))
    return b"" if same and shorter and tables and None not in roots else raw


def _tree(tree: Tree, own: Sequence[Entry], primary: Tree, start: int) -> Iterator[Region]:
    """Yield the regions of a tree's folders and path tables, with what the primary tree lacks."""
    entries = list(tree.entries())
    known = {entry.path: entry for entry in own}
    facts = {entry.path: entry.facts for entry in entries}
    for path, folder in tree.folders.items():
        rest = tree.rest_of_folder(path, facts.get(path))
        expected = (
            b""
            if path not in primary.folders
            else primary.rest_of_folder(path, known[path].facts if path in known else None)
        )
        yield Region("directory records", folder.own, _gives(b"" if rest == expected else rest))
    for entry in entries:
        if entry.record:
            rest = _rest_of_entry(tree, entry, primary, known, start)
            yield Region("directory records", entry.record, _gives(rest))
    for area in tree.areas:
        yield Region("continuations of directory records", area, _gives(b""))
    for order, at in PATH_TABLES:
        yield from path_table(tree, order, at)


def _rest_of_entry(
    tree: Tree, entry: Entry, primary: Tree, known: Mapping[str, Entry], start: int
) -> bytes:
    """Return a record, or nothing if it agrees with the primary tree's record of the same path."""
    other = known.get(entry.path)
    rest = tree.rests[entry.record[0]] if entry.record else b""
    if other is not None and other.record is not None:
        spans = _spans(entry, start), _spans(other, 0)
        same = entry.facts == other.facts and rest == primary.rests[other.record[0]]
        if same and spans[0] == spans[1]:
            return b""
    return repr((entry.path, entry.facts, _spans(entry, start))).encode() + rest


def _spans(entry: Entry, start: int) -> list[Span]:
    stored = entry.content.stored() if entry.content else ()
    return [(first + start, end + start) for first, end in stored]


def _gives(rest: bytes) -> Callable[[], bytes]:
    return lambda: rest


def appended_partitions(source: ByteSource, own: Sequence[Entry]) -> Iterator[Entry]:
    """Yield the partitions after the end of all files, as `-append_partition` writes them."""
    stored = [entry.content.stored() for entry in own if entry.content]
    last = max((end for spans in stored for _, end in spans), default=SYSTEM_AREA)
    for number, (start, end) in enumerate(partitions(source), 1):
        if start >= last and end > start:
            yield Entry(f"[partition {number}]", {}, Extents(source, [(start, end)]))


def apple_regions(source: ByteSource) -> Iterator[Region]:
    """Yield the HFS+ file systems that an Apple partition map in the system area lists."""
    for step in (2048, MAP_ENTRY):
        at = step
        for _ in range(MAP_LIMIT):
            entry = source.read(at, MAP_ENTRY)
            if entry[:2] != b"PM":
                break
            first, count = struct.unpack_from(">II", entry, 8)
            if entry[48:57] == b"Apple_HFS":
                yield Region("HFS+ file system", (first * step, (first + count) * step))
            at += step
