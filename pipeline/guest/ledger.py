# SPDX-License-Identifier: GPL-3.0-or-later
"""The ledger: what each step changed in the tree, path by path.

A file is hashed again only if its inode was changed since the step before: the kernel updates an
inode's change time on every write, and nothing in the machine can set it. That time is as coarse
as the kernel's tick, so what was changed in the tick of a look is hashed again at the next. The
format is described in `docs/reference/documents.md`.

Where a CPU is emulated, interpreted code and system calls cost as much as the hashing: a line is
written as text in the order of its keys, and kept as that; paths are looked up from open folders.
"""

import gzip
import hashlib
import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pipeline.documents.digest import sha256_file
from pipeline.documents.ledger_line import absent_line, artifact_line, path_line, step_line
from pipeline.guest.times import whole_seconds

KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "dir",
    stat.S_IFLNK: "link",
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}

TICK_NS = 10_000_000  # the longest that a kernel's is

# Those that an image carries. Others belong to a file system: XFS shows ACLs as trusted.SGI_ACL….
XATTRS = ("security.", "user.")
NONE: Mapping[str, bytes] = {}

SMALL = 1024 * 1024  # what is read at once; hashlib.file_digest fills a buffer first, for each file
LINES_AT_ONCE = 512

# Of a line; in a JSON string the marks have backslashes.
MTIME = re.compile(rb'"mtime":-?[0-9]+,')
SHA256 = re.compile(rb'"sha256":"([0-9a-f]{64})"')
TYPE = re.compile(rb'"type":"([a-z]+)"')

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

Mark = tuple[int | bytes, ...]  # what tells whether a path is as it was at the last look


@dataclass(frozen=True)
class Change:
    """What a step did to the tree: paths in no order, all names of an inode or none.

    A path that is now of another type is among the removed as well.
    """

    changed: tuple[bytes, ...]
    removed: tuple[bytes, ...]


class Ledger:
    """The ledger of one tree, written to `out` while the steps run.

    `settled` gives the seconds that a file with a time in nanoseconds will have once times are
    clamped, so that the ledgers of two machines with different clocks can be compared step by step.
    `seconds` is how long it has worked.
    """

    def __init__(
        self, tree: Path, out: Path, settled: Callable[[int], int] = whole_seconds
    ) -> None:
        self.seconds = 0.0
        self._tree = os.fsencode(tree)
        self._settled = settled
        self._recorded: dict[bytes, bytes] = {}  # the line of each path
        self._seen: dict[bytes, Mark] = {}
        self._digest = hashlib.sha256()
        self._file = out.open("wb")
        self._lines = gzip.GzipFile("", "wb", compresslevel=1, fileobj=self._file, mtime=0)
        self._waiting: list[bytes] = []

    @property
    def digest(self) -> str:
        """SHA-256 of all that was written of the tree so far, file times left out."""
        return self._digest.hexdigest()

    def record(self, step: str) -> Change:
        """Write what changed since the last call, as done by `step`; return the paths."""
        with self._timed():
            change = self._record(step)
            self._flush()
            return change

    def pass_over(self, step: str) -> None:
        """Write a step that ran too late to change the tree."""
        self._write(step_line(step))
        self._flush()

    def retimed(self, path: bytes, before: os.stat_result, after: os.stat_result) -> None:
        """Note that the build gave a path its settled time: that is no reason to hash it again."""
        mark = self._seen.get(path)
        same = self._settled(before.st_mtime_ns) == self._settled(after.st_mtime_ns)
        if mark and same and mark == _mark(before, mark[-1]):
            self._seen[path] = _mark(after, mark[-1])

    def artifact(self, name: str, path: Path, *, delivered: bool = False) -> None:
        """Write that the last step made a file outside the tree, or one that leaves it, with hash.

        One that is `delivered` has none: it is hashed where it is compared.
        """
        sha256 = None
        if not delivered:
            with self._timed():
                sha256 = self._known(path) or sha256_file(path)
        self._lines.write(artifact_line(name, path.stat().st_size, sha256))

    def _known(self, path: Path) -> str | None:
        """Return the hash of a file that is in the tree as it was recorded."""
        inside = os.fsencode(path).removeprefix(self._tree + b"/")
        found = SHA256.search(self._recorded.get(inside, b""))
        return found[1].decode() if found else None

    def close(self) -> None:
        """End the file."""
        self._lines.close()
        self._file.close()

    def write_final(self, out: BinaryIO) -> None:
        """Write the tree as it is after the last step."""
        with self._timed(), gzip.GzipFile("", "wb", compresslevel=6, fileobj=out, mtime=0) as lines:
            paths = sorted(self._recorded)
            for begin in range(0, len(paths), LINES_AT_ONCE):
                some = paths[begin : begin + LINES_AT_ONCE]
                lines.write(b"".join([self._recorded[path] for path in some]))

    @contextmanager
    def _timed(self) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.seconds += time.monotonic() - started

    def _record(self, step: str) -> Change:
        self._write(step_line(step))
        past = time.time_ns() - TICK_NS
        found = dict(walk(self._tree))
        firsts = _firsts(found)
        changed: list[bytes] = []
        removed: list[bytes] = []
        for path in self._touched(found, firsts):
            status = found[path]
            first = firsts.get(inode(status), path)
            line = self._line_of(path, status, first)
            before = self._recorded.get(path)
            if before != line:
                self._write(line)
                changed.append(path)
                if before and TYPE.findall(before) != TYPE.findall(line):
                    removed.append(path)
            self._recorded[path] = line
            self._seen[path] = _mark(status, first) if status.st_ctime_ns < past else ()
        for path in sorted(self._recorded.keys() - found.keys()):
            self._write(absent_line(path))
            removed.append(path)
            del self._recorded[path], self._seen[path]
        inodes = {inode(found[path]) for path in changed if found[path].st_nlink > 1}
        others = (path for path, status in found.items() if inode(status) in inodes)
        return Change(tuple({*changed, *(others if inodes else ())}), tuple(removed))

    def _touched(
        self, found: Mapping[bytes, os.stat_result], firsts: Mapping[tuple[int, int], bytes]
    ) -> list[bytes]:
        """Return the paths whose inodes are not as they were seen, sorted."""
        seen = self._seen
        return sorted(
            path
            for path, s in found.items()
            if seen.get(path) != _mark(s, firsts.get((s.st_dev, s.st_ino), path))
        )

    def _line_of(self, path: bytes, status: os.stat_result, first: bytes) -> bytes:
        full = self._tree + b"/" + path
        kind = KINDS[stat.S_IFMT(status.st_mode)]
        content = links = target = device = None
        if kind == "file":
            if first != path:
                links = first
                sha256 = SHA256.findall(self._recorded[first])[0].decode()
            else:
                sha256 = _sha256(full, status.st_size)
            content = sha256, status.st_size
        elif kind == "link":
            target = os.readlink(full)
        elif kind in ("char", "block"):
            device = os.major(status.st_rdev), os.minor(status.st_rdev)
        return path_line(
            path,
            kind,
            status.st_mode & 0o7777,
            status.st_uid,
            status.st_gid,
            self._settled(status.st_mtime_ns),
            _xattrs(full),
            content=content,
            links=links,
            target=target,
            device=device,
        )

    def _write(self, line: bytes) -> None:
        self._waiting.append(line)
        if len(self._waiting) == LINES_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        """Write the waiting lines together: that is quicker than one by one."""
        lines = b"".join(self._waiting)
        self._waiting.clear()
        self._lines.write(lines)
        self._digest.update(MTIME.sub(b"", lines))


