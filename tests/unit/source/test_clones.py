# SPDX-License-Identifier: GPL-3.0-or-later
"""Clones of every kind are read as they are: shallow, partial, sparse, with other line endings."""

import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.base.errors import UsageError
from pipeline.base.files import read_json
from pipeline.base.git import is_dirty, open_checkout
from pipeline.farm.config import Farm
from pipeline.farm.run import Request, Run, create
from pipeline.source.source import run_source
from tests.hostile_repository import git

pytestmark = pytest.mark.tools

FARM = Farm.model_validate(
    {
        "environments": {name: {"memory_mib": 1024, "cpus": 1} for name in ("alpha", "beta")},
        "archives": {"debian": {"suites": ["trixie"], "components": ["main"], "keyring": "/k"}},
    }
)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with three commits, in each of which every file is another."""
    folder = tmp_path_factory.mktemp("clones") / "origin"
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch=main", "--template=")
    git(folder, "config", "uploadpack.allowFilter", "true")
    for number in ("one", "two", "three"):
        for name in ("images/live/mini/image.yaml", "docs/page.md", "run.sh"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(f"description: {number} {name}\n")
        (folder / "run.sh").chmod(0o755)
        (folder / "text.txt").write_text("one\ntwo\n")
        (folder / ".gitattributes").write_text("*.txt text eol=crlf\n")
        git(folder, "add", "--all")
        git(folder, "commit", "--quiet", "-m", number)
    return folder


@pytest.fixture
def origin(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TWINBUILD_CACHE", str(tmp_path / 'it\'s a 50% "cache"'))
    shutil.copytree(template, tmp_path / "origin", symlinks=True)
    return tmp_path / "origin"


def clone(origin: Path, *options: str) -> Path:
    folder = origin.parent / "clone"
    git(origin.parent, "clone", "--quiet", *options, origin.as_uri(), str(folder))
    return folder


def build(checkout: Path, commit: str = "HEAD") -> Run:
    fields = {"image": "mini", "commit": commit, "environments": ("alpha",)}
    run = create(checkout.parent / "runs", Request.of(fields))
    run_source(run, FARM, checkout, notify=lambda _: None)
    return run


def build_another(checkout: Path, commit: str = "HEAD") -> Run:
    """Build a repository that is not the farm's own."""
    fields = {"image": "mini", "commit": commit, "source": str(checkout), "environments": ("a",)}
    run = create(checkout.parent / "runs", Request.of(fields))
    run_source(run, FARM, Path("/nonexistent"), notify=lambda _: None)
    return run


ROADS = (build, build_another)


def commit_of(run: Run) -> str:
    return str(read_json(run.source_json, failure=UsageError)["commit"])


@pytest.mark.parametrize("road", ROADS)
def test_depth_one_has_all_that_a_build_needs(origin: Path, road: Callable[..., Run]) -> None:
    shallow = clone(origin, "--depth=1")
    run = road(shallow)
    assert commit_of(run) == git(origin, "rev-parse", "HEAD")
    with tarfile.open(run.source_tar) as archive:
        assert "docs/page.md" in archive.getnames()


@pytest.mark.parametrize("road", ROADS)
def test_what_a_shallow_clone_lacks_is_had_by_unshallow(
    origin: Path, road: Callable[..., Run]
) -> None:
    shallow = clone(origin, "--depth=1")
    older = git(origin, "rev-parse", "HEAD~1")
    for wanted in ("HEAD~1", older):
        with pytest.raises(UsageError, match="git fetch --unshallow"):
            road(shallow, wanted)
    git(shallow, "fetch", "--quiet", "--unshallow")
    assert commit_of(road(shallow, "HEAD~1")) == older


def test_a_partial_clone_builds_what_it_has(origin: Path) -> None:
    partial = clone(origin, "--filter=blob:none")
    assert commit_of(build(partial)) == git(origin, "rev-parse", "HEAD")


@pytest.mark.parametrize("road", ROADS)
@pytest.mark.parametrize("what", ["blob:none", "tree:0"])
def test_what_a_partial_clone_lacks_is_named_and_not_fetched(
    origin: Path, road: Callable[..., Run], what: str
) -> None:
    partial = clone(origin, f"--filter={what}")
    with pytest.raises(UsageError, match=r"partial clone .*git fetch --refetch --no-filter"):
        road(partial, "HEAD~1")
    git(partial, "fetch", "--quiet", "--refetch", "--no-filter")
    assert commit_of(road(partial, "HEAD~1")) == git(origin, "rev-parse", "HEAD~1")


# --- reported as by that clone's own `git status` -----------------------------------------------


def sparse(folder: Path) -> None:
    git(folder, "sparse-checkout", "set", "--cone", "images")


def sparse_index(folder: Path) -> None:
    git(folder, "sparse-checkout", "set", "--cone", "--sparse-index", "images")


def sparse_patterns(folder: Path) -> None:
    git(folder, "sparse-checkout", "set", "--no-cone", "/images/", "!/docs/")


def no_modes(folder: Path) -> None:
    git(folder, "config", "core.fileMode", "false")
    (folder / "run.sh").chmod(0o644)


def no_links(folder: Path) -> None:
    git(folder, "config", "core.symlinks", "false")


