# SPDX-License-Identifier: GPL-3.0-or-later
"""The job in the machine: documents, disks, and inputs, which are hashed as they are unpacked."""

import hashlib
import os
import subprocess
import tarfile
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from pipeline.documents.artifact_names import ArtifactNames
from pipeline.documents.disks import (
    ARTIFACTS,
    EARLIER,
    INPUT_DISK,
    LOCK,
    REPOSITORY,
    SOURCE_TAR,
    SOURCES,
)
from pipeline.documents.job import Job
from pipeline.documents.json_form import parse_json
from pipeline.documents.lock import Lock, Package, load
from pipeline.documents.machine import Settings
from pipeline.documents.malformed import Malformed
from pipeline.documents.progress import STATUS_BUILD_FAILED, STATUS_INFRASTRUCTURE, STATUS_INPUTS
from pipeline.guest.serial_port import StepFailed

Document = TypeVar("Document")

HANDED_OVER = Path("/run/twinbuild")
PIECE = 1024 * 1024
# The names allowed at the root of the input disk.
HANDED_IN = (
    "pipeline",
    "machine.json",
    "job.json",
    LOCK,
    SOURCE_TAR,
    REPOSITORY,
    SOURCES,
    EARLIER,
)


@dataclass(frozen=True)
class GuestJob:
    """The job, this machine's settings, and where the build works."""

    document: Job
    machine: Settings
    work: Path  # on the scratch disk

    @property
    def epoch(self) -> int:
        """SOURCE_DATE_EPOCH, in seconds."""
        return self.document.epoch

    @property
    def tree(self) -> Path:
        """The root of the image."""
        return self.work / "tree"

    @property
    def binary(self) -> Path:
        """The content of the system partition, for the ISO and the USB image."""
        return self.work / "binary"

    @property
    def artifacts(self) -> Path:
        """The folder of what is compared and published."""
        return self.work / ARTIFACTS

    @property
    def image_folder(self) -> Path:
        """The image's configuration tree, as it is in the commit."""
        return self.work / "source" / "images" / "live" / self.document.image

    @cached_property
    def lock(self) -> Lock:
        """The lock, read once; available, with its bytes checked, after `unpack_inputs`.

        Raise StepFailed if it is malformed.
        """
        try:
            return load((self.work / LOCK).read_bytes())
        except Malformed as error:
            raise StepFailed(STATUS_INPUTS, str(error)) from error

    @property
    def names(self) -> ArtifactNames:
        """The names of the artifacts."""
        return self.document.names


def read_documents() -> tuple[Job, Settings]:
    """Return job.json and machine.json, which the machine's first program has unpacked.

    Raise StepFailed if one of them is malformed.
    """
    return _read("job.json", Job.of), _read("machine.json", Settings.of)


def _read(name: str, read: Callable[[Any], Document]) -> Document:
    try:
        return read(parse_json((HANDED_OVER / name).read_bytes()))
    except Malformed as error:
        raise StepFailed(STATUS_INPUTS, f"{name}: {error}") from error


def disk(serial: str) -> Path:
    """Return the device with this virtio serial number."""
    for path in Path("/sys/block").glob("vd*/serial"):
        if path.read_text().strip() == serial:
            return Path("/dev") / path.parent.name
    raise StepFailed(STATUS_INFRASTRUCTURE, f"this machine has no disk {serial!r}")


def unpack_inputs(job: GuestJob, *, packages: bool = True) -> tuple[Package, ...]:
    """Unpack the input disk, hash each file meanwhile, and return the image's locked packages.

    Without `packages` the disk does not have them, as a kept tree has them installed. Raise
    StepFailed if the lock or an earlier release is not the one that the job names, if a package is
    missing or is not as the lock says, or if there is a file that neither names.
    """
    digests: dict[str, tuple[int, str]] = {}
    with (
        disk(INPUT_DISK).open("rb") as device,
        tarfile.open(fileobj=device, mode="r|") as tar,
    ):
        for member in tar:
            if not member.isdir():
                _check_member(member, digests)
                digests[member.name] = _unpack(tar, member, job.work)
    _check_named(job, digests)
    locked = lock_of(job)
    _check_packages((*(locked if packages else ()), *lock_of(job, "build")), digests)
    _unpack_source(job.work / SOURCE_TAR, job.work / "source")
    if not job.image_folder.is_dir():
        raise StepFailed(STATUS_BUILD_FAILED, f"the source has no {job.image_folder.name}")
    return locked


