# SPDX-License-Identifier: GPL-3.0-or-later
"""Several kits at once: how many, and what becomes of them."""

import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pipeline.documents.disks import EARLIER
from pipeline.documents.progress import STATUS_BUILD_FAILED
from pipeline.guest.job import GuestJob
from pipeline.guest.kits import stage
from pipeline.guest.media import SQUASHFS_OPTIONS
from pipeline.guest.serial_port import StepFailed
from tests.guest_log import Log
from tests.jobs import make_document
from tests.machine_settings import make_settings

ENV = {"PATH": os.environ["PATH"], "LC_ALL": "C", "TZ": "UTC"}
NEW = b"new\n"


@pytest.mark.parametrize(
    ("wanted", "processors", "free_mib", "at_once"),
    [
        (1, 8, 64_000, 1),
        (5, 2, 64_000, 2),
        (5, 8, 3 * stage.MEMORY_OF_ONE_MIB, 3),
        (5, 8, 10, 1),  # one is always tried
        (0, 8, 64_000, 1),
    ],
)
def test_how_many_are_made_at_once(
    wanted: int, processors: int, free_mib: int, at_once: int
) -> None:
    assert stage.how_many(wanted, processors, free_mib) == at_once


def test_the_free_memory_of_this_machine() -> None:
    assert 0 < stage._free_mib() < 1024**2


def entry(path: str, content: bytes) -> dict[str, Any]:
    sha256 = hashlib.sha256(content).hexdigest()
    return {"path": path, "type": "file", "size": len(content), "sha256": sha256}


def write_ledger(path: Path, files: Mapping[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    own = {"mode": 0o644, "uid": 0, "gid": 0, "mtime": 1}
    entries = [{**entry(name, content), **own} for name, content in sorted(files.items())]
    lines = [json.dumps(e, sort_keys=True, separators=(",", ":")) + "\n" for e in entries]
    path.write_bytes(gzip.compress("".join(lines).encode()))


def write_partition(path: Path, files: Mapping[str, bytes]) -> None:
    lines = [json.dumps(entry(name, content)) for name, content in sorted(files.items())]
    path.write_text("".join(f"{line}\n" for line in lines))


OF_LEDGER = {"ledger_sha256": "1" * 64, "partition_sha256": "2" * 64, "image_sha256": None}


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GuestJob:
    """A build of 3.3 with what its step needs, and two earlier releases."""
    # sqfstar before 4.6 knows no compression level; the machine has a later one
    monkeypatch.setitem(SQUASHFS_OPTIONS, "fast", ("-comp", "zstd"))
    document = {
        "image": "mini",
        "architecture": "amd64",
        "version": "3.3",
        "epoch": 1_766_400_000,
        "compression": "fast",
        "kits": [{"from": version, **OF_LEDGER} for version in ("3.1", "3.2")],
    }
    job = GuestJob(make_document(**document), make_settings(), tmp_path)
    for folder in (job.tree, job.binary / "live", job.artifacts):
        folder.mkdir(parents=True)
    job.tree.chmod(0o755)
    (job.tree / "motd").write_bytes(NEW)
    (job.tree / "motd").chmod(0o644)
    os.utime(job.tree / "motd", (1, 1))
    partition = {"live/3.3.squashfs": b"base", "live/3.3.cfg": b"boot 3.3\n"}
    for name, content in partition.items():
        (job.binary / name).write_bytes(content)
    write_ledger(job.artifacts / job.names.ledger, {"motd": NEW})
    write_partition(job.artifacts / job.names.partition, partition)
    for version in ("3.1", "3.2"):
        folder = job.work / EARLIER / version
        write_ledger(folder / "ledger.jsonl.gz", {"motd": version.encode(), "old": b"old"})
        write_partition(folder / "partition", {f"live/{version}.squashfs": version.encode()})
    return job


def test_every_kit_that_the_job_asks_for_is_made(job: GuestJob) -> None:
    log = Log()
    made = stage.make_kits(job, log, ENV)
    assert list(made) == ["mini-amd64-3.1-to-3.3.iuk", "mini-amd64-3.2-to-3.3.iuk"]
    for version, path in zip(("3.1", "3.2"), made.values(), strict=True):
        control = json.loads(_member(path, "control.json"))
        assert (control["from"], control["to"]) == (version, "3.3")
        assert control["base"]["file"] == f"{version}.squashfs"
    assert (
        sorted(log.lines)[0] == "kit from 3.1: " + f"{made[next(iter(made))].stat().st_size} bytes"
    )
    assert not any((job.work / "kits").iterdir())


def test_a_kit_that_cannot_be_made_fails_the_step(job: GuestJob) -> None:
    (job.tree / "motd").write_bytes(b"NEW\n")
    with pytest.raises(StepFailed, match="motd") as caught:
        stage.make_kits(job, Log(), ENV)
    assert caught.value.status == STATUS_BUILD_FAILED


def _member(archive: Path, name: str) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(archive.read_bytes())) as tar:
        file = tar.extractfile(name)
        assert file is not None
        return file.read()
