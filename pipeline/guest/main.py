# SPDX-License-Identifier: GPL-3.0-or-later
"""Turns a job into artifacts: runs the steps in order and hands over the results."""

import errno
import os
import platform
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from pipeline.documents.disks import ARTIFACTS, LEDGER, OUTPUT_DISK, REPOSITORY, TIMINGS
from pipeline.documents.json_form import json_bytes
from pipeline.documents.lock import Package
from pipeline.documents.progress import SCRATCH_FULL, STATUS_INFRASTRUCTURE
from pipeline.documents.steps import BOOTSTRAP, PACKAGES
from pipeline.documents.timings import Timings
from pipeline.guest import cache, local_archive, locales, media, packages, tree, usb_image
from pipeline.guest.by_hand import measure
from pipeline.guest.exclusions import exclude
from pipeline.guest.job import GuestJob, disk, lock_date, read_documents, unpack_inputs
from pipeline.guest.kits import stage
from pipeline.guest.ledger import Ledger
from pipeline.guest.machine import make_scratch, settle
from pipeline.guest.output_disk import hand_over
from pipeline.guest.programs import environment, output_of
from pipeline.guest.serial_port import Report, StepFailed
from pipeline.guest.times import Times, package_times

INITRAMFS, SQUASHFS = "50-initramfs", "70-squashfs"
Step = Callable[[], Mapping[str, Path] | None]


def main() -> None:
    """Build and report the result; whatever happens, the machine powers off afterwards."""
    report = Report()
    try:
        _build(report)
    except StepFailed as failure:
        _failed(report, failure.status, failure.what, failure.detail)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        what = f"{SCRATCH_FULL if full else type(error).__name__}: {error}"
        _failed(report, STATUS_INFRASTRUCTURE, what, traceback.format_exc())
    except Exception as error:  # noqa: BLE001  a bug of ours must reach the log, not vanish
        what = f"the machine's own programs failed: {error!r}"
        _failed(report, STATUS_INFRASTRUCTURE, what, traceback.format_exc())


def _failed(report: Report, status: int, what: str, detail: str) -> None:
    report.send("failed", status=status, step=report.step_name, what=what, detail=detail[-10000:])


def _build(report: Report) -> None:
    document, machine = read_documents()
    factors, plan = machine.factors, machine.trees
    begun = plan.begin
    settle(factors)
    started = cache.began(begun, int(time.time()))
    env = environment(factors, document.epoch)
    with report.step("10-inputs"):
        job = GuestJob(document, machine, make_scratch(factors))
        locked = unpack_inputs(job, packages=not begun)
        tree.check_configuration(job)
        job.artifacts.mkdir()
        locale_data = locales.make(factors.locale)
        report.log(f"data of the locale {factors.locale}: {locale_data}")
    by_hand = measure(job, report, env, locked) if machine.measure_by_hand else {}
    times = Times(job.epoch, started)
    ledger = Ledger(job.tree, job.work / LEDGER, times.settled)
    trees = cache.Trees(job.tree, begun, report, times, keep=plan.keep)
    packed = False
    for name, act in _steps(job, report, env, locked, times, ledger):
        with report.step(name):
            made = {} if trees.restore(name) else act() or {}
            if name == INITRAMFS:  # a later step moves its files out of the tree, restored or not
                made = media.kernel_and_initramfs(job)
            before = name < BOOTSTRAP
            if packed or before:
                ledger.pass_over(name)
            else:
                epoch = lock_date(job) if name == BOOTSTRAP else job.epoch
                times.settle_passwords(job.tree, epoch)
                trees.keep(name, ledger.record(name), ledger.digest)
            for artifact, path in made.items():
                # A package's hash is written, to show if a difference arises in its build.
                delivered = artifact in job.names.all() and not before
                ledger.artifact(artifact, path, delivered=delivered)
        packed = packed or name == SQUASHFS
        if name == plan.stop:
            break
    with report.step("90-output"):
        ledger.close()
        seconds = round(ledger.seconds, 3)
        timings = Timings(report.seconds, seconds, by_hand)
        (job.work / TIMINGS).write_bytes(json_bytes(timings.document()))
        names = [f"{ARTIFACTS}/{name}" for name in job.names.all() if not plan.stop]
        names += [LEDGER, TIMINGS]
        if locales.are_lent(factors.locale) and not tree.takes_locale(job.tree, report, env):
            locale_data += ", which the libc in the tree does not take: its programs did as in C"
            report.log(f"data of the locale {factors.locale}: {locale_data}")
        hand_over(disk(OUTPUT_DISK), job.work, names)
    report.send("done", facts={**_facts(env), "locale_data": locale_data})


