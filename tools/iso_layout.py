# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds where on an ISO the files of its SquashFS are, and which of them a boot has read."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.base.errors import UsageError
from pipeline.look.formats.container import Container, Entry
from pipeline.look.formats.iso9660 import ISO9660
from pipeline.look.formats.ranges import Span
from pipeline.look.formats.source import BadFormat, ByteSource, OpenFile, Spool
from pipeline.look.formats.squashfs import SQUASHFS
from pipeline.look.formats.squashfs_file import NO_INDEX, SIZE_BITS, SquashFile
from pipeline.look.places import REFUSED, say_reason

WORK_LIMIT = 8 * 1024**3  # as for Spool
SQUASHFS_PATH = re.compile(r"live/[^/]+\.squashfs")
INFO, INFO_LIMIT = ".disk/info", 1024  # has image, version, architecture and commit
SECTOR = 512  # the smallest unit of a read
Piece = tuple[str, int]  # a file's path and the number of one of its blocks


@dataclass(frozen=True)
class IsoLayout:
    """An ISO's SquashFS: its path, its place on the ISO, and its files.

    `files` has the range of bytes on the ISO for each block of a file: empty for sparse blocks; for
    a tail that shares a fragment with others, that of the fragment. `image` is the image's name
    according to the ISO.
    """

    image: str
    squashfs: str
    span: Span
    block_size: int
    files: Mapping[str, Sequence[Span]]

    def pieces(self, reads: Sequence[Span]) -> list[Piece]:
        """Return the blocks of which all sectors were read, in the order of their completion.

        Blocks that only share a sector with those are not read completely, and not returned.
        """
        when: dict[int, int] = {}
        for number, (start, end) in enumerate(reads):
            for sector in range(start // SECTOR, end // SECTOR):
                when.setdefault(sector, number)
        found = []
        for path, spans in self.files.items():
            for number, (start, end) in enumerate(spans):
                read = [when.get(sector) for sector in range(start // SECTOR, -(-end // SECTOR))]
                known = [moment for moment in read if moment is not None]
                if start < end and len(known) == len(read):
                    found.append((max(known), start, path, number))
        return [(path, number) for _, _, path, number in sorted(found)]

    def cost(self, pieces: Sequence[Piece]) -> "Cost":
        """Return the cost of reading these blocks in this order, each place once."""
        spans = dict.fromkeys(self._spans(pieces))
        places = distance = 0
        position: int | None = None
        for start, end in spans:
            if start != position:
                places += 1
                distance += abs(start - position) if position is not None else 0
            position = end
        return Cost(sum(end - start for start, end in spans), places, distance)

    def _spans(self, pieces: Sequence[Piece]) -> Iterator[Span]:
        for path, number in pieces:
            spans = self.files.get(path, ())
            if number < len(spans) and spans[number][0] < spans[number][1]:
                yield spans[number]


@dataclass(frozen=True)
class Cost:
    """The cost of reading: bytes, number of places, and the sum of the distances between them."""

    size: int
    places: int
    distance: int


def read_layout(iso: Path) -> IsoLayout:
    """Read the layout of an ISO.

    Raise UsageError unless it is an ISO with one SquashFS, none of whose names has a newline.
    """
    try:
        with iso.open("rb") as file:
            source = OpenFile(file.fileno(), iso.stat().st_size)
            with Spool([WORK_LIMIT]).nested() as spool:
                return _read(source, spool)
    except OSError as error:
        raise UsageError(f"cannot read {iso}: {error.strerror}") from error
    except REFUSED as error:
        what = f"{iso} is no ISO of a live system: {say_reason(error)}"
        raise UsageError(what, remedy="name one that a build made") from error


def _read(source: ByteSource, spool: Spool) -> IsoLayout:
    contents = {e.path: e.content for e in ISO9660.read(source, spool).entries() if e.content}
    found = [path for path in contents if SQUASHFS_PATH.fullmatch(path)]
    if len(found) != 1 or len(contents[found[0]].stored()) != 1 or INFO not in contents:
        raise BadFormat("it must have one live/*.squashfs in one piece, and .disk/info")
    squashfs, info = contents[found[0]], contents[INFO]
    ((start, end),) = squashfs.stored()
    words = info.read(0, min(info.size, INFO_LIMIT)).decode(errors="replace").split()
    container = SQUASHFS.read(squashfs, spool)
    files = {path: content for path, content in _files(container) if content.size}
    sizes = {content.blocks.tables.super.block_size for content in files.values()}
    if len(sizes) != 1 or not words:
        raise BadFormat("it holds no files")
    placed = {path: [(start + s, start + e) for s, e in _stored(f)] for path, f in files.items()}
    return IsoLayout(words[0], found[0], (start, end), sizes.pop(), placed)


def _files(container: Container) -> Iterator[tuple[str, SquashFile]]:
    """Yield the files with their paths; raise BadFormat if a name has a newline."""
    for entry in container.entries():
        if any("\n" in text for text in _texts(entry)):
            raise BadFormat(f"the name or target {entry.path!a} has a line break")
        if isinstance(entry.content, SquashFile):
            yield entry.path, entry.content


def _texts(entry: Entry) -> Iterator[str]:
    """Yield the texts that whoever made the tree could choose: path, target, attribute names."""
    yield entry.path
    yield str(entry.facts.get("target", ""))
    attributes = entry.facts.get("xattr", ())
    if isinstance(attributes, tuple):
        yield from (name for name, _ in attributes)


def _stored(file: SquashFile) -> Iterator[Span]:
    """Yield the place of each block in the SquashFS, with the fragment as the last."""
    for start, size in zip(file.starts, file.sizes, strict=False):
        yield start, start + (size & SIZE_BITS)
    if file.tail[0] != NO_INDEX:
        start, size = file.blocks.fragment_span(file.tail[0])
        yield start, start + (size & SIZE_BITS)
