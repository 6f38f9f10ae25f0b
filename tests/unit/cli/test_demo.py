# SPDX-License-Identifier: GPL-3.0-or-later
"""What the demo prepares can be released: its clone is where its farm lives, and decides."""

import os
import re
import shutil
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from pipeline.base.display import Display
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
