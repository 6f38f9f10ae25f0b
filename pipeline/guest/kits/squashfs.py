# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes a delta as a SquashFS, without root, and reads it back from the file, as root.

Metadata come from the ledger and contents from a folder; each content's hash is checked against the
ledger. sqfstar gets everything as one tar stream, so nothing is staged on disk.
"""

import base64
import hashlib
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, BinaryIO

from pipeline.documents.ledger_line import LedgerEntry, bytes_of, text_of
from pipeline.documents.progress import STATUS_BUILD_FAILED, STATUS_INFRASTRUCTURE
from pipeline.guest.kits.delta import Delta
from pipeline.guest.kits.lines import entry, is_folder, read_ledger
from pipeline.guest.kits.overlay import OPAQUE_VALUE, OPAQUE_XATTR
from pipeline.guest.ledger import Ledger
from pipeline.guest.serial_port import StepFailed
from pipeline.guest.times import whole_seconds

TAR_TYPES = {
    "file": tarfile.REGTYPE,
    "dir": tarfile.DIRTYPE,
    "link": tarfile.SYMTYPE,
    "char": tarfile.CHRTYPE,
    "block": tarfile.BLKTYPE,
    "fifo": tarfile.FIFOTYPE,
}
PIECE = 1024 * 1024
MEMORY_MIB = 512  # limit of sqfstar's caches, the same as mksquashfs's
UNPACK_QUEUE_MIB = 64
ROOT_MODE = 0o755
TAIL = 2000
LATEST = 2**32 - 1  # seconds since 1970: SquashFS has 32 unsigned bits for a time


def write_squashfs(
    delta: Delta,
    later: Path,
    tree: Path,
    squashfs: Path,
    *,
    epoch: int,
    options: Sequence[str],
    env: Mapping[str, str],
    processors: int,
) -> None:
    """Write a delta as `squashfs`: its paths with the metadata of the ledger `later`.

    The contents are those of the files in `tree`. The root directory has the mode 0755, belongs to
    root and has the time `epoch`. The bytes do not depend on `processors`. Raise StepFailed, which
    names the path, if a file is not as the ledger says.
    """
    argv = ["sqfstar", "-quiet", "-no-progress", "-exit-on-error", "-mem", f"{MEMORY_MIB}M"]
    argv += ["-processors", str(processors), "-root-mode", f"{ROOT_MODE:o}", "-root-uid", "0"]
    argv += ["-root-gid", "0", "-root-time", str(epoch), *options, os.fspath(squashfs)]
    with (
        _running(argv, {**env, "SOURCE_DATE_EPOCH": str(epoch)}) as stdin,
        tarfile.open(
            fileobj=stdin,
            mode="w|",
            bufsize=PIECE,
            format=tarfile.PAX_FORMAT,
            encoding="utf-8",
            errors="surrogateescape",
        ) as tar,
    ):
        for path, line in read_ledger(later):
            if path in delta.shipped:
                _add(tar, entry(line), os.path.join(os.fsencode(tree), path), delta)
                tar.getmembers().clear()  # tarfile would keep all of them in memory
        for path in delta.deleted:
            tar.addfile(_whiteout(path, epoch))


def _add(tar: tarfile.TarFile, found: LedgerEntry, source: bytes, delta: Delta) -> None:
    kind, path, mtime = found.type, bytes_of(found.path), found.mtime
    if kind not in TAR_TYPES:
        raise _unfit(path, f"is a {kind}, which no kit can carry; a hook should remove it")
    if mtime is None or found.mode is None or found.uid is None or found.gid is None:
        raise _unfit(path, "has no mode, owner or time in the ledger")
    if not 0 <= mtime <= LATEST:
        raise _unfit(path, f"has the time {mtime}, which no SquashFS can hold")
    member = tarfile.TarInfo(found.path)
    member.type, member.mode, member.mtime = TAR_TYPES[kind], found.mode, mtime
    member.uid, member.gid = found.uid, found.gid
    xattrs = {name: base64.b64decode(value) for name, value in found.xattrs.items()}
    if path in delta.opaque:
        xattrs[OPAQUE_XATTR] = OPAQUE_VALUE
    member.pax_headers = {
        f"SCHILY.xattr.{name}": value.decode("utf-8", "surrogateescape")
        for name, value in sorted(xattrs.items())
    }
    if found.links is not None:
        member.type, member.linkname = tarfile.LNKTYPE, found.links
    elif kind == "link":
        member.linkname = found.target or ""
    elif kind in ("char", "block"):
        member.devmajor, member.devminor = found.device
    elif kind == "file":
        member.size = found.size or 0
        _add_content(tar, member, source, found.sha256)
        return
    tar.addfile(member)


def _add_content(
    tar: tarfile.TarFile, member: tarfile.TarInfo, source: bytes, sha256: str | None
) -> None:
    path = bytes_of(member.name)
    try:
        file = _opened(source)
    except OSError as error:
        raise _unfit(path, f"cannot be read: {error.strerror}") from error
    with file:
        if os.fstat(file.fileno()).st_size != member.size:
            raise _unfit(path, "does not have the size that the ledger has")
        hashed = _Hashed(file)
        tar.addfile(member, hashed)  # type: ignore[arg-type]
    if hashed.digest.hexdigest() != sha256:
        raise _unfit(path, "does not have the content that the ledger has")


def _opened(path: bytes) -> BinaryIO:
    """Open a file of the tree, even if its mode does not let its owner read it."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        return os.fdopen(os.open(path, flags), "rb")
    except PermissionError:
        os.chmod(path, 0o600, follow_symlinks=False)
        return os.fdopen(os.open(path, flags), "rb")


