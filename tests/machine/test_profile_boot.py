# SPDX-License-Identifier: GPL-3.0-or-later
"""A boot is profiled from the outside: a program in the boot sector reads files of an ISO."""

from pathlib import Path

import pytest
from rich.console import Console

from pipeline.base.display import Display
from pipeline.base.errors import InfrastructureFailed
from pipeline.farm.config import load_farm
from pipeline.farm.workspace import Workspace
from pipeline.machines.boot import watch_boot
from tests.live_iso import let_it_read, make_iso
from tools.iso_layout import read_layout
from tools.profile_boot import loosened, profile_boot

pytestmark = [pytest.mark.machine, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
FILES = {f"etc/{name}": name.encode() * 4000 for name in ("a", "b", "c d", "e")}


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setenv("TWINBUILD_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "checkout/images/live/mini"
    folder.mkdir(parents=True)
    (folder / "image.yaml").write_text("description: small\nvolume_id: MINI\n")
    return Workspace(tmp_path / "checkout", load_farm(ROOT / "farm.yaml"))


@pytest.mark.parametrize("seconds", [None, 10])
def test_files_are_put_in_the_order_of_their_reads(
    seconds: int | None, tmp_path: Path, workspace: Workspace
) -> None:
    """They share a fragment in the ISO, so that only its copy can tell them apart."""
    iso = make_iso(tmp_path, FILES)
    (tmp_path / "scratch").mkdir()
    loose = read_layout(loosened(iso, read_layout(iso), tmp_path / "scratch")).files
    let_it_read(iso, [*loose["etc/e"], *loose["etc/b"], *loose["etc/c d"]])
    console = Console(record=True, width=400)
    path = profile_boot(workspace, "mini", Display(console), iso=iso, seconds=seconds)
    assert path == workspace.checkout / "images/live/mini/squashfs.sort"
    lines = path.read_text().splitlines()[1:]
    assert lines == ["etc/e 32767", "etc/b 32766", "etc/c\\ d 32765"]
    assert "a boot reads 3 of 4 files" in console.export_text()


def test_a_boot_that_reads_no_file_keeps_the_list(tmp_path: Path, workspace: Workspace) -> None:
    iso = make_iso(tmp_path, FILES)
    let_it_read(iso, [(0, 512)])
    kept = workspace.checkout / "images/live/mini/squashfs.sort"
    kept.write_text("etc/a 1\n")
    with pytest.raises(InfrastructureFailed, match="the boot read no file of the image"):
        profile_boot(workspace, "mini", Display(Console(record=True)), iso=iso)
    assert kept.read_text() == "etc/a 1\n"


def test_what_is_read_is_listed_in_its_order(tmp_path: Path) -> None:
    iso = make_iso(tmp_path, FILES)
    let_it_read(iso, [(51_200, 102_400), (2_048, 2_560)])
    reads = watch_boot(iso, tmp_path / "log")
    assert reads[-3:] == [(51_200, 83_968), (83_968, 102_400), (2_048, 2_560)]


def test_a_machine_that_ends_by_itself_is_reported(tmp_path: Path) -> None:
    with pytest.raises(InfrastructureFailed, match="ended with status 1"):
        watch_boot(tmp_path / "gone.iso", tmp_path / "log", seconds=5)
