# SPDX-License-Identifier: GPL-3.0-or-later
import json
import multiprocessing
import shutil
import subprocess
import tarfile
from io import BytesIO
from pathlib import Path

import pytest
from debian.deb822 import Deb822

from pipeline.base.errors import InfrastructureFailed, InputsUnverified, UsageError
from pipeline.documents.digest import sha256_file
from pipeline.farm.run import Run
from pipeline.inputs.lock_file import read
from pipeline.inputs.snapshot import write_snapshot
from tests.debian_archive import sha256
from tests.unit.inputs.conftest import Workshop, farm_of, write_source

pytestmark = pytest.mark.tools

LINKS_AND_DEVICES = [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE]
LIVE_BOOT = "pool/main/l/live-boot/live-boot_1.0_all.deb"


def document(run: Run) -> dict[str, object]:
    read: dict[str, object] = json.loads(run.inputs_json.read_text())
    return read


def test_every_package_is_in_the_store(workshop: Workshop) -> None:
    lock = workshop.locked()
    run = workshop.run()
    seen: list[tuple[int, int]] = []
    workshop.stage(run, progress=lambda done, total: seen.append((done, total)))
    total = sum(package.size for package in lock.packages)
    assert seen[-1] == (total, total)
    for package in lock.packages:
        assert not workshop.store.damaged(package.sha256)
    written = document(run)
    assert written["format"] == "twinbuild-inputs/1"
    assert written["lock_sha256"] == sha256_file(workshop.lock_file)
    assert written["snapshot"] is None
    assert [row["file"] for row in written["packages"]][:2] == [  # type: ignore[attr-defined]
        "apt_1.0_all.deb",
        "base-files_1.0_all.deb",
    ]


def test_the_index_names_just_the_locked_packages(workshop: Workshop) -> None:
    lock = workshop.locked()
    run = workshop.run()
    workshop.stage(run)
    index = workshop.store.path(str(document(run)["index_sha256"])).read_text()
    paragraphs = list(Deb822.iter_paragraphs(index, use_apt_pkg=False))
    assert [p["Package"] for p in paragraphs] == sorted(p.name for p in lock.packages)
    libc6 = next(p for p in paragraphs if p["Package"] == "libc6")
    assert libc6["Filename"] == "pool/libc6_1%3a2.41+b1_amd64.deb"
    dash = next(p for p in paragraphs if p["Package"] == "dash")
    assert (dash["Essential"], dash["Pre-Depends"]) == ("yes", "libc6")
    assert "Recommends: unwanted" in index


def test_the_index_does_not_depend_on_the_archives_own(workshop: Workshop) -> None:
    workshop.locked()
    first, second = workshop.run(), workshop.run()
    workshop.stage(first)
    shutil.rmtree(workshop.archive.dists)
    shutil.rmtree(workshop.store.root)
    workshop.stage(second)
    assert document(first) == document(second)


def test_a_complete_stage_does_nothing_and_says_so(workshop: Workshop) -> None:
    workshop.locked()
    run = workshop.run()
    assert workshop.stage(run) == ["inputs: it has not run yet"]
    workshop.server.asked.clear()
    assert workshop.stage(run) == ["the inputs are complete and unchanged"]
    assert not workshop.server.asked


def test_a_package_that_the_store_lost_is_fetched_again(workshop: Workshop) -> None:
    lock = workshop.locked()
    run = workshop.run()
    workshop.stage(run)
    workshop.store.discard(lock.packages[0].sha256)
    workshop.server.asked.clear()
    assert workshop.stage(run) == ["inputs: the store no longer has all of it"]
    assert len(workshop.server.asked) == 1
    assert workshop.store.has(lock.packages[0].sha256)


def test_a_package_that_was_damaged_in_the_store_is_fetched_again(workshop: Workshop) -> None:
    lock = workshop.locked()
    workshop.stage(workshop.run())
    path = workshop.store.path(lock.packages[0].sha256)
    path.chmod(0o644)
    path.write_bytes(b"x" * lock.packages[0].size)
    workshop.stage(workshop.run())
    assert not workshop.store.damaged(lock.packages[0].sha256)