class _Hashed:
    """Hashes a file while it is read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def read(self, size: int) -> bytes:
        piece = self._file.read(size)
        self.digest.update(piece)
        return piece


def _whiteout(path: bytes, epoch: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(text_of(path))
    member.type, member.mode, member.mtime = tarfile.CHRTYPE, 0, epoch
    return member


def _unfit(path: bytes, what: str) -> StepFailed:
    shown = ascii(text_of(path))[1:-1]
    return StepFailed(STATUS_BUILD_FAILED, f"no kit can be made: {shown} {what}")


@contextmanager
def _running(argv: Sequence[str], env: Mapping[str, str]) -> Iterator[IO[bytes]]:
    """Run a program whose input the block writes; raise StepFailed if it fails."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            argv, env=dict(env), stdin=subprocess.PIPE, stdout=output, stderr=output
        )
        assert process.stdin is not None
        try:
            with suppress(BrokenPipeError):  # the program has ended; its status is checked below
                yield process.stdin
        except BaseException:
            process.kill()
            process.wait()
            raise
        finally:
            with suppress(BrokenPipeError):
                process.stdin.close()
        _check_end(argv[0], process.wait(), output)


def _check_end(program: str, status: int, output: IO[bytes]) -> None:
    if status == 0:
        return
    output.seek(max(0, output.seek(0, os.SEEK_END) - TAIL))
    detail = output.read().decode(errors="replace")
    what, kind = f"{program} ended with status {status}", STATUS_INFRASTRUCTURE
    raise StepFailed(kind, what, detail)


def read_back(
    squashfs: Path, work: Path, env: Mapping[str, str], epoch: int
) -> tuple[Path, frozenset[bytes]]:
    """Unpack a delta below `work`, as root; return its final ledger and its opaque directories.

    Raise StepFailed as `unpack` and `check_root` do.
    """
    folder, final = work / "read-back", work / "read-back.ledger.jsonl.gz"
    unpack(squashfs, folder, env)
    check_root(folder, epoch)
    ledger = Ledger(folder, work / "read-back.steps.gz")
    ledger.record("delta")
    ledger.close()
    with final.open("wb") as out:
        ledger.write_final(out)
    opaque = frozenset(
        path
        for path, line in read_ledger(final)
        if is_folder(line) and _is_opaque(os.path.join(os.fsencode(folder), path))
    )
    return final, opaque


def unpack(squashfs: Path, folder: Path, env: Mapping[str, str]) -> None:
    """Unpack a SquashFS as root, with all metadata; raise StepFailed if it is damaged."""
    queue = str(UNPACK_QUEUE_MIB)
    argv = ["unsquashfs", "-quiet", "-no-progress", "-strict-errors", "-da", queue, "-fr", queue]
    with _running([*argv, "-d", os.fspath(folder), os.fspath(squashfs)], env):
        pass


def _is_opaque(folder: bytes) -> bool:
    names = os.listxattr(folder, follow_symlinks=False)
    return OPAQUE_XATTR in names and os.getxattr(folder, OPAQUE_XATTR) == OPAQUE_VALUE


def check_root(tree: Path, epoch: int | None = None) -> None:
    """Raise StepFailed if a tree's root directory is not 0755 or does not belong to root.

    No ledger lists it. That of a delta must have the time `epoch`, too; sqfstar 4.5 gives it the
    clock's time if that is earlier.
    """
    status, what = tree.lstat(), ""
    if (status.st_mode & 0o7777, status.st_uid, status.st_gid) != (ROOT_MODE, 0, 0):
        what = "the root directory must be 0755 and belong to root"
    elif epoch is not None and whole_seconds(status.st_mtime_ns) != epoch:
        what = "the delta's root directory does not have the release's time"
    if what:
        raise StepFailed(STATUS_BUILD_FAILED, f"no kit can be made: {what}")
