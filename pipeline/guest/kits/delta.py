# SPDX-License-Identifier: GPL-3.0-or-later
"""Decides what a delta contains, from the difference of two final ledgers.

Paths that differ in more than their time are shipped, with their parent directories. Hard links are
shipped as a whole group, so that they are one inode again. Of deletions only the topmost paths are
listed. Directories that replace something else are opaque.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.documents.progress import STATUS_BUILD_FAILED
from pipeline.guest.kits.lines import (
    Line,
    entry,
    is_folder,
    joined,
    link_of,
    parent_of,
    read_ledger,
    reduced,
)
from pipeline.guest.serial_port import StepFailed

WHITEOUT_LIKE = b'"device":[0,0]'
OVERLAY_XATTR = b".overlay."


@dataclass(frozen=True)
class Delta:
    """The paths of the later tree that are shipped, and those of the earlier one to delete."""

    shipped: frozenset[bytes]  # with their parent directories
    deleted: tuple[bytes, ...]  # topmost ones, sorted
    opaque: frozenset[bytes]  # those of `shipped` that hide a non-directory


@dataclass
class _Links:
    """The hard links of a tree: the first path of each inode that has several."""

    first_of: dict[bytes, bytes]

    def first(self, path: bytes) -> bytes:
        return self.first_of.get(path, path)

    def groups(self) -> dict[bytes, list[bytes]]:
        found: dict[bytes, list[bytes]] = {}
        for path, first in self.first_of.items():
            found.setdefault(first, [first]).append(path)
        return found

    def note(self, path: bytes, line: bytes) -> None:
        if line and (first := link_of(line)) is not None:
            self.first_of[path] = first


def compare(earlier: Path, later: Path) -> Delta:
    """Return the delta between the trees of two final ledgers (`ledger.jsonl.gz`).

    Raise StepFailed, which names the path, if the later tree has something that overlayfs would
    interpret itself.
    """
    changed: set[bytes] = set()
    deleted: set[bytes] = set()
    opaque: set[bytes] = set()
    topmost: list[bytes] = []
    vanished: set[bytes] = set()  # directories of the earlier tree that no longer are any
    old_links, new_links = _Links({}), _Links({})
    for path, old, new in joined(read_ledger(earlier), _checked(read_ledger(later))):
        old_links.note(path, old)
        new_links.note(path, new)
        if old == new:
            continue
        if not new:
            deleted.add(path)
            if parent_of(path) not in vanished:
                topmost.append(path)
        elif not old or reduced(old) != reduced(new):
            changed.add(path)
        if old and is_folder(old) and not is_folder(new):
            vanished.add(path)
        if old and new and is_folder(new) and not is_folder(old):
            opaque.add(path)
    changed |= _torn_groups(old_links, new_links, changed, deleted)
    shipped = frozenset(_with_parents(changed, topmost))
    return Delta(shipped, tuple(topmost), frozenset(opaque))


def _checked(lines: Iterable[Line]) -> Iterator[Line]:
    for path, line in lines:
        if WHITEOUT_LIKE in line or OVERLAY_XATTR in line:
            _refuse_overlay_marks(line)
        yield path, line


def _refuse_overlay_marks(line: bytes) -> None:
    found = entry(line)
    what = ""
    if found.type == "char" and found.device == (0, 0):
        what = "is a character device 0:0, which overlayfs takes for a deletion"
    if any(name.split(".")[1:2] == ["overlay"] for name in found.xattrs):
        what = "has an extended attribute of overlayfs"
    if what:
        shown = ascii(found.path)[1:-1]
        raise StepFailed(STATUS_BUILD_FAILED, f"no kit can be made: {shown} {what}")


def _torn_groups(
    old: _Links, new: _Links, changed: Iterable[bytes], deleted: Iterable[bytes]
) -> set[bytes]:
    """Return the paths that must be shipped so that all hard links are as in the later tree."""
    groups, shipped = new.groups(), set(changed)
    gone = set(deleted)
    for members in groups.values():
        from_one = len({old.first(path) for path in members}) == 1
        if not from_one or not shipped.isdisjoint(members):
            shipped.update(members)
    for members in old.groups().values():
        left = (path for path in members if path not in shipped and path not in gone)
        for first in sorted({new.first(path) for path in left})[1:]:
            shipped.update(groups.get(first, [first]))  # one part of the split inode can stay
    return shipped


def _with_parents(changed: Iterable[bytes], deleted: Iterable[bytes]) -> set[bytes]:
    found = set(changed)
    for path in (*changed, *deleted):
        folder = parent_of(path)
        while folder and folder not in found:
            found.add(folder)
            folder = parent_of(folder)
    return found
