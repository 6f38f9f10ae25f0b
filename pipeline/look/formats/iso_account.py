# SPDX-License-Identifier: GPL-3.0-or-later
"""The account of ISO 9660's own bytes: which of them follow from the entries, and which do not."""

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

from pipeline.look.formats.container import Entry, Fact, Region
from pipeline.look.formats.iso_tree import SECTOR, Folder, Tree

PLAIN = b"\0\1\0\0\1"  # the rest of an ordinary record: volume 1, no extended attributes
REPEATED = ("type", "time record", "structure flags")  # facts that Joliet's records repeat
PAD = 150 * SECTOR  # the padding that mkisofs adds after the files
BOUNDARIES = (16 * SECTOR, 1024 * 1024)  # to multiples of which it pads an image
# Where a descriptor has the locations of its path tables; the second and fourth are copies.
Order = Literal["little", "big"]
PATH_TABLES: tuple[tuple[Order, int], ...] = (
    ("little", 140),
    ("little", 144),
    ("big", 148),
    ("big", 152),
)
TABLE_RECORD = {"little": struct.Struct("<BBIH"), "big": struct.Struct(">BBIH")}


def closes(size: int, volume: int, start: int, end: int) -> bool:
    """Return whether zeros up to `end` are padding of mkisofs, in an image of `size` bytes.

    The image's descriptor states `volume` bytes. A zero sector between files may be the one at
    which all empty files are recorded.
    """
    length = end - (start + -start % SECTOR)
    if end == size:
        fill = any(end % full == 0 and PAD <= length < PAD + full for full in BOUNDARIES)
        return volume == size and (length in (0, PAD) or fill)
    return 0 <= length < 2 * SECTOR or PAD <= length < PAD + SECTOR


def regions_of_trees(
    trees: Sequence[Tree], own: Sequence[Entry], joliet: Sequence[Sequence[Entry]]
) -> Iterator[Region]:
    """Yield the regions of path tables, of folders' `.` and `..` records, and of Joliet records."""
    known = {entry.path: entry for entry in own}
    listed = iter(joliet)
    for tree in trees:
        facts = {entry.path: entry.facts for entry in (next(listed) if tree.joliet else ())}
        title = "Joliet directory records" if tree.joliet else "directory records"
        for path, folder in tree.folders.items():
            says = b""
            if tree.joliet:  # else it is in the rest of the folder's entry
                own_facts = facts.get(path) if path else _facts_of_root(folder, known.get(""))
                says = tree.rest_of_folder(path, own_facts)
            yield Region(title, folder.own, _gives(b"" if says == 2 * PLAIN else says))
        for area in tree.areas:
            yield Region("continuations of directory records", area, _gives(b""))
        for order, at in PATH_TABLES:
            yield from path_table(tree, order, at)
    second = [tree for tree in trees if tree.joliet]
    for tree, entries in zip(second, joliet, strict=True):
        for entry in entries:
            if entry.record:
                rest = _joliet(tree, entry, known.get(entry.path))
                yield Region("Joliet directory records", entry.record, _gives(rest))


def _facts_of_root(folder: Folder, known: Entry | None) -> Mapping[str, Fact] | None:
    """Return the facts of Joliet's root folder, if the primary tree's root agrees with them."""
    facts = folder.pair[0].facts() if folder.pair else {}
    if known is None or any(facts.get(name) != known.facts[name] for name in REPEATED):
        return None
    return facts


def _gives(rest: bytes) -> Callable[[], bytes]:
    return lambda: rest


def _joliet(tree: Tree, entry: Entry, known: Entry | None) -> bytes:
    """Return a Joliet record, or nothing if it follows from the primary record of its path."""
    raw = tree.rests[entry.record[0]] if entry.record else b""
    if known is not None and raw == PLAIN:
        places = [e.content.stored() if e.content else () for e in (entry, known)]
        if places[0] == places[1] and all(entry.facts[f] == known.facts[f] for f in REPEATED):
            return b""
    return repr((entry.path, entry.facts, entry.content and entry.content.size)).encode() + raw


def path_table(tree: Tree, order: Order, at: int) -> Iterator[Region]:
    """Yield the path table whose location is at `at` of the tree's descriptor, if there is one."""
    (size,) = struct.unpack_from("<I", tree.raw, 132)
    block = int.from_bytes(tree.raw[at : at + 4], order)
    if block:
        start = block * SECTOR
        title = "Joliet path table" if tree.joliet else "path table"
        yield Region(title, (start, start + size), lambda: _rest_of_table(tree, order, start, size))


def _rest_of_table(tree: Tree, order: Order, start: int, size: int) -> bytes:
    """Return a path table, or nothing if it lists exactly the folders of the tree, in order."""
    if start + size > tree.source.size:
        return b"beyond the end"
    raw, at, found = tree.source.read(start, size), 0, list[tuple[int, bytes, int]]()
    while at + 8 <= len(raw) and raw[at]:
        length, extra, block, parent = TABLE_RECORD[order].unpack_from(raw, at)
        end = at + 8 + length
        if extra or raw[end : end + length % 2].strip(b"\0"):
            return raw
        found.append((block * SECTOR, raw[at + 8 : end], parent))
        at = end + length % 2
    numbers = {start: number for number, (start, _, _) in enumerate(found, 1)}
    expected = {
        folder.span[0]: (folder.name, numbers.get(tree.folders[folder.parent].span[0]))
        for folder in tree.folders.values()
    }
    listed = {start: (name, parent) for start, name, parent in found}
    parents = [parent for _, _, parent in found]
    fine = len(found) == len(listed) and listed == expected and parents == sorted(parents)
    return b"" if fine and at == len(raw) else raw


def rest_of_entry(trees: Sequence[Tree], entry: Entry) -> bytes:
    """Return the bytes of an entry's records that are not facts; for a folder, `.` and `..` too."""
    if entry.record is None:
        return b""
    tree = next(tree for tree in trees if entry.record[0] in tree.rests)
    rest = tree.rests[entry.record[0]]
    if entry.facts["type"] == "dir" and entry.path in tree.folders:
        rest += tree.rest_of_folder(entry.path, entry.facts)
    return rest
