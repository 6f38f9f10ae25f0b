# SPDX-License-Identifier: GPL-3.0-or-later
"""A stranger's repository is read, and nothing that it names is started.

The attacker holds the working tree and the whole `.git` folder of what the operator checks, locks
or builds: configuration, hooks, attributes, index, nested repositories, missing objects.
"""

import os
import re
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from pipeline.base import git
from pipeline.base.errors import BuildFailed, TwinbuildError, UsageError
from pipeline.cli import demo, doctor
from pipeline.documents.lock import Lock
from pipeline.farm.config import Farm
from pipeline.farm.run import Request, create
from pipeline.inputs.history import refuse_changed
from pipeline.source.check import check_source
from pipeline.source.source import run_source
from tests.hostile_repository import (
    ENVIRONMENT,
    PROGRAMS,
    HostileRepository,
    every_setting,
    make_template,
)

pytestmark = pytest.mark.tools

ROOT = Path(__file__).parents[3]
HOOKS = ROOT / "hooks/source"
LOCK = Lock("mini", "amd64", "0" * 64, suites=(), locked=())
FARM = Farm.model_validate(
    {
        "environments": {name: {"memory_mib": 1024, "cpus": 1} for name in ("alpha", "beta")},
        "archives": {"debian": {"suites": ["trixie"], "components": ["main"], "keyring": "/k"}},
        "keys": {"tags": {"signed": False}},
    }
)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = tmp_path_factory.mktemp("hostile") / "tree"
    make_template(tree)
    return tree


