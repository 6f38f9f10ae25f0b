# SPDX-License-Identifier: GPL-3.0-or-later
"""The image's own packages in the machine: what is built, delivered and offered to apt."""

import hashlib
import os
import shutil
import stat
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.documents.disks import LOCK
from pipeline.documents.job import SourceFile
from pipeline.documents.lock import Lock, dump
from pipeline.documents.progress import STATUS_BUILD_FAILED, STATUS_INPUTS
from pipeline.documents.steps import BOOTSTRAP
from pipeline.guest import local_archive, main, packages, tree
from pipeline.guest.job import GuestJob
from pipeline.guest.serial_port import StepFailed
from tests.guest_log import Log
from tests.jobs import make_document
from tests.machine_settings import make_settings

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can hand files to others")

EPOCH = 1_700_000_000
GREETER = {"name": "greeter", "version": "1:1.2-3", "architecture": "amd64"}
DATA = {"name": "greeter-data", "version": "1:1.2-3", "architecture": "all"}
BUILT = {"source": "greeter", "sha256": None, "file": None}
SOURCE = {"name": "greeter", "version": "1:1.2-3", "epoch": EPOCH, "sha256": "1" * 64}
SOURCE |= {"dsc": None, "files": []}
NAMES = ("greeter_1.2-3_amd64.deb", "greeter-data_1.2-3_all.deb")
Build = Callable[[Path], None]


def deb(path: Path, name: str, version: str, architecture: str, **fields: str) -> Path:
    folder = path.parent / f".{path.name}"
    (folder / "DEBIAN").mkdir(parents=True)
    control = {"Package": name, "Version": version, "Architecture": architecture, **fields}
    control |= {"Maintainer": "Test <test@example.org>", "Description": "a test"}
    (folder / "DEBIAN/control").write_text("".join(f"{k}: {v}\n" for k, v in control.items()))
    argv = ["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", str(folder), str(path)]
    subprocess.run(argv, check=True, capture_output=True)
    shutil.rmtree(folder)
    return path


def make_job(work: Path, *more: dict[str, Any]) -> GuestJob:
    local = [{**GREETER, **BUILT, "wanted": True}, {**DATA, **BUILT, "wanted": False}, *more]
    document = {
        "image": "mini",
        "architecture": "amd64",
        "version": "3.3",
        "suite": "trixie",
        "local": {"sources": [SOURCE], "packages": local},
    }
    made = GuestJob(make_document(**document), make_settings(build_path="/srv/work"), work)
    made.artifacts.mkdir(parents=True)
    folder = made.image_folder / "packages/greeter/debian"
    folder.mkdir(parents=True)
    (folder / "rules").write_text("#!/usr/bin/make -f\n")
    (folder / "rules").chmod(0o700)
    return made


@pytest.fixture
def job(tmp_path: Path) -> GuestJob:
    return make_job(tmp_path)


def good(folder: Path) -> None:
    for fields, name in zip((GREETER, DATA), NAMES, strict=True):
        deb(folder / name, **fields)


def built(job: GuestJob, monkeypatch: pytest.MonkeyPatch, make: Build = good) -> dict[str, Any]:
    """Build with what `make` puts beside the source in place of dpkg-buildpackage."""
    seen: dict[str, Any] = {}

    def in_chroot(
        root: Path, _: object, env: dict[str, str], argv: list[str], **__: object
    ) -> None:
        folder = root / next(a for a in argv if a.startswith("--chdir=/")).removeprefix("--chdir=/")
        if "dpkg-source" in argv:  # as it does, as far as it matters here
            assert (folder / argv[-2]).stat().st_uid == packages.USER
            seen["unpacked"] = sorted(path.name for path in folder.iterdir())
            (folder / argv[-1] / "debian").mkdir(parents=True)
            (folder / argv[-1] / "debian/rules").touch()
            return
        rules = (folder / "debian/rules").stat()
        seen.update(env=env, argv=argv, folder=folder.relative_to(root), rules=rules)
        seen["above"] = [stat.S_IMODE(p.stat().st_mode) for p in folder.parents if p > root]
        os.umask(0o022)  # as programs.run does for scripts
        make(folder.parent)

    monkeypatch.setattr(tree, "in_chroot", in_chroot)
    before = os.umask(0o077)
    try:
        env = {"SOURCE_DATE_EPOCH": "1", "LC_ALL": "C"}
        source = job.document.own.sources[0]
        seen["made"] = packages.build(job, Log(), env, source)
    finally:
        os.umask(before)
    return seen


