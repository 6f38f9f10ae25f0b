# SPDX-License-Identifier: GPL-3.0-or-later
"""Making the image's tree: on real folders, with real links and times."""

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from pipeline.documents.progress import STATUS_BUILD_FAILED
from pipeline.guest import tree
from pipeline.guest.job import GuestJob
from pipeline.guest.serial_port import StepFailed
from pipeline.guest.times import Times
from tests.jobs import make_document
from tests.machine_settings import make_settings

EPOCH = 1_700_000_000
TIMES = Times(EPOCH, EPOCH)


@pytest.fixture
def job(tmp_path: Path) -> GuestJob:
    made = GuestJob(make_document(epoch=EPOCH), make_settings(), tmp_path / "work")
    made.image_folder.mkdir(parents=True)
    made.tree.mkdir()
    return made


@pytest.fixture
def includes(job: GuestJob) -> Path:
    folder = job.image_folder / "includes.chroot"
    folder.mkdir()
    return folder


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """What a link of the image leads to: the machine's own files."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "file").write_text("of the machine")
    return folder


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_includes_have_the_modes_that_git_keeps(includes: Path, job: GuestJob) -> None:
    (includes / "etc").mkdir(mode=0o700)
    (includes / "etc/plain").write_text("plain")
    (includes / "etc/plain").chmod(0o600)
    (includes / "etc/tool").write_text("tool")
    (includes / "etc/tool").chmod(0o4711)
    (includes / "etc/link").symlink_to("/nowhere")
    before = os.umask(0o077)
    try:
        tree.include(includes, job.tree)
    finally:
        os.umask(before)
    assert mode(job.tree / "etc") == 0o755
    assert mode(job.tree / "etc/plain") == 0o644
    assert mode(job.tree / "etc/tool") == 0o755
    assert (job.tree / "etc/link").readlink() == Path("/nowhere")


def test_no_includes_are_no_error(job: GuestJob) -> None:
    tree.include(job.image_folder / "includes.chroot", job.tree)
    assert list(job.tree.iterdir()) == []


def test_includes_replace_files_and_join_folders(includes: Path, job: GuestJob) -> None:
    for folder in (includes, job.tree):
        (folder / "etc").mkdir()
        (folder / "etc/both").write_text(str(folder))
    (job.tree / "etc").chmod(0o750)
    (job.tree / "etc/other").write_text("stays")
    tree.include(includes, job.tree)
    assert (job.tree / "etc/both").read_text() == str(includes)
    assert (job.tree / "etc/other").read_text() == "stays"
    assert mode(job.tree / "etc") == 0o750


def test_a_link_of_the_image_is_replaced_and_not_written_through(
    includes: Path, job: GuestJob, outside: Path
) -> None:
    (job.tree / "resolv.conf").symlink_to(outside / "file")
    (includes / "resolv.conf").write_text("of the image")
    tree.include(includes, job.tree)
    assert (outside / "file").read_text() == "of the machine"
    assert not (job.tree / "resolv.conf").is_symlink()
    assert (job.tree / "resolv.conf").read_text() == "of the image"


def test_a_link_within_the_image_is_followed(includes: Path, job: GuestJob) -> None:
    (job.tree / "usr/bin").mkdir(parents=True)
    (job.tree / "bin").symlink_to("usr/bin")
    (includes / "bin").mkdir()
    (includes / "bin/tool").write_text("tool")
    tree.include(includes, job.tree)
    assert (job.tree / "usr/bin/tool").read_text() == "tool"
    assert (job.tree / "bin").is_symlink()


@pytest.mark.parametrize("target", ["{outside}", "../../outside"])
def test_nothing_is_put_behind_a_link_that_leads_out(
    target: str, includes: Path, job: GuestJob, outside: Path
) -> None:
    (job.tree / "run").symlink_to(target.format(outside=outside))
    (includes / "run/below").mkdir(parents=True)
    (includes / "run/below/file").write_text("evil")
    failed = refused(includes, job)
    assert "includes.chroot/run/below lies behind a link" in failed.what
    assert [path.name for path in outside.iterdir()] == ["file"]


@pytest.mark.parametrize("kind", ["file over folder", "folder over file", "link over folder"])
def test_a_file_and_a_folder_do_not_replace_each_other(
    kind: str, includes: Path, job: GuestJob
) -> None:
    ours, theirs = includes / "x", job.tree / "x"
    if kind == "folder over file":
        ours.mkdir()
        theirs.write_text("file")
    else:
        theirs.mkdir()
        ours.write_text("file") if kind == "file over folder" else ours.symlink_to("y")
    assert "includes.chroot/x is in the way" in refused(includes, job).what


def refused(includes: Path, job: GuestJob) -> StepFailed:
    with pytest.raises(StepFailed) as caught:
        tree.include(includes, job.tree)
    assert caught.value.status == STATUS_BUILD_FAILED
    return caught.value


def test_hooks_run_in_live_builds_order(job: GuestJob) -> None:
    hooks = job.image_folder / "hooks"
    for name in (
        "normal/20-b.hook.chroot",
        "normal/10-a.hook.chroot",
        "normal/10-a.hook.binary",
        "live/05-c.hook.chroot",
        "00-d.hook.chroot",
        "01-old.chroot",
        "README",
        "normal/notes.txt",
    ):
        (hooks / name).parent.mkdir(parents=True, exist_ok=True)
        (hooks / name).touch()
    names = [hook.name.partition(".")[0] for hook in tree.hooks(hooks, ".chroot")]
    assert names == ["10-a", "20-b", "05-c", "00-d", "01-old"]
    assert [hook.name for hook in tree.hooks(hooks, ".hook.binary")] == ["10-a.hook.binary"]
    assert tree.hooks(job.image_folder / "none", ".hook.chroot") == []


def test_a_configuration_that_would_be_ignored_is_refused(job: GuestJob) -> None:
    for name in ("image.yaml", "lock", "README.md"):
        (job.image_folder / name).touch()
    (job.image_folder / "package-lists").mkdir()
    tree.check_configuration(job)
    (job.image_folder / "bootloaders").mkdir()
    with pytest.raises(
        StepFailed, match=r"images/live/mini/bootloaders is not supported"
    ) as caught:
        tree.check_configuration(job)
    assert caught.value.status == STATUS_BUILD_FAILED


def test_the_initramfs_has_no_times(job: GuestJob, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the clock says: mkinitramfs changes what is newer than SOURCE_DATE_EPOCH."""
    asked: list[Any] = []
    monkeypatch.setattr(tree, "in_chroot", lambda *a, **_: asked.append(a))
    tree.make_initramfs(job, None, {"SOURCE_DATE_EPOCH": str(EPOCH)})  # type: ignore[arg-type]
    assert asked == []  # there is nothing that makes one
    (job.tree / "usr/sbin").mkdir(parents=True)
    (job.tree / "usr/sbin/update-initramfs").touch()
    tree.make_initramfs(job, None, {"SOURCE_DATE_EPOCH": str(EPOCH)})  # type: ignore[arg-type]
    assert asked[0][2]["SOURCE_DATE_EPOCH"] == "0"


