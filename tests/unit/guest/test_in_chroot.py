# SPDX-License-Identifier: GPL-3.0-or-later
"""What a hook can reach: a real shell in a tree of its own, trying to get out of it."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.guest import locales
from pipeline.guest.serial_port import StepFailed
from pipeline.guest.tree import in_chroot, in_folder, takes_locale
from tests.guest_log import Log

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
PROGRAMS = ("cat", "head", "ls", "sh", "test", "wc")
ENV = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    for name in ("bin", "proc", "sys", "dev", "run", "tmp", "root"):
        (folder / name).mkdir(parents=True)
    for name in PROGRAMS:
        program = str(shutil.which(name))
        shutil.copy(program, folder / "bin" / name)
        for library in libraries(program):
            (folder / library.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(library, folder / library.lstrip("/"))
    return folder


def libraries(program: str) -> list[str]:
    """Return the shared libraries of a program and its loader, by absolute path."""
    listed = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
    return re.findall(r"(/\S+) \(0x", listed)


def play(root: Path, script: str) -> list[str]:
    report = Log()
    in_chroot(root, report, ENV, ["sh", "-ec", script], blame="hook x")
    return report.lines


def test_a_hook_is_lent_the_machines_locales(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locales, "SOURCES", tmp_path)
    (tmp_path / "de_DE").touch()
    env = {**ENV, "LC_ALL": "de_DE.UTF-8"}
    report = Log()
    script = 'echo "$LOCPATH"; ls /run/locale; if sh -c ": >/run/locale/x"; then exit 1; fi'
    in_chroot(root, report, env, ["sh", "-ec", script], blame="hook x")
    assert report.lines[0] == "/usr/lib/locale:/run/locale"
    assert {path.name for path in Path("/usr/lib/locale").iterdir()} <= set(report.lines)
    assert list((root / "run").iterdir()) == []


@pytest.mark.parametrize(
    ("locale", "takes"),
    [
        ("echo UTF-8", True),
        ("echo ANSI_X3.4-1968; echo cannot set >&2", False),
        ("exit 1", False),
        (None, True),
    ],
)
def test_a_tree_whose_libc_does_not_take_the_locale_is_noticed(
    root: Path, locale: str | None, *, takes: bool
) -> None:
    if locale:
        (root / "usr/bin").mkdir(parents=True)
        (root / "usr/bin/locale").write_text(f"#!/bin/sh\n{locale}\n")
        (root / "usr/bin/locale").chmod(0o755)
    assert takes_locale(root, Log(), ENV) is takes


def test_where_nothing_runs_nobody_can_tell(root: Path) -> None:
    (root / "bin/sh").unlink()
    assert takes_locale(root, Log(), ENV)


def test_a_hook_has_the_devices_that_programs_expect(root: Path) -> None:
    lines = play(
        root,
        "echo x >/dev/null; head -c 4 /dev/zero | wc -c;"
        " echo y >/dev/stdout; echo z >/dev/shm/z; cat /dev/fd/0 </dev/shm/z;"
        " test -c /dev/ptmx; ls /dev",
    )
    assert lines[:3] == ["4", "y", "z"]
    devices = "fd full null ptmx pts random shm stderr stdin stdout tty urandom zero"
    assert sorted(" ".join(lines[3:]).split()) == devices.split()


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo 7 >/proc/sys/kernel/printk", "Read-only file system"),
        ("echo host >/proc/sys/kernel/hostname", "Read-only file system"),
        ("echo add >/sys/class/mem/null/uevent", "Read-only file system"),
        ("cat /dev/vda", "No such file"),
        ("cat /dev/disk/by-id/virtio-scratch", "No such file"),
    ],
)
def test_a_hook_that_reaches_out_of_its_tree_fails(root: Path, script: str, why: str) -> None:
    with pytest.raises(StepFailed, match="hook x failed") as caught:
        play(root, f"echo begun; {script}")
    assert caught.value.detail.startswith("begun")
    assert why in caught.value.detail


def test_the_root_of_its_first_process_is_the_tree(root: Path) -> None:
    play(root, "echo x >/proc/1/root/../../written; echo x >/../../written-too")
    assert (root / "written").exists()
    assert (root / "written-too").exists()


def test_nothing_stays_mounted_and_nothing_of_dev_in_the_tree(root: Path) -> None:
    before = files(root)
    play(root, "echo x >/dev/shm/x; echo x >/tmp/x; echo x >/root/kept")
    assert files(root) - before == {"root/kept"}
    assert str(root) not in Path("/proc/self/mounts").read_text()


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


@pytest.fixture
def apart() -> Iterator[Path]:
    """A folder for a binary hook; /tmp is no place for it, that a hook can write."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="twinbuild test ") as name:
        (Path(name) / "binary").mkdir()
        (Path(name) / "source").mkdir()
        yield Path(name) / "binary"


def play_binary(folder: Path, script: str) -> list[str]:
    report = Log()
    in_folder(folder, report, ENV, ["sh", "-ec", script], blame="hook x")
    return report.lines


def test_a_binary_hook_has_its_folder_and_reads_what_is_beside_it(apart: Path) -> None:
    (apart.parent / "source/text").write_text("beside\n")
    lines = play_binary(
        apart, "pwd; cat ../source/text | tee note; file=$(mktemp); echo x >/dev/null; rm $file"
    )
    assert lines == [str(apart), "beside"]
    assert (apart / "note").read_text() == "beside\n"
    assert str(apart) not in Path("/proc/self/mounts").read_text()


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo x >../source/x", "Read-only file system"),
        ("rm -r ../source", "Read-only file system"),
        ("touch /etc/x", "Read-only file system"),
        ("echo 7 >/proc/sys/kernel/printk", "Read-only file system"),
        ("cat /dev/vda", "No such file"),
    ],
)
def test_a_binary_hook_that_writes_elsewhere_fails(apart: Path, script: str, why: str) -> None:
    with pytest.raises(StepFailed, match="hook x failed") as caught:
        play_binary(apart, f"echo begun; {script}")
    assert caught.value.detail.startswith("begun")
    assert why in caught.value.detail
    assert (apart.parent / "source").is_dir()
    assert list((apart.parent / "source").iterdir()) == []
    assert not Path("/etc/x").exists()
