# SPDX-License-Identifier: GPL-3.0-or-later
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.documents.lock import Package
from pipeline.machines.builder import SCRIPTS, Recipe

PACKAGE = Package("bash", "5.2", "amd64", 1, "a" * 64, ())


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    for name in SCRIPTS:
        (tmp_path / name).write_text(f"#!/bin/sh\n# {name}\n")
    return Recipe("alpha", "run", "sha256:1", "trixie", tmp_path, (PACKAGE,), b"index", fresh=False)


def test_whatever_goes_into_a_builder_changes_its_name(recipe: Recipe) -> None:
    names = {
        recipe.volume,
        replace(recipe, environment="beta").volume,
        replace(recipe, host_image="sha256:2").volume,
        replace(recipe, suite="forky").volume,
        replace(recipe, packages=()).volume,
        replace(recipe, packages=(replace(PACKAGE, sha256="b" * 64),)).volume,
        replace(recipe, index=b"another").volume,
    }
    for name in SCRIPTS:
        (recipe.folder / name).write_text("changed")
        names.add(recipe.volume)
    assert len(names) == 7 + len(SCRIPTS)


def test_the_run_it_is_made_for_does_not(recipe: Recipe) -> None:
    assert replace(recipe, run_id="another").volume == recipe.volume
    assert "twinbuild.run" not in recipe.labels


def test_a_release_has_one_of_its_own(recipe: Recipe) -> None:
    fresh = replace(recipe, fresh=True)
    assert fresh.volume not in (recipe.volume, replace(fresh, run_id="another").volume)
    assert fresh.labels["twinbuild.run"] == "run/alpha"  # and it goes with the run


def test_two_hashes_do_not_run_together(recipe: Recipe) -> None:
    moved = replace(recipe, host_image="sha256:1trixie", suite="")
    assert moved.volume != recipe.volume