def _check_packages(locked: Sequence[Package], digests: Mapping[str, tuple[int, str]]) -> None:
    """Raise StepFailed unless the packages are exactly those of the lock."""
    pool = f"{REPOSITORY}/pool/"
    there = {name[len(pool) :]: found for name, found in digests.items() if name.startswith(pool)}
    wanted = {package.file_name: (package.size, package.sha256) for package in locked}
    wrong = sorted(n for n in there.keys() | wanted.keys() if there.get(n) != wanted.get(n))
    if wrong:
        raise StepFailed(
            STATUS_INPUTS,
            f"{len(wrong)} packages are not what the lock says, for instance {wrong[0]}",
            "\n".join(wrong),
        )


def _check_named(job: GuestJob, digests: Mapping[str, tuple[int, str]]) -> None:
    """Raise StepFailed if a file that the job names is missing or differs, or if there are more."""
    expected = {
        LOCK: job.document.lock_sha256,
        SOURCE_TAR: job.document.source_sha256,
    }
    for kit in job.document.kits:
        expected |= kit.files()
    expected |= job.document.own.source_files()
    more = {n for n in digests if n.startswith((f"{EARLIER}/", f"{SOURCES}/"))}
    for name in sorted(expected.keys() | more):
        if digests.get(name, (0, ""))[1] != expected.get(name):
            raise StepFailed(STATUS_INPUTS, f"{name} is not the one that the job names")


def _unpack_source(archive: Path, folder: Path) -> None:
    """Unpack the exported commit; tar itself refuses to write outside of the folder."""
    folder.mkdir()
    argv = ["tar", "--extract", f"--file={archive}", f"--directory={folder}"]
    done = subprocess.run([*argv, "--no-same-owner"], capture_output=True, check=False)
    if done.returncode != 0:
        output = done.stderr.decode(errors="replace")
        raise StepFailed(STATUS_INPUTS, "the source cannot be unpacked", output)


def lock_of(job: GuestJob, user: str = "image") -> tuple[Package, ...]:
    """Return the packages that the lock names for the "image", or the "build" of its own ones."""
    return job.lock.used_by(user)


def lock_date(job: GuestJob) -> int:
    """Return the date, in seconds, of the lock's newest signed index; the epoch if it has none."""
    dates = [suite.date for suite in job.lock.suites]
    return int(max(dates).timestamp()) if dates else job.epoch


def _check_member(member: tarfile.TarInfo, known: Container[str]) -> None:
    """Raise StepFailed for a member that could overwrite a hashed file or add an unchecked one."""
    path = PurePosixPath(member.name)
    fits = member.isfile() and path.parts and path.parts[0] in HANDED_IN and ".." not in path.parts
    if not fits or str(path) != member.name or member.name in known:
        raise StepFailed(STATUS_INPUTS, f"the input disk holds a path {member.name!r}")


def _unpack(tar: tarfile.TarFile, member: tarfile.TarInfo, work: Path) -> tuple[int, str]:
    target = work / member.name
    target.parent.mkdir(parents=True, exist_ok=True)
    file = tar.extractfile(member)
    assert file is not None
    digest, size = hashlib.sha256(), 0
    with target.open("wb") as out:
        while piece := file.read(PIECE):
            digest.update(piece)
            out.write(piece)
            size += len(piece)
    os.chmod(target, 0o644)
    return size, digest.hexdigest()
