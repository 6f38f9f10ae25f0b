import os
import subprocess
from pathlib import Path

import pytest

from pipeline.check import check_source
from pipeline.errors import BuildFailed, UsageError

HOOKS = Path(__file__).parent.parent.parent / "hooks" / "source"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    return tmp_path


def add(tree: Path, name: str, content: str = "text\n", *, mode: int = 0o644) -> None:
    path = tree / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    path.chmod(mode)
    subprocess.run(["git", "add", "--all"], cwd=tree, check=True)


def test_a_clean_tree_passes_every_check(tree: Path) -> None:
    add(tree, "images/live/mini/hooks/normal/10-a.hook.chroot", "#!/bin/sh\n", mode=0o755)
    said: list[str] = []
    assert check_source(HOOKS, tree, notify=said.append) == len(list(HOOKS.iterdir()))
    assert all(line.endswith(": fine") for line in said)


@pytest.mark.parametrize(
    ("name", "content", "mode"),
    [
        ("images/a.list.orig", "text\n", 0o644),
        ("images/live/mini/.gitattributes", "VERSION export-subst\n", 0o644),
        ("images/live/mini/po/de.mo", "text\n", 0o644),
        ("images/live/mini/hooks/normal/10-a.hook.chroot", "#!/bin/sh\n", 0o644),
        ("images/live/mini/image.yaml", "text\n", 0o755),
    ],
)
def test_a_surprise_is_refused_by_its_path(tree: Path, name: str, content: str, mode: int) -> None:
    add(tree, name, content, mode=mode)
    with pytest.raises(BuildFailed) as caught:
        check_source(HOOKS, tree, notify=lambda _: None)
    assert name in str(caught.value)


def test_paths_that_differ_in_case_are_refused(tree: Path) -> None:
    add(tree, "images/README")
    add(tree, "images/Readme")
    with pytest.raises(BuildFailed, match="only in case"):
        check_source(HOOKS, tree, notify=lambda _: None)


def test_a_check_that_says_escape_sequences_cannot_reach_the_terminal(
    tree: Path, tmp_path: Path
) -> None:
    hooks = tmp_path / "checks"
    hooks.mkdir()
    (hooks / "10-rude").write_text("#!/bin/sh\nprintf '\\033[2Jgone\\n'; exit 1\n")
    os.chmod(hooks / "10-rude", 0o755)  # noqa: PTH101
    with pytest.raises(BuildFailed) as caught:
        check_source(hooks, tree, notify=lambda _: None)
    assert "\x1b" not in str(caught.value) + caught.value.detail


def test_no_check_at_all_is_no_pass(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no executable check"):
        check_source(tmp_path, tmp_path, notify=lambda _: None)
