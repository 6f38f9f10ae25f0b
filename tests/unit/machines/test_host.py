# SPDX-License-Identifier: GPL-3.0-or-later
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pipeline.base.errors import UsageError
from pipeline.farm.config import Archive, Variation, load_environment
from pipeline.machines.host import Host

HOSTS = Path(__file__).parents[3] / "images" / "hosts"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
BASES = {
    "debian": ("http://one.invalid/debian", "http://two.invalid/debian"),
    "security": ("http://one.invalid/security",),
    "overlay": ("http://overlay.invalid",),
}


def archive(*suites: str, keyring: Path = KEYRING, **more: Any) -> Archive:
    return Archive(suites=list(suites), components=["main", "contrib"], keyring=keyring, **more)


ARCHIVES = {
    "debian": archive("trixie", "trixie-updates"),
    "security": archive("trixie-security"),
    "overlay": archive("trixie", keyring=Path("/srv/overlay.gpg")),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lists = tmp_path / "host" / "package-lists"
    lists.mkdir(parents=True)
    (lists / "b.list").write_text("# what it needs\nqemu  # the machine\n\n")
    (lists / "a.list").write_text("mmdebstrap kmod\n")
    return tmp_path / "host"


def host(
    folder: Path, archives: Mapping[str, Archive] = ARCHIVES, name: str = "beta", **changes: str
) -> Host:
    variation: Variation = load_environment(HOSTS / "beta" / "environment.yaml")
    return Host(name, folder, variation.model_copy(update=changes), archives)


def test_it_comes_from_debians_archives_in_its_own_release(folder: Path) -> None:
    signed = f"[signed-by={KEYRING}]"
    assert host(folder).sources(BASES) == [
        f"deb {signed} http://one.invalid/debian bookworm main contrib",
        f"deb {signed} http://one.invalid/debian bookworm-updates main contrib",
        f"deb {signed} http://one.invalid/security bookworm-security main contrib",
    ]


def test_the_release_of_the_image_serves_too(folder: Path) -> None:
    found = host(folder, suite="trixie").sources(BASES)
    assert [line.split()[3] for line in found] == ["trixie", "trixie-updates", "trixie-security"]


def test_an_archive_with_two_releases_gives_one(folder: Path) -> None:
    found = host(folder, {"debian": archive("trixie", "forky", "sid-updates")}).sources(BASES)
    assert [line.split()[3] for line in found] == ["bookworm", "bookworm-updates"]


def test_a_pinned_archive_may_be_old(folder: Path) -> None:
    pinned = archive("trixie", at="20260101T000000Z", snapshot_urls=["http://old.invalid"])
    assert "check-valid-until=no" in host(folder, {"debian": pinned}).sources(BASES)[0]


def test_an_overlay_alone_makes_no_host(folder: Path) -> None:
    with pytest.raises(UsageError, match="Debian's keys"):
        host(folder, {"overlay": ARCHIVES["overlay"]}).sources(BASES)


def test_its_packages_are_those_of_its_lists(folder: Path) -> None:
    assert host(folder).packages == ["mmdebstrap", "kmod", "qemu"]
    for path in (folder / "package-lists").iterdir():
        path.write_text("# nothing\n")
    with pytest.raises(UsageError, match="names no package"):
        _ = host(folder).packages


def test_whatever_it_is_made_of_changes_its_key(folder: Path) -> None:
    mirrored = {
        **ARCHIVES,
        "debian": archive("trixie", "trixie-updates", urls=["http://m.invalid"]),
    }
    first = host(folder).key
    assert host(folder, mirrored, name="gamma", time_zone="UTC").key == first
    keys = {
        first,
        host(folder, suite="trixie").key,
        host(folder, {"debian": ARCHIVES["debian"]}).key,
        host(folder, {**ARCHIVES, "debian": archive("trixie")}).key,
        host(
            folder, {**ARCHIVES, "debian": archive("trixie", keyring=KEYRING.with_suffix(".pgp"))}
        ).key,
    }
    (folder / "package-lists" / "a.list").write_text("mmdebstrap\n")
    assert len(keys | {host(folder).key}) == 6


def test_the_hosts_here_are_of_two_releases() -> None:
    suites = {load_environment(p / "environment.yaml").suite for p in HOSTS.iterdir() if p.is_dir()}
    assert len(suites) == 2
