# SPDX-License-Identifier: GPL-3.0-or-later
"""A new image: what a newcomer gets without being asked anything."""

import os
from pathlib import Path

import pytest

from pipeline.base.errors import UsageError
from pipeline.cli.new_image import new_image
from pipeline.farm.config import load_image

IMAGES = Path(__file__).parents[3] / "images" / "live"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """The images of a checkout, with nothing but what a commit would hold."""
    (tmp_path / "mini").symlink_to(IMAGES / "mini")
    return tmp_path


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        os.fspath(path.relative_to(folder)): (
            path.lstat().st_mode,
            os.fsencode(path.readlink()) if path.is_symlink() else path.read_bytes(),
        )
        for path in folder.rglob("*")
        if path.is_symlink() or path.is_file()
    }


def test_it_is_mini_by_another_name_and_unlocked(images: Path) -> None:
    folder = new_image(images, "kiosk-two")
    described = load_image(folder / "image.yaml")
    assert (described.volume_id, described.suite) == ("KIOSK_TWO", "trixie")
    made, mini = contents(folder), contents(IMAGES / "mini")
    made["package-lists/mini.list.chroot"] = made.pop("package-lists/kiosk-two.list.chroot")
    del mini["lock"], mini["image.yaml"], made["image.yaml"]
    assert made == mini
    assert sorted(path.name for path in images.iterdir()) == ["kiosk-two", "mini"]


@pytest.mark.parametrize("name", ["", "Mini", "-x", "..", "a/b", "../a", "a" * 41, "mini"])
def test_a_name_that_cannot_be_or_is_taken_changes_nothing(images: Path, name: str) -> None:
    with pytest.raises(UsageError):
        new_image(images, name)
    assert [path.name for path in images.iterdir()] == ["mini"]
