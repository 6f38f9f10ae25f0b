# SPDX-License-Identifier: GPL-3.0-or-later
"""What the machine takes from its input disk, and what it refuses."""

import io
import json
import shutil
import tarfile
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.documents import disks, lock
from pipeline.documents.disks import SOURCE_TAR
from pipeline.documents.progress import STATUS_BUILD_FAILED, STATUS_INPUTS
from pipeline.guest import job as job_of_guest
from pipeline.guest.job import GuestJob, lock_date, lock_of, read_documents, unpack_inputs
from pipeline.guest.serial_port import StepFailed
from pipeline.machines import engine
from tests import jobs
from tests.jobs import make_document
from tests.machine_settings import WRITTEN, make_settings

CONTENT = {"one_1.0_all.deb": b"one", "two_1%3a2_amd64.deb": b"two" * 1000}
Members = dict[str, bytes | Path]


def digest(content: bytes) -> str:
    return sha256(content).hexdigest()


def package(file_name: str, used_by: tuple[str, ...] = ("image",)) -> lock.LockedPackage:
    name, version, architecture = file_name.removesuffix(".deb").split("_")
    content = CONTENT.get(file_name, b"of the builder")
    version = version.replace("%3a", ":")
    found = lock.Package(name, version, architecture, len(content), digest(content), used_by)
    return lock.LockedPackage(found, place(f"pool/main/{file_name.replace('%3a', ':')}"))


def place(filename: str) -> lock.PackageLocation:
    return lock.PackageLocation("debian", "trixie", filename)


def make_lock(*packages: lock.LockedPackage) -> lock.Lock:
    index = lock.Index("main/binary-amd64/Packages.xz", 9, "e" * 64)
    date = datetime(2026, 1, 1, tzinfo=UTC)
    suite = lock.Suite("debian", "trixie", date, "d" * 64, (index,))
    return lock.Lock("mini", "amd64", "f" * 64, (suite,), packages)


LOCK = lock.dump(
    make_lock(*map(package, CONTENT), package("mmdebstrap_9_all.deb", used_by=("builder",)))
)


def source_tar(*members: tuple[str, bytes, bytes]) -> bytes:
    """A commit: by path, type and content or target."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, kind, content in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, content.decode() if kind == tarfile.SYMTYPE else ""
            info.size = len(content) if kind == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


SOURCE = source_tar(("images/live/mini/image.yaml", tarfile.REGTYPE, b"suite: trixie\n"))


def members(source: bytes = SOURCE) -> Members:
    pool = {f"repository/pool/{name}": content for name, content in CONTENT.items()}
    return {
        "pipeline/guest/main.py": b"",
        "machine.json": b"{}",
        "job.json": b"{}",
        disks.LOCK: LOCK,
        SOURCE_TAR: source,
        "repository/dists/trixie/Release": b"Suite: trixie\n",
        **EARLIER,
        **pool,
    }


# Two earlier releases: one with a ledger, one without.
KIT = {
    "from": "3.1",
    "ledger_sha256": digest(b"ledger"),
    "partition_sha256": digest(b"partition"),
    "image_sha256": None,
}
KIT_OF_IMAGE = {
    "from": "3.2",
    "ledger_sha256": None,
    "partition_sha256": None,
    "image_sha256": digest(b"image"),
}
EARLIER = {
    "earlier/3.1/ledger.jsonl.gz": b"ledger",
    "earlier/3.1/partition": b"partition",
    "earlier/3.2/image.img": b"image",
}


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The input disk: a file in place of a device."""
    path = tmp_path / "input.tar"
    monkeypatch.setattr(job_of_guest, "disk", lambda _: path)
    return path


@pytest.fixture
def job(tmp_path: Path) -> GuestJob:
    document = {
        "image": "mini",
        "lock_sha256": digest(LOCK),
        "source_sha256": digest(SOURCE),
        "kits": [KIT, KIT_OF_IMAGE],
    }
    (tmp_path / "work").mkdir()
    return GuestJob(make_document(**document), make_settings(), tmp_path / "work")


def write(disk: Path, files: Members, *more: tarfile.TarInfo) -> None:
    pieces = [info.tobuf(tarfile.GNU_FORMAT) for info in more] + list(engine.archive(files))
    disk.write_bytes(b"".join(pieces) + bytes(65536))


def refused(job: GuestJob, status: int = STATUS_INPUTS) -> StepFailed:
    with pytest.raises(StepFailed) as caught:
        unpack_inputs(job)
    assert caught.value.status == status
    return caught.value


def test_what_the_lock_names_is_unpacked(job: GuestJob, disk: Path) -> None:
    write(disk, members())
    assert [p.file_name for p in unpack_inputs(job)] == list(CONTENT)
    for name, content in CONTENT.items():
        assert (job.work / "repository/pool" / name).read_bytes() == content
    assert (job.image_folder / "image.yaml").read_bytes() == b"suite: trixie\n"


