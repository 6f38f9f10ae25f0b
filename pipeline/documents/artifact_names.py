# SPDX-License-Identifier: GPL-3.0-or-later
"""The names of all that a build hands back.

`verify.py` is put together from this, among others: Python 3.9, the standard library alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.documents.names import kit_name


@dataclass(frozen=True)
class ArtifactNames:
    """The names of all that a build hands back to be compared and published."""

    iso: str
    usb_image: str
    packages: str
    partition: str  # what the USB image's system partition holds
    ledger: str  # of the final tree
    kits: tuple[str, ...]  # one for each of the job's `kits`, in its order
    built: tuple[str, ...] = ()  # the packages that the image builds itself

    def all(self) -> tuple[str, ...]:
        """Return every name."""
        names = (self.iso, self.usb_image, self.packages, self.partition, self.ledger)
        return (*names, *self.kits, *self.built)


def deb_name(name: str, version: str, architecture: str) -> str:
    """Return what dpkg-deb calls the file of a package: without the epoch of its version."""
    return f"{name}_{version.partition(':')[2] or version}_{architecture}.deb"


def artifact_names(job: Mapping[str, Any]) -> ArtifactNames:
    """Return the names of the artifacts of a job, which is `job.json`."""
    image, architecture, version = job["image"], job["architecture"], job["version"]
    stem = f"{image}-{architecture}-{version}"
    return ArtifactNames(
        iso=f"{stem}.iso",
        usb_image=f"{stem}.img",
        packages=f"{stem}.packages",
        partition=f"{stem}.partition",
        ledger=f"{stem}.ledger.jsonl.gz",
        kits=tuple(kit_name(image, architecture, k["from"], version) for k in job.get("kits", ())),
        built=tuple(
            deb_name(p["name"], p["version"], p["architecture"])
            for p in (job.get("local") or {}).get("packages", ())
            if p["source"]
        ),
    )