def inode(status: os.stat_result) -> tuple[int, int]:
    """Return the identity of an inode: paths that share it are one file."""
    return status.st_dev, status.st_ino


def walk(tree: bytes) -> Iterator[tuple[bytes, os.stat_result]]:
    """Give every path below a tree, in no order; no more than one folder is open at a time."""
    root = os.open(tree, FOLDER)
    try:
        folders = [b""]
        while folders:
            below = folders.pop()
            folder = os.open(below or b".", FOLDER, dir_fd=root)
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        path = below + os.fsencode(entry.name)
                        yield path, entry.stat(follow_symlinks=False)
                        if entry.is_dir(follow_symlinks=False):
                            folders.append(path + b"/")
            finally:
                os.close(folder)
    finally:
        os.close(root)


def _firsts(found: Mapping[bytes, os.stat_result]) -> dict[tuple[int, int], bytes]:
    """Return the first path, by its bytes, of each inode that has several."""
    firsts: dict[tuple[int, int], bytes] = {}
    for path in sorted(path for path, status in found.items() if status.st_nlink > 1):
        firsts.setdefault(inode(found[path]), path)
    return firsts


def _mark(status: os.stat_result, first: int | bytes) -> Mark:
    return status.st_dev, status.st_ino, status.st_ctime_ns, status.st_nlink, first


def _sha256(path: bytes, size: int) -> str:
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if size <= SMALL:
            content = os.read(file, size + 1)
            if len(content) == size:
                return hashlib.sha256(content).hexdigest()
            os.lseek(file, 0, os.SEEK_SET)
        with open(file, "rb", buffering=0, closefd=False) as pieces:
            return hashlib.file_digest(pieces, "sha256").hexdigest()
    finally:
        os.close(file)


def _xattrs(path: bytes) -> Mapping[str, bytes]:
    """Return the extended attributes that an image carries."""
    names = os.listxattr(path, follow_symlinks=False)
    if not names:
        return NONE
    return {
        name: os.getxattr(path, name, follow_symlinks=False)
        for name in names
        if name.startswith(XATTRS)
    }
