# SPDX-License-Identifier: GPL-3.0-or-later
"""How a full disk is reported: the path, its file system, what fills it; on real small disks."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.base import disk_room, places
from pipeline.base.command import run
from pipeline.base.errors import InfrastructureFailed, TwinbuildError
from pipeline.base.files import new_file, sha256_bytes, write_bytes
from pipeline.base.part import Part
from pipeline.base.store import Store
from pipeline.kits.make import make
from pipeline.machines.stage import disk_failures

ROOT = Path(__file__).parents[3]
MIB = 1024 * 1024
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A disk of 4 MiB with a cache and a checkout's folders on it, almost full of the store."""
    disk = tmp_path / "small"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], check=True)
    try:
        for name in ("cache/store", "checkout/runs", "checkout/public"):
            (disk / name).mkdir(parents=True)
        (disk / "cache/store/large").write_bytes(bytes(3 * MIB))
        monkeypatch.setenv("TWINBUILD_CACHE", str(disk / "cache"))
        monkeypatch.setattr(places, "farm", disk / "checkout")
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def _into_the_store(disk: Path) -> None:
    Store(disk / "cache/store").add("0" * 64, 2 * MIB, [bytes(MIB), bytes(MIB)])


def _as_it_arrives(disk: Path) -> None:
    content = b"x" * (2 * MIB)
    sha256 = sha256_bytes(content)
    with Store(disk / "cache/store").receiving(sha256) as file:
        part = Part(file, len(content), sha256, 3 * MIB, lambda _: None)
        for _ in range(2):
            part.append("https://example.org/file", content[:MIB])


def _a_document(disk: Path) -> None:
    write_bytes(disk / "checkout/runs/x/source.tar", b"x" * (2 * MIB))


def _a_release(disk: Path) -> None:
    with new_file(disk / "checkout/public/3.3/mini.iso") as file:
        file.write(b"x" * (2 * MIB))


def _a_part_of_a_kit(disk: Path) -> None:
    make._write(disk / "checkout/public/usb-image", iter([b"x" * MIB, b"x" * MIB]))


def _by_a_program(disk: Path) -> None:
    run(["dd", "if=/dev/zero", f"of={disk}/cache/git", "bs=1M", "count=2"], timeout_s=60)


@as_root
@pytest.mark.parametrize(
    ("write", "path"),
    [
        pytest.param(_into_the_store, f"cache/store/sha256/00/{'0' * 64}", id="store"),
        pytest.param(_as_it_arrives, "cache/store/partial/", id="transfer"),
        pytest.param(_a_document, "checkout/runs/x/source.tar", id="run"),
        pytest.param(_a_release, "checkout/public/3.3/mini.iso", id="public"),
        pytest.param(_a_part_of_a_kit, "checkout/public/usb-image", id="kit"),
        pytest.param(_by_a_program, "", id="program"),
    ],
)
def test_a_full_disk_is_reported_with_what_fills_it(
    write: Callable[[Path], None], path: str, small: Path
) -> None:
    with pytest.raises(InfrastructureFailed) as raised:
        write(small)
    message = str(raised.value)
    assert f"{small}/{path}" in message if path else message.startswith("dd: ")
    assert "No space left on device" in message
    assert re.search(
        f"[01] of 4 MiB are free on {small}; {small}/cache/store has [34] MiB", message
    )
    assert f"remove {small}/cache/store; what is needed of it is fetched or made again" in message


@as_root
def test_old_runs_are_what_a_command_removes(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWINBUILD_STARTED_AS", "./farm")
    (small / "checkout/runs/old").write_bytes(bytes(MIB // 2))
    with pytest.raises(InfrastructureFailed, match=r"; \./farm clean removes old runs or remove"):
        _a_release(small)


@as_root
def test_a_disk_without_inodes_says_so(tmp_path: Path) -> None:
    disk = tmp_path / "small"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,nr_inodes=2", "x", disk], check=True)
    try:
        (disk / "one").touch()
        with pytest.raises(OSError, match="No space left") as raised:
            (disk / "two").touch()
        message = str(disk_room.cannot_write(raised.value))
        assert message.startswith(f"cannot write {disk}/two: No space left on device: 4 of 4 MiB")
        assert "no inode is" in message
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


@as_root
def test_a_copy_names_what_is_written(small: Path, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"x" * (2 * MIB))
    with pytest.raises(OSError, match="No space left") as raised:
        shutil.copyfile(tmp_path / "source", small / "copy")
    assert f"cannot write {small}/copy: " in str(disk_room.cannot_write(raised.value))


def test_any_task_ends_with_status_4_and_the_path() -> None:
    """An error of the system that nothing else has worded: /dev/full is a disk that is full."""
    program = (
        "import sys\nfrom pipeline.cli.task import exit_of\n"
        "def fail():\n"
        "    with open('/dev/full', 'wb', buffering=0) as file:\n"
        "        file.write(b'x')\n"
        "try:\n"
        "    fail()\n"
        "except OSError as error:\n"
        "    error.filename = '/dev/full'\n"
        "    ended = exit_of(error)\n"
        "    print(ended.message)\n"
        "    sys.exit(ended.code)\n"
    )
    argv = [sys.executable, "-c", program]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 4, done.stderr
    assert done.stdout.startswith("twinbuild: cannot write /dev/full: No space left on device: ")


def test_a_build_that_finds_no_room_names_its_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TWINBUILD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(places, "farm", tmp_path)
    with pytest.raises(TwinbuildError) as raised, disk_failures("beta"):
        raise OSError(28, "No space left on device", str(tmp_path / "input.tar"))
    assert f"the build in beta broke off: cannot write {tmp_path}/input.tar: " in str(raised.value)
    assert raised.value.status == 4
