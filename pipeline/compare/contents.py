"""Contents of single files of an image, had from its ISO, one at a time.

The programs that read the image do so with limits on output, memory and time. They make no files:
what they print goes into one temporary file. Nothing that an image names is opened on this machine.
"""

import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline import command
from pipeline.errors import BuildFailed, InfrastructureFailed

SECTOR = 2048
CONTENT_LIMIT = 8 * 1024 * 1024  # bytes that are read of one file
LISTING_LIMIT = 64 * 1024 * 1024
MEMORY_LIMIT = 1024 * 1024 * 1024
TIMEOUT_S = 20.0
TREE = ".squashfs"
EXTENT = re.compile(rb"^File data lba: *\d+ , *(\d+) , *\d+ , *(\d+) , '(.*)'$", re.MULTILINE)
UNSQUASHFS = ("unsquashfs", "-no-wildcards", "-p", "1", "-da", "16", "-fr", "16", "-cat")
XORRISO = ("xorriso", "-no_rc", "-report_about", "FATAL", "-indev")


@dataclass(frozen=True)
class Content:
    """What a file begins with, at most CONTENT_LIMIT bytes; `cut` if it goes on."""

    data: bytes
    cut: bool = False


@dataclass(frozen=True)
class Iso:
    """An ISO and where its files lie in it: offset and size in bytes of their parts, by path."""

    path: Path
    parts: dict[str, Sequence[tuple[int, int]]]

    def find(self, name: str) -> str | None:
        """Return the path of a file by its path, or by a name that only one file has."""
        if name in self.parts:
            return name
        found = [path for path in self.parts if path.rpartition("/")[2] == name]
        return found[0] if len(found) == 1 else None

    def read(self, path: str) -> Content:
        """Return the content of a file of the ISO."""
        pieces, left, size = [], CONTENT_LIMIT, 0
        with self.path.open("rb") as file:
            for offset, length in self.parts[path]:
                file.seek(offset)
                pieces.append(file.read(min(length, left)))
                left -= len(pieces[-1])
                size += length
        return Content(b"".join(pieces), cut=size > CONTENT_LIMIT)

    def read_tree(self, path: str) -> Content:
        """Return the content of a regular file of the tree, which lies in a SquashFS in the ISO.

        Raise BuildFailed if there is none, UsageError if the program for it is missing.
        """
        trees = [name for name in self.parts if name.endswith(TREE)]
        if len(trees) != 1:
            raise BuildFailed(f"{self.path} has {len(trees)} files *{TREE} and should have one")
        offset = str(self.parts[trees[0]][0][0])
        argv = [UNSQUASHFS[0], "-o", offset, *UNSQUASHFS[1:], os.fspath(self.path), f"/{path}"]
        data = _bounded(argv, CONTENT_LIMIT + 1)
        return Content(data[:CONTENT_LIMIT], cut=len(data) > CONTENT_LIMIT)


def open_iso(path: Path) -> Iso:
    """List the files of an ISO; raise BuildFailed if it is none."""
    size = path.stat().st_size
    listing = _bounded([*XORRISO, os.fspath(path), "-find", "/", "-exec", "report_lba", "--"])
    parts: dict[str, list[tuple[int, int]]] = {}
    for match in EXTENT.finditer(listing):
        offset, length = int(match[1]) * SECTOR, int(match[2])
        if offset + length > size:
            raise BuildFailed(f"{path} names a file beyond its own end")
        name = match[3].decode("utf-8", "surrogateescape").lstrip("/")
        parts.setdefault(name, []).append((offset, length))
    return Iso(path, {name: tuple(found) for name, found in parts.items()})


def _bounded(argv: Sequence[str], limit: int = LISTING_LIMIT) -> bytes:
    """Run a program that reads an image; return what it prints, as far as `limit`."""
    command.find(argv[0])  # says which package brings it
    limits = [f"--fsize={limit}", f"--as={MEMORY_LIMIT}", f"--cpu={TIMEOUT_S:.0f}", "--core=0"]
    with tempfile.TemporaryDirectory(prefix="twinbuild-") as scratch:
        out = Path(scratch) / "out"
        try:
            command.run(
                ["prlimit", *limits, *argv],
                timeout_s=TIMEOUT_S,
                cwd=Path(scratch),
                stdout_to=out,
                failure=BuildFailed,
            )
        except BuildFailed:
            if out.stat().st_size < limit:  # otherwise it was ended for printing more
                raise
        except OSError as error:
            raise InfrastructureFailed(f"cannot read {argv[-1]}: {error.strerror}") from error
        return out.read_bytes()
