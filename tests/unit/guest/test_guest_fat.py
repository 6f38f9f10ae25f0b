# SPDX-License-Identifier: GPL-3.0-or-later
"""File systems that mtools makes: the same bytes on any machine, nothing in them but the files."""

import os
import subprocess
from pathlib import Path

import pytest

from pipeline.guest import fat
from pipeline.guest.serial_port import StepFailed
from pipeline.look.formats.fat import FAT
from pipeline.look.formats.source import OpenFile, Spool
from tests.guest_log import Log

EPOCH = 1_766_400_001  # odd: FAT keeps even seconds
OFFSET, SIZE = 2 * 1024 * 1024, 40 * 1024 * 1024
OPTIONS = ("-F", "-c", "1", "-v", "MINI", "-T", str(SIZE // 512), "-h", "255", "-s", "63")
CONTENTS = {
    ".disk/info": b"mini 3.3\n",
    "boot/grub/current.cfg": b"\n" * 512,
    "boot/empty": b"",
    "live/0~3.3+rc1-a-rather-long-name.squashfs": bytes(range(256)) * 4 * 4097,
    "live/a": b"a" * 511,
    "live/b": b"b" * 512,
    "live/c": b"c" * 513,
    "live/vmlinuz-0123456789ab": b"kernel",
    "live/vmlinuz-0123456789ac": b"kernels have the same short name",
    "EFI/BOOT/BOOTX64.EFI": b"loader",
}
PLAIN = {"TZ": "UTC", "LC_ALL": "C.UTF-8"}
VARIED = {
    "TZ": "Pacific/Kiritimati",
    "LC_ALL": "POSIX",
    "USER": "b",
    "HOME": "/nowhere",
    "MTOOLSRC": "/nowhere/mtools.conf",
}


def write(folder: Path, names: list[str]) -> Path:
    """Write the contents in this order, which directories may keep."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(CONTENTS[name])
    return folder


def make(folder: Path, image: Path, **environment: str) -> Path:
    with image.open("wb") as file:
        file.truncate(OFFSET + SIZE)
    env = {**os.environ, **PLAIN, "SOURCE_DATE_EPOCH": str(EPOCH), **environment}
    names = fat.files_below(folder)
    fat.make_fat(Log(), env, image, OPTIONS, folder, names, offset=OFFSET)
    return image


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("partition"), list(CONTENTS))


@pytest.fixture(scope="module")
def image(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(folder, tmp_path_factory.mktemp("made") / "disk.img")


@pytest.fixture(scope="module")
def partition(image: Path) -> Path:
    """The file system alone."""
    path = image.with_name("partition.fat")
    path.write_bytes(image.read_bytes()[OFFSET:])
    return path


def test_no_machine_leaves_a_trace(image: Path, tmp_path: Path) -> None:
    umask, cpus = os.umask(0o077), os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(cpus)})
        other = write(tmp_path / "other", list(reversed(CONTENTS)))
        for path in other.rglob("*"):
            os.utime(path, (0, 1_900_000_000))
        made = make(other, tmp_path / "x.img", **VARIED)
    finally:
        os.umask(umask)
        os.sched_setaffinity(0, cpus)
    assert made.read_bytes() == image.read_bytes()


def test_it_is_sound(partition: Path) -> None:
    checked = subprocess.run(["fsck.fat", "-n", "-v", partition], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout
    assert "32 bit" in checked.stdout or "32 bits per FAT entry" in checked.stdout, checked.stdout


def test_it_holds_the_files_and_nothing_else(partition: Path, tmp_path: Path) -> None:
    env = {**os.environ, "MTOOLSRC": os.devnull}
    subprocess.run(["mcopy", "-i", partition, "-s", "::", tmp_path], check=True, env=env)
    found = {
        path.relative_to(tmp_path).as_posix(): path.read_bytes()
        for path in tmp_path.rglob("*")
        if path.is_file()
    }
    assert found == CONTENTS


def test_every_time_is_the_epoch_and_names_are_in_order(partition: Path) -> None:
    descriptor = os.open(partition, os.O_RDONLY)
    try:
        source = OpenFile(descriptor, partition.stat().st_size)
        with Spool([1 << 30]).nested() as spool:
            container = FAT.read(source, spool)
            entries = [*container.entries()]
            waste = [r.span for r in container.regions() if r.name.startswith("slack")]
    finally:
        os.close(descriptor)
    times = {entry.facts["time"] for entry in entries}
    stamp = "2025-12-22 10:40:00"
    assert times == {(("created", f"{stamp}+0.00s"), ("accessed", stamp[:10]), ("written", stamp))}
    files = [path for path in container.order or () if path in CONTENTS]
    within = {path.rpartition("/")[0] for path in files}
    for parent in within:
        siblings = [path for path in files if path.rpartition("/")[0] == parent]
        assert siblings == sorted(siblings)
    raw = partition.read_bytes()
    assert waste
    assert not any(any(raw[slice(*span)]) for span in waste)


def test_what_no_file_uses_is_zero(partition: Path) -> None:
    raw = partition.read_bytes()
    reserved, fats = int.from_bytes(raw[14:16], "little"), raw[16]
    length = int.from_bytes(raw[36:40], "little")
    table = raw[reserved * 512 : (reserved + length) * 512]
    start = (reserved + fats * length) * 512
    used = [n for n in range(2, len(table) // 4) if any(table[4 * n : 4 * n + 4])]
    assert used == [*range(2, len(used) + 2)]  # none beyond was ever used
    assert len(used) < 9_000
    assert raw[start + len(used) * 512 :].strip(b"\0") == b""


@pytest.mark.parametrize(
    "name",
    [
        "a:b",
        "a?",
        'a"b',
        "a\\b",
        "a ",
        "a.",
        " a",
        "ä",
        "a\nb",
        "a\x7f",
        "con",
        "NUL.txt",
        "com1.x",
    ],
)
def test_names_that_some_system_cannot_read_are_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / name).write_text("x")
    with pytest.raises(StepFailed, match=r"folder/.*cannot be on the system partition") as caught:
        fat.files_below(tmp_path)
    assert caught.value.status == 3
    assert "\n" not in str(caught.value)


def test_links_pipes_and_names_that_differ_in_case_are_refused(tmp_path: Path) -> None:
    for folder in ("links", "pipes", "cases", "mixed"):
        (tmp_path / folder).mkdir()
    (tmp_path / "links/link").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "pipes/pipe")
    for name in ("cases/File", "cases/file"):
        (tmp_path / name).write_text("x")
    for name in ("mixed/A/x", "mixed/a/y"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("x")
    for folder, words in {
        "links": "'link' .* is neither",
        "pipes": "'pipe' .* is neither",
        "cases": "'file' .* same name as File",
        "mixed": "'a' .* same name as A",
    }.items():
        with pytest.raises(StepFailed, match=words):
            fat.files_below(tmp_path / folder)


def test_a_file_of_4_gib_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(2**32)
    with pytest.raises(StepFailed, match=r"'large' .* has 4 GiB or more"):
        fat.files_below(tmp_path)
    os.truncate(tmp_path / "large", 2**32 - 1)
    assert fat.files_below(tmp_path) == ["large"]


def test_a_file_system_that_is_too_small_is_reported(folder: Path, tmp_path: Path) -> None:
    small = tmp_path / "small.img"
    with small.open("wb") as file:
        file.truncate(1024 * 1024)
    env = {**os.environ, "SOURCE_DATE_EPOCH": str(EPOCH)}
    with pytest.raises(StepFailed, match="mcopy failed"):
        fat.make_fat(Log(), env, small, ["-v", "X"], folder, fat.files_below(folder))
