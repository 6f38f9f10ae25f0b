# SPDX-License-Identifier: GPL-3.0-or-later
"""Trees that are kept after each step and begun from: the ledger must not tell the difference."""

import io
import json
import os
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.documents.machine import Layer
from pipeline.documents.progress import STATUS_INFRASTRUCTURE
from pipeline.guest import cache
from pipeline.guest.cache import Keeper
from pipeline.guest.ledger import Ledger
from pipeline.guest.serial_port import StepFailed
from pipeline.guest.times import SECOND
from tests.guest_log import Log

EPOCH = 1_700_000_000
OLD = EPOCH - 10_000  # a package's own time
DISK_SIZE = 64 * 1024 * 1024
Step = Callable[[Path], object]


def layers_of(log: Log) -> list[Layer]:
    """Return the layers that were recorded."""
    return [
        Layer(**{name: value for name, value in record.items() if name in Layer.__annotations__})
        for record in log.records
    ]


class Build:
    """A build in a folder, whose clock showed `started` when it began."""

    def __init__(self, folder: Path, started: int, disk: Path | None = None) -> None:
        folder.mkdir()
        self.tree = folder / "tree"
        self.tree.mkdir()
        self.started = started
        self.out = folder / "ledger.jsonl.gz"
        self.log = Log()
        self.disk = disk or folder / "layers.raw"
        if not disk:
            with self.disk.open("wb") as file:
                file.truncate(DISK_SIZE)
        self.ledger = Ledger(self.tree, self.out, self._settled)
        self.keeper = Keeper(self.tree, self.disk, self.log, started, self._made)

    def _made(self, mtime_ns: int) -> bool:
        return mtime_ns >= self.started * SECOND

    def _settled(self, mtime_ns: int) -> int:
        return EPOCH if self._made(mtime_ns) else min(mtime_ns // SECOND, EPOCH)

    def run(self, steps: Sequence[Step], *, restored: Sequence[Layer] = ()) -> bytes:
        """Run the steps, or restore them; return the final ledger."""
        try:
            for number, step in enumerate(steps):
                self._run(number, step, restored[number : number + 1])
            final = io.BytesIO()
            self.ledger.write_final(final)
            return final.getvalue()
        finally:
            self.ledger.close()

    def _run(self, number: int, step: Step, restored: Sequence[Layer]) -> None:
        name = str(number)
        for layer in restored:
            assert layer.step == name
            cache.restore(layer, self.disk, self.tree, self.started)
            self.ledger.record(name)
            assert self.ledger.digest == layer.digest
        if not restored:
            step(self.tree)
            change = self.ledger.record(name)
            self.keeper.keep(name, change, self.ledger.digest, self.started + 100 * (number + 1))


def age(path: Path, mtime: int = OLD) -> None:
    os.utime(path, (mtime, mtime), follow_symlinks=False)


def bootstrap(tree: Path) -> None:
    for folder in ("etc", "usr/bin", "dev", "var/lib", os.fsdecode(b'odd\xff\n"mtime":1,')):
        (tree / folder).mkdir(parents=True)
    (tree / "etc/passwd").write_text("root\n")
    (tree / "etc/-rf").write_text("a name like an option")
    (tree / "etc/*").write_text("a name like a pattern")
    (tree / os.fsdecode(b'odd\xff\n"mtime":1,/\xfe')).write_text("bytes")
    (tree / ("n" * 250)).write_text("long")
    (tree / "usr/bin/tool").write_bytes(b"#!" + bytes(range(256)) * 40)
    (tree / "usr/bin/tool").chmod(0o4755)
    os.link(tree / "usr/bin/tool", tree / "usr/bin/alias")
    os.link(tree / "etc/passwd", tree / "etc/passwd-")
    (tree / "usr/bin/sh").symlink_to("tool")
    (tree / "etc/nowhere").symlink_to("/" + "x" * 200)
    os.mkfifo(tree / "dev/fifo", 0o640)
    os.mknod(tree / "dev/null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.mknod(tree / "dev/disk", 0o660 | stat.S_IFBLK, os.makedev(8, 1))
    os.chown(tree / "etc/passwd", 17, 42)
    os.chown(tree / "usr/bin/sh", 100, 0, follow_symlinks=False)
    os.setxattr(tree / "usr/bin/tool", "user.note", b"\0\xff")
    os.setxattr(tree / "usr/bin", "user.folder", b"of a folder")
    (tree / "var/lib").chmod(0o1770)
    with (tree / "var/sparse").open("wb") as file:
        file.truncate(10_000_000)
    for path in ("usr/bin/tool", "usr/bin", "usr", "var", "usr/bin/sh", "dev/null"):
        age(tree / path)
    age(tree / "etc/-rf", -5)  # before 1970
    tree.chmod(0o711)


def includes(tree: Path) -> None:
    (tree / "etc/motd").write_text("welcome\n")
    (tree / "usr/bin/new").write_text("new")


def hook(tree: Path) -> None:
    (tree / "usr/bin/tool").write_text("written in place, under both names")
    (tree / "etc/passwd-").unlink()
    os.link(tree / "usr/bin/new", tree / "etc/third")  # another name of an earlier file
    (tree / "usr/bin/sh").unlink()
    (tree / "usr/bin/sh").mkdir()  # was a link
    (tree / "usr/bin/sh/inside").write_text("x")
    (tree / "dev/fifo").unlink()
    (tree / "dev/disk").unlink()
    (tree / "var/lib").rmdir()
    (tree / "var/lib").write_text("was a folder")
    (tree / "etc/motd").chmod(0o600)
    os.removexattr(tree / "usr/bin", "user.folder")
    age(tree / "etc/motd", OLD - 7)


def second_hook(tree: Path) -> None:
    (tree / "usr/bin/sh/inside").unlink()
    (tree / "usr/bin/sh").rmdir()
    (tree / "usr/bin/sh").symlink_to("alias")
    (tree / "etc/*").unlink()


STEPS: list[Step] = [bootstrap, includes, hook, second_hook]


@pytest.mark.parametrize("restored", range(1, len(STEPS) + 1))
@pytest.mark.parametrize("later", [0, 86400, -400 * 86400], ids=["now", "tomorrow", "other clock"])
def test_the_ledger_is_the_same(restored: int, later: int, tmp_path: Path) -> None:
    now = int(time.time())
    first = Build(tmp_path / "first", now - 1000)
    final = first.run(STEPS)
    layers = layers_of(first.log)
    assert [layer.step for layer in layers] == ["0", "1", "2", "3"]
    kept = layers[:restored]
    second = Build(tmp_path / "second", cache.began(kept, now + later), first.disk)
    # The other clock's files, made a moment ago by the one of this test, are as new as its own.
    assert second.run(STEPS, restored=kept) == final
    assert second.out.read_bytes() == first.out.read_bytes()


def test_what_was_made_is_as_old_as_it_was_and_packages_keep_their_times(tmp_path: Path) -> None:
    now = int(time.time())
    first = Build(tmp_path / "first", now - 1000)

    def bootstrap_long_ago(tree: Path) -> None:
        bootstrap(tree)
        age(tree / "etc/passwd", now - 900)

    first.run([bootstrap_long_ago])
    (layer,) = layers_of(first.log)
    started = cache.began([layer], now + 5000)
    assert started == now + 5000 - (layer.ended - layer.started)
    second = Build(tmp_path / "second", started, first.disk)
    second.run([bootstrap], restored=[layer])
    assert int((second.tree / "etc/passwd").stat().st_mtime) == started + 100
    assert int((second.tree / "usr/bin/tool").stat().st_mtime) == OLD


def test_the_times_of_packages_are_returned(tmp_path: Path) -> None:
    """A clock that runs before them needs them, and the packages are not there to be asked."""
    first = Build(tmp_path / "first", int(time.time()) - 1000)
    first.run([bootstrap])
    (tmp_path / "tree").mkdir()
    (layer,) = layers_of(first.log)
    assert cache.restore(layer, first.disk, tmp_path / "tree", first.started) == {OLD, -5}


def test_links_are_broken_not_written_through(tmp_path: Path) -> None:
    """A file that a step replaced must not change under the other names of the old one."""
    now = int(time.time())

    def make(tree: Path) -> None:
        (tree / "a").write_text("old")
        os.link(tree / "a", tree / "b")

    def replace(tree: Path) -> None:
        (tree / "new").write_text("new")
        os.replace(tree / "new", tree / "a")

    first = Build(tmp_path / "first", now)
    first.run([make, replace])
    second = Build(tmp_path / "second", now, first.disk)
    second.run([make, replace], restored=layers_of(first.log))
    assert (second.tree / "a").read_text() == "new"
    assert (second.tree / "b").read_text() == "old"


def test_what_is_recorded_is_what_is_on_the_disk(tmp_path: Path) -> None:
    build = Build(tmp_path / "first", int(time.time()))
    build.run(STEPS)
    content = build.disk.read_bytes()
    end = 0
    for record in build.log.records:
        assert record["record"] == "layer"
        assert record["offset"] >= end
        end = record["offset"] + record["size"]
        lists = json.loads(content[record["offset"] :][: record["head"]])
        assert set(lists) == {"changed", "made", "removed"}
        found = sha256(content[record["offset"] : end]).hexdigest()
        assert record["sha256"] == found
    assert end < 2_000_000  # the sparse file is one


def test_a_tree_with_a_socket_is_not_kept_nor_what_follows(tmp_path: Path) -> None:
    def bind(tree: Path) -> None:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(os.fspath(tree / "socket"))

    build = Build(tmp_path / "first", int(time.time()))
    build.run([bootstrap, bind, includes])
    assert [record["step"] for record in build.log.records] == ["0"]
    (line,) = build.log.lines
    assert line.startswith("the tree after 1 cannot be kept: ")
    assert "socket" in line


def test_a_full_disk_is_no_failure(tmp_path: Path) -> None:
    build = Build(tmp_path / "first", int(time.time()), Path("/dev/full"))
    build.run([bootstrap, includes])
    assert build.log.records == []
    assert len(build.log.lines) == 1


@pytest.mark.parametrize("at", [0, 40, 2000, 9000])
def test_a_damaged_layer_is_reported(at: int, tmp_path: Path) -> None:
    """Of a disk that breaks: noticed while it is unpacked, or by the digest at the latest."""
    now = int(time.time())
    first = Build(tmp_path / "first", now)
    first.run([bootstrap])
    (layer,) = layers_of(first.log)
    with first.disk.open("r+b") as disk:
        disk.seek(layer.offset + (at if at < layer.size else layer.size // 2))
        disk.write(bytes(600))
    second = Build(tmp_path / "second", now, first.disk)
    with pytest.raises((StepFailed, AssertionError)) as caught:
        second.run([bootstrap], restored=[layer])
    if isinstance(caught.value, StepFailed):
        assert caught.value.status == STATUS_INFRASTRUCTURE
        assert "dropped" in caught.value.what


NAMES = st.sampled_from(["a", "b", "c", "a/x", "a/y", "b/x", "b/x/z"])
ACTIONS = st.tuples(
    st.sampled_from(["file", "folder", "link", "hard", "remove", "mode", "old"]), NAMES, NAMES
)


def act(tree: Path, action: tuple[str, str, str]) -> None:
    kind, name, other = action
    path, target = tree / name, tree / other
    try:
        match kind:
            case "file":
                path.write_text(other)
            case "folder":
                path.mkdir()
            case "link":
                path.symlink_to(other)
            case "hard":
                os.link(target, path, follow_symlinks=False)
            case "remove":
                subprocess.run(["rm", "-rf", path], capture_output=True, check=False)
            case "mode":
                path.chmod(0o711)
            case "old":
                age(path)
    except OSError:
        pass


def act_all(script: list[tuple[str, str, str]], tree: Path) -> None:
    for action in script:
        act(tree, action)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(scripts=st.lists(st.lists(ACTIONS, min_size=1, max_size=6), min_size=2, max_size=4))
def test_whatever_steps_do(
    scripts: list[list[tuple[str, str, str]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("any")
    now = int(time.time())
    steps: list[Step] = [partial(act_all, script) for script in scripts]
    first = Build(folder / "first", now - 10)
    final = first.run(steps)
    second = Build(folder / "second", now + 7, first.disk)
    assert second.run(steps, restored=layers_of(first.log)) == final
    assert second.out.read_bytes() == first.out.read_bytes()
