# SPDX-License-Identifier: GPL-3.0-or-later
"""The inputs: all that a run is built from, which lies verified in the store. `inputs.json`."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.documents.fields import Fields
from pipeline.documents.job import KITS_LIMIT, KitRequest, Local
from pipeline.documents.lock import NAME, PACKAGE, SIZE_LIMIT, VERSION, Package

FORMAT = "twinbuild-inputs/1"
USER = re.compile(r"build|builder|image")


@dataclass(frozen=True)
class Inputs:
    """The packages of a lock, whose bytes are in the store, and what else goes into the job.

    `snapshot` is the tagged snapshot that they were taken from; `index_sha256` is that of the
    packages' own index, which lies in the store, too.
    """

    image: str
    lock_sha256: str
    snapshot: str | None
    packages: tuple[Package, ...]
    index_sha256: str
    kits: tuple[KitRequest, ...]
    local: Local | None

    @classmethod
    def of(cls, document: Any) -> Inputs:
        """Read `inputs.json`; raise Malformed, which names the field."""
        fields = Fields(document)
        fields.format(FORMAT)
        inputs = cls(
            image=fields.text("image", NAME),
            lock_sha256=fields.sha256("lock_sha256"),
            snapshot=fields.optional_text("snapshot"),
            packages=tuple(map(_package, fields.objects("packages"))),
            index_sha256=fields.sha256("index_sha256"),
            kits=tuple(map(KitRequest.of, fields.objects("kits", KITS_LIMIT))),
            local=None if fields.is_null("local") else Local.of(fields.object("local")),
        )
        fields.end()
        return inputs

    def document(self) -> dict[str, Any]:
        """Return what is written to `inputs.json`."""
        return {
            "format": FORMAT,
            "image": self.image,
            "lock_sha256": self.lock_sha256,
            "snapshot": self.snapshot,
            "packages": list(map(_package_document, self.packages)),
            "index_sha256": self.index_sha256,
            "kits": [kit.document() for kit in self.kits],
            "local": self.local and self.local.document(),
        }

    def used_by(self, user: str) -> tuple[Package, ...]:
        """Return the packages of the "image", the "builder" or the "build" of local packages."""
        return tuple(package for package in self.packages if user in package.used_by)

    def digests(self) -> dict[str, int | None]:
        """Return the SHA-256 of all that the store must have, with the sizes that are known."""
        wanted: dict[str, int | None] = {self.index_sha256: None}
        wanted |= {package.sha256: package.size for package in self.packages}
        for kit in self.kits:
            wanted |= dict.fromkeys(kit.files().values())
        if self.local:
            wanted |= dict.fromkeys(self.local.source_files().values())
        return wanted


def _package(fields: Fields) -> Package:
    """Read an entry of `packages`; raise Malformed."""
    package = Package(
        name=fields.text("name", PACKAGE),
        version=fields.text("version", VERSION),
        architecture=fields.text("architecture", NAME),
        size=fields.number("size", 0, SIZE_LIMIT),
        sha256=fields.sha256("sha256"),
        used_by=fields.texts("used_by", USER),
    )
    fields.one_of("file", package.file_name)
    fields.end()
    return package


def _package_document(package: Package) -> dict[str, Any]:
    return {**asdict(package), "used_by": list(package.used_by), "file": package.file_name}