def _steps(
    job: GuestJob,
    report: Report,
    env: Mapping[str, str],
    locked: Sequence[Package],
    times: Times,
    ledger: Ledger,
) -> Iterator[tuple[str, Step]]:
    """Yield the steps in order: a name, and a function that returns files made outside the tree."""
    # The bootstrap depends only on the lock, so that commits with the same lock can share its tree.
    of_lock = {**env, "SOURCE_DATE_EPOCH": str(lock_date(job))}
    if job.document.own.sources:
        yield PACKAGES, partial(packages.make_build_root, job, report, of_lock)
    for source in job.document.own.sources:
        step = f"{PACKAGES}/{source.name}"
        yield step, partial(packages.build, job, report, env, source)
    yield BOOTSTRAP, partial(_bootstrap, job, report, of_lock, locked, times)
    yield "30-includes", partial(tree.add_includes, job)
    for hook in tree.hooks(job.image_folder / "hooks", ".chroot"):
        yield f"40-hooks/{hook.name}", partial(tree.run_chroot_hook, job, report, env, hook)
    yield INITRAMFS, partial(tree.make_initramfs, job, report, env)
    yield "60-clean", partial(_clean, job, report, times, ledger)
    yield SQUASHFS, partial(media.make_squashfs, job, report, env)
    yield "80-boot", partial(media.complete_partition, job, report, env)
    yield "85-iso", partial(media.make_iso, job, report, env)
    yield "86-usb-image", partial(usb_image.make_usb_image, job, report, env)
    yield "87-lists", partial(_write_lists, job, locked, ledger)
    if job.document.kits:
        yield "88-kits", partial(stage.make_kits, job, report, env)


def _bootstrap(
    job: GuestJob, report: Report, env: Mapping[str, str], locked: Sequence[Package], times: Times
) -> None:
    tree.bootstrap(job, report, env, locked, local_archive.offer(job))
    pool = job.work / REPOSITORY / "pool"
    times.take_package_times(package_times(pool, times.started))


def _clean(job: GuestJob, report: Report, times: Times, ledger: Ledger) -> None:
    exclude(job, report)
    tree.clean(job, times, ledger.retimed)


def _write_lists(job: GuestJob, locked: Sequence[Package], ledger: Ledger) -> None:
    lines = [f"{p.name} {p.version} {p.architecture} {p.sha256}\n" for p in locked]
    lines = sorted([*lines, *local_archive.installed(job)])
    (job.artifacts / job.names.packages).write_text("".join(lines))
    with (job.artifacts / job.names.ledger).open("wb") as file:
        ledger.write_final(file)


def _facts(env: dict[str, str]) -> dict[str, str]:
    """Return facts about this machine, which are recorded but never relied upon."""
    cpus = os.cpu_count() or 0
    return {
        "kernel": platform.release(),
        "cpus": str(cpus),
        "python": platform.python_version(),
        "mksquashfs": output_of(["mksquashfs", "-version"], env),
        "xorriso": output_of(["xorriso", "-version"], env),
        "mmdebstrap": output_of(["mmdebstrap", "--version"], env),
    }
