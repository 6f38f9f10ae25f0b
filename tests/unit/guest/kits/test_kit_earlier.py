# SPDX-License-Identifier: GPL-3.0-or-later
"""A release that is known by its USB image alone: the same facts as from its ledger."""

import os
import subprocess
from pathlib import Path

import pytest

from pipeline.documents.progress import STATUS_INPUTS
from pipeline.guest import usb_image
from pipeline.guest.kits.earlier import earlier_from_image
from pipeline.guest.serial_port import StepFailed
from tests.random_trees import CAPABILITY, Node, Tree, record, write

MIB = 1024 * 1024
ENV = {"PATH": os.environ["PATH"], "LC_ALL": "C"}
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root unpacks such trees")
TREE: Tree = {
    b"etc": Node("dir", mode=0o750, owner=(3, 4)),
    b"etc/capable": Node(content=b"x" * 5000, xattrs={"security.capability": CAPABILITY}),
    b"etc/one": Node(content=b"1", mode=0o4711, inode=1),
    b"etc/two\xff": Node(content=b"1", mode=0o4711, inode=1),
    b"etc/link": Node("link", b"../nowhere"),
    b"null": Node("char"),
}
NAMES = [".disk/info", "boot/grub/current.cfg", "live/3.1.squashfs", "live/a long name, as it is"]


class Image:
    """A USB image without boot loaders, and the folder that its files are from."""

    def __init__(self, folder: Path) -> None:
        self.path, self.files, self.tree = folder / "image.img", folder / "in", folder / "in-tree"
        write(TREE, self.tree)
        for name in NAMES:
            (self.files / name).parent.mkdir(parents=True, exist_ok=True)
            (self.files / name).write_text(name)
        squashfs = self.files / NAMES[2]
        squashfs.unlink()
        subprocess.run(["mksquashfs", self.tree, squashfs, "-quiet", "-no-progress"], check=True)
        sectors = 40 * MIB // 512
        with self.path.open("wb") as file:
            primary, backup = usb_image._gpt(sectors, 37 * MIB // 512, "mini 3.1")
            file.truncate(40 * MIB)
            file.seek(512)
            file.write(primary)
            file.seek(40 * MIB - len(backup))
            file.write(backup)
        at = f"{self.path}@@{usb_image.PARTITION_AT}"
        options = ["-v", "MINI", "-T", str(37 * MIB // 512), "-h", "255", "-s", "63"]
        subprocess.run(["mformat", "-i", at, *options, "::"], check=True)
        subprocess.run(["mcopy", "-s", "-i", at, *self.files.iterdir(), "::"], check=True)


@pytest.fixture
def image(tmp_path: Path) -> Image:
    return Image(tmp_path)


def test_an_image_tells_what_the_ledger_and_the_partition_list_tell(
    image: Image, tmp_path: Path
) -> None:
    earlier = earlier_from_image("3.1", image.path, tmp_path / "work", ENV)
    usb_image.write_partition_list(image.files, sorted(NAMES), tmp_path / "listed")
    assert earlier.partition.read_bytes() == (tmp_path / "listed").read_bytes()
    assert earlier.ledger.read_bytes() == record(image.tree, tmp_path / "ledger").read_bytes()
    assert earlier.version == "3.1"


def test_an_image_of_another_release_is_refused(image: Image, tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match=r"image\.img is not .*no live/3\.2\.squashfs") as raised:
        earlier_from_image("3.2", image.path, tmp_path / "work", ENV)
    assert raised.value.status == STATUS_INPUTS


@pytest.mark.parametrize(
    ("at", "content", "words"),
    [
        (512, b"no GPT at all", "has no GPT"),
        (1024, bytes(16384), "has no system partition"),
        (usb_image.PARTITION_AT, bytes(8192), "its files cannot be read"),
    ],
)
def test_what_is_no_image_of_ours_is_refused(
    at: int, content: bytes, words: str, image: Image, tmp_path: Path
) -> None:
    with image.path.open("r+b") as file:
        file.seek(at)
        file.write(content)
    with pytest.raises(StepFailed, match=words):
        earlier_from_image("3.1", image.path, tmp_path / "work", ENV)


def test_an_image_that_is_cut_off_is_refused(image: Image, tmp_path: Path) -> None:
    os.truncate(image.path, 700)
    with pytest.raises(StepFailed, match=r"has no (GPT|system partition)"):
        earlier_from_image("3.1", image.path, tmp_path / "work", ENV)
