# SPDX-License-Identifier: GPL-3.0-or-later
"""The file allocation table: which clusters a file has, and in which order changes reach the disk.

What is changed here is in memory until `commit`. Only entries of clusters that no folder names yet,
or none any more, are ever changed (and the last one of a folder that grows), one sector at a time;
so a commit that is cut off damages no file, in whichever order its sectors arrive.
"""

from array import array
from collections.abc import Iterator
from typing import Protocol

from pipeline.documents.fat import BAD, CHAIN_END, LAST, MASK
from pipeline.kits.install.failure import InfrastructureFailed
from pipeline.kits.install.fat_layout import SECTOR, Damaged, Layout

PER_SECTOR = SECTOR // 4
PIECE = 1024 * 1024

Run = tuple[int, int]  # the first cluster, and how many follow each other


class Device(Protocol):
    """A medium, in bytes from its beginning."""

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes, possibly from memory."""

    def write(self, offset: int, content: bytes) -> None:
        """Write; it may reach the medium at any time and in any order."""

    def flush(self) -> None:
        """Return when all that was written is on the medium."""

    def read_back(self, offset: int, length: int) -> bytes:
        """Return `length` bytes from the medium itself as far as that is possible."""


class AllocationTable:
    """Both copies of the table as one; `used` marks the clusters that have an owner."""

    def __init__(self, blocks: Device, layout: Layout) -> None:
        self._blocks = blocks
        self._layout = layout
        self._entries = array("I", self._load(layout.fats[0]))
        self.used = bytearray(layout.clusters + 2)
        self._changed: set[int] = set()  # sectors
        self._next = 2

    def chain(self, cluster: int) -> list[Run]:
        """Return the clusters of a file or folder and mark them as used.

        Raise Damaged where they have an owner already, or lead nowhere.
        """
        runs: list[Run] = []
        first, count = cluster, 0
        while True:
            if not self._layout.holds(cluster) or self.used[cluster]:
                raise Damaged("two files share a cluster, or one has a cluster that does not exist")
            self.used[cluster] = 1
            count += 1
            following = self._entries[cluster] & MASK
            if following != cluster + 1:
                runs.append((first, count))
                if following >= CHAIN_END[32]:
                    return runs
                first, count = following, 0
            cluster = following

    def free(self) -> int:
        """Return how many clusters have no owner, even if the table marks them as used."""
        bad = sum(entry & MASK == BAD for entry in self._owned())
        return self.used.count(0) - 2 - bad

    def _owned(self) -> "array[int]":
        return self._entries[2 : self._layout.clusters + 2]

    def reclaim(self) -> None:
        """Free what has no owner, and copy the first table to the second."""
        for cluster, entry in enumerate(self._owned(), 2):
            if entry & MASK and entry & MASK != BAD and not self.used[cluster]:
                self._set(cluster, 0)
        own = memoryview(self._entries).cast("B")
        for other in self._layout.fats[1:]:
            copy = self._load(other)
            for at in range(0, len(copy), SECTOR):
                if copy[at : at + SECTOR] != own[at : at + SECTOR]:
                    self._changed.add(at // SECTOR)

    def allocate(self, count: int) -> list[Run]:
        """Take free clusters and chain them; raise InfrastructureFailed if there are too few."""
        clusters = self._find(count)
        runs: list[Run] = []
        for cluster, following in zip(clusters, [*clusters[1:], LAST], strict=False):
            self.used[cluster] = 1
            self._set(cluster, following)
            if runs and sum(runs[-1]) == cluster:
                runs[-1] = (runs[-1][0], runs[-1][1] + 1)
            else:
                runs.append((cluster, 1))
        return runs

    def _find(self, count: int) -> "array[int]":
        found = array("I")
        span = self._layout.clusters
        for turn in range(span):
            if len(found) == count:
                break
            cluster = 2 + (self._next - 2 + turn) % span
            if not self.used[cluster] and not self._entries[cluster] & MASK:
                found.append(cluster)
        if len(found) < count:
            raise InfrastructureFailed(
                "the target has no space left", remedy="remove files from it"
            )
        self._next = found[-1] + 1 if found else self._next
        return found

    def release(self, runs: list[Run]) -> None:
        """Give back the clusters of what no folder on the medium names any more."""
        for first, count in runs:
            for cluster in range(first, first + count):
                self.used[cluster] = 0
                self._set(cluster, 0)

    def append(self, last: int, cluster: int) -> None:
        """Let a chain go on after what was its last cluster."""
        self._set(last, cluster)

    def _set(self, cluster: int, value: int) -> None:
        self._entries[cluster] = self._entries[cluster] & ~MASK | value
        self._changed.add(cluster // PER_SECTOR)

    def commit(self) -> None:
        """Write all changes, to both tables; the caller flushes."""
        own = memoryview(self._entries).cast("B")
        for first, count in _runs(sorted(self._changed)):
            start, length = first * SECTOR, count * SECTOR
            for table in self._layout.fats:
                for at in range(start, start + length, PIECE):
                    piece = own[at : min(at + PIECE, start + length)]
                    self._blocks.write(table + at, bytes(piece))
        self._changed.clear()

    def _load(self, start: int) -> bytes:
        content = bytearray()
        while len(content) < self._layout.fat_size:
            rest = self._layout.fat_size - len(content)
            content += self._blocks.read(start + len(content), min(PIECE, rest))
        return bytes(content)


def _runs(numbers: list[int]) -> Iterator[Run]:
    """Join neighbours into runs."""
    first, count = 0, 0
    for number in numbers:
        if count and number == first + count:
            count += 1
            continue
        if count:
            yield first, count
        first, count = number, 1
    if count:
        yield first, count
