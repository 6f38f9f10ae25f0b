# SPDX-License-Identifier: GPL-3.0-or-later
"""What the demo prepares can be released: its clone is where its farm lives, and decides."""

import os
import re
import shutil
import sys
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from pipeline.base import places
from pipeline.base.display import Display
from pipeline.base.errors import UsageError
from pipeline.cli import demo
from pipeline.farm import policy, ready
from pipeline.farm.workspace import open_workspace
from tests.hostile_repository import git

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("kvm", "cores", "estimate"),
    [
        (False, 2, "about 24 minutes on 2 cores without KVM (6 with KVM is an estimate)"),
        (False, 1, "about 48 minutes on 1 cores"),
        (True, 4, "about 6 minutes on 4 cores with KVM"),
    ],
)
def test_it_says_before_what_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kvm: bool, cores: int, estimate: str
) -> None:
    monkeypatch.setenv("TWINBUILD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(ready, "FREE_DISK_GIB", 0)
    shutil.copy(ROOT / "farm.yaml", tmp_path)
    workspace = open_workspace(tmp_path)
    device = tmp_path / "farm.yaml" if kvm else tmp_path / "nothing"
    time, disk = demo.what_it_takes(workspace, kvm=device, cores=cores)
    assert estimate in time
    assert re.search(r"about 5 GiB, .*[0-9.]+ GiB free at ", disk)
    messages: list[str] = []
    monkeypatch.setattr(Display, "say", lambda _, line: messages.append(line))
    monkeypatch.setattr(demo, "prepare", lambda *_: pytest.fail(messages[0]))
    with pytest.raises(pytest.fail.Exception, match="this takes about"):
        demo.run_demo(workspace, Display(Console(file=StringIO())))


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A distribution's repository, which has an image of its own and nothing of Twinbuild's."""
    monkeypatch.setenv("TWINBUILD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(demo, "lock_image", lambda *_: None)
    farm = tmp_path / "kiosk"
    (farm / "images" / "live" / "kiosk").mkdir(parents=True)
    (farm / "images" / "live" / "kiosk" / "image.yaml").touch()
    shutil.copy(ROOT / "farm.yaml", farm)
    git(farm, "init", "--quiet", "--initial-branch=main")
    return farm


def test_a_repository_of_other_images_is_shown_twinbuilds_own(
    elsewhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(elsewhere, "add", "--all")
    git(elsewhere, "commit", "--quiet", "-m", "kiosk: begin")
    output = StringIO()
    made = demo.prepare(
        open_workspace(elsewhere), tmp_path / "demo", Display(Console(file=output, soft_wrap=True))
    )
    tagged = git(made.farm, "ls-tree", "-r", "--name-only", demo.TAG).splitlines()
    assert "images/live/mini/image.yaml" in tagged
    assert not (elsewhere / "images" / "live" / "mini").exists()
    assert f"the image mini is Twinbuild's own: there is none in {elsewhere}" in output.getvalue()
    # Its tasks.py only collects tasks for invoke: run as a program it would do nothing.
    monkeypatch.setattr(places, "farm", elsewhere)
    monkeypatch.setattr(sys, "argv", ["/usr/bin/twinbuild", "demo"])
    assert demo.list_runs(made) == f"cd {made.farm} && twinbuild runs"
    monkeypatch.setattr(places, "farm", places.PROGRAM)
    assert demo.list_runs(made) == f"{sys.executable} {made.farm}/tasks.py runs"


def test_a_repository_without_a_commit_is_refused(elsewhere: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nothing is committed in .*; git commit"):
        demo.prepare(
            open_workspace(elsewhere), tmp_path / "demo", Display(Console(file=StringIO()))
        )


def test_the_demos_tag_satisfies_its_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also from a clone of depth 1, which has a remote, with a policy of the operator's own set."""
    monkeypatch.setenv("TWINBUILD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TWINBUILD_POLICY", str(tmp_path / "nothing"))
    monkeypatch.setattr(demo, "lock_image", lambda *_: None)
    origin = tmp_path / "origin"
    origin.mkdir()
    shutil.copy(ROOT / "farm.yaml", origin)
    git(origin, "init", "--quiet", "--initial-branch=trunk")
    for message in ("first", "second"):
        git(origin, "add", "--all")
        git(origin, "commit", "--quiet", "--allow-empty", "-m", message)
    git(tmp_path, "clone", "--quiet", "--depth=1", origin.as_uri(), "checkout")
    display = Display(Console(file=StringIO()))
    made = demo.prepare(open_workspace(tmp_path / "checkout"), tmp_path / "demo", display)
    assert "TWINBUILD_POLICY" not in os.environ
    farm = open_workspace(made.farm).farm
    with policy.judged(farm, made.farm, demo.TAG) as (verified, found):
        assert verified.signer == made.fingerprint
        assert found.farm.keys == farm.keys
