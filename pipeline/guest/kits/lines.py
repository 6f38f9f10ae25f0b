# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads final ledgers line by line, in the order of paths: no whole ledger is ever in memory.

Lines are kept as bytes; the few fields needed of every line are found without parsing JSON. That is
safe because the ledger's writer sorts its keys, and because a quote inside a JSON string always has
a backslash before it.
"""

import gzip
import hashlib
import io
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from pipeline.documents.ledger_line import LINE_LIMIT, LedgerEntry, bytes_of, parse_entry
from pipeline.documents.malformed import Malformed
from pipeline.documents.progress import STATUS_INPUTS
from pipeline.guest.serial_port import StepFailed

Line = tuple[bytes, bytes]  # a path's bytes, and its line of the ledger
PLAIN_PATH = re.compile(rb'"path":"([^"\\]+)"')
LINKS = re.compile(rb'"links":"(?:[^"\\]|\\.)*",')
MTIME = re.compile(rb'"mtime":(-?[0-9]+),')
NOT_IN_DIGEST = re.compile(LINKS.pattern + b"|" + MTIME.pattern)


def read_ledger(path: Path) -> Iterator[Line]:
    """Yield the lines of a final ledger with their paths; raise StepFailed if it is malformed."""
    before = b""
    try:
        if not path.stat().st_size:  # gzip would report no error
            raise _damaged(path, "it is empty")
        with gzip.open(path) as unpacked:
            lines = io.BufferedReader(unpacked, 1024 * 1024)
            while line := lines.readline(LINE_LIMIT):
                here = path_of(line)
                if here <= before or not line.endswith(b"}\n"):
                    raise _damaged(path, "a line is out of order or cut off")
                yield here, line
                before = here
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise _damaged(path, repr(error)) from error


def _damaged(path: Path, detail: str) -> StepFailed:
    return StepFailed(STATUS_INPUTS, f"{path.name} is not the ledger of a tree", detail)


def path_of(line: bytes) -> bytes:
    """Return the path of a line, as the bytes that it has on disk."""
    plain = PLAIN_PATH.search(line)
    return plain[1] if plain else bytes_of(parse_entry(line).path)


def entry(line: bytes) -> LedgerEntry:
    """Parse a whole line; raise StepFailed if it is malformed."""
    try:
        return parse_entry(line)
    except Malformed as error:
        what = f"a line of a ledger is malformed: {error}"
        raise StepFailed(STATUS_INPUTS, what, repr(line[:1000])) from error


def time_of(line: bytes) -> bytes:
    """Return the `mtime` of a line as decimal digits, empty if it has none."""
    found = MTIME.search(line)
    return found[1] if found else b""


def is_folder(line: bytes) -> bool:
    """Tell whether a line is that of a directory."""
    return b'"type":"dir"' in line


def link_of(line: bytes) -> bytes | None:
    """Return the first path of the same inode, or None if that is the line's own."""
    links = entry(line).links if b'"links":' in line else None
    return None if links is None else bytes_of(links)


def reduced(line: bytes) -> bytes:
    """Return a line without time and hard links, as it is compared and hashed for the digest."""
    return NOT_IN_DIGEST.sub(b"", line)


def tree_digest(lines: Iterable[Line]) -> str:
    """Return the SHA-256 of a tree, as `docs/reference/kit.md` defines it."""
    digest = hashlib.sha256()
    for _, line in lines:
        digest.update(reduced(line))
    return digest.hexdigest()


def parent_of(path: bytes) -> bytes:
    """Return the path of a path's directory, empty for the topmost ones."""
    return path.rpartition(b"/")[0]


def joined(left: Iterable[Line], right: Iterable[Line]) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Yield each path of two ledgers with its line in both, empty where it is missing."""
    others = iter(right)
    other = next(others, None)
    for path, line in left:
        while other and other[0] < path:
            yield other[0], b"", other[1]
            other = next(others, None)
        if other and other[0] == path:
            yield path, line, other[1]
            other = next(others, None)
        else:
            yield path, line, b""
    while other:
        yield other[0], b"", other[1]
        other = next(others, None)