@pytest.fixture
def hostile(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HostileRepository:
    monkeypatch.setenv("TWINBUILD_CACHE", str(tmp_path / 'it\'s a 50% "cache"'))
    return HostileRepository(tmp_path, template)


def check(tree: Path) -> None:
    check_source(HOOKS, tree, tree.parent / "findings", notify=lambda _: None)


def compare_with_history(tree: Path) -> None:
    refuse_changed(tree, LOCK)


def build_it_as_a_source(tree: Path) -> None:
    fields = {"image": "mini", "commit": "HEAD", "source": str(tree)}
    run = create(tree.parent / "runs", Request.of({**fields, "environments": ("alpha",)}))
    run_source(run, FARM, ROOT, notify=lambda _: None)


def build_it_as_a_checkout(tree: Path) -> None:
    fields = {"image": "mini", "commit": "HEAD~1", "environments": ("alpha",)}
    run = create(tree.parent / "runs", Request.of(fields))
    run_source(run, FARM, tree, notify=lambda _: None)


def examine(tree: Path) -> None:
    doctor.repository(tree)


def clone_for_the_demo(tree: Path) -> None:
    demo._clone(tree, tree.parent / "clone")


ROADS = (
    check,
    compare_with_history,
    build_it_as_a_source,
    build_it_as_a_checkout,
    examine,
    clone_for_the_demo,
)


@pytest.mark.parametrize("road", ROADS)
@pytest.mark.parametrize(("settings", "partial"), [("programs", False), ("everything", True)])
def test_nothing_that_a_repository_names_is_started(
    hostile: HostileRepository, road: Callable[[Path], None], settings: str, partial: bool
) -> None:
    hostile.arm(PROGRAMS if settings == "programs" else every_setting())
    if partial:
        hostile.lose(hostile.older)
    with suppress(TwinbuildError):
        road(hostile.tree)
    assert hostile.started() == []


def test_the_attack_is_one(hostile: HostileRepository) -> None:
    """Git itself, in that tree, starts what is there to be started."""
    hostile.arm(PROGRAMS)
    hostile.lose(hostile.older)
    for arguments in (
        ["status"],
        ["log", "-1"],
        ["cat-file", "blob", hostile.older],
    ):
        argv = ["git", "-C", str(hostile.tree), *arguments]
        subprocess.run(argv, env=ENVIRONMENT, check=False, capture_output=True, timeout=20)
    found = set(hostile.started())
    assert {"include.path", "fsmonitor of sub"} & found
    assert {"gpg.program", "gpg.openpgp.program"} & found
    assert {"filter.evil.process", "filter.evil.clean"} & found
    assert "remote.origin.uploadpack" in found


@pytest.mark.parametrize("hook", sorted(path.name for path in HOOKS.iterdir()))
def test_a_check_refuses_to_run_where_git_would_read_the_trees_configuration(
    hostile: HostileRepository, hook: str
) -> None:
    """Somebody runs one by hand: it says that `./farm check` runs it."""
    hostile.arm(PROGRAMS)
    env = {"PATH": os.environ["PATH"]}
    done = subprocess.run(
        [HOOKS / hook, hostile.tree], env=env, check=False, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "farm check runs this" in done.stderr
    assert hostile.started() == []


def test_each_check_that_starts_git_asks_for_its_neutral_repository_first() -> None:
    for path in HOOKS.iterdir():
        text = path.read_text()
        code = re.sub(r"^\s*#.*$", "", text, flags=re.MULTILINE)
        first = re.search(r"\bgit (-c|ls-files|grep)|\"git\"", code)
        assert first is None or "GIT_DIR" in text, path.name
        if path.read_bytes().startswith(b"#!/bin/sh"):
            assert first is None or code.index("${GIT_DIR:?") < first.start(), path.name


IN_THE_TREE = ("a/.gitattributes", ".gitignore", "a/b/.gitmodules", ".mailmap")
NESTED = ("HEAD", "commondir")


def nested(tree: Path, how: str) -> Path:
    """Make the repository of a folder in the tree, where git looks for it; return its folder."""
    there = tree.parent / "elsewhere" if how != "folder" else tree / "inner/.git"
    subprocess.run(["git", "init", "--quiet", "--bare", there], check=True, env=ENVIRONMENT)
    (tree / "inner").mkdir(exist_ok=True)
    if how == "link":
        (tree / "inner/.git").symlink_to(there)
    elif how == "file":
        (tree / "inner/.git").write_text(f"gitdir: {there}\n")
    return there


def is_refused(tree: Path, pipe: Path, *, by_status: bool = True) -> None:
    pipe.parent.mkdir(parents=True, exist_ok=True)
    pipe.unlink(missing_ok=True)
    os.mkfifo(pipe)
    repository = git.open_checkout(tree)
    asks: list[Callable[[], object]] = [lambda: git.is_dirty(repository)] if by_status else []
    asks += [lambda: check(tree)]
    for opens in asks:
        with pytest.raises(UsageError, match=f"{re.escape(str(pipe))}' is a pipe or a device"):
            opens()


@pytest.mark.parametrize("name", IN_THE_TREE)
def test_git_is_not_started_where_it_would_wait_for_a_pipe(
    hostile: HostileRepository, name: str
) -> None:
    is_refused(hostile.tree, hostile.tree / name)


@pytest.mark.parametrize("how", ["folder", "link", "file"])
@pytest.mark.parametrize("name", NESTED)
def test_nor_in_a_nested_repository(hostile: HostileRepository, name: str, how: str) -> None:
    there = nested(hostile.tree, how)
    pipe = hostile.tree / "inner/.git" / name if how == "link" else there / name
    is_refused(hostile.tree, pipe)


@pytest.mark.parametrize("name", ["pack/pack-a.idx", "info/alternates", "00/" + "0" * 38])
def test_nor_among_the_objects(hostile: HostileRepository, name: str) -> None:
    pipe = hostile.tree / ".git/objects" / name
    is_refused(hostile.tree, pipe)
    with pytest.raises(UsageError, match="is a pipe"), git.opened(git.open_checkout(hostile.tree)):
        pass


def test_checks_open_no_pipe_in_the_place_of_a_file(hostile: HostileRepository) -> None:
    (hostile.tree / "x.po").touch()
    subprocess.run(["git", "add", "x.po"], cwd=hostile.tree, check=True, env=ENVIRONMENT)
    is_refused(hostile.tree, hostile.tree / "x.po", by_status=False)


@pytest.mark.parametrize("name", ["x.po", "x.pot", "wiki/x.mdwn"])
def test_checks_follow_no_link_to_a_device(hostile: HostileRepository, name: str) -> None:
    """It is committed, and would be read without end."""
    path = hostile.tree / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to("/dev/zero")
    setup = path.with_name("wiki.setup")
    setup.touch()
    subprocess.run(["git", "add", name, setup], cwd=hostile.tree, check=True, env=ENVIRONMENT)
    with suppress(BuildFailed):  # of other checks
        check(hostile.tree)


def test_other_pipes_and_links_are_nobodys_business(hostile: HostileRepository) -> None:
    """An image masks a service by a link to /dev/null; git itself follows no link there."""
    os.mkfifo(hostile.tree / "pipe")
    (hostile.tree / "more").mkdir()
    (hostile.tree / "more/.gitattributes").symlink_to("../pipe")
    (hostile.tree / "more/.gitignore").symlink_to("/dev/null")
    (hostile.tree / "more/x.service").symlink_to("/dev/null")
    subprocess.run(["git", "add", "more"], cwd=hostile.tree, check=True, env=ENVIRONMENT)
    assert git.is_dirty(git.open_checkout(hostile.tree))
    with suppress(BuildFailed):
        check(hostile.tree)