def line_endings(folder: Path) -> None:
    assert b"\r\n" in (folder / "text.txt").read_bytes()
    os.utime(folder / "text.txt", (1, 1))


def check_out_again(folder: Path, name: str) -> None:
    (folder / name).unlink()
    git(folder, "checkout", "--", name)
    assert b"\r\n" in (folder / name).read_bytes()


def carriage_returns(folder: Path) -> None:
    git(folder, "config", "core.autocrlf", "true")
    check_out_again(folder, "run.sh")


def split_index(folder: Path) -> None:
    git(folder, "update-index", "--split-index")


def assumed(folder: Path) -> None:
    git(folder, "update-index", "--assume-unchanged", "run.sh")
    (folder / "run.sh").write_text("not looked at\n")


def excluded(folder: Path) -> None:
    (folder / ".git/info").mkdir(exist_ok=True)
    (folder / ".git/info/exclude").write_text("scratch\n")
    (folder / "scratch").write_text("x\n")


def own_attributes(folder: Path) -> None:
    (folder / ".git/info").mkdir(exist_ok=True)
    (folder / ".git/info/attributes").write_text("page.md text eol=crlf\n")
    check_out_again(folder, "docs/page.md")


def staged(folder: Path) -> None:
    (folder / "new").write_text("x\n")
    git(folder, "add", "new")


def untracked(folder: Path) -> None:
    (folder / "new").write_text("x\n")


def untracked_not_shown(folder: Path) -> None:
    git(folder, "config", "status.showUntrackedFiles", "no")
    untracked(folder)


def changed(folder: Path) -> None:
    """Change a file within the second in which the index was written, to the same size."""
    content = (folder / "run.sh").read_text()
    (folder / "run.sh").write_text(content.replace("three", "eerht"))


HABITS = (
    *(sparse, sparse_index, sparse_patterns, no_modes, no_links, line_endings, split_index),
    *(carriage_returns, assumed, excluded, own_attributes, untracked_not_shown),
)
CHANGES = (staged, untracked, changed)


@pytest.mark.parametrize("habit", [*HABITS, *CHANGES])
def test_changes_are_reported_as_by_the_clones_own_status(
    origin: Path, habit: Callable[[Path], None]
) -> None:
    folder = clone(origin)
    habit(folder)
    says = is_dirty(open_checkout(folder))  # before git itself refreshes the index
    assert says == bool(git(folder, "status", "--porcelain"))
    assert says == (habit in CHANGES)


def test_a_worktree_beside_another_is_read(origin: Path) -> None:
    folder = clone(origin)
    git(folder, "worktree", "add", "--quiet", "--detach", "../beside", "HEAD~1")
    beside = origin.parent / "beside"
    for road in ROADS:
        assert commit_of(road(beside)) == git(origin, "rev-parse", "HEAD~1")
    (beside / "run.sh").write_text("changed\n")
    assert is_dirty(open_checkout(beside))
    assert not is_dirty(open_checkout(folder))


def test_borrowed_objects_are_found(origin: Path) -> None:
    git(origin.parent, "clone", "--quiet", "--shared", str(origin), "first")
    git(origin.parent, "clone", "--quiet", "--shared", "first", "second")
    for road in ROADS:
        assert commit_of(road(origin.parent / "second")) == git(origin, "rev-parse", "HEAD")


def test_packed_and_symbolic_refs_are_found(origin: Path) -> None:
    git(origin, "tag", "1.0", "HEAD~1")
    git(origin, "pack-refs", "--all")
    git(origin, "symbolic-ref", "refs/heads/alias", "refs/heads/main")
    git(origin, "tag", "2.0")
    expected = {"1.0": "HEAD~1", "2.0": "HEAD", "alias": "HEAD", "main~2": "HEAD~2"}
    for name, same in expected.items():
        assert commit_of(build(origin, name)) == git(origin, "rev-parse", same)


def test_objects_named_by_another_hash_are_refused(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet", "--object-format=sha256", "other")
    git(tmp_path / "other", "commit", "--quiet", "--allow-empty", "-m", "x")
    with pytest.raises(UsageError, match="SHA-1"):
        build(tmp_path / "other")


def test_a_pipe_in_place_of_a_ref_is_not_waited_for(origin: Path) -> None:
    os.mkfifo(origin / ".git/refs/heads/pipe")
    os.mkfifo(origin / ".git/index.pipe")
    assert commit_of(build(origin)) == git(origin, "rev-parse", "HEAD")
    (origin / ".git/index").unlink()
    os.mkfifo(origin / ".git/index")
    build(origin)


def test_a_source_may_be_bare_or_a_file_address(origin: Path) -> None:
    git(origin.parent, "clone", "--quiet", "--bare", str(origin), "bare")
    head = git(origin, "rev-parse", "HEAD")
    assert commit_of(build_another(origin.parent / "bare")) == head
    fields = {"image": "mini", "commit": "HEAD", "source": origin.as_uri()}
    run = create(origin.parent / "runs", Request.of({**fields, "environments": ("alpha",)}))
    run_source(run, FARM, Path("/nonexistent"), notify=lambda _: None)
    assert commit_of(run) == head
