# SPDX-License-Identifier: GPL-3.0-or-later
"""Contents of single files that an environment built, taken from its artifacts.

Artifacts are opened as files; what is in an ISO, a disk image or a kit is read by locate's readers,
with their limits. Nothing is unpacked to disk under a name that a build gave.
"""

import hashlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

from pipeline.base.plain import plain
from pipeline.documents.system_partition import without_digest
from pipeline.farm.artifacts import list_artifacts
from pipeline.look.formats.container import Entry
from pipeline.look.formats.known import recognise
from pipeline.look.formats.partitions import DISK
from pipeline.look.formats.source import Alone, BadFormat, ByteSource, Spool, pieces
from pipeline.look.locate import open_file
from pipeline.look.places import REFUSED, say_reason

IMAGES = (".iso", ".img", ".iuk")
TREE = ".squashfs"
WORK = 4 * 1024**3  # as Spool counts it, for one environment


class Built:
    """What one environment built: `files` are its artifacts and the files in its images."""

    def __init__(self, artifacts: Mapping[str, ByteSource], spool: Spool) -> None:
        self._spool = spool
        self.artifacts = dict(artifacts)
        self.files: dict[str, ByteSource] = dict(artifacts)
        self.faults: list[str] = []
        for suffix in IMAGES:
            for name in sorted(n for n in artifacts if n.endswith(suffix)):
                self._open(name, artifacts[name])

    def _open(self, name: str, source: ByteSource) -> None:
        """Add the files of an image, as far as they can be read; those of earlier ones stay."""
        try:
            for path, content in _files(source, self._spool):
                self.files.setdefault(path, Alone(content))
        except REFUSED as error:
            self.faults.append(plain(f"{name} cannot be read: {say_reason(error)}"))

    def find(self, name: str) -> ByteSource | None:
        """Return a file by its name, by that without a digest, or by a last part no other has."""
        if name in self.files:
            return self.files[name]
        alike = [p for p in self.files if name in (p.rpartition("/")[2], without_digest(p))]
        return self.files[alike[0]] if len(alike) == 1 else None

    def find_content(self, sha256: str | None, size: int | None) -> ByteSource | None:
        """Return a file by its content: files that were moved out of the tree have another name."""
        same = [content for content in self.files.values() if content.size == size]
        return next((content for content in same if _sha256(content) == sha256), None)

    def tree(self, wanted: Collection[str]) -> dict[str, ByteSource]:
        """Return the contents of regular files of the tree, which is in a SquashFS.

        Unreadable ones are left out, and `faults` says why.
        """
        found: dict[str, ByteSource] = {}
        packed = [source for path, source in self.files.items() if path.endswith(TREE)]
        if wanted and not packed:
            self.faults.append(f"there is no *{TREE} in the images")
        for source in packed:
            try:
                for entry in _entries(source, self._spool):
                    if entry.content and entry.path in wanted:
                        found.setdefault(entry.path, Alone(entry.content))
                    if len(found) == len(wanted):
                        return found
            except REFUSED as error:
                self.faults.append(plain(f"the tree cannot be read: {say_reason(error)}"))
        return found


def open_built(folder: Path, stack: ExitStack) -> Built:
    """Open an artifacts folder until `stack` ends.

    Raise InfrastructureFailed if it is no artifacts folder, UsageError if one cannot be opened.
    """
    spool = stack.enter_context(Spool([WORK]).nested())
    sources = {name: open_file(folder / name, stack) for name in list_artifacts(folder)}
    return Built(sources, spool)


def _files(source: ByteSource, spool: Spool) -> Iterator[tuple[str, ByteSource]]:
    """Yield the files of an image; of a disk, those of its partitions."""
    known = recognise(source)
    if known is None:
        raise BadFormat("it has no format that is known")
    for entry in _entries(source, spool):
        if entry.content is None:
            continue
        if known is DISK and recognise(entry.content) is not None:
            yield from _files(entry.content, spool)
        elif known is not DISK:
            yield entry.path, entry.content


def _entries(source: ByteSource, spool: Spool) -> Iterator[Entry]:
    known = recognise(source)
    if known is None:
        raise BadFormat("it has no format that is known")
    yield from known.read(source, spool).entries()


def _sha256(source: ByteSource) -> str:
    digest = hashlib.sha256()
    for piece in pieces(source):
        digest.update(piece)
    return digest.hexdigest()
