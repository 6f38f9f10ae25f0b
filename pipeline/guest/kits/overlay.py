# SPDX-License-Identifier: GPL-3.0-or-later
"""Computes what overlayfs shows of one tree laid over another, from their ledgers.

The rules are those of the kernel's Documentation/filesystems/overlayfs.rst: an upper path hides the
lower one; directories are merged unless the upper one is opaque; a character device 0:0 in the
upper tree (a whiteout) hides the lower path and everything below it.
"""

from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.documents.ledger_line import text_of
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
    time_of,
)
from pipeline.guest.serial_port import StepFailed

OPAQUE_XATTR, OPAQUE_VALUE = "trusted.overlay.opaque", b"y"


@dataclass(frozen=True)
class VisiblePath:
    """A path that overlayfs shows: its line in its layer's ledger, and its inode's first path."""

    path: bytes
    line: bytes
    first: bytes
    upper: bool


def overlay(
    lower: Iterable[Line], upper: Iterable[Line], opaque: Container[bytes]
) -> Iterator[VisiblePath]:
    """Yield what overlayfs shows, by path; `opaque` are the upper tree's opaque directories."""
    hidden: set[bytes] = set()  # directories of the lower tree whose content is not shown
    gone: set[bytes] = set()  # other paths of the lower tree that are not shown
    first_of: dict[bytes, bytes] = {}
    for path, low, up in joined(lower, upper):
        covered = bool(up) or parent_of(path) in hidden
        if low and covered:
            if not is_folder(low):
                gone.add(path)
            elif parent_of(path) in hidden or not is_folder(up) or path in opaque:
                hidden.add(path)
        if up:
            if not is_whiteout(up):
                yield VisiblePath(path, up, link_of(up) or path, upper=True)
        elif not covered:
            first = link_of(low) or path
            if first in gone:
                first = first_of.setdefault(first, path)
            yield VisiblePath(path, low, first, upper=False)


def is_whiteout(line: bytes) -> bool:
    """Tell whether a line is that of a whiteout, a character device 0:0."""
    return b'"type":"char"' in line and entry(line).device == (0, 0)


def prove(earlier: Path, delta: Path, opaque: Container[bytes], later: Path) -> None:
    """Check that a delta laid over the earlier tree gives the later one.

    All three are final ledgers. Compared are all paths, types, modes, owners, sizes, contents,
    targets, devices, extended attributes and hard links, and the times of what the delta brings.
    Raise StepFailed, which names the first path that differs.
    """
    shown = overlay(read_ledger(earlier), read_ledger(delta), opaque)
    wanted = read_ledger(later)
    for found in shown:
        path, line = next(wanted, (b"", b""))
        if path != found.path:
            raise _wrong(min(path or found.path, found.path), "is there in only one of the trees")
        if reduced(line) != reduced(found.line):
            raise _wrong(path, "is not as in the new tree")
        if (link_of(line) or path) != found.first:
            raise _wrong(path, "is not linked as in the new tree")
        if found.upper and time_of(line) != time_of(found.line):
            raise _wrong(path, "does not have its time of the new tree")
    for path, _ in wanted:
        raise _wrong(path, "is missing")


def _wrong(path: bytes, what: str) -> StepFailed:
    shown = ascii(text_of(path))[1:-1]
    return StepFailed(STATUS_BUILD_FAILED, f"a kit would not lead to the new tree: {shown} {what}")
