# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the job of a run from its source, its inputs and the image's `image.yaml`."""

import tarfile
from pathlib import Path

from pipeline.base.errors import UsageError
from pipeline.documents.inputs import Inputs
from pipeline.documents.job import ExpectedDifference, Job
from pipeline.documents.source import Source
from pipeline.farm.config import Image

COMMITTED_LIMIT = 64 * 1024 * 1024


def make_job(
    source: Source, inputs: Inputs, image: Image, *, compression: str, guest_sha256: str
) -> Job:
    """Return the job that follows from `source.json`, `inputs.json` and `image.yaml` of a run."""
    return Job(
        image=inputs.image,
        architecture=image.architecture,
        suite=image.suite,
        volume_id=image.volume_id,
        kernel_parameters=image.kernel_parameters,
        expected_differences=tuple(
            ExpectedDifference(found.path, found.reason, found.until.isoformat())
            for found in image.expected_differences
        ),
        version=source.version,
        commit=source.commit,
        epoch=source.epoch,
        compression=compression,
        lock_sha256=inputs.lock_sha256,
        source_sha256=source.tar_sha256,
        index_sha256=inputs.index_sha256,
        kits=inputs.kits,
        local=inputs.local,
        upgrade=image.upgrade,
        guest_sha256=guest_sha256,
    )


def committed(source_tar: Path, path: str) -> bytes:
    """Return the content of a file in the commit; raise UsageError if there is none."""
    with tarfile.open(source_tar) as tar:
        try:
            file = tar.extractfile(path)
        except KeyError:
            file = None
        if file is None:
            raise UsageError(f"the commit has no file {path}")
        return file.read(COMMITTED_LIMIT)
