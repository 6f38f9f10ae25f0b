# SPDX-License-Identifier: GPL-3.0-or-later
"""Image files and loop devices as targets: taken alone, or not at all."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.kits.install.failure import InfrastructureFailed, UsageError
from pipeline.kits.install.medium import open_medium
from pipeline.kits.install.rollback import roll_back
from pipeline.kits.install.system import Switch
from tests.unit.kits.conftest import Stick

needs_loop = pytest.mark.skipif(
    os.getuid() != 0 or not Path("/dev/loop-control").exists() or not shutil.which("losetup"),
    reason="needs root and loop devices",
)


@contextmanager
def loop(image: Path) -> Iterator[Path]:
    argv = ["losetup", "--find", "--show", "--partscan", str(image)]
    device = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
    try:
        yield Path(device)
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(bytes(100_000))
    with open_medium(path) as medium:
        assert medium.size == 100_000
        medium.write(512, b"x" * 1024)
        medium.flush()
        assert medium.read_back(0, 2048) == bytes(512) + b"x" * 1024 + bytes(512)
        assert medium.read_back(1_000, 50_000) == medium.read(1_000, 50_000)
        assert medium.read_back(99_000, 1_000) == bytes(1_000)
        with pytest.raises(InfrastructureFailed, match="ends before"):
            medium.read(99_000, 2_000)


def test_without_reads_past_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "image"
    path.write_bytes(b"y" * 10_000)
    monkeypatch.setattr(os, "O_DIRECT", os.O_DIRECTORY)  # which no image file takes
    with open_medium(path) as medium:
        assert not medium.reads_past_cache
        assert medium.read_back(512, 512) == b"y" * 512


def test_one_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(bytes(1_000))
    with (
        open_medium(path),
        pytest.raises(InfrastructureFailed, match="another process"),
        open_medium(path),
    ):
        pass
    with open_medium(path):
        pass


def test_a_fifo(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(UsageError, match="neither"), open_medium(tmp_path / "fifo"):
        pass


@needs_loop
def test_an_upgrade_of_a_device(stick: Stick, to_second: Path) -> None:
    with loop(stick.path) as device:
        with pytest.raises(UsageError, match=f"in use: it is attached as {device}"):
            stick.apply(to_second)
        assert Stick(device, stick.trust).apply(to_second).version == "3.2"
        assert roll_back(device) == Switch("3.1", "3.2")
    assert roll_back(stick.path) == Switch("3.2", "3.1")
    stick.check()


@needs_loop
def test_a_device_that_is_mounted(tmp_path: Path) -> None:
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(4 * 1024 * 1024)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    on = tmp_path / "a place"
    on.mkdir()
    with loop(image) as device:
        subprocess.run(["mount", "-o", "ro", device, on], check=True)
        try:
            for path in (device, image):
                with pytest.raises(UsageError, match="in use: it is mounted on"), open_medium(path):
                    pass
        finally:
            subprocess.run(["umount", on], check=True)
        with open_medium(device):
            pass


@needs_loop
def test_a_device_with_a_mounted_partition(
    stick: Stick, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the kernel tells of partitions; that it does so is not tested here."""
    with loop(stick.path) as device:
        number = device.stat().st_rdev
        disk = tmp_path / "dev" / "block" / f"{os.major(number)}:{os.minor(number)}"
        (disk / "sda2").mkdir(parents=True)
        (disk / "sda2" / "partition").write_text("2\n")
        (disk / "sda2" / "dev").write_text("259:7\n")
        mounts = tmp_path / "mountinfo"
        mounts.write_text("36 35 259:7 / /media/a\\040stick rw - vfat /dev/sda2 rw\n")
        monkeypatch.setattr("pipeline.kits.install.medium.SYS", tmp_path)
        monkeypatch.setattr("pipeline.kits.install.medium.MOUNTS", mounts)
        with pytest.raises(UsageError, match="mounted on /media"), open_medium(device):
            pass


@needs_loop
def test_a_device_that_another_program_has(stick: Stick, to_second: Path) -> None:
    with loop(stick.path) as device:
        held = os.open(device, os.O_RDWR | os.O_EXCL)
        try:
            with pytest.raises(UsageError, match="busy"):
                Stick(device, stick.trust).apply(to_second)
        finally:
            os.close(held)