@pytest.mark.parametrize("spoilt", ["changed", "longer", "shorter"])
def test_a_wrong_package_never_enters_the_store(workshop: Workshop, spoilt: str) -> None:
    lock = workshop.locked()
    path = workshop.archive.root / LIVE_BOOT
    deb = path.read_bytes()
    path.write_bytes(
        {"changed": deb[:-1] + b"x", "longer": deb + b"x", "shorter": deb[:-1]}[spoilt]
    )
    run = workshop.run()
    with pytest.raises(InputsUnverified, match=r"live-boot_1\.0_all\.deb"):
        workshop.stage(run)
    live_boot = next(p for p in lock.packages if p.name == "live-boot")
    assert not workshop.store.has(live_boot.sha256)
    assert all(sha256_file(workshop.store.path(name)) == name for name in workshop.stored())
    assert not run.inputs_json.exists()


@pytest.mark.parametrize("fault", ["404", "500", "truncate"])
def test_a_package_that_cannot_be_had_is_an_infrastructure_failure(
    workshop: Workshop, fault: str
) -> None:
    workshop.locked()
    workshop.server.faults[LIVE_BOOT] = fault
    with pytest.raises(InfrastructureFailed):
        workshop.stage(workshop.run())


def test_an_interrupted_package_goes_on_where_it_stopped(workshop: Workshop) -> None:
    workshop.locked()
    workshop.server.faults[LIVE_BOOT] = "once-truncate"
    workshop.stage(workshop.run())
    assert workshop.server.asked[f"/debian/{LIVE_BOOT}"] == 2


def test_a_package_that_the_mirror_dropped_comes_from_the_snapshots(workshop: Workshop) -> None:
    lock = workshop.locked()
    time = f"{lock.suites[0].date:%Y%m%dT%H%M%SZ}"
    kept = workshop.server.root / "snap/archive/debian" / time / LIVE_BOOT
    kept.parent.mkdir(parents=True)
    (workshop.archive.root / LIVE_BOOT).rename(kept)
    urls = [f"{workshop.server.url}/snap"]
    workshop.farm = farm_of(workshop.server, workshop.archive, snapshot_urls=urls)
    workshop.stage(workshop.run())


# --- locks that will not do


def test_a_commit_without_a_lock_is_refused(workshop: Workshop) -> None:
    with pytest.raises(UsageError, match=r"no lock of mini; \./farm lock --image mini"):
        workshop.stage(workshop.run())


def test_a_stale_lock_is_refused(workshop: Workshop) -> None:
    workshop.locked()
    workshop.ask_for("live-boot", "unwanted")
    with pytest.raises(UsageError, match="stale"):
        workshop.stage(workshop.run())


def test_the_farms_own_tools_serve_a_source_without(workshop: Workshop, tmp_path: Path) -> None:
    lock = workshop.locked()
    own = tmp_path / "own-lists"
    workshop.builder_lists.rename(own)
    run = workshop.run()
    with pytest.raises(UsageError, match="stale"):
        workshop.stage(run)
    workshop.stage(run, builder_lists=own)
    assert len(document(run)["packages"]) == len(lock.packages)  # type: ignore[arg-type]


def test_a_damaged_lock_is_refused(workshop: Workshop) -> None:
    workshop.locked()
    text = workshop.lock_file.read_text()
    workshop.lock_file.write_text(text.replace("Filename: pool", "Filename: ../pool", 1))
    with pytest.raises(InputsUnverified, match="damaged"):
        workshop.stage(workshop.run())


def test_a_package_must_be_what_the_lock_calls_it(workshop: Workshop) -> None:
    lock = workshop.locked()
    text = workshop.lock_file.read_text()
    assert "Package: live-boot\n" in text
    workshop.lock_file.write_text(text.replace("Package: live-boot\n", "Package: live-bout\n"))
    assert lock
    with pytest.raises(InputsUnverified, match="says that it is"):
        workshop.stage(workshop.run())


