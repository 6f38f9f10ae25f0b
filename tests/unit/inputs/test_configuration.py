# SPDX-License-Identifier: GPL-3.0-or-later
"""A configuration of live-build, dropped in as it is: what is used, and what is named at once."""

from pathlib import Path

import pytest

from pipeline.base.errors import UsageError
from pipeline.inputs.configuration import REMEDIES, files_in, refuse_unsupported
from tests.unit.inputs.conftest import Workshop

# As `lb config` and people leave one.
DROPPED_IN = {
    "package-lists/desktop.list.chroot": "# what people need\nlive-boot\n",
    "package-lists/live.list.chroot_live": "tools\n",
    "package-lists/README": "not a list\n",
    "archives/pins.pref.chroot": "Package: live-boot\nPin: version 1.0\nPin-Priority: 990\n",
    "preferences/.gitkeep": "",
    "apt/preferences": "Package: unwanted\nPin: release *\nPin-Priority: -1\n",
    "includes.chroot/etc/skel/.bashrc": "alias ll='ls -l'\n",
    "includes.chroot/usr/share/auto/config": "of any name\n",
    "includes.chroot_after_packages/etc/motd": "hello\n",
    "includes.binary/boot/grub/menu.cfg": "set timeout=1\n",
    "hooks/normal/1000-groups.hook.chroot": "#!/bin/sh\n",
    "hooks/live/0010-kernels.hook.chroot": "#!/bin/sh\n",
    "hooks/live/0020-notes.hook.binary": "#!/bin/sh\n",
    "hooks/99-old.chroot": "#!/bin/sh\n",
    "exclude": "usr/share/doc\n",
}


def drop_in(workshop: Workshop) -> Path:
    folder = workshop.tree / "images/live/mini"
    for name, text in DROPPED_IN.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_a_configuration_from_elsewhere_is_locked_and_accepted(workshop: Workshop) -> None:
    drop_in(workshop)
    workshop.archive.add("live-boot", "2.0", Depends="live-tools | other-tools")
    workshop.archive.publish()
    lock = workshop.lock()
    versions = {p.name: p.version for p in lock.used_by("image")}
    assert versions["live-boot"] == "1.0"
    assert "live-tools" in versions
    workshop.stage(workshop.run())


@pytest.mark.parametrize(
    ("path", "remedy"),
    [
        ("config/package-lists/a.list.chroot", "move its content up"),
        ("auto/config", "image.yaml"),
        ("bootstrap", "lb config"),
        ("common", "lb config"),
        ("bootloaders/grub-pc/grub.cfg", "includes.binary"),
        ("includes.chroot_before_packages/etc/x", "includes.chroot/"),
        ("preseed/a.cfg", "debconf"),
        ("rootfs/extra", "SquashFS"),
        ("debian-installer/a", "no installer"),
        ("archives/own.list.binary", "includes.chroot/etc/apt"),
        ("archives/own.key.binary", "includes.chroot/etc/apt"),
        ("archives/own.sources", "name it *.list.chroot"),
        ("archives/own.conf.chroot", "includes.chroot/etc/apt"),
        ("archives/keyring.deb", "*.key.chroot"),
        ("apt/apt.conf", "apt.conf.d"),
        ("hooks/normal/10-a.hook.chroot_early", "name a hook"),
        ("hooks/normal/10-a.sh", "name a hook"),
        ("preferences/a.txt", "name it"),
        ("preferences/sub/a.pref", "name it"),
        ("nonsense", "ignore"),
    ],
)
def test_what_is_not_supported_is_named_before_any_download(
    workshop: Workshop, path: str, remedy: str
) -> None:
    file = drop_in(workshop) / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("x\n")
    with pytest.raises(UsageError) as caught:
        workshop.lock()
    assert caught.value.what == f"images/live/mini/{path} is not supported"
    assert remedy in caught.value.remedy
    workshop.locked()
    with pytest.raises(UsageError, match="is not supported"):
        workshop.stage(workshop.run())
    assert not workshop.server.asked


def test_all_of_it_is_reported_at_once_but_each_part_only_once() -> None:
    paths = ["auto/build", "auto/config", "archives/b.deb", "archives/a.sources"]
    with pytest.raises(UsageError) as caught:
        refuse_unsupported("mini", paths)
    names = [
        line.partition(" ")[0].rpartition("mini/")[2] for line in caught.value.detail.split("\n")
    ]
    assert names == ["archives/a.sources", "archives/b.deb", "auto/build"]


@pytest.mark.parametrize("part", sorted(REMEDIES))
def test_every_part_with_a_remedy_is_refused(part: str) -> None:
    with pytest.raises(UsageError):
        refuse_unsupported("mini", [f"{part}/x"])


def test_a_link_to_a_folder_is_a_file_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "auto").symlink_to("/")
    assert list(files_in(tmp_path)) == ["auto"]
