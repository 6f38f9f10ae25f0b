"""The ledger: what each step changed in the tree, path by path.

A file is hashed again only if its inode was changed since the step before: the kernel updates an
inode's change time on every write, and nothing in the machine can set it. That time is as coarse
as the kernel's tick, so what was changed in the tick of a look is hashed again at the next. The
format is described in `docs/reference/documents.md`.
"""

import base64
import gzip
import hashlib
import json
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from .digest import sha256_file
from .times import whole_seconds

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

SMALL = 1024 * 1024  # what is read at once; hashlib.file_digest fills a buffer first, for each file
LINES_AT_ONCE = 512

MTIME = re.compile(rb'"mtime":-?[0-9]+,')  # of a line; in a JSON string the marks have backslashes

Entry = dict[str, Any]

_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


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
    `seconds` is how long it was at work.
    """

    def __init__(
        self, tree: Path, out: Path, settled: Callable[[int], int] = whole_seconds
    ) -> None:
        self.seconds = 0.0
        self._tree = os.fsencode(tree)
        self._settled = settled
        self._entries: dict[bytes, Entry] = {}
        self._seen: dict[bytes, tuple[int | bytes, ...]] = {}
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
        """Write that there was a step, which came too late to change the tree."""
        self._write({"step": step})
        self._flush()

    def artifact(self, name: str, path: Path, *, delivered: bool = False) -> None:
        """Write that the last step made a file outside the tree, or one that leaves it, with hash.

        One that is `delivered` has none: it is hashed where it is compared.
        """
        line = {"artifact": name, "size": path.stat().st_size}
        if not delivered:
            with self._timed():
                line["sha256"] = self._known(path) or sha256_file(path)
        self._lines.write(_line(line))

    def _known(self, path: Path) -> str | None:
        """Return the hash of a file that is in the tree as it was recorded."""
        inside = os.fsencode(path).removeprefix(self._tree + b"/")
        return self._entries.get(inside, {}).get("sha256")

    def close(self) -> None:
        """End the file."""
        self._lines.close()
        self._file.close()

    def write_final(self, out: BinaryIO) -> None:
        """Write the tree as it is after the last step."""
        with self._timed(), gzip.GzipFile("", "wb", compresslevel=6, fileobj=out, mtime=0) as lines:
            paths = sorted(self._entries)
            for begin in range(0, len(paths), LINES_AT_ONCE):
                some = paths[begin : begin + LINES_AT_ONCE]
                lines.write(b"".join([_line(self._entries[path]) for path in some]))

    @contextmanager
    def _timed(self) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.seconds += time.monotonic() - started

    def _record(self, step: str) -> Change:
        self._write({"step": step})
        past = time.time_ns() - TICK_NS
        found = dict(_walk(self._tree))
        first_of: dict[tuple[int, int], bytes] = {}
        changed: list[bytes] = []
        removed: list[bytes] = []
        for path in sorted(found):
            status = found[path]
            first = first_of.setdefault(inode(status), path) if status.st_nlink > 1 else path
            mark = (status.st_dev, status.st_ino, status.st_ctime_ns, status.st_nlink, first)
            if self._seen.get(path) == mark:
                continue
            entry = self._entry(path, status, first)
            before = self._entries.get(path)
            if before != entry:
                self._write(entry)
                changed.append(path)
                if before and before["type"] != entry["type"]:
                    removed.append(path)
            self._entries[path] = entry
            self._seen[path] = mark if status.st_ctime_ns < past else ()
        for path in sorted(self._entries.keys() - found.keys()):
            self._write({"path": _text(path), "type": "absent"})
            removed.append(path)
            del self._entries[path], self._seen[path]
        inodes = {inode(found[path]) for path in changed if found[path].st_nlink > 1}
        others = (path for path, status in found.items() if inode(status) in inodes)
        return Change(tuple({*changed, *(others if inodes else ())}), tuple(removed))

    def _entry(self, path: bytes, status: os.stat_result, first: bytes) -> Entry:
        full = os.path.join(self._tree, path)
        kind = KINDS[stat.S_IFMT(status.st_mode)]
        entry: Entry = {
            "path": _text(path),
            "type": kind,
            "mode": stat.S_IMODE(status.st_mode),
            "uid": status.st_uid,
            "gid": status.st_gid,
            "mtime": self._settled(status.st_mtime_ns),
        }
        if kind == "file":
            entry["size"] = status.st_size
            if first != path:
                entry["links"] = _text(first)
                entry["sha256"] = self._entries[first]["sha256"]
            else:
                entry["sha256"] = _sha256(full, status.st_size)
        elif kind == "link":
            entry["target"] = _text(os.readlink(full))
        elif kind in ("char", "block"):
            entry["device"] = [os.major(status.st_rdev), os.minor(status.st_rdev)]
        names = os.listxattr(full, follow_symlinks=False)
        names = [name for name in names if name.startswith(XATTRS)]
        if names:
            values = {n: os.getxattr(full, n, follow_symlinks=False) for n in names}
            entry["xattrs"] = {n: base64.b64encode(v).decode() for n, v in sorted(values.items())}
        return entry

    def _write(self, entry: Entry) -> None:
        self._waiting.append(_line(entry))
        if len(self._waiting) == LINES_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        """Write the waiting lines together: that is quicker than one by one."""
        lines = b"".join(self._waiting)
        self._waiting.clear()
        self._lines.write(lines)
        self._digest.update(MTIME.sub(b"", lines))


def inode(status: os.stat_result) -> tuple[int, int]:
    """Return what tells whether two paths are one file."""
    return status.st_dev, status.st_ino


def _walk(tree: bytes) -> Iterator[tuple[bytes, os.stat_result]]:
    """Give every path below a tree; no more than one folder is open at a time."""
    folders = [b""]
    while folders:
        below = folders.pop()
        with os.scandir(tree + b"/" + below) as entries:
            for entry in entries:
                path = below + entry.name
                yield path, entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    folders.append(path + b"/")


def _sha256(path: bytes, size: int) -> str:
    with open(path, "rb", buffering=0) as file:
        if size <= SMALL:
            content = file.read(size + 1)
            if len(content) == size:
                return hashlib.sha256(content).hexdigest()
            file.seek(0)
        return hashlib.file_digest(file, "sha256").hexdigest()


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")


def _line(entry: Entry) -> bytes:
    # Names that are not UTF-8 stay apart from all others: ensure_ascii writes their surrogates.
    return _ENCODER.encode(entry).encode() + b"\n"