# --- a source that is not as it should be


def test_a_changed_source_is_refused(workshop: Workshop) -> None:
    workshop.locked()
    run = workshop.run()
    with run.source_tar.open("ab") as file:
        file.write(bytes(10240))
    with pytest.raises(InputsUnverified, match="was changed"):
        workshop.stage(run)


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE]
)
def test_what_is_no_plain_file_is_refused(workshop: Workshop, kind: bytes) -> None:
    run = workshop.run()
    secret = workshop.tree.parent / "secret"
    secret.write_text("Format: secret\n")
    member = tarfile.TarInfo("images/live/mini/lock")
    member.type, member.linkname = kind, str(secret)
    with tarfile.open(run.source_tar, "a") as tar:
        tar.addfile(member)
    write_source(run)
    with pytest.raises(UsageError, match="not a plain file"):
        workshop.stage(run)


def _with_member(workshop: Workshop, name: str) -> Run:
    workshop.locked()
    run = workshop.run()
    with tarfile.open(run.source_tar, "a") as tar:
        member = tarfile.TarInfo(name)
        member.size = 1
        tar.addfile(member, BytesIO(b"x"))
    write_source(run)
    return run


def test_members_with_absolute_paths_stay_inside(workshop: Workshop) -> None:
    workshop.stage(_with_member(workshop, "/tmp/twinbuild-x"))
    assert not Path("/tmp/twinbuild-x").exists()


def test_members_that_climb_are_refused(workshop: Workshop) -> None:
    run = _with_member(workshop, "images/live/mini/package-lists/../../../../../../twinbuild-x")
    with pytest.raises(UsageError, match="twinbuild-x is not supported"):
        workshop.stage(run)
    assert not list(workshop.tree.parents[1].rglob("twinbuild-x"))


# --- several at once


def _stage_of(workshop: Workshop, run: Run) -> None:
    workshop.stage(run)


def test_several_processes_fill_one_store(workshop: Workshop) -> None:
    lock = workshop.locked()
    runs = [workshop.run() for _ in range(3)]
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_stage_of, args=(workshop, run)) for run in runs]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert {document(run)["index_sha256"] for run in runs} <= workshop.stored()
    assert not any(workshop.store.damaged(package.sha256) for package in lock.packages)
    assert not list((workshop.store.root / "partial").iterdir())


# --- the tagged snapshot


def snapshots(workshop: Workshop) -> Path:
    return workshop.tree.parent / "snapshots"


def test_a_build_from_a_tag_uses_its_snapshot(workshop: Workshop) -> None:
    lock = workshop.locked()
    write_snapshot(snapshots(workshop), "3.3", lock, workshop.farm, workshop.store)
    shutil.rmtree(workshop.store.root)
    shutil.rmtree(workshop.archive.root)
    run = workshop.run(tag="3.3")
    workshop.stage(run)
    assert document(run)["snapshot"] == "3.3"
    shutil.rmtree(workshop.store.root)
    with pytest.raises(InfrastructureFailed):
        workshop.stage(workshop.run(tag=None))


def test_a_snapshot_with_a_wrong_package_is_refused(workshop: Workshop) -> None:
    lock = workshop.locked()
    path = write_snapshot(snapshots(workshop), "3.3", lock, workshop.farm, workshop.store)
    shutil.rmtree(workshop.store.root)
    (path / "debian" / LIVE_BOOT).write_bytes(b"something else")
    with pytest.raises(InputsUnverified, match="snapshot"):
        workshop.stage(workshop.run(tag="3.3"))


def test_the_same_snapshot_may_be_written_again_and_no_other(workshop: Workshop) -> None:
    lock = workshop.locked()
    arguments = (snapshots(workshop), "3.3", lock, workshop.farm, workshop.store)
    path = write_snapshot(*arguments)
    assert write_snapshot(*arguments) == path
    (path / "debian" / LIVE_BOOT).unlink()
    with pytest.raises(UsageError, match="is not this snapshot"):
        write_snapshot(*arguments)
    assert [child.name for child in snapshots(workshop).iterdir()] == ["3.3"]


