# SPDX-License-Identifier: GPL-3.0-or-later
"""The profile of a boot, but for the boot itself: which ISO, how it is packed, what is written."""

import os
from pathlib import Path

import pytest
from invoke.parser import Parser

import tasks
from pipeline.base.display import Display
from pipeline.base.errors import InfrastructureFailed, UsageError
from pipeline.farm.config import load_farm
from pipeline.farm.run import Request, create
from pipeline.farm.workspace import Workspace
from pipeline.guest.squashfs_sort import parse
from tests.live_iso import let_it_read, make_iso
from tools.iso_layout import read_layout
from tools.profile_boot import describe, loosened, newest_iso, profile_boot, sort_file

pytestmark = pytest.mark.tools

ROOT = Path(__file__).parents[3]
STRANGE = (
    "a space",
    'a"quote',
    "back\\slash",
    "back\\x2dslash.service",
    "#hash",
    "ü",
    " f 644 0 0 id",
)
FILES = {
    **{f"etc/{name}": os.urandom(1500) for name in STRANGE},
    "usr/bin/big": os.urandom(300_000),
    "usr/bin/small": os.urandom(700),
}


@pytest.fixture
def display() -> Display:
    from rich.console import Console

    return Display(Console(record=True, width=400))


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setenv("TWINBUILD_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "checkout/images/live/mini"
    folder.mkdir(parents=True)
    (folder / "image.yaml").write_text("description: small\nvolume_id: MINI\n")
    return Workspace(tmp_path / "checkout", load_farm(ROOT / "farm.yaml"))


def test_a_copy_has_the_same_files_apart_from_each_other(tmp_path: Path) -> None:
    iso = make_iso(tmp_path, FILES, links={"etc/link": "a space"})
    before = iso.read_bytes()
    layout = read_layout(iso)
    assert len({tuple(spans) for spans in layout.files.values()}) < len(FILES)
    (tmp_path / "scratch").mkdir()
    copy = loosened(iso, layout, tmp_path / "scratch")
    loose, whole = read_layout(copy), copy.read_bytes()
    assert loose.squashfs == layout.squashfs
    assert loose.block_size == layout.block_size
    assert {path: len(spans) for path, spans in loose.files.items()} == {
        path: len(spans) for path, spans in layout.files.items()
    }
    for path, content in FILES.items():
        assert b"".join(whole[start:end] for start, end in loose.files[path]) == content
    assert [*(tmp_path / "scratch").iterdir()] == [copy]
    assert iso.read_bytes() == before


def test_the_boot_sector_comes_along(tmp_path: Path) -> None:
    iso = make_iso(tmp_path, FILES)
    let_it_read(iso, [(0, 512)])
    (tmp_path / "scratch").mkdir()
    copy = loosened(iso, read_layout(iso), tmp_path / "scratch")
    with iso.open("rb") as one, copy.open("rb") as other:
        assert one.read(440) == other.read(440)


def test_files_are_written_in_the_order_of_their_first_block() -> None:
    pieces = [("b", 3), ("a space", 0), ("b", 0), ("c", 1), ("a space", 1)]
    written = sort_file(pieces)
    assert written.splitlines()[1:] == ["b 32767", "a\\ space 32766", "c 32765"]
    assert list(parse(written, "squashfs.sort")) == ["b", "a space", "c"]


def test_more_files_than_priorities_stay_before_the_others() -> None:
    priorities = parse(sort_file([(f"{n}", 0) for n in range(40_000)]), "squashfs.sort")
    assert len(priorities) == 40_000
    assert min(priorities.values()) == 1


def test_what_a_boot_reads_is_described(tmp_path: Path) -> None:
    layout = read_layout(make_iso(tmp_path, FILES, options=("-noD", "-no-fragments")))
    first, second = describe(layout, [("usr/bin/big", 0), ("usr/bin/small", 0)])
    assert first == "a boot reads 2 of 9 files"
    assert second.startswith("as this ISO is, these are 0.1 of 0.3 MB of its SquashFS, in 2 places")


def test_the_newest_iso_of_the_image_serves(tmp_path: Path) -> None:
    def made(image: str, number: int, *, built: bool) -> Path:
        run = create(tmp_path, Request(image=image, commit="HEAD", environments=("alpha", "beta")))
        run.folder.rename(folder := tmp_path / f"2026010{number}T000000Z-{image}-0000")
        artifacts = folder / "beta/artifacts"
        artifacts.mkdir(parents=True)
        iso = artifacts / f"{image}-amd64-{number}.iso"
        if built:
            iso.touch()
        return iso

    made("mini", 1, built=True)
    expected = made("mini", 2, built=True)
    made("mini", 3, built=False)
    made("mini-2", 4, built=True)
    assert newest_iso(tmp_path, "mini") == expected
    with pytest.raises(UsageError, match="no run has an ISO of other"):
        newest_iso(tmp_path, "other")


@pytest.mark.parametrize("image", ["other", "../mini", "."])
def test_an_iso_of_an_unknown_image_is_refused(
    image: str, tmp_path: Path, workspace: Workspace, display: Display
) -> None:
    iso = make_iso(tmp_path, FILES, image=image)
    with pytest.raises(UsageError, match="is of the image"):
        profile_boot(workspace, "mini", display, iso=iso)


def test_an_iso_that_does_not_boot_writes_nothing(
    tmp_path: Path, workspace: Workspace, display: Display, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.machines.boot.MACHINE", ("false",))
    iso = make_iso(tmp_path, FILES)
    with pytest.raises(InfrastructureFailed):
        profile_boot(workspace, "mini", display, iso=iso, seconds=5)
    assert not (workspace.checkout / "images/live/mini/squashfs.sort").exists()
    assert [path.name for path in workspace.cache.iterdir()] == ["profile-boot.log"]


def test_seconds_are_a_number() -> None:
    words = ["profile-boot", "--iso", "a.iso", "--seconds", "30"]
    (task,) = Parser(contexts=tasks.namespace.to_contexts()).parse_argv(words)
    assert task.args["seconds"].value == 30
