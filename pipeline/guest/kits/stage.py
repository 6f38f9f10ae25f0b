# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes all kits of a release, as many at once as the machine's memory and CPUs allow."""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipeline.documents.job import KitRequest
from pipeline.documents.kit_plan import Earlier, KitPlan, Later
from pipeline.guest.job import GuestJob
from pipeline.guest.kits.earlier import earlier_from_image
from pipeline.guest.kits.kit import make_kit
from pipeline.guest.serial_port import Report

# For one kit: sqfstar's caches, unsquashfs's queues, and what is kept in memory of two ledgers.
MEMORY_OF_ONE_MIB = 896
MEMORY_INFO = Path("/proc/meminfo")


def make_kits(job: GuestJob, report: Report, env: Mapping[str, str]) -> dict[str, Path]:
    """Make the kits that the job asks for; return the files by name.

    The final ledger, the list of the system partition's files, these files and the tree must exist.
    Raise StepFailed, as `kit.make_kit` does, if a kit cannot be made.
    """
    names = dict(zip(job.names.kits, job.document.kits, strict=True))
    processors = os.cpu_count() or 1
    at_once = how_many(len(names), processors, _free_mib())
    later = _later(job)

    def make(name: str) -> Path:
        kit = names[name]
        report.log(f"kit from {kit.start}: begun")
        target = job.artifacts / name
        work = job.work / "kits" / kit.start
        earlier = _earlier(job, kit, report, env)
        share = max(1, processors // at_once)
        make_kit(KitPlan(earlier, later, target, work, share), env)
        report.log(f"kit from {kit.start}: {target.stat().st_size} bytes")
        return target

    with ThreadPoolExecutor(at_once) as pool:
        return dict(zip(names, pool.map(make, names), strict=True))


def how_many(kits: int, processors: int, free_mib: int) -> int:
    """Return how many kits to make at once, at least one."""
    return max(1, min(kits, processors, free_mib // MEMORY_OF_ONE_MIB))


def _later(job: GuestJob) -> Later:
    document = job.document
    return Later(
        image=document.image,
        architecture=document.architecture,
        version=document.version,
        epoch=job.epoch,
        compression=document.compression,
        ledger=job.artifacts / job.names.ledger,
        partition=job.artifacts / job.names.partition,
        tree=job.tree,
        files=job.binary,
    )


def _earlier(job: GuestJob, kit: KitRequest, report: Report, env: Mapping[str, str]) -> Earlier:
    folder = job.work / kit.folder
    if kit.image_sha256:
        report.log(f"kit from {kit.start}: it has no ledger, so its image is unpacked: slower")
        return earlier_from_image(kit.start, folder / "image.img", folder / "unpacked", env)
    return Earlier(kit.start, folder / "ledger.jsonl.gz", folder / "partition")


def _free_mib() -> int:
    """Return how much memory is available to programs, in MiB."""
    with MEMORY_INFO.open() as file:
        fields = dict(line.split(":", 1) for line in file)
    return int(fields["MemAvailable"].split()[0]) // 1024