@pytest.mark.parametrize("tag", ["", ".", "..", "a/b", "/tmp/x", "-x"])
def test_a_snapshot_has_a_plain_name(workshop: Workshop, tag: str) -> None:
    lock = workshop.locked()
    with pytest.raises(UsageError, match="name of a snapshot"):
        write_snapshot(snapshots(workshop), tag, lock, workshop.farm, workshop.store)


def test_indices_that_are_gone_are_reported(workshop: Workshop) -> None:
    lock = workshop.locked()
    shutil.rmtree(workshop.store.root)
    workshop.archive.add("newcomer")
    workshop.archive.publish()
    with pytest.raises(InfrastructureFailed, match=r"signed indices of trixie .* are gone"):
        write_snapshot(snapshots(workshop), "3.3", lock, workshop.farm, workshop.store)
    assert not snapshots(workshop).exists()


def test_a_lock_that_its_indices_do_not_vouch_for_makes_no_snapshot(workshop: Workshop) -> None:
    workshop.locked()
    path = workshop.archive.root / LIVE_BOOT
    old = sha256(path.read_bytes())
    workshop.archive.add("live-boot", Depends="live-tools", content="x")
    new, size = sha256(path.read_bytes()), path.stat().st_size
    text = workshop.lock_file.read_text().replace(old, new)
    before = text.index(new)
    head, _, _ = text[:before].rpartition("Size: ")
    workshop.lock_file.write_text(f"{head}Size: {size}\nSHA256: {text[before:]}")
    forged, _ = read(workshop.lock_file)
    with pytest.raises(InputsUnverified, match="not what its signed index says"):
        write_snapshot(snapshots(workshop), "3.3", forged, workshop.farm, workshop.store)


APT_CONF = """
Dir "{root}"; Dir::Etc "{root}/etc"; Dir::Etc::main "{root}/none"; Dir::Etc::parts "{root}/none";
Dir::Etc::sourceparts "{root}/none"; Dir::Etc::preferencesparts "{root}/none";
Dir::Etc::trustedparts "{root}/none"; Dir::State::status "{root}/status";
APT::Architecture "amd64"; APT::Architectures {{ "amd64"; }}; APT::Sandbox::User "";
APT::Install-Recommends "false"; Debug::NoLocking "true";
"""


@pytest.mark.parametrize("way", ["file", "http"])
def test_plain_apt_installs_from_a_snapshot(workshop: Workshop, tmp_path: Path, way: str) -> None:
    lock = workshop.locked()
    path = write_snapshot(snapshots(workshop), "3.3", lock, workshop.farm, workshop.store)
    root = tmp_path / "apt"
    for folder in ("none", "etc", "var/lib/apt/lists/partial", "var/cache/apt/archives/partial"):
        (root / folder).mkdir(parents=True)
    (root / "status").touch()
    (root / "apt.conf").write_text(APT_CONF.format(root=root))
    served = workshop.server.root / "snapshot"
    shutil.copytree(path, served)
    url = f"file:{path}/debian" if way == "file" else f"{workshop.server.url}/snapshot/debian"
    source = f"deb [signed-by={workshop.archive.key.keyring}] {url} trixie main\n"
    (root / "etc/sources.list").write_text(source)

    def apt(*arguments: str) -> str:
        env = {"APT_CONFIG": str(root / "apt.conf"), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        argv = ["apt-get", "-q", "-y", *arguments]
        done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    apt("update")
    apt("--download-only", "install", "live-boot")
    fetched = {name.name for name in (root / "var/cache/apt/archives").glob("*.deb")}
    if way == "http":
        assert fetched == {"live-boot_1.0_all.deb", "live-tools_1.0_all.deb"}
    assert "Inst unwanted" not in apt("--simulate", "install", "live-boot")
