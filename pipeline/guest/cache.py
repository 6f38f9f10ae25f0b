# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps the tree after a step, as layers, so that a later machine can begin from there.

A layer is what one step changed. On the layers disk and on the trees disk it is a JSON object of
`head` bytes (the changed paths, which of them the build made, the removed paths), followed by a tar
archive of the changed paths. Its SHA-256 is sent over the progress port before the next step
begins, so that a change by a later hook is noticed. docs/reference/cache.md has the details.
"""

import hashlib
import os
import shutil
import stat
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pipeline.documents.disks import LAYERS_DISK, TREES_DISK
from pipeline.documents.layer_head import SIZE_LIMIT, LayerHead
from pipeline.documents.machine import Layer
from pipeline.documents.malformed import Malformed
from pipeline.documents.progress import STATUS_INFRASTRUCTURE
from pipeline.documents.steps import LAST_KEPT
from pipeline.guest.job import disk
from pipeline.guest.ledger import XATTRS, Change, inode
from pipeline.guest.serial_port import Report, StepFailed
from pipeline.guest.times import SECOND, Times

TAR = ("tar", "--numeric-owner", "--xattrs", *(f"--xattrs-include={x}*" for x in XATTRS))
CREATE = (*TAR, "--create", "--sparse", "--format=posix", "--pax-option=delete=atime,delete=ctime")
NAMES = ("--null", "--no-recursion", "--verbatim-files-from", "--files-from=-")
EXTRACT = (*TAR, "--extract", "--same-owner", "--same-permissions", "--delay-directory-restore")
ENVIRONMENT = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL": "C", "TZ": "UTC"}
PIECE = 1024 * 1024
ALIGNED = 4096


class Trees:
    """The kept trees on the machine's disks: those that a build begins from, and those it adds."""

    def __init__(
        self, tree: Path, begun: Sequence[Layer], report: Report, times: Times, *, keep: bool
    ) -> None:
        self._tree = tree
        self._begun = {layer.step: layer for layer in begun}
        self._report = report
        self._times = times
        layers = disk(LAYERS_DISK)
        self._keeper = Keeper(tree, layers, report, times.started, times.made) if keep else None

    def restore(self, step: str) -> bool:
        """Restore what a step changed, if the build begins from its layer; tell whether it does."""
        layer = self._begun.get(step)
        if layer is None:
            return False
        self._report.log(f"the tree after {step} was kept by an earlier build")
        with self._damage_reported(step):
            trees = disk(TREES_DISK)
            self._times.take_package_times(restore(layer, trees, self._tree, self._times.started))
        return True

    def keep(self, step: str, change: Change, digest: str) -> None:
        """Keep what a step changed, or, if the step was restored, check the restored tree.

        `digest` is that of the ledger. Raise StepFailed if a restored tree has another one.
        """
        layer = self._begun.get(step)
        if layer is not None:
            with self._damage_reported(step):
                if layer.digest != digest:
                    raise damaged(step)
        elif self._keeper:
            self._keeper.keep(step, change, digest, int(time.time()))
            if step == LAST_KEPT:
                self._keeper = None

    @contextmanager
    def _damage_reported(self, step: str) -> Iterator[None]:
        try:
            yield
        except StepFailed:
            self._report.send("damaged", step=step)
            raise


class Keeper:
    """Writes layers to the layers disk until one cannot be kept.

    `started` is the time on this machine's clock when the build began; `made` tells by a file's
    time, in nanoseconds, whether the build made it.
    """

    def __init__(
        self,
        tree: Path,
        device: Path,
        report: Report,
        started: int,
        made: Callable[[int], bool],
    ) -> None:
        self._tree = tree
        self._device = device
        self._report = report
        self._started = started
        self._made = made
        self._offset = 0
        self._whole = True

    def keep(self, step: str, change: Change, digest: str, ended: int) -> None:
        """Keep what `step` changed; if that fails, log it and keep no later step either."""
        if not self._whole:
            return
        try:
            size, head, sha256 = self._write(change)
        except (OSError, subprocess.CalledProcessError) as error:
            output = (getattr(error, "stderr", b"") or b"").decode(errors="replace").strip()
            self._report.log(f"the tree after {step} cannot be kept: {output or error}")
            self._whole = False
            return
        numbers = {"offset": self._offset, "size": size, "head": head}
        times = {"started": self._started, "ended": ended}
        self._report.send("layer", step=step, sha256=sha256, digest=digest, **numbers, **times)
        self._offset += size + -size % ALIGNED

    def _write(self, change: Change) -> tuple[int, int, str]:
        """Write a layer; return its size, the size of its head, and its SHA-256."""
        paths = sorted(with_folders(change))
        root = os.fsencode(self._tree)
        made = [self._made(os.lstat(os.path.join(root, path)).st_mtime_ns) for path in paths]
        head = LayerHead(tuple(paths), tuple(made), change.removed).content()
        with self._device.open("r+b") as file:
            file.seek(self._offset)
            file.write(head)
            file.flush()
            names = b"".join(b"./" + path + b"\0" for path in paths)
            _tar([*CREATE, *_in(self._tree), *NAMES], stdout=file, names=names)
            size = os.lseek(file.fileno(), 0, os.SEEK_CUR) - self._offset
            os.fsync(file.fileno())
        digest = hashlib.sha256()
        with self._device.open("rb") as file:
            for piece in _pieces(file, self._offset, size):
                digest.update(piece)
        return size, len(head), digest.hexdigest()


