# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads from the exported commit, `source.tar`, what the gate needs: the lock and `image.yaml`."""

import tarfile
from dataclasses import dataclass

from pipeline.base.errors import InputsUnverified, UsageError
from pipeline.base.files import sha256_bytes
from pipeline.documents.digest import sha256_file
from pipeline.documents.inputs import Inputs
from pipeline.documents.job import Job
from pipeline.documents.source import Source
from pipeline.farm.config import Image, parse_image
from pipeline.farm.job import committed, make_job
from pipeline.farm.run import Run

REMEDY = "run the source stage and the builds again"


@dataclass(frozen=True)
class Exported:
    """The files of the built commit that the gate needs."""

    lock: bytes
    image: Image

    def job(self, source: Source, inputs: Inputs, compression: str) -> Job:
        """Return the job of these documents, except for the guest, which only statements name."""
        return make_job(source, inputs, self.image, compression=compression, guest_sha256="")


def open_exported(run: Run, image: str, source: Source, inputs: Inputs) -> Exported:
    """Read the lock and `image.yaml` from `source.tar`.

    Raise InputsUnverified unless the archive is what the source stage wrote, and its lock is the
    one that the builds used.
    """
    if inputs.image != image:
        raise InputsUnverified(
            f"{run.inputs_json} is of the image {inputs.image}, not of {image}",
            remedy="run the inputs stage again",
        )
    folder = f"images/live/{image}"
    try:
        if sha256_file(run.source_tar) != source.tar_sha256:
            raise InputsUnverified(f"{run.source_tar} was changed", remedy=REMEDY)
        lock = committed(run.source_tar, f"{folder}/lock")
        described = committed(run.source_tar, f"{folder}/image.yaml")
    except (OSError, tarfile.TarError, UsageError) as error:
        raise InputsUnverified(f"cannot read {run.source_tar}: {error}", remedy=REMEDY) from error
    if sha256_bytes(lock) != inputs.lock_sha256:
        raise InputsUnverified(
            f"{folder}/lock in {run.source_tar} is not the lock that was built from", remedy=REMEDY
        )
    return Exported(lock, parse_image(described, f"{folder}/image.yaml"))
