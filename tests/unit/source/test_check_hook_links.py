# SPDX-License-Identifier: GPL-3.0-or-later
"""The check of hooks that are links, on real repositories."""

import subprocess
from pathlib import Path

import pytest

from pipeline.base.errors import BuildFailed
from pipeline.source.check import check_source

HOOKS = Path(__file__).parents[3] / "hooks" / "source"
HOOK = "images/live/mini/hooks/normal/10 ä.hook.chroot"


def commit_link(tree: Path, target: str, name: str = HOOK) -> None:
    subprocess.run(["git", "init", "--quiet", tree], check=True)
    shared = tree / "hooks/chroot/50-shared.hook.chroot"
    shared.parent.mkdir(parents=True)
    shared.write_text("#!/bin/sh\n")
    shared.chmod(0o755)
    (tree / name).parent.mkdir(parents=True, exist_ok=True)
    (tree / name).symlink_to(target.format(tree=tree))
    subprocess.run(["git", "add", "--all"], cwd=tree, check=True)


def test_a_link_to_a_shared_hook_is_fine(tmp_path: Path) -> None:
    commit_link(tmp_path / "tree", "../../../../../hooks/chroot/50-shared.hook.chroot")
    assert check_source(HOOKS, tmp_path / "tree", tmp_path / "findings", notify=lambda _: None)


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("../../../../../../secret", "out of the repository"),
        ("/usr/share/live/build/hooks/normal/1000-x.hook.chroot", "out of the repository"),
        ("{tree}/hooks/chroot/50-shared.hook.chroot", "out of the repository"),
        ("../../../../../hooks/chroot/gone.hook.chroot", "which is not there"),
        ("10 ä.hook.chroot", "which is not there"),
        ("../../../../../hooks/chroot", "which is a folder"),
    ],
)
def test_a_link_to_anything_else_is_refused(target: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("of the machine")
    commit_link(tmp_path / "tree", target)
    with pytest.raises(BuildFailed, match=rf"{HOOK}: a link to .*{reason}") as caught:
        check_source(HOOKS, tmp_path / "tree", tmp_path / "findings", notify=lambda _: None)
    assert len(caught.value.detail.splitlines()) == 1
