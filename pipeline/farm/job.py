# SPDX-License-Identifier: GPL-3.0-or-later
"""The job: what every environment of a run is given alike.

Its fields are those of `job.json` in `docs/reference/documents.md`. The machines are given it, the
environments sign it, and the gate makes it again to see that they have signed this one.
"""

import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.base.errors import UsageError
from pipeline.farm.config import Image

FORMAT = "twinbuild-job/1"
COMMITTED_LIMIT = 64 * 1024 * 1024
EARLIEST = 315532800  # 1980-01-01: the FAT file system of the EFI image knows no earlier time
LATEST = 2**32 - 1  # SquashFS keeps times in 32 bits


def make_job(
    source: Mapping[str, Any],
    inputs: Mapping[str, Any],
    image: Image,
    *,
    compression: str,
    guest_sha256: str,
) -> dict[str, Any]:
    """Return the job that `source.json`, `inputs.json` and `image.yaml` of a run make."""
    return {
        "format": FORMAT,
        "image": inputs["image"],
        "architecture": image.architecture,
        "suite": image.suite,
        "volume_id": image.volume_id,
        "kernel_parameters": image.kernel_parameters,
        "expected_differences": [e.model_dump(mode="json") for e in image.expected_differences],
        "version": source["version"],
        "commit": source["commit"],
        "epoch": source["epoch"],
        "compression": compression,
        "lock_sha256": inputs["lock_sha256"],
        "source_sha256": source["tar_sha256"],
        "index_sha256": inputs["index_sha256"],
        "kits": inputs["kits"],
        "local": inputs.get("local"),
        "upgrade": image.upgrade,
        "guest_sha256": guest_sha256,
    }


def committed(source_tar: Path, path: str) -> bytes:
    """Return a file as it is in the commit; raise UsageError if it is not there."""
    with tarfile.open(source_tar) as tar:
        try:
            file = tar.extractfile(path)
        except KeyError:
            file = None
        if file is None:
            raise UsageError(f"the commit has no file {path}")
        return file.read(COMMITTED_LIMIT)
