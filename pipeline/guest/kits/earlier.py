# SPDX-License-Identifier: GPL-3.0-or-later
"""Extracts from its USB image what a kit needs to know of a release that has no ledger.

This is slower than reading a ledger: the image's files are copied out and its SquashFS is unpacked,
as root, and recorded by the same code as the tree of any build.
"""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from pipeline.documents import gpt
from pipeline.documents.kit_plan import Earlier
from pipeline.documents.progress import STATUS_INPUTS
from pipeline.guest.fat import files_below
from pipeline.guest.kits.squashfs import unpack
from pipeline.guest.ledger import Ledger
from pipeline.guest.serial_port import StepFailed
from pipeline.guest.usb_image import EFI_SYSTEM, write_partition_list


def earlier_from_image(version: str, image: Path, work: Path, env: Mapping[str, str]) -> Earlier:
    """Return a release as found in its USB image, which is unpacked to the folder `work`.

    Raise StepFailed if it is not the USB image of a release.
    """
    files, tree = work / "files", work / "tree"
    files.mkdir(parents=True)
    _copy_out(image, _partition_at(image), files, env)
    partition, ledger = work / "partition", work / "ledger.jsonl.gz"
    write_partition_list(files, files_below(files), partition)
    squashfs = files / "live" / f"{version}.squashfs"
    if not squashfs.is_file():
        raise _no_image(image, f"it has no live/{squashfs.name}")
    unpack(squashfs, tree, env)
    recorder = Ledger(tree, work / "steps.gz")
    recorder.record(version)
    recorder.close()
    with ledger.open("wb") as out:
        recorder.write_final(out)
    return Earlier(version, ledger, partition)


def _partition_at(image: Path) -> int:
    """Return the offset of the system partition in bytes."""
    with image.open("rb") as file:
        file.seek(gpt.SECTOR)
        if not file.read(gpt.SECTOR).startswith(gpt.MAGIC):
            raise _no_image(image, "it has no GPT")
        table = file.read(gpt.TABLE_SECTORS * gpt.SECTOR)
    if len(table) == gpt.TABLE_SECTORS * gpt.SECTOR:
        for entry in gpt.read_table(table):
            if entry.kind == EFI_SYSTEM.bytes_le:
                return entry.first * gpt.SECTOR
    raise _no_image(image, "it has no system partition")


def _copy_out(image: Path, offset: int, folder: Path, env: Mapping[str, str]) -> None:
    own = {"TZ": "UTC", "LC_ALL": "C.UTF-8", "MTOOLSRC": os.devnull, "MTOOLS_SKIP_CHECK": "1"}
    argv = ["mcopy", "-s", "-n", "-i", f"{image}@@{offset}", "::/", os.fspath(folder)]
    done = subprocess.run(argv, env={**env, **own}, capture_output=True, check=False)
    if done.returncode != 0:
        raise _no_image(image, "its files cannot be read", done.stderr.decode(errors="replace"))


def _no_image(image: Path, why: str, detail: str = "") -> StepFailed:
    what = f"{image.name} is not the USB image of a release: {why}"
    return StepFailed(STATUS_INPUTS, what, detail)