def test_a_source_is_built_by_a_user_from_files_of_one_time(
    job: GuestJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = built(job, monkeypatch)
    assert str(seen["folder"]) == "build/srv/work/greeter/greeter-1.2"
    assert (seen["rules"].st_uid, seen["rules"].st_mtime) == (packages.USER, EPOCH)
    assert stat.S_IMODE(seen["rules"].st_mode) == 0o755
    assert set(seen["above"]) == {0o755}
    assert "SOURCE_DATE_EPOCH" not in seen["env"]  # dpkg takes it from the changelog
    assert seen["env"]["DEB_BUILD_OPTIONS"] == f"noautodbgsym parallel={os.cpu_count()}"
    assert seen["made"] == {name: job.artifacts / name for name in sorted(NAMES)}
    assert tuple(sorted(p.name for p in job.artifacts.iterdir())) == tuple(sorted(NAMES))
    assert sorted(job.names.built) == sorted(NAMES)


def test_a_source_that_was_fetched_is_unpacked_first(
    job: GuestJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(job.image_folder / "packages/greeter")
    (job.image_folder / "packages/greeter.dsc").write_text("Source: greeter\n")
    (job.work / "sources").mkdir()
    (job.work / "sources" / ("a" * 64)).write_text("a source")
    own = job.document.own
    files = (SourceFile("greeter.tar.gz", 8, "a" * 64),)
    source = replace(own.sources[0], dsc="greeter.dsc", files=files)
    job = replace(job, document=replace(job.document, local=replace(own, sources=(source,))))
    seen = built(job, monkeypatch)
    assert seen["unpacked"] == ["greeter.dsc", "greeter.tar.gz"]
    assert (seen["rules"].st_uid, seen["rules"].st_mtime) == (packages.USER, EPOCH)
    assert sorted(seen["made"]) == sorted(NAMES)


def _less(folder: Path) -> None:
    good(folder)
    (folder / NAMES[1]).unlink()


def _more(folder: Path) -> None:
    good(folder)
    deb(folder / "evil_1_all.deb", "evil", "1", "all")


def _link(folder: Path) -> None:
    good(folder)
    (folder / NAMES[1]).rename(folder / "elsewhere")
    (folder / NAMES[1]).symlink_to("elsewhere")


def _other(folder: Path) -> None:
    good(folder)
    deb(folder / NAMES[1], **{**DATA, "name": "base-files"})


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (_less, "greeter-data_1.2-3_all.deb was not made"),
        (_more, "evil_1_all.deb was made, though"),
        (_link, "greeter-data_1.2-3_all.deb was not made"),
        (_other, "says that it is 'base-files 1:1.2-3 all'"),
    ],
)
def test_other_packages_than_the_job_names_are_refused(
    make: Build, what: str, job: GuestJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StepFailed) as caught:
        built(job, monkeypatch, make)
    assert caught.value.status == STATUS_BUILD_FAILED
    assert caught.value.what.startswith("packages/greeter: ")
    assert what in caught.value.what


def test_a_clock_before_the_changelog_goes_ahead_and_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has times before those that dpkg-deb clamps to would keep them."""
    clock = [EPOCH - 1000.0]
    monkeypatch.setattr(time, "time", lambda: clock[0])
    monkeypatch.setattr(time, "clock_settime", lambda _, to: clock.__setitem__(0, to))
    with packages._clock_after(EPOCH, Log()):
        assert clock[0] > EPOCH
        clock[0] += 60
    assert clock[0] == EPOCH - 1000 + 60
    clock[0] = EPOCH + 5
    with packages._clock_after(EPOCH, Log()):
        assert clock[0] == EPOCH + 5


def ready_made(job: GuestJob, **fields: str) -> dict[str, Any]:
    path = job.image_folder / "packages.chroot/addon.deb"
    path.parent.mkdir(parents=True, exist_ok=True)
    deb(path, "addon", "1.0", "all", **fields)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    addon = {"name": "addon", "version": "1.0", "architecture": "all", "source": None}
    return {**addon, "file": "addon.deb", "sha256": digest, "wanted": True}


def offered(tmp_path: Path, main: str = "Package: dash\n", **fields: str) -> GuestJob:
    """Offer two packages that are built and one that is ready-made, which has these fields."""
    first = make_job(tmp_path / "first")
    more = ready_made(first, **fields)
    job = make_job(tmp_path / "work", more)
    shutil.copytree(first.image_folder / "packages.chroot", job.image_folder / "packages.chroot")
    good(job.artifacts)
    index = job.work / "repository/dists/trixie/main/binary-amd64/Packages"
    index.parent.mkdir(parents=True)
    index.write_text(main)
    local_archive.offer(job)
    return job


@pytest.mark.parametrize("separator", ["\u2028", "\x85", "\x0b", "\r"])
def test_a_description_cannot_name_another_file(tmp_path: Path, separator: str) -> None:
    """The attacker made a package of the image's own, and chose what its fields say."""
    evil = f"good{separator}Filename: pool/evil.deb{separator}SHA256: {'0' * 64}"
    job = offered(tmp_path, Description=evil)
    index = (job.work / "repository/dists/trixie/local/binary-amd64/Packages").read_bytes()
    names = [line for line in index.split(b"\n") if line.startswith(b"Filename:")]
    assert len(names) == len(NAMES) + 1
    assert not [name for name in names if b"evil" in name]
    assert index.count(b"\nSHA256:") == len(names)


