# SPDX-License-Identifier: GPL-3.0-or-later
"""The ledger: what each step changed in the tree, path by path.

A file is hashed again only if its inode has changed since the previous step: the kernel updates an
inode's change time on every write, and no program in the machine can set it. That time is only as
fine as the kernel's tick, so a file that changed within a tick of a scan is hashed again in the
next one. `docs/reference/documents.md` describes the format.

On an emulated CPU, interpreted code and system calls cost as much as the hashing: so lines are
formatted directly, with their keys in order, and kept as text; paths are looked up from open
folders.
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

TICK_NS = 10_000_000  # the longest of any kernel configuration

# The extended attributes in an image. Others are a file system's: XFS shows ACLs as trusted.SGI_….
XATTRS = ("security.", "user.")
NONE: Mapping[str, bytes] = {}

SMALL = 1024 * 1024  # files up to this size are read at once: file_digest sets up a buffer for each
LINES_AT_ONCE = 512

# These match keys of a line only: in a JSON string, quotes have backslashes.
MTIME = re.compile(rb'"mtime":-?[0-9]+,')
SHA256 = re.compile(rb'"sha256":"([0-9a-f]{64})"')
TYPE = re.compile(rb'"type":"([a-z]+)"')

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

Mark = tuple[int | bytes, ...]  # equal if a path has not changed since the last scan


@dataclass(frozen=True)
class Change:
    """What a step changed in the tree: paths in no order, all names of an inode or none.

    A path whose type has changed is in `removed`, too.
    """

    changed: tuple[bytes, ...]
    removed: tuple[bytes, ...]


class Ledger:
    """The ledger of one tree, written to `out` while the steps run.

    `settled` returns the time in seconds that a file with a given time in nanoseconds will have
    once times are clamped, so that the ledgers of two machines with different clocks can be
    compared step by step. `seconds` is the time spent on the ledger.
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
        """The SHA-256 of everything written about the tree so far, without file times."""
        return self._digest.hexdigest()

    def record(self, step: str) -> Change:
        """Write what has changed since the last call as the work of `step`; return the paths."""
        with self._timed():
            change = self._record(step)
            self._flush()
            return change

    def pass_over(self, step: str) -> None:
        """Write a step without scanning the tree, which it cannot have changed."""
        self._write(step_line(step))
        self._flush()

    def retimed(self, path: bytes, before: os.stat_result, after: os.stat_result) -> None:
        """Note that the build set a path's time to the settled one, so as not to hash it again."""
        mark = self._seen.get(path)
        same = self._settled(before.st_mtime_ns) == self._settled(after.st_mtime_ns)
        if mark and same and mark == _mark(before, mark[-1]):
            self._seen[path] = _mark(after, mark[-1])

    def artifact(self, name: str, path: Path, *, delivered: bool = False) -> None:
        """Write that the last step made a file outside the tree, or one that will leave it.

        A `delivered` file is written without its hash: it is hashed when it is compared.
        """
        sha256 = None
        if not delivered:
            with self._timed():
                sha256 = self._known(path) or sha256_file(path)
        self._lines.write(artifact_line(name, path.stat().st_size, sha256))

    def _known(self, path: Path) -> str | None:
        """Return the recorded hash of a file in the tree; None if it is not in there."""
        inside = os.fsencode(path).removeprefix(self._tree + b"/")
        found = SHA256.search(self._recorded.get(inside, b""))
        return found[1].decode() if found else None

    def close(self) -> None:
        """Close the file."""
        self._lines.close()
        self._file.close()

    def write_final(self, out: BinaryIO) -> None:
        """Write the final ledger: the tree as it is after the last step."""
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
        """Return the paths whose inodes have changed since they were last seen, sorted."""
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
        """Write the waiting lines together, which is faster than one by one."""
        lines = b"".join(self._waiting)
        self._waiting.clear()
        self._lines.write(lines)
        self._digest.update(MTIME.sub(b"", lines))


def inode(status: os.stat_result) -> tuple[int, int]:
    """Return the identity of an inode: paths that share it are hard links to one file."""
    return status.st_dev, status.st_ino


def walk(tree: bytes) -> Iterator[tuple[bytes, os.stat_result]]:
    """Yield every path below a tree, in no order; only one folder is open at a time."""
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
    """Return those extended attributes of a path that an image keeps."""
    names = os.listxattr(path, follow_symlinks=False)
    if not names:
        return NONE
    return {
        name: os.getxattr(path, name, follow_symlinks=False)
        for name in names
        if name.startswith(XATTRS)
    }