def with_folders(change: Change) -> set[bytes]:
    """Return the changed paths, and the parents of all paths, whose times must be restored too."""
    removed = set(change.removed) - set(change.changed)
    folders = {os.path.dirname(path) for path in (*change.changed, *removed)}
    return {*change.changed, *(folders - removed)}


def began(begun: Sequence[Layer], now: int) -> int:
    """Return when a build that begins from layers would have begun, had it run their steps."""
    return now - (begun[-1].ended - begun[-1].started) if begun else now


def restore(layer: Layer, device: Path, tree: Path, started: int) -> frozenset[int]:
    """Apply a layer to the tree, and shift the times of what its step made to this build.

    Return the times, in whole seconds, of the other files, which are from packages. Raise
    StepFailed if the layer is damaged.
    """
    tree.mkdir(exist_ok=True)
    root = os.fsencode(tree)
    try:
        with device.open("rb", buffering=0) as trees:
            os.lseek(trees.fileno(), layer.offset, os.SEEK_SET)
            head = LayerHead.parse(_exactly(trees, min(layer.head, SIZE_LIMIT)))
            changed = [os.path.join(root, path) for path in head.changed]
            _remove(os.path.join(root, path) for path in head.removed)
            _bare(changed)
            _tar([*EXTRACT, *_in(tree), "--warning=no-timestamp"], stdin=trees)
        made = dict(zip(changed, head.made, strict=True))
        _shift((path for path in changed if made[path]), started - layer.started)
        return frozenset(os.lstat(path).st_mtime_ns // SECOND for path in changed if not made[path])
    except (OSError, Malformed, subprocess.CalledProcessError) as error:
        output = (getattr(error, "stderr", b"") or b"").decode(errors="replace")
        raise damaged(layer.step, f"{error}\n{output}") from error


def damaged(step: str, detail: str = "") -> StepFailed:
    """Return the error for a layer that is not as it was kept."""
    what = f"the kept tree after {step} is damaged and was dropped; build again"
    return StepFailed(STATUS_INFRASTRUCTURE, what, detail)


def _remove(paths: Iterable[bytes]) -> None:
    for path in sorted(paths, reverse=True):  # the content of a folder before the folder
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            continue
        if stat.S_ISDIR(status.st_mode):
            shutil.rmtree(path)
        else:
            os.unlink(path)


def _bare(paths: Iterable[bytes]) -> None:
    """Remove the extended attributes of existing folders: tar only adds attributes."""
    for path in paths:
        if os.path.isdir(path) and not os.path.islink(path):
            for name in os.listxattr(path, follow_symlinks=False):
                if name.startswith(XATTRS):
                    os.removexattr(path, name, follow_symlinks=False)


def _shift(paths: Iterable[bytes], seconds: int) -> None:
    """Shift the times of files by some seconds, once for each inode."""
    linked = set()
    for path in paths:
        status = os.lstat(path)
        if inode(status) not in linked:
            ns = status.st_mtime_ns + seconds * SECOND
            os.utime(path, ns=(ns, ns), follow_symlinks=False)
        if status.st_nlink > 1:
            linked.add(inode(status))


def _in(tree: Path) -> tuple[str, ...]:
    return ("--file=-", f"--directory={os.fspath(tree)}")


def _tar(
    argv: Iterable[str],
    *,
    stdin: BinaryIO | None = None,
    stdout: BinaryIO | None = None,
    names: bytes | None = None,
) -> None:
    """Run tar, with `names` as its input if given.

    Raise CalledProcessError if it fails or prints a warning.
    """
    done = subprocess.run(
        list(argv),
        stdin=stdin,
        input=names,
        stdout=stdout,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
        check=False,
    )
    if done.returncode != 0 or done.stderr:
        raise subprocess.CalledProcessError(done.returncode, "tar", stderr=done.stderr)


def _pieces(file: BinaryIO, offset: int, size: int) -> Iterator[bytes]:
    file.seek(offset)
    while size:
        piece = file.read(min(PIECE, size))
        if not piece:
            raise OSError("the disk ends")
        size -= len(piece)
        yield piece


def _exactly(file: BinaryIO, size: int) -> bytes:
    return b"".join(_pieces(file, file.tell(), size))
