# SPDX-License-Identifier: GPL-3.0-or-later
"""What people boot, made by the real mksquashfs, mtools and xorriso; another test boots it."""

import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipeline.documents.progress import STATUS_BUILD_FAILED, STATUS_INFRASTRUCTURE
from pipeline.guest import grub, media, usb_image
from pipeline.guest.job import GuestJob
from pipeline.guest.output_disk import hand_over
from pipeline.guest.serial_port import StepFailed
from tests.guest_log import Log
from tests.jobs import make_document
from tests.machine_settings import make_settings

EPOCH = 1_766_400_000
MIB = 1024 * 1024
DOCUMENT: dict[str, Any] = {
    "image": "mini",
    "architecture": "amd64",
    "version": "0~3.3+1",
    "commit": "c" * 40,
    "epoch": EPOCH,
    "compression": "fast",
    "volume_id": "MINI_WITH_A_LONG_NAME",
    "kernel_parameters": "quiet",
}
COMMON = [
    ".disk/info",
    "boot/grub/current.cfg",
    "boot/grub/grub.cfg",
    "live/0~3.3+1.cfg",
    "live/0~3.3+1.module",
    "live/0~3.3+1.squashfs",
    "live/initrd-9752c38a9065.img",
    "live/vmlinuz-6923dd1bc046",
]
EFI = ["EFI/BOOT/BOOTX64.EFI", "EFI/BOOT/grubx64.efi", "EFI/BOOT/mmx64.efi"]


@contextmanager
def with_umask(umask: int) -> Iterator[None]:
    before = os.umask(umask)
    try:
        yield
    finally:
        os.umask(before)


@pytest.fixture(autouse=True)
def _loaders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put something in the place of the boot loaders, which only a build machine has."""
    folder = tmp_path / "loaders"
    folder.mkdir()
    for name, size in (("boot.img", 512), ("boot_hybrid.img", 512), ("cdboot.img", 2048)):
        (folder / name).write_bytes(name.encode().ljust(size, b"\1"))
    efi = {name.rpartition("/")[2]: folder / f"{name[-8:]}.signed" for name in EFI}
    for name, path in efi.items():
        path.write_text(name)
    monkeypatch.setattr(grub, "BIOS", folder)
    monkeypatch.setattr(grub, "EFI_FILES", efi)
    monkeypatch.setattr(grub, "core_image", lambda *_: b"core" * 1000)


@pytest.fixture(scope="module", autouse=True)
def _older_squashfs_tools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Leave out the one option that Debian 12's mksquashfs does not know."""
    folder = tmp_path_factory.mktemp("bin")
    program = folder / "mksquashfs"
    program.write_text(
        '#!/bin/sh\nfor last do shift; case $last in -xattrs-include | "^"*) ;;'
        f' *) set -- "$@" "$last" ;; esac; done\nexec {shutil.which("mksquashfs")} "$@"\n'
    )
    program.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        yield


def make_job(work: Path) -> GuestJob:
    job = GuestJob(make_document(**DOCUMENT), make_settings(), work)
    (job.tree / "boot").mkdir(parents=True)
    (job.tree / "boot/vmlinuz-6.12").write_text("kernel")
    (job.tree / "boot/initrd.img-6.12").write_text("initramfs")
    (job.tree / "etc").mkdir()
    (job.tree / "etc/hostname").write_text("mini\n")
    for path in (job.tree / "etc/hostname", job.tree / "etc", job.tree / "boot", job.tree):
        path.chmod(0o755)
        os.utime(path, (EPOCH, EPOCH))
    job.artifacts.mkdir()
    job.image_folder.mkdir(parents=True, exist_ok=True)
    return job


@pytest.fixture
def job(tmp_path: Path) -> GuestJob:
    return make_job(tmp_path / "work")


def env(**varied: str) -> dict[str, str]:
    plain = {"PATH": os.environ["PATH"], "TZ": "UTC", "LC_ALL": "C.UTF-8"}
    return {**plain, "SOURCE_DATE_EPOCH": str(EPOCH), **varied}