def test_what_builds_its_own_packages_is_there_even_with_a_kept_tree(
    job: GuestJob, disk: Path
) -> None:
    gcc = package("gcc_1_amd64.deb", used_by=("build",))
    content = lock.dump(make_lock(*map(package, CONTENT), gcc))
    job = replace(job, document=replace(job.document, lock_sha256=digest(content)))
    more = {"repository/pool/gcc_1_amd64.deb": b"of the builder"}
    begun = {name: c for name, c in members().items() if "/pool/" not in name}
    begun[disks.LOCK] = content
    for files, packages in (({**members(), **begun}, True), (begun, False)):
        write(disk, {**files, **more})
        unpack_inputs(job, packages=packages)
        shutil.rmtree(job.work / "source")
        assert [p.name for p in lock_of(job, "build")] == ["gcc"]
        for wrong in ({}, dict.fromkeys(more, b"another")):
            write(disk, {**files, **wrong})
            with pytest.raises(StepFailed, match=r"gcc_1_amd64\.deb"):
                unpack_inputs(job, packages=packages)


@pytest.mark.parametrize("name", [disks.LOCK, SOURCE_TAR])
def test_another_lock_or_source_is_refused(name: str, job: GuestJob, disk: Path) -> None:
    write(disk, {**members(), name: LOCK + b" "})
    assert name in refused(job).what
    write(disk, {key: value for key, value in members().items() if key != name})
    assert name in refused(job).what
    assert not (job.work / "source").exists()


def test_earlier_releases_are_unpacked(job: GuestJob, disk: Path) -> None:
    write(disk, members())
    unpack_inputs(job)
    for name, content in EARLIER.items():
        assert (job.work / name).read_bytes() == content


@pytest.mark.parametrize(
    "change",
    [
        {"earlier/3.1/ledger.jsonl.gz": b"Ledger"},
        {"earlier/3.1/partition": None},
        {"earlier/3.1/image.img": b"image"},  # not what this one starts from
        {"earlier/3.2/image.img": b""},
        {"earlier/3.2/partition": b"partition"},
        {"earlier/3.0/partition": b"partition"},
        {"earlier/more": b""},
    ],
)
def test_other_earlier_releases_are_refused(
    change: dict[str, bytes | None], job: GuestJob, disk: Path
) -> None:
    files = {**members(), **change}
    write(disk, {name: content for name, content in files.items() if content is not None})
    assert refused(job).what == f"{next(iter(change))} is not the one that the job names"


def test_files_of_sources_are_those_that_the_job_names(job: GuestJob, disk: Path) -> None:
    name = f"sources/{digest(b'x')}"
    files = [{"name": "x.tar.gz", "size": 1, "sha256": digest(b"x")}]
    source = {"name": "xz", "version": "1", "epoch": 1, "sha256": "1" * 64, "dsc": "xz.dsc"}
    local = {"sources": [{**source, "files": files}], "packages": []}
    job = replace(job, document=make_document(**{**job.document.document(), "local": local}))
    for odd in ({}, {name: b"y"}, {name: b"x", "sources/y": b"x"}):
        write(disk, {**members(), **odd})
        assert refused(job).what.startswith("sources/")
    write(disk, {**members(), name: b"x"})
    unpack_inputs(job)
    assert (job.work / name).read_bytes() == b"x"


@pytest.mark.parametrize(
    "change",
    [
        {"one_1.0_all.deb": b"eno"},
        {"one_1.0_all.deb": b"one "},
        {"one_1.0_all.deb": None},
        {"two_1:2_amd64.deb": CONTENT["two_1%3a2_amd64.deb"], "two_1%3a2_amd64.deb": None},
        {"three_1.0_all.deb": b"one"},
        {"mmdebstrap_9_all.deb": b"of the builder"},
        {"below/one_1.0_all.deb": b"one"},
    ],
)
def test_other_packages_are_refused(
    change: dict[str, bytes | None], job: GuestJob, disk: Path
) -> None:
    files = {**members(), **{f"repository/pool/{name}": c for name, c in change.items()}}
    write(disk, {name: content for name, content in files.items() if content is not None})
    assert "not what the lock says" in refused(job).what


@pytest.mark.parametrize(
    "name",
    [
        "/etc/evil",
        "../evil",
        "repository/../../evil",
        "./repository/pool/one_1.0_all.deb",  # would take the place of the one that was hashed
        "repository//pool/one_1.0_all.deb",
        "repository/./pool/one_1.0_all.deb",
        "source/images/live/mini/includes.chroot/evil",  # would join the commit
        "tree/evil",
        "artifacts/mini.iso",
        "ledger.jsonl.gz",
    ],
)
def test_no_other_path_is_taken(name: str, job: GuestJob, disk: Path) -> None:
    write(disk, {**members(), name: b"evil"})
    assert repr(name) in refused(job).what
    assert b"evil" not in [p.read_bytes() for p in disk.parent.rglob("evil")]


