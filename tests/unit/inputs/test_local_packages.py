# SPDX-License-Identifier: GPL-3.0-or-later
"""Packages that an image brings itself: what is locked for them, and what a build is given."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from pipeline.base.errors import UsageError
from pipeline.cli import image_tasks
from pipeline.farm.workspace import Workspace
from pipeline.inputs.image_lock import own_packages
from pipeline.inputs.local_packages import read_local
from pipeline.inputs.locking import refuse_stale
from pipeline.inputs.request import read_request
from tests.unit.inputs.conftest import Workshop

pytestmark = pytest.mark.tools

CONTROL = """Source: greeter
Maintainer: Test <test@example.org>
Build-Depends: debhelper-compat (= 13)

Package: greeter
Architecture: any
Depends: ${shlibs:Depends}, live-tools, greeter-data (= ${binary:Version})
Description: greets

Package: greeter-data
Architecture: all
Description: data

Package: greeter-unused
Architecture: all
Depends: unwanted
Description: of no use
"""
CHANGELOG = """greeter (%s) unstable; urgency=medium

  * A change.

 -- Test <test@example.org>  Tue, 14 Nov 2023 22:13:20 +0000
"""


def source(image: Path, name: str = "greeter", version: str = "1.2", **replaced: str) -> Path:
    debian = image / "packages" / name / "debian"
    debian.mkdir(parents=True, exist_ok=True)
    control = CONTROL.replace("greeter", name)
    for before, after in replaced.items():
        control = control.replace(before.replace("_", "-"), after)
    (debian / "control").write_text(control)
    (debian / "changelog").write_text(CHANGELOG.replace("greeter", name) % version)
    (debian / "rules").write_text("#!/usr/bin/make -f\n%:\n\tdh $@\n")
    (debian / "rules").chmod(0o755)
    return debian.parent


def deb(image: Path, name: str, version: str = "1.0", file: str = "", **fields: str) -> Path:
    tree = image / ".deb"
    (tree / "DEBIAN").mkdir(parents=True)
    control = {"Package": name, "Version": version, "Architecture": "all", **fields}
    control |= {"Maintainer": "Test <test@example.org>", "Description": "ready-made"}
    text = "".join(f"{key}: {value}\n" for key, value in control.items())
    (tree / "DEBIAN" / "control").write_text(text)
    path = image / "packages.chroot" / (file or f"{name}_{version}_all.deb")
    path.parent.mkdir(exist_ok=True)
    argv = ["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", str(tree), str(path)]
    subprocess.run(argv, check=True, capture_output=True)
    shutil.rmtree(tree)
    return path


@pytest.fixture
def image(tmp_path: Path) -> Path:
    folder = tmp_path / "mini"
    folder.mkdir()
    return folder


@pytest.fixture
def shop(workshop: Workshop) -> Workshop:
    """A workshop with a source package, and an archive that has what builds it."""
    workshop.archive.add("build-essential", Depends="make")
    workshop.archive.add("make")
    workshop.archive.add("debhelper", Provides="debhelper-compat (= 13)", Depends="make")
    workshop.archive.publish()
    source(image_of(workshop))
    workshop.ask_for("live-boot", "greeter")
    return workshop


def image_of(shop: Workshop) -> Path:
    return shop.tree / "images/live/mini"


def test_what_stands_there(image: Path) -> None:
    source(image)
    path = deb(image, "addon", Depends="dash")
    (image / "packages/README.md").write_text("how these are made\n")
    local = read_local(image, "amd64")
    assert [binary.name for binary in local.binaries] == [
        "addon",
        "greeter",
        "greeter-data",
        "greeter-unused",
    ]
    addon = local.ready_made[0]
    assert (addon.file, addon.source) == (f"mini/packages.chroot/{path.name}", None)
    assert addon.fields == (("Depends", "dash"),)


def test_two_packages_of_one_version_are_reported_with_both_files(image: Path) -> None:
    deb(image, "addon", file="a.deb")
    deb(image, "addon", file="b.deb")
    with pytest.raises(UsageError) as caught:
        read_local(image, "amd64")
    assert str(caught.value) == (
        "mini/packages.chroot/a.deb is addon 1.0 and mini/packages.chroot/b.deb is addon 1.0;"
        " keep one of them"
    )


def test_a_package_that_is_built_and_ready_made(image: Path) -> None:
    source(image)
    deb(image, "greeter", "1.2")
    with pytest.raises(UsageError, match=r"packages/greeter/debian/control.*greeter_1\.2_all\.deb"):
        read_local(image, "amd64")


def test_what_is_no_package_is_refused_with_its_file(image: Path, tmp_path: Path) -> None:
    bad = {
        "packages/loose.deb": "ready-made packages go into packages.chroot/",
        "packages/file": "is no source package",
        "packages.chroot/notes.txt": r"only \*.deb files",
        "packages.chroot/broken.deb": "cannot be read",
    }
    for name, what in bad.items():
        path = image / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("?")
        with pytest.raises(UsageError, match=what) as caught:
            read_local(image, "amd64")
        assert f"mini/{name}" in str(caught.value)
        path.unlink()
    source(image).rename(image / "packages/other")
    with pytest.raises(UsageError, match=r"packages/other holds the source greeter"):
        read_local(image, "amd64")
    (image / "packages/other").rename(tmp_path / "elsewhere")
    (image / "packages/greeter").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="is no source package"):
        read_local(image, "amd64")


def test_a_ready_made_package_of_another_architecture(image: Path) -> None:
    deb(image, "addon", Architecture="arm64")
    with pytest.raises(UsageError, match="is for 'arm64', and the image for amd64"):
        read_local(image, "amd64")


def test_the_lock_names_what_builds_and_what_local_packages_need(shop: Workshop) -> None:
    lock = shop.lock()
    used = {user: {p.name for p in lock.used_by(user)} for user in ("build", "builder", "image")}
    essential = {"base-files", "dash", "libc6"}
    assert used["build"] == essential | {"build-essential", "debhelper", "make"}
    assert used["image"] == essential | {"live-boot", "live-tools"}  # live-tools twice over
    assert used["builder"] == essential | {"apt", "mmdebstrap"}
    dash = next(package for package in lock.packages if package.name == "dash")
    assert dash.used_by == ("build", "builder", "image")


def test_an_image_without_any_keeps_its_lock(workshop: Workshop) -> None:
    before = workshop.lock().request_sha256
    (image_of(workshop) / "packages").mkdir()
    assert workshop.lock().request_sha256 == before
    assert not workshop.lock().used_by("build")


def test_what_no_list_asks_for_is_not_installed_and_its_needs_neither(shop: Workshop) -> None:
    assert "unwanted" not in {p.name for p in shop.lock().used_by("image")}
    shop.ask_for("live-boot", "greeter-unused")
    assert "unwanted" in {p.name for p in shop.lock().used_by("image")}


def test_what_is_ready_made_is_always_installed(workshop: Workshop) -> None:
    deb(image_of(workshop), "addon", Depends="unwanted")
    assert "unwanted" in {p.name for p in workshop.lock().used_by("image")}


def test_a_new_version_needs_no_new_lock_and_a_new_relation_does(shop: Workshop) -> None:
    lock = shop.lock()

    def ask() -> None:
        request = read_request(shop.tree, "mini", shop.farm, shop.builder_lists, shop.store)
        refuse_stale(lock, request)

    source(image_of(shop), version="1.3")
    ask()
    source(image_of(shop), live_tools="unwanted")
    with pytest.raises(UsageError, match="is stale"):
        ask()


def test_a_build_needs_what_no_archive_has(shop: Workshop) -> None:
    source(image_of(shop), debhelper_compat="debhalper")
    with pytest.raises(UsageError) as caught:
        shop.make()
    assert str(caught.value) == (
        "mini/packages/greeter/debian/control:3: there is no package debhalper;"
        " did you mean debhelper?"
    )


def test_nothing_builds_upon_what_is_built(shop: Workshop) -> None:
    source(image_of(shop), "clock", **{"debhelper-compat (= 13)": "greeter-data"})
    with pytest.raises(UsageError, match="greeter-data is built here itself"):
        shop.make()


def test_an_archive_has_a_later_one(shop: Workshop) -> None:
    shop.archive.add("greeter", "2.0")
    shop.archive.publish()
    with pytest.raises(UsageError) as caught:
        shop.make()
    assert str(caught.value) == (
        "mini/packages/greeter/debian/control: apt takes greeter_2.0_all.deb of debian, not 1.2;"
        " raise the version in debian/changelog, or pin it in preferences/:"
        " 'Package: greeter', 'Pin: version 1.2', 'Pin-Priority: 1001'"
    )


def test_an_older_one_can_be_pinned(shop: Workshop) -> None:
    shop.archive.add("greeter", "2.0")
    shop.archive.publish()
    pins = image_of(shop) / "preferences"
    pins.mkdir()
    (pins / "own.pref.chroot").write_text(
        "Package: greeter\nPin: version 1.2\nPin-Priority: 1001\n"
    )
    assert "greeter" not in {package.name for package in shop.make().used_by("image")}


def test_a_build_is_given_what_to_make(shop: Workshop) -> None:
    deb(image_of(shop), "addon")
    shop.lock()
    run = shop.run()
    messages = shop.stage(run)
    local = json.loads(run.inputs_json.read_text())["local"]
    digest = local["sources"][0].pop("sha256")
    greeter = {"name": "greeter", "version": "1.2", "epoch": 1_700_000_000}
    assert local["sources"] == [{**greeter, "dsc": None, "files": []}]
    assert [(p["name"], p["architecture"], p["wanted"]) for p in local["packages"]] == [
        ("addon", "all", True),
        ("greeter", "amd64", True),
        ("greeter-data", "all", False),
        ("greeter-unused", "all", False),
    ]
    assert local["packages"][0]["file"] == "addon_1.0_all.deb"
    assert any(
        "addon_1.0_all.deb is ready-made: not built from source" in line for line in messages
    )
    for change in (_edit, _make_executable, _add_link):
        change(image_of(shop) / "packages/greeter")
        run = shop.run()
        shop.stage(run)
        before = digest
        digest = json.loads(run.inputs_json.read_text())["local"]["sources"][0]["sha256"]
        assert digest != before


def _edit(folder: Path) -> None:
    (folder / "main.c").write_text("int main(void) {}\n")


def _make_executable(folder: Path) -> None:
    (folder / "main.c").chmod(0o755)


def _add_link(folder: Path) -> None:
    (folder / "link").symlink_to("main.c")


def test_a_folder_that_is_no_source_package_stops_a_run(shop: Workshop) -> None:
    shop.lock()
    (image_of(shop) / "packages/empty").mkdir()
    (image_of(shop) / "packages/empty/file").write_text("?")
    with pytest.raises(UsageError, match="images/live/mini/packages/empty is no source package"):
        shop.stage(shop.run())


def test_what_is_not_debians_is_named_now_and_as_it_was_tagged(
    shop: Workshop, capsys: pytest.CaptureFixture[str]
) -> None:
    deb(image_of(shop), "addon")
    workspace = Workspace(shop.tree, shop.farm)
    git = ["git", "-C", str(shop.tree), "-c", "user.name=T", "-c", "user.email=t@example.org"]
    for words in (["init", "-q"], ["add", "--all"], ["commit", "-qm", "x"], ["tag", "3.3"]):
        subprocess.run([*git, *words], check=True)
    source(image_of(shop), version="1.3")
    tagged = own_packages(workspace, "mini", tag="3.3")
    now = own_packages(workspace, "mini", source=str(shop.tree))
    assert [(p.name, p.version) for p in tagged][:2] == [("addon", "1.0"), ("greeter", "1.2")]
    assert [(p.name, p.version) for p in now][:2] == [("addon", "1.0"), ("greeter", "1.3")]
    image_tasks._print_own(tagged[:2])
    assert capsys.readouterr().out == (
        "not Debian's: addon 1.0 (ready-made, not built from source:"
        " mini/packages.chroot/addon_1.0_all.deb)\n"
        "not Debian's: greeter 1.2 (built from mini/packages/greeter/debian/control)\n"
    )
    with pytest.raises(UsageError, match=r"there is no images/live/mini in a tag '3\.4'"):
        own_packages(workspace, "mini", tag="3.4")
