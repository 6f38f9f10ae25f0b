# SPDX-License-Identifier: GPL-3.0-or-later
"""The ledger of a build, read as data from a hostile guest.

`docs/reference/documents.md` describes the format. Nothing in a ledger is followed or opened; a
ledger that violates the format or the limits raises BuildFailed.
"""

import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from pipeline.base.errors import BuildFailed
from pipeline.base.files import open_plain
from pipeline.base.plain import plain
from pipeline.documents.ledger_line import LINE_LIMIT, STEP_START, Record, parse_line
from pipeline.documents.malformed import Malformed

SIZE_LIMIT = 4 * 1024**3  # bytes when decompressed
LINES_LIMIT = 20_000_000
PIECE = 256 * 1024
OUTPUT_PIECE = 1024 * 1024


class Unpacking:
    """A ledger while it is decompressed, in pieces and within the limits; close it at the end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.inflate = zlib.decompressobj(wbits=31)
        self.rest = b""
        self.size = self.count = 0
        try:
            self._file = open_plain(path)
        except OSError as error:
            raise BuildFailed(f"cannot read the ledger {path}: {error.strerror}") from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def blocks(self, compressed: bytes = b"") -> Iterator[bytes]:
        """Yield all lines from here on, many at a time; `compressed` was read already."""
        while compressed := compressed or self.read():
            yield from self._unpack(compressed)
            compressed = b""
        if not self.inflate.eof:
            raise BuildFailed(f"the ledger {self.path} is cut off")
        if self.rest:
            raise BuildFailed(f"the ledger {self.path} does not end with a whole line")

    def pass_shared_start(self, other: "Unpacking") -> tuple[list[bytes], bytes, bytes]:
        """Move both to where their files begin to differ, decompressing only one of them.

        Return the lines of the steps up to there, and the bytes already read of each file.
        """
        steps: list[bytes] = []
        while (ours := self.read()) == (theirs := other.read()) and ours:
            for lines in self._unpack(ours):
                steps += [lines[start:end] for start, end in step_lines(lines)]
        other.inflate = self.inflate.copy()
        other.rest, other.size, other.count = self.rest, self.size, self.count
        return steps, ours, theirs

    def read(self) -> bytes:
        """Read the next piece of the file, as it is."""
        try:
            return self._file.read(PIECE)
        except OSError as error:
            raise BuildFailed(f"cannot read the ledger {self.path}: {error.strerror}") from error

    def _unpack(self, compressed: bytes) -> Iterator[bytes]:
        """Yield whole lines, with their newlines, from a piece of the file."""
        while compressed:
            if self.inflate.eof:
                raise BuildFailed(f"the ledger {self.path} continues after its end")
            try:
                piece = self.rest + self.inflate.decompress(compressed, OUTPUT_PIECE)
            except zlib.error as error:
                raise BuildFailed(f"the ledger {self.path} is damaged: {error}") from error
            end = piece.rfind(b"\n") + 1
            self.size += len(piece) - len(self.rest)
            self.count += piece.count(b"\n")
            self.rest = piece[end:]
            if self.size > SIZE_LIMIT or self.count > LINES_LIMIT or len(self.rest) > LINE_LIMIT:
                raise BuildFailed(f"the ledger {self.path} is larger than a ledger may be")
            if end:
                yield piece[:end]
            compressed = self.inflate.unconsumed_tail or self.inflate.unused_data


def step_lines(lines: bytes) -> Iterator[tuple[int, int]]:
    """Yield the start and end of each line that begins a step."""
    end = 0 if lines.startswith(STEP_START) else lines.find(b"\n" + STEP_START)
    while end >= 0:
        start = end + (lines[end] == ord("\n"))
        end = lines.index(b"\n", start)
        yield start, end
        end = lines.find(b"\n" + STEP_START, end)


def read_blocks(path: Path) -> Iterator[list[bytes]]:
    """Yield the lines of a ledger, without their newlines, many at a time."""
    with closing(Unpacking(path)) as unpacking:
        for lines in unpacking.blocks():
            yield lines.split(b"\n")[:-1]


def parse(line: bytes) -> Record:
    """Return the record of one line; raise BuildFailed if it is malformed."""
    try:
        return parse_line(line)
    except Malformed as error:
        shown = plain(line[:200].decode(errors="replace"))
        raise BuildFailed(f"a line of a ledger is malformed: {shown}") from error
