# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole kits: made, read by the outside's reader, by plain tar, and made again elsewhere."""

import hashlib
import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from pipeline.documents.kit_control import Control
from pipeline.documents.kit_plan import Earlier, KitPlan, Later
from pipeline.documents.progress import STATUS_INPUTS
from pipeline.documents.system_partition import PARTITION_LIST_LIMIT
from pipeline.guest.kits.kit import _header, make_kit
from pipeline.guest.serial_port import StepFailed
from pipeline.kits.install.format import open_kit
from tests.random_trees import Node, record, write

EPOCH = 1_700_000_000
ENV = {"PATH": os.environ["PATH"], "LC_ALL": "C"}
SWITCH = "boot/grub/current.cfg"
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make such trees")

DEEP = "boot/" + "long-name" * 12 + "/" + "name" * 10
PARTITION_OLD = {
    ".disk/info": "mini 3.1",
    SWITCH: "set version=3.1",
    "EFI/BOOT/BOOTX64.EFI": "shim",
    "live/3.1.cfg": "menu 3.1",
    "live/3.1.module": "3.1.squashfs\n",
    "live/3.1.squashfs": "base",
    "live/vmlinuz-aaaaaaaaaaaa": "kernel",
}
PARTITION_NEW = {
    ".disk/info": "mini 3.3",
    SWITCH: "set version=3.3",
    "EFI/BOOT/BOOTX64.EFI": "shim",
    "live/3.3.cfg": "menu 3.3",
    "live/3.3.module": "3.3.squashfs\n",
    "live/3.3.squashfs": "the whole new one",
    "live/vmlinuz-bbbbbbbbbbbb": "new kernel" * 100,
    DEEP: "",
}


def list_partition(files: dict[str, str], listed: Path) -> Path:
    lines = [
        {
            "path": path,
            "type": "file",
            "size": len(text),
            "sha256": hashlib.sha256(text.encode()).hexdigest(),
        }
        for path, text in sorted(files.items())
    ]
    listed.write_text("".join(json.dumps(line, sort_keys=True) + "\n" for line in lines))
    return listed


@pytest.fixture
def releases(tmp_path: Path) -> tuple[Earlier, Later]:
    write({b"a": Node(content=b"old"), b"b": Node(content=b"gone")}, tmp_path / "old")
    write({b"a": Node(content=b"new" * 1000)}, tmp_path / "new")
    for path, text in PARTITION_NEW.items():
        (tmp_path / "files" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "files" / path).write_text(text)
    earlier = Earlier(
        "3.1",
        record(tmp_path / "old", tmp_path / "old.ledger"),
        list_partition(PARTITION_OLD, tmp_path / "old.partition"),
    )
    later = Later(
        "mini", "amd64", "3.3", EPOCH, "strong",
        record(tmp_path / "new", tmp_path / "new.ledger"),
        list_partition(PARTITION_NEW, tmp_path / "new.partition"),
        tmp_path / "new", tmp_path / "files",
    )  # fmt: skip
    return earlier, later


def made(releases: tuple[Earlier, Later], folder: Path, name: str = "kit.iuk") -> Path:
    kit = folder / name
    make_kit(KitPlan(*releases, kit, folder / "work", processors=1), ENV)
    assert not (folder / "work").exists()
    return kit


def control_of(kit: Path) -> Control:
    with kit.open("rb") as stream:
        return open_kit(stream, kit.name).control


def test_a_kit_says_and_holds_what_it_must(releases: tuple[Earlier, Later], tmp_path: Path) -> None:
    with made(releases, tmp_path).open("rb") as stream:
        kit = open_kit(stream, "kit")
        brought = {file.path: b"".join(file.pieces) for file in kit.files()}
    control = kit.control
    delta = brought.pop("live/3.3.squashfs")
    assert delta.startswith(b"hsqs")
    assert {path: content.decode() for path, content in brought.items()} == {
        ".disk/info": "mini 3.3",
        "live/3.3.cfg": "menu 3.3",
        "live/3.3.module": "3.1.squashfs\n3.3.squashfs\n",
        "live/vmlinuz-bbbbbbbbbbbb": "new kernel" * 100,
        DEEP: "",
    }
    assert control.delete == ("live/3.1.cfg", "live/3.1.module", "live/vmlinuz-aaaaaaaaaaaa")
    assert (control.name, control.architecture, control.epoch) == ("mini", "amd64", EPOCH)
    assert control.base.sha256 == hashlib.sha256(b"base").hexdigest()
    assert control.partition.keys() == {
        *(brought.keys() | {"live/3.3.squashfs", "live/3.1.squashfs", "EFI/BOOT/BOOTX64.EFI"})
    }


