# SPDX-License-Identifier: GPL-3.0-or-later
"""Deltas as real files: written by sqfstar, read by unsquashfs, laid over by the kernel."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from pipeline.documents.progress import STATUS_BUILD_FAILED, STATUS_INFRASTRUCTURE
from pipeline.guest.kits.delta import compare
from pipeline.guest.kits.lines import link_of, read_ledger, reduced
from pipeline.guest.kits.overlay import prove
from pipeline.guest.kits.squashfs import check_root, read_back, write_squashfs
from pipeline.guest.serial_port import StepFailed
from tests.random_trees import CAPABILITY, Change, Node, Tree, pairs, record, replaced, write

EPOCH = 1_700_000_000
ENV = {"PATH": os.environ["PATH"], "LC_ALL": "C"}
OPTIONS = ("-comp", "zstd", "-b", "256K")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make such trees and mounts")

BIG = bytes(range(256)) * 8000
OLD: Tree = {
    b"bin": Node("link", b"usr/bin"),
    b"etc": Node("dir", mode=0o755),
    b"etc/capable": Node(content=b"same", xattrs={"security.capability": CAPABILITY}),
    b"etc/changed": Node(content=b"old"),
    b"etc/deleted": Node(content=b"old"),
    b"etc/becomes-folder": Node(content=b"old"),
    b"etc/becomes-file": Node("dir", mode=0o700),
    b"etc/becomes-file/inside": Node(content=b"old"),
    b"etc/kept": Node(content=b"kept"),
    b"usr": Node("dir", mode=0o755),
    b"usr/gone": Node("dir", mode=0o755),
    b"usr/gone/deep": Node("dir", mode=0o755),
    b"usr/gone/deep/file": Node(content=b"old"),
}
NEW: Tree = {
    b"bin": Node("link", b"usr/bin"),
    b"etc": Node("dir", mode=0o755),
    b"etc/capable": Node(content=b"same", xattrs={"security.capability": CAPABILITY}),
    b"etc/changed": Node(content=BIG, mode=0o4711, owner=(5, 2**31)),
    b"etc/becomes-folder": Node("dir", mode=0o755),
    b"etc/becomes-folder/inside": Node(content=b"new", xattrs={"security.capability": CAPABILITY}),
    b"etc/becomes-file": Node(content=b"new"),
    b"etc/kept": Node(content=b"kept", mtime=EPOCH),
    b"usr": Node("dir", mode=0o755),
    b"usr/one": Node(content=BIG[1:], inode=1),
    b"usr/two": Node(content=BIG[1:], inode=1),
    b"usr/.wh.three\xff": Node("char"),
}


class Pair:
    """Two trees on disk with their ledgers."""

    def __init__(self, folder: Path, old: Tree, new: Tree) -> None:
        self.folder = folder
        self.old, self.new = folder / "old", folder / "new"
        write(old, self.old)
        write(new, self.new)
        self.earlier = record(self.old, folder / "old.ledger")
        self.later = record(self.new, folder / "new.ledger")

    def squashfs(self, name: str = "delta.squashfs", **changed: Any) -> Path:
        path = self.folder / name
        options: dict[str, Any] = {"epoch": EPOCH, "options": OPTIONS, "env": ENV, "processors": 1}
        delta = compare(self.earlier, self.later)
        write_squashfs(delta, self.later, self.new, path, **{**options, **changed})
        return path


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path, OLD, NEW)


def mount(*argv: str | Path) -> None:
    subprocess.run(["mount", *argv], check=True, capture_output=True)


@contextmanager
def overlaid(upper: Path, lower: Path, folder: Path) -> Iterator[Path]:
    folder.mkdir()
    mount("-t", "overlay", "-o", f"ro,lowerdir={upper}:{lower}", "overlay", folder)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def prove_delta(pair: Pair, squashfs: Path) -> None:
    prove(pair.earlier, *read_back(squashfs, pair.folder, ENV, EPOCH), pair.later)


def seen(final: Path) -> list[tuple[bytes, bytes | None]]:
    """Return what a ledger says of each path, but times."""
    return [(reduced(line), link_of(line)) for _, line in read_ledger(final)]


@as_root
@given(pairs())
@settings(max_examples=15)
def test_the_kernel_shows_the_later_tree(trees: tuple[Tree, Tree]) -> None:
    with tempfile.TemporaryDirectory() as name:
        there = Pair(Path(name), *trees)
        prove_delta(there, there.squashfs())
        with overlaid(there.folder / "read-back", there.old, there.folder / "shown") as shown:
            assert seen(record(shown, there.folder / "shown.ledger")) == seen(there.later)


@as_root
def test_the_kernel_shows_the_later_tree_from_two_squashfs(pair: Pair) -> None:
    """As live-boot does it: both mounted from their files, the delta above."""
    base, folders = pair.folder / "base.squashfs", []
    argv = ["mksquashfs", str(pair.old), str(base), "-quiet", "-no-progress", *OPTIONS]
    subprocess.run(argv, check=True, capture_output=True)
    try:
        for path in (base, pair.squashfs()):
            folder = pair.folder / f"{path.name}.mounted"
            folder.mkdir()
            mount("-t", "squashfs", "-o", "loop,ro", path, folder)
            folders.append(folder)
        with overlaid(folders[1], folders[0], pair.folder / "shown") as shown:
            assert seen(record(shown, pair.folder / "shown.ledger")) == seen(pair.later)
    finally:
        for folder in folders:
            subprocess.run(["umount", folder], check=True)


@as_root
def test_a_delta_has_the_same_bytes_for_any_number_of_processors(pair: Pair) -> None:
    one = pair.squashfs("one.squashfs", processors=1).read_bytes()
    for number, time_zone in ((2, "Asia/Tokyo"), (7, "UTC")):
        env = {**ENV, "TZ": time_zone, "SOURCE_DATE_EPOCH": "5"}
        assert pair.squashfs(f"{number}.squashfs", processors=number, env=env).read_bytes() == one


@as_root
def test_the_times_of_what_is_shipped_are_the_later_ones(pair: Pair) -> None:
    final, _ = read_back(pair.squashfs(), pair.folder, ENV, EPOCH)
    there = dict(read_ledger(pair.later))
    shipped = [(path, line) for path, line in read_ledger(final) if path in there]
    assert shipped
    assert all(line == there[path] for path, line in shipped)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda path: path.write_bytes(BIG[:-1] + b"x"), "does not have the content"),
        (lambda path: path.write_bytes(BIG[:-1]), "does not have the size"),
        (lambda path: path.unlink(), "cannot be read"),
        (replaced(lambda path: path.symlink_to("/etc/hostname")), "cannot be read"),
        (replaced(os.mkfifo), "does not have the size"),
    ],
)
@as_root
def test_a_tree_that_is_not_the_ledgers_is_found(spoil: Change, words: str, pair: Pair) -> None:
    spoil(pair.new / "etc/changed")
    with pytest.raises(StepFailed, match=f"etc/changed {words}") as raised:
        pair.squashfs()
    assert raised.value.status == STATUS_BUILD_FAILED


@as_root
def test_a_file_that_its_owner_may_not_read_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory() as name:
        monkeypatch.setattr(tempfile, "tempdir", name)
        there = Pair(Path(name), {}, {b"secret": Node(content=b"x", mode=0, owner=(65534, 0))})
        there.folder.chmod(0o777)
        os.seteuid(65534)  # what an outsider is
        try:
            assert there.squashfs().exists()
        finally:
            os.seteuid(0)


@as_root
def test_a_socket_cannot_be_shipped_and_is_named(tmp_path: Path) -> None:
    there = Pair(tmp_path, {}, {b"run": Node("dir", mode=0o755)})
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(there.new / "run/it"))
    there.later = record(there.new, tmp_path / "again.ledger")
    with pytest.raises(StepFailed, match="run/it is a socket"):
        there.squashfs()


@pytest.mark.parametrize("mtime", [-1, 2**32])
@as_root
def test_a_time_that_no_squashfs_holds_is_named(mtime: int, tmp_path: Path) -> None:
    """Ledgers of older releases have such times."""
    there = Pair(tmp_path, {}, {b"etc": Node("dir", mtime=mtime)})
    with pytest.raises(StepFailed, match=f"etc has the time {mtime}, which no") as raised:
        there.squashfs()
    assert raised.value.status == STATUS_BUILD_FAILED


@as_root
def test_a_compressor_that_fails_is_reported_with_its_output(pair: Pair) -> None:
    with pytest.raises(StepFailed, match="sqfstar ended with status 1") as raised:
        pair.squashfs(options=("-comp", "none-such"))
    assert "none-such" in raised.value.detail
    assert raised.value.status == STATUS_INFRASTRUCTURE


@as_root
def test_a_damaged_delta_is_not_believed(pair: Pair) -> None:
    squashfs = pair.squashfs()
    content = bytearray(squashfs.read_bytes())
    content[200] ^= 1
    squashfs.write_bytes(content)
    with pytest.raises(StepFailed, match=r"unsquashfs ended|would not lead to the new tree"):
        prove_delta(pair, squashfs)


@as_root
def test_a_root_directory_that_no_ledger_tells_of_must_be_the_usual_one(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    check_root(tmp_path)
    with pytest.raises(StepFailed, match="does not have the release's time"):
        check_root(tmp_path, EPOCH)
    tmp_path.chmod(0o700)
    with pytest.raises(StepFailed, match="root directory must be 0755"):
        check_root(tmp_path)


def test_the_tools_are_there() -> None:
    assert shutil.which("sqfstar")
    assert shutil.which("unsquashfs")
