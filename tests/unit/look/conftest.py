# SPDX-License-Identifier: GPL-3.0-or-later
"""Images that many tests compare another one with."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests import image_pairs as pairs

Maker = Callable[[Path, Path], Path]


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Maker], Path]:
    """Give a function that makes an image of an unchanged tree, once for each way to make it."""
    made: dict[Maker, Path] = {}

    def make(maker: Maker) -> Path:
        if maker not in made:
            folder = tmp_path_factory.mktemp("original")
            made[maker] = maker(pairs.make_tree(folder / "tree"), folder / "image")
        return made[maker]

    return make
