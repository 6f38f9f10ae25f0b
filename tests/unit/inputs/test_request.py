# SPDX-License-Identifier: GPL-3.0-or-later
from pathlib import Path

import pytest

from pipeline.base.errors import UsageError
from pipeline.base.store import Store
from pipeline.inputs.request import PackageRequest, read_request
from tests.archive_server import ArchiveServer
from tests.debian_archive import DebianArchive, SigningKey
from tests.unit.inputs.conftest import IMAGE_YAML, farm_of


@pytest.fixture
def image(tmp_path: Path) -> Path:
    folder = tmp_path / "images/live/mini"
    (folder / "package-lists").mkdir(parents=True)
    (folder / "image.yaml").write_text(IMAGE_YAML)
    (folder / "package-lists/a.list.chroot").write_text("dash\n")
    return folder


def request_of(image: Path, name: str = "mini", **archive: object) -> PackageRequest:
    server = ArchiveServer(Path("/nowhere"), url="http://127.0.0.1:1")
    signed = DebianArchive(Path("/nowhere"), SigningKey(Path("/nowhere"), ""))
    tree = image.parents[2]
    return read_request(
        tree, name, farm_of(server, signed, **archive), tree / "none", Store(tree / "store")
    )


def test_lists_are_those_of_live_build(image: Path) -> None:
    (image / "package-lists/b.list.chroot").write_text(
        "# a comment\n\nlive-boot systemd-sysv # two\n  libstdc++6\t\n#another\n"
    )
    names = [(asked.name, asked.line) for asked in request_of(image).image_names]
    assert names == [("dash", 1), ("live-boot", 3), ("systemd-sysv", 3), ("libstdc++6", 4)]


@pytest.mark.parametrize(
    "line",
    [
        "#if ARCHITECTURES amd64",
        "  #if ARCHITECTURES amd64",
        "#endif",
        "! packages Priority standard",
        "dash=0.5",
        "dash/backports",
        "dash:i386",
        "-o",
        "--allow-unauthenticated",
        "?essential",
        "../x",
        "Dash",
    ],
)
def test_anything_but_names_is_refused_with_its_line(image: Path, line: str) -> None:
    (image / "package-lists/b.list.chroot").write_text(f"dash\n{line}\n")
    with pytest.raises(UsageError, match=r"mini/package-lists/b\.list\.chroot:2: "):
        request_of(image)


@pytest.mark.parametrize("name", ["b.list.binary", "b.txt"])
def test_an_unknown_kind_of_list_is_reported(image: Path, name: str) -> None:
    (image / "package-lists" / name).write_text("dash\n")
    with pytest.raises(UsageError, match=f"package-lists/{name} is not supported"):
        request_of(image)


@pytest.mark.parametrize("ending", [".list", ".list.chroot_live", ".list.chroot_install"])
def test_every_list_of_the_system_counts(image: Path, ending: str) -> None:
    (image / f"package-lists/b{ending}").write_text("live-boot\n")
    assert [asked.name for asked in request_of(image).image_names] == ["dash", "live-boot"]


def test_pins_stand_where_live_build_has_them(image: Path) -> None:
    pins = {"preferences/a.pref": "1", "archives/a.pref.chroot": "2", "apt/preferences": "3"}
    for name, text in pins.items():
        (image / name).parent.mkdir(exist_ok=True)
        (image / name).write_text(text)
    assert request_of(image).preferences == (
        ("a.pref", "1"),
        ("archives-a.pref", "2"),
        ("apt-preferences", "3"),
    )


def test_a_list_must_be_a_plain_file_and_text(image: Path) -> None:
    path = image / "package-lists/b.list.chroot"
    path.symlink_to("/etc/hostname")
    with pytest.raises(UsageError, match="not a plain file"):
        request_of(image)
    path.unlink()
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="cannot read"):
        request_of(image)


@pytest.mark.parametrize("name", ["none", "../mini", "", "Mini"])
def test_an_image_that_is_not_there_is_reported(image: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"there is no image .*; --image names one of mini"):
        request_of(image, name)


def test_where_there_is_no_image_at_all_the_task_that_makes_one_is_named(image: Path) -> None:
    (image / "image.yaml").unlink()
    with pytest.raises(UsageError, match=r"there is no image .*; .* new-image NAME makes one"):
        request_of(image, "none")


@pytest.mark.parametrize(
    "archive", [{"suites": ["../x"]}, {"components": ["main x"]}, {"suites": ["sid"]}]
)
def test_archives_that_cannot_serve_are_reported(image: Path, archive: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=r"farm\.yaml"):
        request_of(image, "mini", **archive)


def test_an_image_without_packages_is_reported(image: Path) -> None:
    (image / "package-lists/a.list.chroot").write_text("# nothing\n")
    with pytest.raises(UsageError, match="has no packages"):
        request_of(image)


def test_addresses_and_keyrings_leave_the_digest_alone(image: Path) -> None:
    digest = request_of(image).sha256
    assert request_of(image, urls=["http://b.example.org"], keyring="/other").sha256 == digest
    assert request_of(image, at="20261122T000000Z").sha256 != digest
    assert request_of(image, components=["main", "contrib"]).sha256 != digest