def make(job: GuestJob, **varied: str) -> GuestJob:
    for step in (
        media.make_squashfs,
        media.complete_partition,
        media.make_iso,
        usb_image.make_usb_image,
    ):
        step(job, Log(), env(**varied))
    return job


def output_of(*argv: str | Path) -> list[str]:
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    return done.stdout.splitlines()


def on_fat(image: Path, offset: int) -> list[str]:
    found = output_of("mdir", "-i", f"{image}@@{offset}", "-b", "-a", "-/", "::")
    return sorted(path.removeprefix("::/") for path in found if not path.endswith("/"))


def test_iso_and_usb_image_hold_the_same(job: GuestJob) -> None:
    make(job)
    iso, image = (job.artifacts / name for name in (job.names.iso, job.names.usb_image))
    found = output_of("xorriso", "-indev", iso, "-find", "/", "-type", "f")
    files = sorted(line.strip("'/") for line in found)
    loaders = ["boot/grub/efi.img", "boot/grub/eltorito.img"]
    assert files == sorted([*COMMON, *loaders])
    assert on_fat(job.work / "iso-loaders/boot/grub/efi.img", 0) == EFI
    assert on_fat(image, 2 * MIB) == sorted([*COMMON, *EFI])
    listed = (job.artifacts / job.names.partition).read_text().splitlines()
    assert [line.split('"')[3] for line in listed] == sorted([*COMMON, *EFI])


def test_no_machine_leaves_a_trace(job: GuestJob, tmp_path: Path) -> None:
    make(job)
    with with_umask(0o077):
        other = make(make_job(tmp_path / "elsewhere"), TZ="Pacific/Kiritimati", LC_ALL="POSIX")
    for name in (job.names.iso, job.names.partition):
        assert (job.artifacts / name).read_bytes() == (other.artifacts / name).read_bytes()
    assert written(job) == written(other)


def written(job: GuestJob) -> tuple[bytes, bytes]:
    """Return what is written of a USB image that has no file near its end."""
    with (job.artifacts / job.names.usb_image).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(8 * MIB)
        assert os.lseek(file.fileno(), 8 * MIB, os.SEEK_DATA) >= size - MIB
        file.seek(size - MIB)
        return start, file.read()


def test_the_tree_that_is_packed_has_no_kernel(job: GuestJob) -> None:
    (squashfs,) = media.make_squashfs(job, Log(), env()).values()
    packed = output_of("unsquashfs", "-lln", "-d", "", "-UTC", squashfs)
    assert [line.split()[-1] for line in packed][1:] == ["/boot", "/etc", "/etc/hostname"]
    assert all("2025-12-22 10:40" in line for line in packed)
    assert [*(job.tree / "boot").iterdir()] == []
    module = squashfs.with_suffix(".module")
    assert module.name == "0~3.3+1.module"
    assert module.read_text() == "0~3.3+1.squashfs\n"


def test_threads_and_the_order_of_folders_do_not_show(tmp_path: Path) -> None:
    """Row 4 of docs/determinism.md; without SOURCE_DATE_EPOCH the super block tells the time."""
    cpus = os.sched_getaffinity(0)
    squashfs = packed(tmp_path / "a", range(40))
    try:
        os.sched_setaffinity(0, {min(cpus)})
        other = packed(tmp_path / "b", reversed(range(40)), TZ="Pacific/Kiritimati")
    finally:
        os.sched_setaffinity(0, cpus)
    assert other == squashfs
    assert int.from_bytes(squashfs[8:12], "little") == EPOCH
    assert int.from_bytes(packed(tmp_path / "c", [1], SOURCE_DATE_EPOCH="")[8:12], "little") > EPOCH


def packed(work: Path, order: Iterable[int], **varied: str) -> bytes:
    """Return the SquashFS of a tree that was filled in this order: fragments and whole blocks."""
    job = make_job(work)
    for number in order:
        path = job.tree / "etc" / f"{number}"
        path.write_bytes(f"{number} ".encode() * 4**9 if number % 7 == 0 else b"%d" % number)
        path.chmod(0o644)
        os.utime(path, (EPOCH, EPOCH))
    os.utime(job.tree / "etc", (EPOCH, EPOCH))
    variables = {name: value for name, value in env(**varied).items() if value}
    (path,) = media.make_squashfs(job, Log(), variables).values()
    return path.read_bytes()


