# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether artifacts differ only in expected paths, by their own bytes.

The ledgers come from the builds, so they alone must not excuse a difference. Images are
compared down to the files of their tree; of the lists that follow from it, the other lines must be
equal. Anything not understood is not excused.
"""

import io
import re
import zlib
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from itertools import zip_longest
from pathlib import Path
from typing import IO, Any

from pipeline.base.errors import TwinbuildError
from pipeline.documents.json_form import parse_json
from pipeline.look.formats.source import BadFormat
from pipeline.look.locate import locate_contents, open_file

IMAGES = (".iso", ".img")
# The tree of an image: no name from a build can look like it, as none of this can be in a name.
IN_TREE = re.compile(
    r"(iso9660|disk partition \d+ > fat) [A-Za-z0-9._/-]+\.squashfs > squashfs", re.ASCII
)
NO_EXCUSE = ("malformed", "order", "layout")  # what no change of a file makes of its image
# How a build's lists begin: no name, time or other field in which something could be hidden.
HEADER = b"\x1f\x8b\x08\0\0\0\0\0"
WORK = 64 * 1024**3
LINE_LIMIT = 1024 * 1024
LISTS_LIMIT = 1024**3  # bytes of a list, unpacked


def differs_only_in(paths: Collection[str], name: str, first: Path, second: Path) -> bool:
    """Tell whether two artifacts of one name are equal except for these paths of the tree."""
    try:
        if name.endswith(IMAGES):
            return _images(frozenset(paths), first, second)
        if name.endswith(".ledger.jsonl.gz"):
            return _lists({*paths}, None, first, second)
        if name.endswith(".partition"):
            return _lists(set(), ".squashfs", first, second)
    except (TwinbuildError, BadFormat, OSError, EOFError, ValueError, RecursionError, zlib.error):
        return False
    return False


def _images(paths: frozenset[str], first: Path, second: Path) -> bool:
    with ExitStack() as stack:
        sides = open_file(first, stack), open_file(second, stack)
        found = locate_contents(sides, work=WORK, closed=paths)
    return found.complete and all(
        IN_TREE.fullmatch(place.where) and place.path in paths and place.kind not in NO_EXCUSE
        for place in found.places
    )


def _lists(paths: Collection[str], suffix: str | None, first: Path, second: Path) -> bool:
    """Compare lists of files, one JSON object per line, without these paths and such endings."""
    left, right = (_others(path, paths, suffix) for path in (first, second))
    return all(ours == theirs for ours, theirs in zip_longest(left, right))


class _Gunzip(io.RawIOBase):
    """Unpacks a gzip file that is exactly one stream; raises ValueError for any other."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__()
        self._file = file
        self._unpacker = zlib.decompressobj(16 + zlib.MAX_WBITS)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = b""
        while not content and not self._unpacker.eof:
            data = self._unpacker.unconsumed_tail or self._file.read(io.DEFAULT_BUFFER_SIZE)
            content = self._unpacker.decompress(data, len(buffer))
            if not content and not data and not self._unpacker.eof:
                raise ValueError("a list ends before its compressed data does")
        if self._unpacker.eof and (self._unpacker.unused_data or self._file.read(1)):
            raise ValueError("there is more behind a compressed list")
        buffer[: len(content)] = content
        return len(content)


def _others(path: Path, paths: Collection[str], suffix: str | None) -> Iterator[bytes]:
    with path.open("rb") as file:
        packed = file.read(len(HEADER)) == HEADER
        file.seek(0)
        reader = io.BufferedReader(_Gunzip(file)) if packed else file
        size = 0
        while line := reader.readline(LINE_LIMIT):
            size += len(line)
            if size > LISTS_LIMIT:
                raise ValueError(f"{path} has over {LISTS_LIMIT} bytes")
            named = parse_json(line)["path"]
            if named not in paths and not (suffix and named.endswith(suffix)):
                yield line
