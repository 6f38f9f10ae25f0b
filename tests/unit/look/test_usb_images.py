# SPDX-License-Identifier: GPL-3.0-or-later
"""Where two USB images, or what they have in common with ISOs, differ."""

import os
import shutil
from pathlib import Path

import pytest

from pipeline.documents.system_partition import switch
from pipeline.guest import fat, grub, usb_image
from pipeline.look.locate import locate_files
from tests import image_pairs as pairs
from tests.guest_log import Log

pytestmark = pytest.mark.tools

MIB = 1024 * 1024
SIZE = 40 * MIB
CORE, SYSTEM = MIB, 2 * MIB


def write_files(folder: Path, initrd: bytes = b"initramfs", digest: str = "0123456789ab") -> Path:
    """Write a small system partition whose initramfs is a cpio archive."""
    files = {
        "boot/grub/current.cfg": switch("3.3"),
        "live/3.3.cfg": b"linux /live/vmlinuz-0123456789ab boot=live\n",
        "live/vmlinuz-0123456789ab": b"kernel",
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    inside = folder.parent / f"{folder.name}-initramfs"
    inside.mkdir()
    (inside / "init").write_bytes(initrd)
    tree = pairs.make_tree(folder.parent / f"{folder.name}-tree")
    pairs.settle(inside)
    pairs.cpio(inside, folder / f"live/initrd-{digest}.img")
    pairs.squashfs(tree, folder / "live/3.3.squashfs")
    pairs.settle(folder)
    return folder


def make_image(folder: Path, image: Path) -> Path:
    usb_image.write_disk(image, SIZE, bytes(range(256)) * 100, "mini 3.3")
    options = ["-F", "-c", "1", "-v", "MINI", "-T", str(SIZE // 512), "-h", "255", "-s", "63"]
    env = {"PATH": os.environ["PATH"], "SOURCE_DATE_EPOCH": str(pairs.EPOCH)}
    names = fat.files_below(folder)
    fat.make_fat(Log(), env, image, options, folder, names, offset=SYSTEM)
    return image


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("usb")
    (made / "boot.img").write_bytes(bytes(510) + b"\x55\xaa")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grub, "BIOS", made)
        return make_image(write_files(made / "partition"), made / "disk.img")


def changed(image: Path, copy: Path, at: int) -> Path:
    """Return a copy in which one bit of a byte is another; `at` may count from the end."""
    shutil.copyfile(image, copy)
    with copy.open("r+b") as file:
        file.seek(at, os.SEEK_SET if at >= 0 else os.SEEK_END)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))
    return copy


PLACES = {
    "boot code": (10, "disk: [MBR boot code]: structure"),
    "GPT disk": (512 + 56, "disk: [GPT disk GUID]: identifier"),
    "GPT partition": (1024 + 128 + 16, "disk: [GPT partition 2 GUID]: identifier"),
    "GPT name": (1024 + 128 + 56, "disk: [GPT partition 2]: structure"),
    "backup GPT": (-512 + 56, "disk: [backup GPT disk GUID]: identifier"),
    "between": (40_000, "disk: [unused space]: layout: 1 bytes from 40000 on"),
    "core image": (CORE + 5000, "disk: partition 1: content: 1 bytes from 5000 on"),
    "serial": (SYSTEM + 67, "disk partition 2 > fat: [volume serial number]: identifier"),
}


@pytest.mark.parametrize("place", PLACES)
def test_one_byte_of_the_disk(place: str, image: Path, tmp_path: Path) -> None:
    at, expected = PLACES[place]
    (found,) = locate_files(image, changed(image, tmp_path / "x.img", at)).places
    assert str(found).startswith(expected)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"linux /live/vmlinuz", "fat: live/3.3.cfg: content: 1 bytes from 0 on"),
        (b"set version=3.3", "fat: boot/grub/current.cfg: content: 1 bytes from 0 on"),
        (b"initramfs", "fat live/initrd-0123456789ab.img > cpio: init: content: 1 bytes from 0 on"),
    ],
)
def test_one_byte_of_a_file(content: bytes, expected: str, image: Path, tmp_path: Path) -> None:
    at = image.read_bytes().index(content)
    (found,) = locate_files(image, changed(image, tmp_path / "x.img", at)).places
    assert str(found).startswith(f"disk partition 2 > {expected}")


@pytest.mark.parametrize("kind", ["img", "iso"])
def test_a_file_that_is_named_by_its_content(
    kind: str, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grub, "BIOS", image.parent)
    first, second = image.parent / "partition", tmp_path / "other"
    write_files(second, b"initramfz", "ba9876543210")
    if kind == "img":
        paths = image, make_image(second, tmp_path / "x.img")
        where = "disk partition 2 > fat"
    else:
        paths = pairs.iso(first, tmp_path / "first.iso"), pairs.iso(second, tmp_path / "second.iso")
        where = "iso9660"
    places = [str(place) for place in locate_files(*paths).places]
    old, new = "live/initrd-0123456789ab.img", "live/initrd-ba9876543210.img"
    assert places == [
        f"{where}: {old}: name: {old} / {new}",
        f"{where} {old} > cpio: init: content: 1 bytes from 8 on: 73 / 7a",
    ]
