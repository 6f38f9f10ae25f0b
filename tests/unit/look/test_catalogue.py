# SPDX-License-Identifier: GPL-3.0-or-later
"""Every cause of the catalogue is found: its step, path, kind and class, through all layers."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from pipeline.base.errors import UsageError
from pipeline.base.files import read_json
from pipeline.compare.explain import explain
from pipeline.compare.verdict import Outcome, run_compare
from pipeline.farm.run import Run
from pipeline.look.causes.classify import NAMES
from tests.causes_catalogue import HOOKS, PATCHES, Hook, Patch
from tests.synthetic_build import MADE, Base, build_twice, make_base

pytestmark = pytest.mark.tools

Files = dict[str, Mapping[str, Any]]
AT_ONCE = 30  # fewer than the paths that one run's report explains


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return make_base(tmp_path_factory.mktemp("base"))


def judge(run: Run) -> tuple[Outcome, Files]:
    verdict = run_compare(run, notify=lambda _: None)
    if explain(run, verdict, notify=lambda _: None) is None:
        return verdict, {}
    document = read_json(run.folder / "explanation.json", failure=UsageError)
    return verdict, {file["path"]: file for file in document["files"]}


@pytest.fixture(scope="session")
def in_tree(base: Base, tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, Files]:
    """All hooks in few builds on each side, as a farm would run them."""
    verdicts: list[Outcome] = []
    files: Files = {}
    for begin in range(0, len(HOOKS), AT_ONCE):
        hooks = [(hook.name, hook.does) for hook in HOOKS[begin : begin + AT_ONCE]]
        runs = tmp_path_factory.mktemp("runs")
        verdict, found = judge(build_twice(base, runs, hooks=hooks, patch=None))
        verdicts.append(verdict)
        files |= found
    differences = tuple(chain.from_iterable(verdict.differences for verdict in verdicts))
    return replace(verdicts[0], differences=differences), files


def places(file: Mapping[str, Any]) -> list[str]:
    return [f"{i['where']} {i['path']} {i['kind']}" for i in file["inside"]]


def names(file: Mapping[str, Any]) -> list[str]:
    return [cause["name"] for cause in file["causes"]]


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook.name)
def test_a_cause_in_the_tree(hook: Hook, in_tree: tuple[Outcome, Files]) -> None:
    verdict, files = in_tree
    found = {(d.step, d.path, d.kind) for d in verdict.differences}
    assert (f"40-hooks/{hook.name}", hook.path, hook.kind) in found
    file = files[hook.path]
    assert names(file)[:1] == [hook.cause]
    if hook.inside:
        assert hook.inside in places(file)
    if hook.kind == "content":
        inside = [i["shown"] or i["left"] for i in file["inside"]]
        assert all(inside) if inside else file["shown"]


def test_a_hook_makes_no_other_difference(in_tree: tuple[Outcome, Files]) -> None:
    verdict, _ = in_tree
    expected = {(f"40-hooks/{hook.name}", hook.path) for hook in HOOKS}
    found = {(d.step, d.path) for d in verdict.differences}
    assert found - expected == {
        ("40-hooks/modules", "lib-6.1.0-56-cloud-amd64"),
        ("40-hooks/temporary", "opt.x7Qd0Zpa"),
    }


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: f"{patch.piece}: {patch.name}")
def test_a_cause_in_a_layer(patch: Patch, base: Base, tmp_path: Path) -> None:
    run = build_twice(base, tmp_path, patch=(patch.piece, patch.does))
    verdict, files = judge(run)
    step, made, _ = MADE[patch.piece]
    first = verdict.differences[0]
    assert (first.step, first.path, first.kind) == (step, made, "content")
    assert f"{patch.inside} {patch.kind}" in places(files[made])
    assert names(files[made])[:1] == [patch.cause] * bool(patch.cause)


def test_without_a_cause_they_match(base: Base, tmp_path: Path) -> None:
    for piece in MADE:
        verdict, _ = judge(build_twice(base, tmp_path, patch=(piece, "")))
        assert verdict.verdict == "match"


def test_the_catalogue_is_complete() -> None:
    assert len(HOOKS) + len(PATCHES) >= 40
    assert {entry.cause for entry in (*HOOKS, *PATCHES)} - {""} == NAMES
    assert {patch.piece for patch in PATCHES} == MADE.keys()
