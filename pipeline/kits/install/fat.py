# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes files of a FAT32 file system so that a power cut costs none of them.

Every step is either to clusters that nothing names yet, or one sector: a new file is first written
and chained, then flushed, then a single sector gives it its name; a file is replaced by the one
sector that holds its record; what it had before is freed after that sector is on the medium. So
in whichever order unflushed sectors arrive, each name stands for its old content or for the new.

    files = open_files(blocks, start, length)     # reads and checks all of it
    files.begin()                                 # free what an earlier power cut left
    staged = files.stage(size, pieces)            # written, without a name
    files.settle()                                # on the medium; verify it now
    files.add("live/3.3.squashfs", staged)        # a name for it, new or another file's
    files.settle()
    files.finish()

Nothing about the file system is trusted: sizes, counts and depths have limits, and one that
contradicts itself raises Damaged before anything is written.
"""

import hashlib
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from pipeline.documents import fat
from pipeline.documents.fat import FOLDER_LIMIT, INFO_UNKNOWN, LONG_PART
from pipeline.kits.install import fat_folder
from pipeline.kits.install import fat_records as records
from pipeline.kits.install.fat_folder import RECORD
from pipeline.kits.install.fat_layout import SECTOR, Damaged, Layout, is_fat32, read_layout
from pipeline.kits.install.fat_table import PIECE, AllocationTable, Device, Run

ENTRIES_LIMIT = 100_000
DEPTH_LIMIT = 140  # as deep as a path of 255 characters can be, below a folder or two
NAME_LIMIT = (SECTOR // RECORD - 2) * LONG_PART  # its records fit in one sector


@dataclass(frozen=True)
class File:
    """A file or folder; `slots` are where its records are, the short one last."""

    path: str
    folder: bool
    size: int
    runs: tuple[Run, ...]
    slots: tuple[int, ...]


@dataclass(frozen=True)
class Staged:
    """Content that is written and has no name yet."""

    size: int
    sha256: str
    runs: tuple[Run, ...]


class FileSystem:
    """The files of a FAT32 file system, by path; see `open_files`."""

    def __init__(self, blocks: Device, layout: Layout) -> None:
        self._blocks = blocks
        self._layout = layout
        self._table = AllocationTable(blocks, layout)
        self._files: dict[str, File] = {}  # by path in small letters, long and short names alike
        self._shorts: dict[str, set[bytes]] = {}  # the short names in each folder
        self._replaced: list[Run] = []
        root = self._table.chain(layout.root)
        self._files[""] = File("", folder=True, size=0, runs=tuple(root), slots=())
        pending = [""]
        while pending:
            pending += self._read_folder(pending.pop())

    # --- reading

    @property
    def cluster(self) -> int:
        """Bytes of a cluster: a file takes a multiple of it."""
        return self._layout.cluster

    @property
    def free(self) -> int:
        """Bytes that are free."""
        return self._table.free() * self.cluster

    def find(self, path: str) -> File | None:
        """Return the file of this path, capital and small letters alike; None if there is none."""
        found = self._files.get(path.lower())
        return None if found is None or found.folder else found

    def files(self) -> list[File]:
        """Return all files."""
        unique = {file.path: file for file in self._files.values() if not file.folder}
        return list(unique.values())

    def read(self, file: File, limit: int) -> bytes:
        """Return a small file; raise Damaged if it has more than `limit` bytes."""
        if file.size > limit:
            raise Damaged(f"{file.path} has {file.size} bytes, over {limit}")
        return b"".join(self.pieces(file))

    def pieces(self, file: File | Staged, *, back: bool = False) -> Iterator[bytes]:
        """Give the content of a file; with `back` it is read from the medium itself."""
        read = self._blocks.read_back if back else self._blocks.read
        left = file.size
        for offset, length in self._spans(file.runs):
            if left > 0:
                piece = read(offset, -(-min(length, left) // SECTOR) * SECTOR)
                yield piece[:left]
                left -= length

    def digest(
        self,
        file: File | Staged,
        *,
        back: bool = False,
        advance: Callable[[int], None] = lambda _: None,
    ) -> str:
        """Return the SHA-256 of a file; `advance` is called with the bytes read."""
        digest = hashlib.sha256()
        for piece in self.pieces(file, back=back):
            digest.update(piece)
            advance(len(piece))
        return digest.hexdigest()

    def _spans(self, runs: Iterable[Run]) -> Iterator[tuple[int, int]]:
        """Give offset and length in bytes of what clusters hold, in pieces."""
        step = PIECE // self.cluster or 1
        for first, count in runs:
            for at in range(first, first + count, step):
                length = min(step, first + count - at) * self.cluster
                yield self._layout.place(at), length

    def _read_folder(self, path: str) -> list[str]:
        """Read the records of a folder; return the folders in it."""
        folder = self._files[path.lower()]
        if path.count("/") >= DEPTH_LIMIT:
            raise Damaged(f"its folders are deeper than {DEPTH_LIMIT}")
        self._shorts[path.lower()] = set()
        inside, long, slots = [], list[bytes](), list[int]()
        for offset, record in self._folder_records(folder):
            if record[0] == fat.END:
                break
            short = fat.read_record(record)
            if record[0] == fat.DELETED:
                long, slots = [], []
            elif short.attributes & fat.ATTRIBUTES_MASK == fat.LONG:
                long, slots = [*long, record][-20:], [*slots, offset][-20:]
            else:
                if not short.attributes & fat.VOLUME and short.shown not in (".", ".."):
                    file = self._file(path, short, long, (*slots, offset))
                    inside += [file.path] if file.folder else []
                long, slots = [], []
        return inside

    def _folder_records(self, folder: File) -> Iterator[tuple[int, bytes]]:
        if sum(count for _, count in folder.runs) * self.cluster > FOLDER_LIMIT:
            raise Damaged(f"the folder {folder.path} has over {FOLDER_LIMIT} bytes")
        for offset, length in self._spans(folder.runs):
            content = self._blocks.read(offset, length)
            for at in range(0, length, RECORD):
                yield offset + at, content[at : at + RECORD]

    def _file(
        self, parent: str, short: fat.DirectoryEntry, long: list[bytes], slots: tuple[int, ...]
    ) -> File:
        name = records.parse_long(long, short.name) if long else None
        slots = slots if name else slots[-1:]
        shown = _checked_name(name or short.shown)
        path = _joined(parent, shown)
        runs = self._table.chain(short.cluster) if short.cluster else []
        is_folder = bool(short.attributes & fat.FOLDER)
        if is_folder and not runs:
            raise Damaged(f"the folder {path} has no clusters")
        if not is_folder and sum(count for _, count in runs) * self.cluster < short.size:
            raise Damaged(f"{path} is longer than its clusters")
        file = File(path, is_folder, 0 if is_folder else short.size, tuple(runs), slots)
        self._enter(file, parent, short)
        return file

    def _enter(self, file: File, parent: str, short: fat.DirectoryEntry) -> None:
        names = {file.path.lower(), _joined(parent, short.shown).lower()}
        if names & self._files.keys() or len(self._files) > ENTRIES_LIMIT:
            raise Damaged(f"two files are {file.path}, or there are over {ENTRIES_LIMIT}")
        for name in names:
            self._files[name] = file
        self._shorts[parent.lower()].add(short.name)

    # --- writing

    def begin(self) -> None:
        """Free the clusters that an earlier power cut left without an owner."""
        self._write_info(INFO_UNKNOWN)
        self._blocks.flush()
        self._table.reclaim()
        self.settle()

    def settle(self) -> None:
        """Wait until all changes are on the medium, then free what was replaced."""
        self._table.commit()
        self._blocks.flush()
        if self._replaced:
            self._table.release(self._replaced)
            self._replaced = []
            self._table.commit()
            self._blocks.flush()

    def finish(self) -> None:
        """Settle, and record how many clusters are free."""
        self.settle()
        self._write_info(self._table.free())
        self._blocks.flush()

    def stage(
        self, size: int, pieces: Iterable[bytes], advance: Callable[[int], None] = lambda _: None
    ) -> Staged:
        """Write content to free clusters, the last one filled up with zeros.

        `pieces` must give `size` bytes. Raise InfrastructureFailed if there is no space.
        """
        runs = self._table.allocate(-(-size // self.cluster))
        digest, source = hashlib.sha256(), _Pieces(pieces)
        left = size
        for offset, length in self._spans(runs):
            content = source.take(min(length, left))
            digest.update(content)
            self._blocks.write(offset, content.ljust(length, b"\0"))
            left -= len(content)
            advance(len(content))
        return Staged(size, digest.hexdigest(), tuple(runs))

    def add(self, path: str, staged: Staged, epoch: int) -> None:
        """Give settled content a name; a file that has it already loses its content to this.

        Folders on the way are made. One sector does it, and it is not flushed.
        """
        start = staged.runs[0][0] if staged.runs else 0
        old = self.find(path)
        if old is None:
            self._insert(path, start, staged, epoch, folder=False)
            return
        fat_folder.redirect(self._blocks, old.slots[-1], start, staged.size, epoch)
        self._replaced += old.runs
        self._change(old, replace(old, size=staged.size, runs=staged.runs))

    def overwrite(self, path: str, content: bytes) -> None:
        """Write the one sector of a file of one sector; the only change in place there is."""
        file = self.find(path)
        if file is None or len(content) != SECTOR or file.size != SECTOR:
            raise Damaged(f"{path} is not one sector")
        self._blocks.write(self._layout.place(file.runs[0][0]), content)

    def remove(self, paths: Iterable[str]) -> None:
        """Remove files; it settles, so that their clusters can be used at once."""
        for path in paths:
            file = self.find(path)
            if file is None:
                continue
            fat_folder.erase(self._blocks, file.slots)
            self._replaced += file.runs
            self._change(file, None)
        self.settle()

    def _change(self, old: File, new: File | None) -> None:
        for name in [name for name, file in self._files.items() if file is old]:
            del self._files[name]
            if new:
                self._files[name] = new

    def _insert(
        self, path: str, cluster: int, content: Staged, epoch: int, *, folder: bool
    ) -> None:
        parent, _, name = path.rpartition("/")
        if len(name) > NAME_LIMIT or path.count("/") >= DEPTH_LIMIT:
            raise Damaged(f"{path} has too long a name for it")
        if parent.lower() not in self._files:
            self._make_folder(parent, epoch)
        holder = self._files[parent.lower()]
        if not holder.folder:
            raise Damaged(f"{parent} is a file and not a folder")
        taken = self._shorts[parent.lower()]
        made = records.make_records(name, taken, cluster, content.size, epoch, folder=folder)
        sectors = [
            at
            for start, length in self._spans(holder.runs)
            for at in range(start, start + length, SECTOR)
        ]
        grow = partial(self._grow, holder)
        slots = fat_folder.place(self._blocks, sectors, b"".join(made), grow)
        path = _joined(holder.path, name)
        file = File(path, folder, content.size, content.runs, slots)
        self._enter(file, holder.path, fat.read_record(made[-1]))

    def _make_folder(self, path: str, epoch: int) -> None:
        parent = path.rpartition("/")[0].lower()
        if parent not in self._files:
            self._make_folder(path.rpartition("/")[0], epoch)
        runs = self._table.allocate(1)
        own = runs[0][0]
        above = self._files[parent].runs[0][0] if parent else 0
        dots = [(b".".ljust(11), own), (b"..".ljust(11), above)]
        made = [records.make_short(name, fat.FOLDER, at, 0, epoch) for name, at in dots]
        self._blocks.write(self._layout.place(own), b"".join(made).ljust(self.cluster, b"\0"))
        self.settle()
        staged = Staged(0, "", tuple(runs))
        self._insert(path, own, staged, epoch, folder=True)
        self._shorts[path.lower()] = set()

    def _grow(self, folder: File, made: bytes) -> int:
        """Give a folder one more cluster, which begins with these records; return where it is."""
        runs = self._table.allocate(1)
        cluster = runs[0][0]
        self._blocks.write(self._layout.place(cluster), made.ljust(self.cluster, b"\0"))
        self.settle()
        self._table.append(sum(folder.runs[-1]) - 1, cluster)
        self._change(folder, replace(folder, runs=(*folder.runs, *runs)))
        return self._layout.place(cluster)

    def _write_info(self, free: int) -> None:
        """Write how many clusters are free, a hint for other systems."""
        if self._layout.info is None:
            return
        sector = bytearray(self._blocks.read(self._layout.info, SECTOR))
        if sector.startswith(fat.INFO_MAGIC) and sector.startswith(
            fat.INFO_MAGIC_2, fat.INFO_MAGIC_2_AT
        ):
            struct.pack_into("<I", sector, fat.INFO_AT, free)
            self._blocks.write(self._layout.info, bytes(sector))


def open_files(blocks: Device, start: int, length: int) -> FileSystem | None:
    """Return the FAT32 file system in `length` bytes from `start`; None if there is no such one.

    Raise Damaged if it contradicts itself. Nothing is written before `begin`.
    """
    boot = blocks.read(start, SECTOR)
    if not is_fat32(boot):
        return None
    return FileSystem(blocks, read_layout(boot, start, length))


class _Pieces:
    """Pieces of any length, given out in other lengths."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._rest = b""

    def take(self, size: int) -> bytes:
        while len(self._rest) < size:
            self._rest += next(self._pieces)
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken


def _joined(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _checked_name(name: str) -> str:
    if "/" in name or name in ("", ".", "..") or len(name) > 255:
        raise Damaged(f"a file cannot be named {name!r:.80}")
    return name
