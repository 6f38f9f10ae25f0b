# SPDX-License-Identifier: GPL-3.0-or-later
import shutil
from pathlib import Path

import pytest

from pipeline.base import places
from pipeline.base.errors import UsageError
from pipeline.farm.workspace import open_workspace
from tests.prepared_run import make_farm


def test_everything_has_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWINBUILD_CACHE", str(tmp_path / "cache"))
    found = make_farm(tmp_path / "farm")
    assert found.runs == tmp_path / "farm" / "runs"
    assert found.public == tmp_path / "farm" / "public"
    assert found.snapshots == tmp_path / "farm" / "snapshots"
    assert found.store.root == tmp_path / "cache" / "store"
    assert (found.hosts / "alpha" / "environment.yaml").is_file()
    assert (found.builder / "make-builder").is_file()


def test_hosts_and_builder_are_twinbuilds_where_a_repository_has_none(tmp_path: Path) -> None:
    shutil.copy(places.PROGRAM / "farm.yaml", tmp_path)
    found = open_workspace(tmp_path)
    assert found.hosts == places.PROGRAM / "images" / "hosts"
    assert found.builder == places.PROGRAM / "images" / "builder"


def test_a_checkout_may_publish_elsewhere(tmp_path: Path) -> None:
    make_farm(tmp_path)
    path = tmp_path / "farm.yaml"
    path.write_text(path.read_text().replace("publish: public", "publish: /srv/www"))
    assert open_workspace(tmp_path).public == Path("/srv/www")


def test_a_folder_without_a_farm_is_no_workspace(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has no farm\.yaml"):
        open_workspace(tmp_path)


def test_a_farm_that_is_not_valid_is_reported(tmp_path: Path) -> None:
    (tmp_path / "farm.yaml").write_text("environments: {}\n")
    with pytest.raises(UsageError, match=r"farm\.yaml: environments"):
        open_workspace(tmp_path)
