"""Whether artifacts that differ do so only in what was expected, told from their own bytes.

The ledgers come from the builds; what excuses a difference must not rest on them alone. Images are
compared down to the files of their tree; of the lists that follow from it, the other lines must be
equal. Whatever is not understood is not excused.
"""

import gzip
import io
import json
import re
import zlib
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from itertools import zip_longest
from pathlib import Path

from pipeline.compare.formats.iso9660 import SECTOR
from pipeline.compare.formats.source import Malformed, Source
from pipeline.compare.images import locate_contents, open_file
from pipeline.errors import TwinbuildError

IMAGES = (".iso", ".img")
# The tree of an image: nothing that a build names can look like it, as none of this is in a name.
IN_TREE = re.compile(
    r"(iso9660|disk partition \d+ > fat) [A-Za-z0-9._/-]+\.squashfs > squashfs", re.ASCII
)
DESCRIPTOR = 16 * SECTOR + 1, 5  # where the magic of the primary volume descriptor is
VOLUME = 16 * SECTOR + 80, 16 * SECTOR + 84  # its size in blocks
WORK = 64 * 1024**3
LINE_LIMIT = 1024 * 1024
LISTS_LIMIT = 1024**3  # bytes of a list, unpacked


def differs_only_in(paths: Collection[str], name: str, first: Path, second: Path) -> bool:
    """Tell whether two artifacts of one name are equal but for these paths of the tree."""
    try:
        if name.endswith(IMAGES):
            return _images(frozenset(paths), first, second)
        if name.endswith(".ledger.jsonl.gz"):
            return _lists({*paths}, None, first, second)
        if name.endswith(".partition"):
            return _lists(set(), ".squashfs", first, second)
    except (TwinbuildError, Malformed, OSError, EOFError, ValueError, RecursionError, zlib.error):
        return False
    return False


def _images(paths: frozenset[str], first: Path, second: Path) -> bool:
    with ExitStack() as stack:
        sides = open_file(first, stack), open_file(second, stack)
        if len(set(map(_behind, sides))) > 1:
            return False
        found = locate_contents(sides, work=WORK, closed=paths)
    return found.complete and all(
        IN_TREE.fullmatch(place.where) and place.path in paths and place.kind != "malformed"
        for place in found.places
    )


def _behind(image: Source) -> bytes | int:
    """Return what lies behind the volume of an ISO; of another image its size."""
    if image.size < VOLUME[1] or image.read(*DESCRIPTOR) != b"CD001":
        return image.size
    blocks = int.from_bytes(image.read(VOLUME[0], VOLUME[1] - VOLUME[0]), "little")
    end = min(blocks * SECTOR, image.size)
    return image.read(end, image.size - end)


def _lists(paths: Collection[str], suffix: str | None, first: Path, second: Path) -> bool:
    """Compare lists of files, a JSON object a line, without these paths and those that end so."""
    left, right = (_others(path, paths, suffix) for path in (first, second))
    return all(ours == theirs for ours, theirs in zip_longest(left, right))


def _others(path: Path, paths: Collection[str], suffix: str | None) -> Iterator[bytes]:
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        reader = io.BufferedReader(gzip.GzipFile(fileobj=file)) if packed else file
        size = 0
        while line := reader.readline(LINE_LIMIT):
            size += len(line)
            if size > LISTS_LIMIT:
                raise ValueError(f"{path} has over {LISTS_LIMIT} bytes")
            named = json.loads(line)["path"]
            if named not in paths and not (suffix and named.endswith(suffix)):
                yield line
