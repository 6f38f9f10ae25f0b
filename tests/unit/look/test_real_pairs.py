# SPDX-License-Identifier: GPL-3.0-or-later
"""Each known difference in what the real tools make is reported as what it is, and no other."""

import shutil
from pathlib import Path

import pytest

from pipeline.look.locate import locate_files
from tests import image_pairs as pairs
from tests.real_pairs import CHANGES, MAKERS, ZIP, make_tree

pytestmark = pytest.mark.tools

# What follows from a change, and is a difference of its own: a folder's count of links on an ISO.
FOLLOWS = {"links"}


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tree without a change, as "", and one with each."""
    folder = tmp_path_factory.mktemp("trees")
    made = {"": make_tree(folder / "first")}
    for number, (name, change) in enumerate(CHANGES.items()):
        made[name] = make_tree(folder / str(number))
        change.change(made[name])
        pairs.settle(made[name])
    return made


@pytest.mark.parametrize("name", MAKERS)
def test_each_change_is_reported_and_nothing_else(
    name: str, trees: dict[str, Path], tmp_path: Path
) -> None:
    maker, wrong = MAKERS[name], []
    first = tmp_path / "first"
    maker.pack(trees[""], first)
    for number, (cause, made) in enumerate(CHANGES.items()):
        if maker.keeps in made.lost_by:
            continue
        second = tmp_path / str(number)
        maker.pack(trees[cause], second)
        result = locate_files(first, second)
        found = {(p.where, p.path, p.kind) for p in result.places if p.kind not in FOLLOWS}
        if maker.keeps == ZIP:  # Info-ZIP only stores what is empty
            found = {place for place in found if place[2] != "structure"}
        if found != {(maker.where, *place) for place in made.places} or not result.complete:
            wrong.append((cause, [str(place)[:160] for place in result.places]))
    assert not wrong


def test_the_pairs_are_many() -> None:
    count = sum(m.keeps not in c.lost_by for m in MAKERS.values() for c in CHANGES.values())
    assert count > 300
    assert shutil.which("pzstd")
