# SPDX-License-Identifier: GPL-3.0-or-later
"""What the boot loaders read."""

import re
from pathlib import Path

import pytest

from pipeline.documents.system_partition import SWITCH, switch
from pipeline.guest import grub
from pipeline.guest.job import GuestJob
from tests.jobs import make_document
from tests.machine_settings import make_settings


def job(folder: Path, version: str, parameters: str = "") -> GuestJob:
    (folder / "binary/live").mkdir(parents=True)
    return GuestJob(
        make_document(version=version, kernel_parameters=parameters), make_settings(), folder
    )


@pytest.mark.parametrize("version", ["3.3", "0~abcdef123456", "3.3-rc1+really_3", "x" * 80])
def test_the_switch_is_one_sector(version: str) -> None:
    content = switch(version, previous="3.1")
    assert len(content) == 512
    assert content.rstrip(b"\n").decode() == f"set version={version}\nset previous=3.1"


def test_the_longest_versions_fit(tmp_path: Path) -> None:
    assert len(switch("x" * 80, "y" * 80)) == 512


@pytest.mark.parametrize("version", ["3.3", "0~abcdef123456", "3.3-rc1+really_3"])
def test_a_release_boots_by_its_own_files(version: str, tmp_path: Path) -> None:
    made = job(tmp_path, version, "quiet splash")
    grub.add_configuration(made, "vmlinuz-0123456789ab", "initrd-ab0123456789.img")
    shown = (made.binary / "live" / f"{version}.cfg").read_text()
    module = re.escape(version)
    assert re.search(
        rf"^linux /live/vmlinuz-0123456789ab boot=live module={module} .* quiet splash$",
        shown,
        re.MULTILINE,
    )
    assert shown.endswith("\ninitrd /live/initrd-ab0123456789.img\n")
    assert "ttyS0,115200" in shown
    assert (made.binary / SWITCH).read_bytes() == switch(version)


def test_the_menu_is_the_same_for_every_release(tmp_path: Path) -> None:
    menus = []
    for version in ("3.1", "3.2"):
        made = job(tmp_path / version, version)
        grub.add_configuration(made, "vmlinuz-0", "initrd-0.img")
        menus.append((made.binary / "boot/grub/grub.cfg").read_text())
    assert menus[0] == menus[1]
    assert "{{" not in menus[0]
    assert 'menuentry "mini $version" {' in menus[0]
    assert menus[0].index("source /boot/grub/current.cfg") < menus[0].index("menuentry")
