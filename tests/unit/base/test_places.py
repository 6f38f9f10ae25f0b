# SPDX-License-Identifier: GPL-3.0-or-later
"""Which farm a command works for, by the folder that it is started in."""

import os
from pathlib import Path

import pytest

from pipeline.base import places
from pipeline.base.errors import UsageError


@pytest.fixture
def inner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, two below the one that may be a farm."""
    folder = tmp_path / "images" / "live"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    return folder


def test_the_nearest_folder_with_a_farm_counts(inner: Path, tmp_path: Path) -> None:
    assert places.find_farm() == inner
    (tmp_path / "farm.yaml").touch()
    assert places.find_farm() == tmp_path
    (inner / "farm.yaml").touch()
    assert places.find_farm() == inner


def test_a_strangers_farm_above_is_refused(
    inner: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its checks would run. Who goes to its folder means it, and root's are no stranger's."""
    (tmp_path / "farm.yaml").touch()
    owner = tmp_path.stat().st_uid
    monkeypatch.setattr(os, "getuid", lambda: owner + 1)
    monkeypatch.setattr(places, "ROOT", owner + 2)
    with pytest.raises(UsageError, match=r"farm\.yaml is another user's; .* cd /"):
        places.find_farm()
    monkeypatch.setattr(places, "ROOT", owner)
    assert places.find_farm() == tmp_path
    monkeypatch.setattr(places, "ROOT", owner + 2)
    monkeypatch.chdir(tmp_path)
    assert places.find_farm() == tmp_path


def test_a_folder_that_was_removed_is_named(inner: Path) -> None:
    inner.rmdir()
    with pytest.raises(UsageError, match="the current folder was removed"):
        places.find_farm()


def test_what_a_repository_lacks_is_twinbuilds(tmp_path: Path) -> None:
    name = "images/hosts"
    assert places.shared(tmp_path, name) == places.PROGRAM / name
    assert (places.PROGRAM / name).is_dir()
    (tmp_path / name).mkdir(parents=True)
    assert places.shared(tmp_path, name) == tmp_path / name
