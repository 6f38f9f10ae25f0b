# SPDX-License-Identifier: GPL-3.0-or-later
"""The ledger of a build, read as what it is: data from a hostile guest.

`docs/reference/documents.md` describes the format. Nothing in a ledger is followed or opened; what
does not keep to the format or to the limits raises BuildFailed.
"""

import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.base.errors import BuildFailed
from pipeline.base.files import open_plain
from pipeline.base.plain import plain
from pipeline.documents.json_form import parse_json

SIZE_LIMIT = 4 * 1024**3  # bytes when decompressed
LINES_LIMIT = 20_000_000
LINE_LIMIT = 256 * 1024
NAME_LIMIT = 4096
NUMBER_LIMIT = 2**63
PIECE = 256 * 1024
OUTPUT_PIECE = 1024 * 1024

STEP_START = b'{"step":'
ARTIFACT_START = b'{"artifact":'
TYPES = frozenset({"file", "dir", "link", "char", "block", "fifo", "socket", "absent"})
SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Step:
    """A step of the build begins."""

    name: str


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file that the step made outside the tree; one that was delivered has no hash here."""

    name: str
    size: int
    sha256: str | None


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """A path of the tree as it is after the step; `mode`, `uid` and the rest are None if absent."""

    path: str
    type: str
    mode: int | None
    uid: int | None
    gid: int | None
    mtime: int | None
    size: int | None
    sha256: str | None
    target: str | None
    links: str | None
    device: tuple[int, ...]
    xattrs: Mapping[str, str]


Record = Step | Artifact | LedgerEntry


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
        """Give all lines from here on, many at a time; `compressed` was read already."""
        while compressed := compressed or self.read():
            yield from self._unpack(compressed)
            compressed = b""
        if not self.inflate.eof:
            raise BuildFailed(f"the ledger {self.path} is cut off")
        if self.rest:
            raise BuildFailed(f"the ledger {self.path} does not end with a whole line")

    def pass_shared_start(self, other: "Unpacking") -> tuple[list[bytes], bytes, bytes]:
        """Move both to where their files begin to differ, decompressing only one of them.

        Return the lines of the steps until there, and what was read of each file already.
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
        """Give whole lines, with their newlines, out of a piece of the file."""
        while compressed:
            if self.inflate.eof:
                raise BuildFailed(f"the ledger {self.path} goes on after its end")
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
    """Give where each line in which a step begins starts, and where it ends."""
    end = 0 if lines.startswith(STEP_START) else lines.find(b"\n" + STEP_START)
    while end >= 0:
        start = end + (lines[end] == ord("\n"))
        end = lines.index(b"\n", start)
        yield start, end
        end = lines.find(b"\n" + STEP_START, end)


def read_blocks(path: Path) -> Iterator[list[bytes]]:
    """Give the lines of a ledger, without their newlines, many at a time."""
    with closing(Unpacking(path)) as unpacking:
        for lines in unpacking.blocks():
            yield lines.split(b"\n")[:-1]


def parse(line: bytes) -> Record:
    """Return the record of one line; raise BuildFailed if it is malformed."""
    if len(line) > LINE_LIMIT:
        raise BuildFailed(f"a line of a ledger is longer than {LINE_LIMIT} bytes")
    try:
        return _record(parse_json(line))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        shown = plain(line[:200].decode(errors="replace"))
        raise BuildFailed(f"a line of a ledger is malformed: {shown}") from error


def _record(document: dict[str, Any]) -> Record:
    if "step" in document:
        return Step(_name(document["step"]))
    if "artifact" in document:
        digest = _digest(document["sha256"]) if "sha256" in document else None
        return Artifact(_name(document["artifact"]), _number(document["size"]), digest)
    kind = document["type"]
    if kind not in TYPES:
        raise ValueError(kind)
    get = document.get
    return LedgerEntry(
        path=_path(document["path"]),
        type=kind,
        mode=_optional_number(get("mode")),
        uid=_optional_number(get("uid")),
        gid=_optional_number(get("gid")),
        mtime=_optional_number(get("mtime")),
        size=_optional_number(get("size")),
        sha256=None if get("sha256") is None else _digest(get("sha256")),
        target=None if get("target") is None else _name(get("target")),
        links=None if get("links") is None else _path(get("links")),
        device=tuple(map(_number, get("device", ()))),
        xattrs={_name(k): _xattr(v) for k, v in get("xattrs", {}).items()},
    )


def _name(value: Any) -> str:
    if not isinstance(value, str) or not value or len(value) > NAME_LIMIT or "\0" in value:
        raise ValueError("no name")
    value.encode("utf-8", "surrogateescape")  # which only the surrogates of bytes survive
    return value


def _path(value: Any) -> str:
    path = _name(value)
    if {"", ".", ".."} & set(path.split("/")):
        raise ValueError("no path below the tree")
    return path


def _digest(value: Any) -> str:
    if not isinstance(value, str) or not SHA256.fullmatch(value):
        raise ValueError("no digest")
    return value


def _number(value: Any) -> int:
    if type(value) is not int or not -NUMBER_LIMIT <= value < NUMBER_LIMIT:
        raise ValueError("no number")
    return value


def _optional_number(value: Any) -> int | None:
    return None if value is None else _number(value)


def _xattr(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("no extended attribute")
    return value
