# SPDX-License-Identifier: GPL-3.0-or-later
"""The disks of a machine, and what the input disk and the output disk hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# virtio-blk serial numbers
ROOT_DISK, INPUT_DISK, SCRATCH_DISK, OUTPUT_DISK = "root", "input", "scratch", "output"
TREES_DISK, LAYERS_DISK = "trees", "layers"  # kept trees that went in, and that come out

# The input disk is a tar archive in this order; the machine's programs, `machine.json` and
# `job.json` come first.
REPOSITORY = "repository"  # an apt archive: dists/<suite>/<component>/…, pool/*.deb
# Its components: the image's locked packages, what builds the image's own, and, once they are
# built, these.
MAIN, BUILD, LOCAL = "main", "build", "local"
SOURCES = "sources"  # files of source packages that the commit names by hash
SOURCE_TAR = "source.tar"
LOCK = "lock"
EARLIER = "earlier"  # releases that kits start from, a folder each, as `earlier_files` names them

# The output disk is a tar archive: ARTIFACTS/<name>…, then LEDGER and TIMINGS.
ARTIFACTS = "artifacts"
LEDGER = "ledger.jsonl.gz"
TIMINGS = "timings.json"


def earlier_files(kit: Mapping[str, Any]) -> dict[str, str]:
    """Return the SHA-256 of the files that one of the job's `kits` is made from, by their paths.

    They are the earlier release's final ledger and the list of its system partition's files, or
    its USB image where it has none of these.
    """
    names = {"ledger": "ledger.jsonl.gz", "partition": "partition", "image": "image.img"}
    folder = f"{EARLIER}/{kit['from']}"
    stated = {f"{folder}/{file}": kit[f"{what}_sha256"] for what, file in names.items()}
    return {path: sha256 for path, sha256 in stated.items() if sha256}


def source_files(job: Mapping[str, Any]) -> dict[str, str]:
    """Return the SHA-256 of the files of source packages that a job names by hash, by their paths.

    They are named by their hash: two sources may call different files the same.
    """
    sources = (job.get("local") or {}).get("sources", ())
    found = [file["sha256"] for source in sources for file in source.get("files", ())]
    return {f"{SOURCES}/{sha256}": sha256 for sha256 in found}