def test_plain_tools_read_a_kit(releases: tuple[Earlier, Later], tmp_path: Path) -> None:
    kit = made(releases, tmp_path)
    listed = subprocess.run(
        ["tar", "--utc", "-tvf", kit], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    assert [line.split()[0] for line in listed] == ["-rw-r--r--"] * 4
    assert [line.split()[1] for line in listed] == ["0/0"] * 4
    assert [line.split()[-1] for line in listed] == [
        *("FORMAT", "control.json", "boot.tar", "3.3.squashfs")
    ]
    with tarfile.open(kit) as tar:
        assert {member.mtime for member in tar} == {EPOCH}
    (tmp_path / "out").mkdir()
    subprocess.run(["tar", "-C", tmp_path / "out", "-xf", kit], check=True)
    with tarfile.open(tmp_path / "out/boot.tar") as tar:
        assert tar.getnames() == sorted(tar.getnames())
        assert DEEP in tar.getnames()
    listing = subprocess.run(
        ["unsquashfs", "-lln", tmp_path / "out/3.3.squashfs"], check=True, capture_output=True
    ).stdout.decode()
    assert "squashfs-root/b" in listing
    assert listing.splitlines()[1].startswith("-rw-r--r--")


def test_a_kit_has_the_same_bytes_wherever_it_is_made(
    releases: tuple[Earlier, Later], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = made(releases, tmp_path).read_bytes()
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    before = os.umask(0o077)
    try:
        again = tmp_path / "again.iuk"
        work = tmp_path / "else" / "where"
        make_kit(KitPlan(*releases, again, work, processors=3, proven=False), ENV)
    finally:
        os.umask(before)
    assert again.read_bytes() == first


@pytest.mark.parametrize("field", ["ledger", "partition"])
def test_a_release_without_what_a_kit_needs_is_named(
    field: str, releases: tuple[Earlier, Later], tmp_path: Path
) -> None:
    getattr(releases[0], field).write_text("{}\n")
    with pytest.raises(StepFailed, match=f"old.{field} is not the l") as raised:
        made(releases, tmp_path)
    assert raised.value.status == STATUS_INPUTS


@pytest.mark.parametrize(
    "content",
    [
        '{"path":"ä","sha256":"%s","size":1,"type":"file"}',
        '{"path":"a","sha256":"%s","size":-1.5,"type":"file"}',
        '{"path":"../a","sha256":"%s","size":1,"type":"file"}',
        '{"path":"a","path":"b","sha256":"%s","size":1,"type":"file"}',
        '{"path":"a","type":"absent"}',
        '{"step":"a"}',
        "[" * 100_000,
        "\n" * (PARTITION_LIST_LIMIT + 1),
    ],
)
def test_a_malformed_list_of_a_partition_is_refused(
    content: str, releases: tuple[Earlier, Later], tmp_path: Path
) -> None:
    releases[0].partition.write_text(content.replace("%s", "0" * 64))
    with pytest.raises(StepFailed, match=r"old\.partition is not the list of") as raised:
        made(releases, tmp_path)
    assert raised.value.status == STATUS_INPUTS


def test_a_release_without_its_squashfs_is_no_base(
    releases: tuple[Earlier, Later], tmp_path: Path
) -> None:
    files = {path: text for path, text in PARTITION_OLD.items() if path != "live/3.1.squashfs"}
    list_partition(files, releases[0].partition)
    with pytest.raises(StepFailed, match=r"the release 3\.1 has no live/3\.1\.squashfs"):
        made(releases, tmp_path)


def test_names_that_are_one_on_the_partition_are_refused(
    releases: tuple[Earlier, Later], tmp_path: Path
) -> None:
    list_partition(PARTITION_OLD | {"LIVE/3.3.CFG": "x"}, releases[0].partition)
    with pytest.raises(StepFailed, match=r"LIVE/3\.3\.CFG and live/3\.3\.cfg are one name|are one"):
        made(releases, tmp_path)


def test_a_partition_file_that_is_not_as_listed_is_found(
    releases: tuple[Earlier, Later], tmp_path: Path
) -> None:
    (tmp_path / "files/live/3.3.cfg").write_text("another")
    with pytest.raises(StepFailed, match=r"live/3\.3\.cfg is not as new\.partition lists it"):
        made(releases, tmp_path)


def test_a_name_too_long_for_a_kit_is_refused(
    releases: tuple[Earlier, Later], tmp_path: Path
) -> None:
    path = "live/" + "x" * 120
    (tmp_path / "files" / path).touch()
    list_partition(PARTITION_NEW | {path: ""}, releases[1].partition)
    with pytest.raises(StepFailed, match=r"no kit can be made: 'live/x+' has too long a name"):
        made(releases, tmp_path)


def test_a_member_too_large_for_a_kit_is_named() -> None:
    with pytest.raises(StepFailed, match=r"'boot\.tar': no ustar header holds the size 8589934592"):
        _header("boot.tar", 8 * 1024**3, EPOCH)


def test_the_proof_refuses_a_root_directory_that_no_ledger_knows(
    releases: tuple[Earlier, Later], tmp_path: Path
) -> None:
    releases[1].tree.chmod(0o700)
    with pytest.raises(StepFailed, match="root directory must be 0755"):
        made(releases, tmp_path)
    releases[1].tree.chmod(0o755)
    assert control_of(made(releases, tmp_path / "b")).to == "3.3"