def test_apt_installs_them_beside_the_locked_ones(tmp_path: Path) -> None:
    job = offered(tmp_path, Depends="greeter-data")
    for name in ("etc", "lists/partial", "cache/archives/partial"):
        (tmp_path / "apt" / name).mkdir(parents=True)
    conf = tmp_path / "apt/apt.conf"
    conf.write_text(
        f'Dir "{tmp_path}/apt"; Dir::Etc "{tmp_path}/apt/etc"; Dir::State "{tmp_path}/apt";'
        f'Dir::Cache "{tmp_path}/apt/cache"; Dir::State::status "/dev/null";'
        'Dir::Etc::Parts "none"; APT::Architecture "amd64"; APT::Architectures { "amd64"; };'
        'APT::Sandbox::User ""; Acquire::Languages "none";'
    )
    source = f"deb [trusted=yes] copy:{job.work}/repository trixie main local\n"
    (tmp_path / "apt/etc/sources.list").write_text(source)
    env = {**os.environ, "APT_CONFIG": os.fspath(conf)}

    def apt(*words: str) -> str:
        done = subprocess.run(["apt-get", "-qq", *words], env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    apt("update")
    found = [line.split()[1] for line in apt("install", "--print-uris", "addon").splitlines()]
    assert sorted(found) == ["addon_1.0_all.deb", "greeter-data_1%3a1.2-3_all.deb"]
    apt("install", "--download-only", "--yes", "addon")  # hashes and sizes are right


def test_what_the_lock_lacks_is_reported_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(StepFailed) as caught:
        offered(tmp_path, Depends="dash, libx11-6 (>= 2) | libx11-7")
    assert caught.value.what == (
        "addon depends on libx11-6 (>= 2) | libx11-7, which the lock does not have; add libx11-6 to"
        " a package list of the image and write its lock anew"
    )
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    offered(tmp_path, "Package: x\nProvides: libx11-7 (= 2), y\n", Depends="libx11-6 | libx11-7")


def test_a_ready_made_package_that_is_another_is_refused(tmp_path: Path) -> None:
    job = offered(tmp_path)
    path = job.image_folder / "packages.chroot/addon.deb"
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(StepFailed, match="not the one that the job names") as caught:
        local_archive.offer(job)
    assert caught.value.status == STATUS_INPUTS


def test_the_list_of_packages_has_those_that_are_installed(tmp_path: Path) -> None:
    job = offered(tmp_path)
    status = job.tree / "var/lib/dpkg/status"
    status.parent.mkdir(parents=True)
    status.write_text(
        "Package: greeter\nStatus: install ok installed\nVersion: 1:1.2-3\nArchitecture: amd64\n"
    )
    digest = hashlib.sha256((job.artifacts / NAMES[0]).read_bytes()).hexdigest()
    assert local_archive.installed(job) == [f"greeter 1:1.2-3 amd64 {digest}\n"]


def test_only_locked_and_local_packages_may_be_installed(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    greeter, data = job.document.own.packages
    status = tmp_path / "root/var/lib/dpkg/status"
    status.parent.mkdir(parents=True)

    def say(*installed: Any) -> None:
        texts = [
            f"Package: {p.name}\nStatus: install ok installed\nVersion: {p.version}\n"
            f"Architecture: {p.architecture}\n"
            for p in installed
        ]
        status.write_text("\n".join(texts))

    for found in ((greeter,), (greeter, data)):
        say(*found)
        tree.check_installed(tmp_path / "root", [greeter], [greeter, data])
    for found in ((data,), (greeter, data)):
        say(*found)
        with pytest.raises(StepFailed, match="greeter"):
            tree.check_installed(tmp_path / "root", [greeter], [greeter])


def test_packages_are_built_before_the_bootstrap_and_only_if_there_are_any(job: GuestJob) -> None:
    (job.work / LOCK).write_bytes(dump(Lock("mini", "amd64", "f" * 64, (), ())))
    document = replace(job.document, epoch=EPOCH)

    def steps(**changes: Any) -> list[str]:
        made = replace(job, document=replace(document, **changes))
        nothing: Any = None
        return [name for name, _ in main._steps(made, nothing, {}, (), nothing, nothing)]

    assert steps()[:3] == ["15-packages", "15-packages/greeter", "20-bootstrap"]
    assert steps(local=None) == steps()[2:]
    assert all(name < BOOTSTRAP for name in steps()[:2])  # as the machine tells them apart