def test_nothing_is_taken_twice(job: GuestJob, disk: Path) -> None:
    write(disk, members())
    content = disk.read_bytes()[: -65536 - 2 * tarfile.BLOCKSIZE]
    again = b"".join(engine.archive({"repository/pool/one_1.0_all.deb": b"evil"}))
    disk.write_bytes(content + again)
    assert "one_1.0_all.deb" in refused(job).what


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE])
def test_no_links_or_devices_are_taken(kind: bytes, job: GuestJob, disk: Path) -> None:
    info = tarfile.TarInfo("repository/pool")
    info.type, info.linkname = kind, "/etc"
    write(disk, members(), info)
    assert "'repository/pool'" in refused(job).what


def test_a_disk_that_breaks_off_is_no_input(job: GuestJob, disk: Path) -> None:
    write(disk, members())
    disk.write_bytes(disk.read_bytes()[:-70000])
    with pytest.raises((tarfile.ReadError, StepFailed)):
        unpack_inputs(job)


def test_a_source_without_the_image_is_the_images_fault(job: GuestJob, disk: Path) -> None:
    source = source_tar(("README", tarfile.REGTYPE, b""))
    write(disk, members(source))
    document = replace(job.document, source_sha256=digest(source))
    assert "mini" in refused(replace(job, document=document), STATUS_BUILD_FAILED).what


def test_a_source_stays_in_its_folder(job: GuestJob, disk: Path) -> None:
    source = source_tar(
        ("images", tarfile.SYMTYPE, b"../../outside"), ("images/evil", tarfile.REGTYPE, b"evil")
    )
    (disk.parent / "outside").mkdir()
    write(disk, members(source))
    document = replace(job.document, source_sha256=digest(source))
    with pytest.raises(StepFailed, match="cannot be unpacked"):
        unpack_inputs(replace(job, document=document))
    assert not list((disk.parent / "outside").iterdir())


names = st.from_regex(r"[a-z0-9][a-z0-9+.-]{1,10}", fullmatch=True)
versions = st.from_regex(r"([0-9]:)?[0-9][A-Za-z0-9.+~-]{0,10}", fullmatch=True)
packages = st.builds(
    lock.Package,
    names,
    versions,
    st.sampled_from(["amd64", "all"]),
    st.integers(1, lock.SIZE_LIMIT),
    st.text("0123456789abcdef", min_size=64, max_size=64),
    st.sampled_from(
        [("image",), ("builder",), ("builder", "image"), ("build", "image"), ("build", "builder")]
    ),
)


@settings(max_examples=40)
@given(st.lists(packages, max_size=5, unique_by=lambda p: p.name))
def test_any_lock_is_read_as_it_was_written(found: list[lock.Package]) -> None:
    locked = [lock.LockedPackage(package, place("pool/main/x.deb")) for package in found]
    with TemporaryDirectory() as folder:
        (Path(folder) / "lock").write_bytes(lock.dump(make_lock(*locked)))
        of_machine = GuestJob(make_document(), make_settings(), Path(folder))
        for user in ("image", "build"):
            used = [p for p in sorted(found, key=lambda p: p.name) if user in p.used_by]
            assert list(lock_of(of_machine, user)) == used
        assert lock_date(of_machine) == int(datetime(2026, 1, 1, tzinfo=UTC).timestamp())


def test_the_lock_is_read_once(job: GuestJob) -> None:
    (job.work / "lock").write_bytes(LOCK)
    lock_date(job)
    (job.work / "lock").unlink()
    assert [p.file_name for p in lock_of(job)] == list(CONTENT)


def test_a_malformed_job_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_of_guest, "HANDED_OVER", tmp_path)
    (tmp_path / "machine.json").write_bytes(WRITTEN)
    (tmp_path / "job.json").write_text(json.dumps(jobs.DOCUMENT))
    assert read_documents() == (make_document(), make_settings())
    (tmp_path / "job.json").write_text(json.dumps({**jobs.DOCUMENT, "epoch": "1"}))
    with pytest.raises(StepFailed, match=r"job\.json: epoch is '1'") as caught:
        read_documents()
    assert caught.value.status == STATUS_INPUTS


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        (b"{}", "description is missing"),
        (WRITTEN.replace(b'"0022"', b"18"), "umask is 18"),
        (WRITTEN.replace(b'"head": 7', b'"head": -7'), r"trees\.begin\[0\]\.head is -7"),
        (WRITTEN.replace(b'"open_files": 1024', b'"user": "x"'), "the key 'user' twice"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_malformed_settings_are_refused(
    content: bytes, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_of_guest, "HANDED_OVER", tmp_path)
    (tmp_path / "job.json").write_text(json.dumps(jobs.DOCUMENT))
    (tmp_path / "machine.json").write_bytes(content)
    with pytest.raises(StepFailed, match=rf"machine\.json: .*{shown}") as caught:
        read_documents()
    assert caught.value.status == STATUS_INPUTS


def test_a_malformed_lock_is_refused(job: GuestJob) -> None:
    (job.work / "lock").write_bytes(LOCK.replace(b"Size: ", b"Size: 0", 1))
    with pytest.raises(StepFailed, match="canonical") as caught:
        lock_of(job)
    assert caught.value.status == STATUS_INPUTS
