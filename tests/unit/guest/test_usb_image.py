# SPDX-License-Identifier: GPL-3.0-or-later
"""The disk around the system partition, read by other programs. Another test boots it."""

import hashlib
import json
import os
import subprocess
from pathlib import Path

import pytest

from pipeline.guest import grub, usb_image
from pipeline.guest.serial_port import StepFailed

MIB = 1024 * 1024
SIZE = 4 * MIB
CORE = bytes(range(256)) * 500


@pytest.fixture(autouse=True)
def _loader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put something with the shape of GRUB's boot.img where it is looked for."""
    (tmp_path / "boot.img").write_bytes(b"\xeb\x63" + bytes([7]) * 508 + b"\x55\xaa")
    monkeypatch.setattr(grub, "BIOS", tmp_path)


def disk(path: Path, identity: str = "mini 3.3", partition: int = SIZE) -> Path:
    usb_image.write_disk(path, partition, CORE, identity)
    return path


def listed(image: Path) -> list[dict[str, object]]:
    """Return the partitions that libblkid, which checks checksums, finds."""
    columns = "NR,START,SECTORS,TYPE,UUID,NAME,SCHEME"
    argv = ["partx", "--raw", "--noheadings", "--output", columns, str(image)]
    lines = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.splitlines()
    return [dict(zip(columns.split(","), line.split(), strict=True)) for line in lines]


def test_a_disk_has_two_partitions(tmp_path: Path) -> None:
    image = disk(tmp_path / "disk.img")
    assert image.stat().st_size == SIZE + 3 * MIB
    boot, system = listed(image)
    assert (boot["START"], boot["SECTORS"], boot["NAME"]) == ("2048", "2048", "boot")
    assert boot["TYPE"] == "21686148-6449-6e6f-744e-656564454649"
    assert (system["START"], system["SECTORS"]) == ("4096", str(SIZE // 512))
    assert system["TYPE"] == "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
    assert boot["SCHEME"] == system["SCHEME"] == "gpt"
    checked = subprocess.run(["sgdisk", "--verify", image], capture_output=True, text=True)
    assert "No problems found" in checked.stdout, checked.stdout


@pytest.mark.parametrize("place", [512, 1024])
def test_the_backup_serves_when_the_table_is_damaged(place: int, tmp_path: Path) -> None:
    image = disk(tmp_path / "disk.img")
    sound = listed(image)
    with image.open("r+b") as file:
        file.seek(place)
        file.write(b"X")
    assert listed(image) == sound


def test_identifiers_follow_from_the_release(tmp_path: Path) -> None:
    same = [disk(tmp_path / name).read_bytes() for name in ("a", "b")]
    assert same[0] == same[1]
    others = [listed(disk(tmp_path / "c", identity)) for identity in ("mini 3.2", "mini 3.3")]
    assert len({p["UUID"] for partitions in others for p in partitions}) == 4


def test_the_first_sector_leads_to_the_core_image(tmp_path: Path) -> None:
    image = disk(tmp_path / "disk.img").read_bytes()
    assert image[:2] == b"\xeb\x63"
    assert image[0x5C:0x64] == (2048).to_bytes(8, "little")
    assert image[0x66:0x68] == b"\x90\x90"
    assert image[510:512] == b"\x55\xaa"
    core = image[MIB : MIB + len(CORE)]
    assert core[500:508] == (2049).to_bytes(8, "little")
    assert core[:500] + core[508:] == CORE[:500] + CORE[508:]
    active = [image[at] == 0x80 and image[at + 4] for at in range(446, 510, 16)]
    assert active == [False, 0, False, False]  # active, and no partition by its type


def test_a_core_image_that_does_not_fit_is_reported(tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match="1048577 bytes and must have 1048576 at most"):
        usb_image.write_disk(tmp_path / "x", SIZE, bytes(MIB + 1), "mini 3.3")
    assert not (tmp_path / "x").exists()


def sparse(path: Path, size: int) -> Path:
    path.touch()
    os.truncate(path, size)
    return path


@pytest.mark.parametrize(
    ("sizes", "expected_mib"),
    [([], 320), ([1], 320), ([85 * MIB], 320), ([86 * MIB], 384), ([4096 * MIB - 1] * 2, 12480)],
)
def test_there_is_room_for_two_kits(sizes: list[int], expected_mib: int, tmp_path: Path) -> None:
    files = [sparse(tmp_path / str(number), size) for number, size in enumerate(sizes)]
    assert usb_image.partition_size(files) == expected_mib * MIB
    assert expected_mib * MIB // 4096 > 65_525 + 8 * expected_mib * MIB // 4096**2  # FAT32 it is


def test_the_list_says_what_the_partition_holds(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "live").mkdir(parents=True)
    (folder / "live/3.3.squashfs").write_bytes(b"hsqs")
    (folder / "a").write_bytes(b"")
    usb_image.write_partition_list(folder, ["a", "live/3.3.squashfs"], tmp_path / "list")
    lines = (tmp_path / "list").read_text().splitlines()
    assert lines[0].startswith('{"path":"a","sha256":"e3b0c442')
    assert json.loads(lines[1]) == {
        "path": "live/3.3.squashfs",
        "type": "file",
        "size": 4,
        "sha256": hashlib.sha256(b"hsqs").hexdigest(),
    }