def test_what_a_system_makes_for_itself_is_removed(job: GuestJob) -> None:
    removed = ["var/lib/dbus/machine-id", "var/log/apt/x.log", "var/cache/apt/a", "tmp/a/b"]
    removed += ["var/lib/apt/lists/a", "var/log/journal/0123/system.journal"]
    kept = ["var/lib/dpkg/status", "etc/hostname", "etc/machine-id"]
    for name in (*removed, *kept):
        (job.tree / name).parent.mkdir(parents=True, exist_ok=True)
        (job.tree / name).write_text("x")
    tree.clean(job, TIMES)
    left = {str(p.relative_to(job.tree)) for p in job.tree.rglob("*") if not p.is_dir()}
    assert left == set(kept)
    assert (job.tree / "etc/machine-id").read_bytes() == b""
    assert (job.tree / "var/log/apt").is_dir()  # packages ship it
    assert not (job.tree / "tmp/a").exists()
    assert not (job.tree / "var/log/journal/0123").exists()


def test_cleaning_makes_nothing(job: GuestJob) -> None:
    tree.clean(job, TIMES)
    assert list(job.tree.iterdir()) == []


def test_cleaning_follows_no_link(job: GuestJob, outside: Path) -> None:
    for name in ("etc", "var/log"):
        (job.tree / name).mkdir(parents=True)
    (job.tree / "etc/machine-id").symlink_to(outside / "file")
    (job.tree / "tmp").symlink_to(outside)
    (job.tree / "var/log/link").symlink_to(outside)
    tree.clean(job, TIMES)
    assert (outside / "file").read_text() == "of the machine"
    assert not (job.tree / "var/log/link").is_symlink()


def test_all_times_are_clamped_links_and_folders_too(job: GuestJob, outside: Path) -> None:
    (job.tree / "a/b").mkdir(parents=True)
    (job.tree / "a/new").write_text("new")
    (job.tree / "a/old").write_text("old")
    os.utime(job.tree / "a/old", (1, 2))
    (job.tree / "link").symlink_to(outside)
    untouched = (outside / "file").stat().st_mtime_ns
    tree.settle_times(job.tree, lambda mtime: min(mtime // 10**9, EPOCH))
    times = {p.name: p.lstat().st_mtime_ns for p in [job.tree, *job.tree.rglob("*")]}
    epoch = EPOCH * 10**9
    assert times == {
        "tree": epoch, "a": epoch, "b": epoch, "new": epoch, "link": epoch, "old": 2 * 10**9
    }  # fmt: skip
    assert (outside / "file").stat().st_mtime_ns == untouched


def test_the_release_file_is_shell(job: GuestJob) -> None:
    (job.tree / "etc").mkdir()
    tree.write_release(job)
    path = job.tree / "etc/image-release"
    assert path.read_text().splitlines() == [
        "IMAGE=mini",
        "VERSION=3.3",
        f"COMMIT={'c' * 40}",
        f"SOURCE_DATE_EPOCH={EPOCH}",
    ]
    assert mode(path) == 0o644
