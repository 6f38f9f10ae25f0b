# SPDX-License-Identifier: GPL-3.0-or-later
"""Shared hooks: links that are followed, and those that a commit may not bring."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from pipeline.documents.progress import STATUS_BUILD_FAILED
from pipeline.guest import tree
from pipeline.guest.hook_links import check_hook_links
from pipeline.guest.job import GuestJob
from pipeline.guest.serial_port import StepFailed
from tests.jobs import make_document
from tests.machine_settings import make_settings

SHARED = "../../../../../hooks/chroot/50-shared.hook.chroot"
HOOK = "images/live/mini/hooks/normal/10-a.hook.chroot"


@pytest.fixture
def job(tmp_path: Path) -> GuestJob:
    made = GuestJob(make_document(), make_settings(), tmp_path / "work")
    (made.image_folder / "hooks/normal").mkdir(parents=True)
    shared = made.work / "source/hooks/chroot/50-shared.hook.chroot"
    shared.parent.mkdir(parents=True)
    shared.write_text("#!/bin/sh\n")
    (made.work / "secret").write_text("of the machine")
    made.tree.mkdir()
    return made


def link(job: GuestJob, target: str | Path, name: str = HOOK) -> None:
    (job.work / "source" / name).symlink_to(target)


def test_a_shared_hook_is_found_by_a_link_and_copied(
    job: GuestJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    link(job, SHARED)
    tree.check_configuration(job)
    (hook,) = tree.hooks(job.image_folder / "hooks", ".hook.chroot")
    ran: list[str] = []

    def look(*_: Any, **__: Any) -> None:
        inside = job.tree / "root" / hook.name
        assert not inside.is_symlink()
        ran.append(inside.read_text())

    monkeypatch.setattr(tree, "in_chroot", look)
    (job.tree / "root").mkdir()
    tree.run_chroot_hook(job, None, {}, hook)  # type: ignore[arg-type]
    assert ran == ["#!/bin/sh\n"]


def test_it_comes_out_of_an_exported_commit(job: GuestJob, tmp_path: Path) -> None:
    """git archive and tar keep a relative link as it is."""
    link(job, SHARED)
    source = job.work / "source"
    git = ["git", "-c", "user.name=Test", "-c", "user.email=test@example.org", "-C", str(source)]
    for argv in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message=x"]):
        subprocess.run([*git, *argv], check=True)
    subprocess.run([*git, "archive", "--output", tmp_path / "source.tar", "HEAD"], check=True)
    (tmp_path / "unpacked").mkdir()
    unpack = ["tar", "-xf", str(tmp_path / "source.tar"), "-C", str(tmp_path / "unpacked")]
    subprocess.run(unpack, check=True)
    unpacked = tmp_path / "unpacked"
    check_hook_links(unpacked / "images/live/mini/hooks", unpacked)
    assert (unpacked / HOOK).read_text() == "#!/bin/sh\n"


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("../../../../../../secret", "out of the commit"),
        ("{work}/secret", "out of the commit"),
        ("/usr/share/live/build/hooks/normal/1000-x.hook.chroot", "out of the commit"),
        ("{work}/source/hooks/chroot/50-shared.hook.chroot", "out of the commit"),
        ("../../../../../hooks/chroot/gone.hook.chroot", "which is not there"),
        ("10-a.hook.chroot", "which is not there"),
        ("../../../../../hooks/chroot", "which is no file"),
        ("../../../../../hooks/way-out", "out of the commit"),
    ],
)
def test_a_link_to_anything_else_is_refused(target: str, reason: str, job: GuestJob) -> None:
    link(job, job.work / "secret", "hooks/way-out")
    link(job, target.format(work=job.work))
    with pytest.raises(StepFailed, match=f"^{HOOK} is a link to .*{reason}") as caught:
        tree.check_configuration(job)
    assert caught.value.status == STATUS_BUILD_FAILED


def test_hooks_that_would_not_be_found_are_refused(job: GuestJob) -> None:
    (job.image_folder / "hooks/normal").rmdir()
    link(job, "../../../../hooks/chroot", "images/live/mini/hooks/normal")
    with pytest.raises(StepFailed, match=r"hooks/normal is a link to .* which is no file"):
        tree.check_configuration(job)
