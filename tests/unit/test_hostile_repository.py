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

from pipeline import demo, doctor
from pipeline.check import check_source
from pipeline.config import Farm
from pipeline.errors import TwinbuildError
from pipeline.inputs.history import refuse_changed
from pipeline.lock import Lock
from pipeline.run import Request, create
from pipeline.source import run_source
from tests.hostile_repository import (
    ENVIRONMENT,
    PROGRAMS,
    HostileRepository,
    every_setting,
    make_template,
)

ROOT = Path(__file__).parents[2]
HOOKS = ROOT / "hooks/source"
LOCK = Lock("mini", "amd64", "0" * 64, suites=(), packages=())
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
