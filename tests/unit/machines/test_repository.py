# SPDX-License-Identifier: GPL-3.0-or-later
"""Locked packages as an archive: real apt takes it."""

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.base.store import Store
from pipeline.documents.digest import sha256_file
from pipeline.documents.lock import Package
from pipeline.machines import repository
from tests.debian_archive import DebianArchive, SigningKey

FOLDERS = (
    "etc/apt/apt.conf.d",
    "etc/apt/preferences.d",
    "etc/apt/sources.list.d",
    "var/cache/apt/archives/partial",
    "var/lib/apt/lists/partial",
    "var/lib/dpkg",
)
VERSIONS = {"one": "1.0", "two": "1:2.0-1+b1", "three": "3~rc1"}


@dataclass(frozen=True)
class Locked:
    """Packages in a store, and the paragraphs that speak of them."""

    store: Store
    packages: tuple[Package, ...]
    index: bytes


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Locked:
    folder = tmp_path_factory.mktemp("locked")
    archive = DebianArchive(folder / "archive", SigningKey(folder, ""))
    store = Store(folder / "store")
    packages, paragraphs = [], []
    for name, version in VERSIONS.items():
        path = archive.add(name, version, **({} if name == "one" else {"Depends": "one"}))
        sha256, size = sha256_file(path), path.stat().st_size
        store.add(sha256, size, [path.read_bytes()])
        package = Package(name, version, "all", size, sha256, ())
        packages.append(package)
        paragraph = archive.paragraphs[f"{name} {version}"]
        paragraphs.append(re.sub("(?<=Filename: ).*", f"pool/{package.file_name}", paragraph))
    return Locked(store, tuple(packages), "\n".join(paragraphs).encode())


def lay_out(root: Path, locked: Locked, suite: str = "trixie") -> None:
    files = repository.files(suite, {"main": locked.index}, locked.packages, locked.store)
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.read_bytes())


def apt(folder: Path, *arguments: str, suite: str = "trixie") -> subprocess.CompletedProcess[str]:
    """Run apt with nothing of this machine's but its program."""
    for name in FOLDERS:
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "var/lib/dpkg/status").touch()
    (folder / "empty.conf").touch()
    source = f"deb [trusted=yes] copy:{folder / 'repository'} {suite} main\n"
    (folder / "etc/apt/sources.list").write_text(source)
    own = {"Dir": str(folder), "Dir::State::status": str(folder / "var/lib/dpkg/status")}
    own |= {"APT::Architecture": "amd64", "Acquire::Languages": "none", "APT::Sandbox::User": ""}
    options = [f"-o{name}={value}" for name, value in own.items()]
    return subprocess.run(
        ["apt-get", *options, "-oDir::Bin::methods=/usr/lib/apt/methods", *arguments],
        env={"PATH": os.environ["PATH"], "LC_ALL": "C", "APT_CONFIG": str(folder / "empty.conf")},
        capture_output=True,
        text=True,
        check=False,
    )


def test_apt_takes_it(locked: Locked, tmp_path: Path) -> None:
    lay_out(tmp_path / "repository", locked)
    updated = apt(tmp_path, "update")
    assert (updated.returncode, updated.stderr) == (0, "")
    planned = apt(tmp_path, "install", "--print-uris", "--yes", "-qq", "two", "three")
    found = sorted(line.split()[1] for line in planned.stdout.splitlines())
    assert found == sorted(package.file_name for package in locked.packages)
    assert f"copy:{tmp_path}/repository/pool/" in planned.stdout
    fetched = apt(tmp_path, "install", "--download-only", "--yes", "two")
    assert fetched.returncode == 0, fetched.stderr


def test_apt_refuses_a_package_that_was_changed(locked: Locked, tmp_path: Path) -> None:
    lay_out(tmp_path / "repository", locked)
    with (tmp_path / "repository/pool" / locked.packages[0].file_name).open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\xff")
    assert apt(tmp_path, "update").returncode == 0
    fetched = apt(tmp_path, "install", "--download-only", "--yes", "one")
    assert fetched.returncode == 100
    assert "Failed to fetch" in fetched.stderr  # "Hash Sum mismatch" before apt 3
    assert list((tmp_path / "var/cache/apt/archives").glob("*.deb")) == []


def test_the_suite_is_the_images(locked: Locked, tmp_path: Path) -> None:
    lay_out(tmp_path / "repository", locked, suite="forky")
    assert apt(tmp_path, "update", suite="forky").returncode == 0
    assert apt(tmp_path, "update", suite="trixie").returncode == 100


def test_only_the_wanted_paragraphs_are_selected(locked: Locked) -> None:
    one, _, three = locked.packages
    found = repository.select(locked.index, [three, one])
    assert re.findall(rb"^Package: (.*)$", found, re.MULTILINE) == [b"one", b"three"]
    assert repository.select(locked.index, locked.packages) == locked.index
    assert repository.select(locked.index, []).strip() == b""


def test_a_package_of_another_content_is_not_selected(locked: Locked) -> None:
    other = Package("one", "1.0", "all", 1, "0" * 64, ())
    assert b"Package" not in repository.select(locked.index, [other])
