"""The ledger of a build, read as what it is: data from a hostile guest.

`docs/reference/documents.md` describes the format. Nothing in a ledger is followed or opened; what
does not keep to the format or to the limits raises BuildFailed.
"""

import json
import os
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import BuildFailed
from pipeline.plain import plain

SIZE_LIMIT = 4 * 1024**3  # bytes when decompressed
LINES_LIMIT = 20_000_000
LINE_LIMIT = 256 * 1024
NAME_LIMIT = 4096
NUMBER_LIMIT = 2**63
PIECE = 256 * 1024
OUTPUT_PIECE = 1024 * 1024

TYPES = frozenset({"file", "dir", "link", "char", "block", "fifo", "socket", "absent"})
SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Step:
    """A step of the build begins."""

    name: str


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file that the step made outside the tree."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Entry:
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


Record = Step | Artifact | Entry


def read_blocks(path: Path) -> Iterator[list[bytes]]:
    """Give the lines of a ledger, without their newlines, in blocks as it is decompressed."""
    rest, total, count = b"", 0, 0
    for piece in _decompressed(path):
        total += len(piece)
        lines = (rest + piece).split(b"\n")
        rest = lines.pop()
        count += len(lines)
        if total > SIZE_LIMIT or count > LINES_LIMIT or len(rest) > LINE_LIMIT:
            raise BuildFailed(f"the ledger {path} is larger than a ledger may be")
        if lines:
            yield lines
    if rest:
        raise BuildFailed(f"the ledger {path} does not end with a whole line")


def read_records(path: Path) -> Iterator[Record]:
    """Give the records of a ledger, each checked."""
    return (parse(line) for lines in read_blocks(path) for line in lines)


def parse(line: bytes) -> Record:
    """Return the record of one line; raise BuildFailed if it is none."""
    if len(line) > LINE_LIMIT:
        raise BuildFailed(f"a line of a ledger is longer than {LINE_LIMIT} bytes")
    try:
        return _record(json.loads(line))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        shown = plain(line[:200].decode(errors="replace"))
        raise BuildFailed(f"a line of a ledger is none: {shown}") from error


def _decompressed(path: Path) -> Iterator[bytes]:
    """Give the content of a gzip file in pieces of at most OUTPUT_PIECE bytes."""
    inflate = zlib.decompressobj(wbits=31)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            while compressed := file.read(PIECE):
                while compressed:
                    yield inflate.decompress(compressed, OUTPUT_PIECE)
                    if inflate.unused_data or (inflate.eof and file.read(1)):
                        raise BuildFailed(f"the ledger {path} goes on after its end")
                    compressed = inflate.unconsumed_tail
    except OSError as error:
        raise BuildFailed(f"cannot read the ledger {path}: {error.strerror}") from error
    except zlib.error as error:
        raise BuildFailed(f"the ledger {path} is damaged: {error}") from error
    if not inflate.eof:
        raise BuildFailed(f"the ledger {path} is cut off")


def _record(document: dict[str, Any]) -> Record:
    if "step" in document:
        return Step(_name(document["step"]))
    if "artifact" in document:
        digest = _digest(document["sha256"])
        return Artifact(_name(document["artifact"]), _number(document["size"]), digest)
    kind = document["type"]
    if kind not in TYPES:
        raise ValueError(kind)
    get = document.get
    return Entry(
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