def test_the_image_says_which_files_come_first(tmp_path: Path) -> None:
    plain, job = packed(tmp_path / "a", range(8)), tmp_path / "b"
    sort = job / "source/images/live/mini/squashfs.sort"
    sort.parent.mkdir(parents=True)
    sort.write_text("etc/7 2\netc/gone 1\n")
    assert packed(job, range(8)) != plain


@pytest.mark.parametrize("wrong", ["none", "two", "link", "folder"])
def test_an_image_has_one_kernel(wrong: str, job: GuestJob) -> None:
    kernel = job.tree / "boot/vmlinuz-6.12"
    if wrong == "two":
        (job.tree / "boot/vmlinuz-6.13").touch()
    else:
        kernel.unlink()
    if wrong == "link":
        kernel.symlink_to("/etc/hostname")
    if wrong == "folder":
        kernel.mkdir()
    with pytest.raises(StepFailed, match=r"files boot/vmlinuz-\* and must have one") as caught:
        media.kernel_and_initramfs(job)
    assert caught.value.status == STATUS_BUILD_FAILED


ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")


@ROOT_ONLY
def test_an_image_may_bring_its_own_menu(job: GuestJob) -> None:
    own = job.image_folder / "includes.binary/boot/grub/grub.cfg"
    own.parent.mkdir(parents=True)
    own.write_text("source /boot/grub/current.cfg\nsource /live/$version.cfg\nboot\n")
    hook = job.image_folder / "hooks/normal/10-note.hook.binary"
    hook.parent.mkdir(parents=True)
    hook.write_text("#!/bin/sh\necho note >note\n")
    media.make_squashfs(job, Log(), env())
    media.complete_partition(job, Log(), env())
    assert (job.binary / "boot/grub/grub.cfg").read_text() == own.read_text()
    assert (job.binary / "note").read_text() == "note\n"
    assert {path.stat().st_mtime for path in job.binary.rglob("*")} == {EPOCH}


@ROOT_ONLY
@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("echo set version=1 >boot/grub/current.cfg", r"current\.cfg was changed: upgrades"),
        ("rm boot/grub/current.cfg", r"current\.cfg was changed: upgrades"),
        ("echo x >boot/grub/efi.img", r"efi\.img is there: the build makes"),
    ],
)
def test_what_upgrades_rest_on_is_not_changed(command: str, why: str, job: GuestJob) -> None:
    hook = job.image_folder / "hooks/normal/10-change.hook.binary"
    hook.parent.mkdir(parents=True)
    hook.write_text(f"#!/bin/sh\n{command}\n")
    media.make_squashfs(job, Log(), env())
    with pytest.raises(StepFailed, match=f"on the system partition boot/grub/{why}") as caught:
        media.complete_partition(job, Log(), env())
    assert caught.value.status == STATUS_BUILD_FAILED


@ROOT_ONLY
def test_a_hook_that_writes_outside_its_folder_is_reported_with_its_line(job: GuestJob) -> None:
    hook = job.image_folder / "hooks/normal/10-out.hook.binary"
    hook.parent.mkdir(parents=True)
    hook.write_text("#!/bin/sh\nset -e\necho x >/etc/written\n")
    media.make_squashfs(job, Log(), env())
    with pytest.raises(StepFailed, match=r"\(images/.*/10-out\.hook\.binary:3\)") as caught:
        media.complete_partition(job, Log(), env())
    assert caught.value.detail.rstrip().endswith("Read-only file system")


def test_an_output_disk_that_is_full_is_reported(tmp_path: Path) -> None:
    (tmp_path / "timings.json").write_bytes(os.urandom(100_000))
    with pytest.raises(StepFailed, match="the output disk is too small or broken") as caught:
        hand_over(Path("/dev/full"), tmp_path, ["timings.json"])
    assert caught.value.status == STATUS_INFRASTRUCTURE
