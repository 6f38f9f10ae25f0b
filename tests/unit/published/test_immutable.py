# SPDX-License-Identifier: GPL-3.0-or-later
"""A package that was published is never another: releases are asked, each verified."""

from pathlib import Path
from typing import Any, Protocol

import pytest

from pipeline.base.errors import InputsUnverified, SignatureInvalid
from pipeline.documents.fields import Fields
from pipeline.documents.job import Local
from pipeline.farm.config import Farm
from pipeline.published.immutable import refuse_changed
from pipeline.published.published import Location
from pipeline.release.stage import Release, run_release
from tests.gpg_home import GpgHome
from tests.releases import MakeRun

pytestmark = [pytest.mark.tools, pytest.mark.usefixtures("caller")]

NAME = "greeter_1.2_amd64.deb"


def local(version: str = "1.2", source: str = "a" * 64, addon: str = "b" * 64) -> dict[str, Any]:
    package = {"name": "greeter", "version": version, "architecture": "amd64", "wanted": True}
    ready = {**package, "name": "addon", "version": "1:1.0", "architecture": "all"}
    built = {"name": "greeter", "version": version, "epoch": 1, "sha256": source}
    return {
        "sources": [{**built, "dsc": None, "files": []}],
        "packages": [
            {**package, "source": "greeter", "sha256": None, "file": None},
            {**ready, "source": None, "sha256": addon, "file": "addon.deb"},
        ],
    }


def own(**more: str) -> Local:
    return Local.of(Fields(local(**more)))


class Publish(Protocol):
    """Releases a tag whose image holds this package."""

    def __call__(self, tag: str, content: bytes, image: str = ..., **more: str) -> Release: ...


@pytest.fixture
def release(make_run: MakeRun, farm: Farm, tmp_path: Path) -> Publish:
    def run(tag: str, content: bytes, image: str = "mini", **more: str) -> Release:
        stated = local(**more)
        name = NAME.replace("1.2", stated["sources"][0]["version"])
        fake = make_run(tag, image=image, artifacts={name: content}, local=stated)
        return run_release(
            fake.run, farm, tmp_path / "public", fake.verified, notify=lambda _: None
        )

    return run


@pytest.fixture
def location(release: Publish, gpg_home: GpgHome, release_key: str, tmp_path: Path) -> Location:
    release("3.3", b"a package")
    return Location(str(tmp_path / "public"), gpg_home.export(release_key))


def test_a_package_that_changed_stops_the_release(
    release: Publish, location: Location, tmp_path: Path
) -> None:
    with pytest.raises(InputsUnverified) as caught:
        release("3.4", b"another package")
    assert str(caught.value) == (
        f"{NAME} is published in 3.3 with other content; raise the version in debian/changelog"
    )
    assert not (tmp_path / "public/3.4").exists()


def test_the_same_and_a_later_version_are_published(release: Publish, location: Location) -> None:
    assert release("3.4", b"a package").new
    assert release("3.5", b"another package", version="1.3").new


def test_another_image_may_not_change_it_either(release: Publish, location: Location) -> None:
    with pytest.raises(InputsUnverified, match=r"greeter_1\.2_amd64\.deb is published in 3\.3"):
        release("1.0", b"another package", image="kiosk")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"source": "c" * 64}, r"the source greeter 1\.2 is published in 3\.3"),
        ({"addon": "c" * 64}, r"addon_1\.0_all\.deb is published in 3\.3"),
    ],
)
def test_a_changed_source_is_reported_before_the_build(
    location: Location, change: dict[str, str], what: str
) -> None:
    refuse_changed(location, "3.4", own())
    refuse_changed(location, "3.3", own(**change))  # the release itself is no other one
    with pytest.raises(InputsUnverified, match=what):
        refuse_changed(location, "3.4", own(**change))


def test_a_release_that_cannot_be_verified_vouches_for_nothing(
    location: Location, tmp_path: Path
) -> None:
    (tmp_path / "public/3.3/SHA256SUMS.asc").unlink()
    with pytest.raises(SignatureInvalid):
        refuse_changed(location, "3.4", own())
