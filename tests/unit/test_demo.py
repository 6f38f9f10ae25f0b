"""What the demo prepares can be released: its clone is where its farm lives, and decides."""

import os
import shutil
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from pipeline import demo, flow, policy
from pipeline.display import Display
from pipeline.workspace import open_workspace
from tests.hostile_repository import git

ROOT = Path(__file__).parents[2]


def test_the_demos_tag_satisfies_its_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also from a clone of depth 1, which has a remote, with a policy of the operator's own set."""
    monkeypatch.setenv("TWINBUILD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TWINBUILD_POLICY", str(tmp_path / "nothing"))
    monkeypatch.setattr(flow, "lock", lambda *_: None)
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
