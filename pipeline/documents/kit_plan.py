# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of one kit: what it is made from, and where it is written.

Inside the machine it is passed on as it is. Outside, `kits/make` hands it to the machine's own
program as a JSON file, which lasts no longer than that run. Paths are absolute.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.documents.fields import Fields
from pipeline.documents.kit_control import EPOCH_LIMIT
from pipeline.documents.malformed import Malformed
from pipeline.documents.names import IMAGE, RELEASE

PROGRAM = "pipeline.guest.kits.program"  # reads a plan and makes the kit: `python3 -m PROGRAM FILE`
PROCESSORS_LIMIT = 2**16


@dataclass(frozen=True)
class Earlier:
    """The release that a kit begins from: its final ledger and its `.partition`."""

    version: str
    ledger: Path
    partition: Path

    @classmethod
    def of(cls, fields: Fields) -> Earlier:
        """Read `earlier`; raise Malformed."""
        found = cls(
            version=fields.text("version", RELEASE),
            ledger=_path(fields, "ledger"),
            partition=_path(fields, "partition"),
        )
        fields.end()
        return found

    def document(self) -> dict[str, Any]:
        """Return what stands under `earlier`."""
        return {
            "version": self.version,
            "ledger": os.fspath(self.ledger),
            "partition": os.fspath(self.partition),
        }


@dataclass(frozen=True)
class Later:
    """The release that a kit leads to; `tree` and `files` are folders with its contents.

    `files` holds the system partition, `tree` at least those files that the earlier release has
    not; both may belong to anyone, as nothing but contents is taken of them.
    """

    image: str
    architecture: str
    version: str
    epoch: int
    compression: str
    ledger: Path
    partition: Path
    tree: Path
    files: Path

    @classmethod
    def of(cls, fields: Fields) -> Later:
        """Read `later`; raise Malformed."""
        found = cls(
            image=fields.text("image", IMAGE),
            architecture=fields.text("architecture", IMAGE),
            version=fields.text("version", RELEASE),
            epoch=fields.number("epoch", high=EPOCH_LIMIT - 1),
            compression=fields.text("compression"),
            ledger=_path(fields, "ledger"),
            partition=_path(fields, "partition"),
            tree=_path(fields, "tree"),
            files=_path(fields, "files"),
        )
        fields.end()
        return found

    def document(self) -> dict[str, Any]:
        """Return what stands under `later`."""
        return {
            "image": self.image,
            "architecture": self.architecture,
            "version": self.version,
            "epoch": self.epoch,
            "compression": self.compression,
            "ledger": os.fspath(self.ledger),
            "partition": os.fspath(self.partition),
            "tree": os.fspath(self.tree),
            "files": os.fspath(self.files),
        }


@dataclass(frozen=True)
class KitPlan:
    """The file `kit` is to be written; `work` is a folder that does not exist yet.

    A kit that is `proven` is read back and laid over the earlier tree, which needs root.
    """

    earlier: Earlier
    later: Later
    kit: Path
    work: Path
    processors: int
    proven: bool = True

    @classmethod
    def of(cls, document: Any) -> KitPlan:
        """Read a plan; raise Malformed."""
        fields = Fields(document)
        plan = cls(
            earlier=Earlier.of(fields.object("earlier")),
            later=Later.of(fields.object("later")),
            kit=_path(fields, "kit"),
            work=_path(fields, "work"),
            processors=fields.number("processors", 1, PROCESSORS_LIMIT),
            proven=fields.flag("proven"),
        )
        fields.end()
        return plan

    def document(self) -> dict[str, Any]:
        """Return the plan for `json_bytes`."""
        return {
            "earlier": self.earlier.document(),
            "later": self.later.document(),
            "kit": os.fspath(self.kit),
            "work": os.fspath(self.work),
            "processors": self.processors,
            "proven": self.proven,
        }


def _path(fields: Fields, name: str) -> Path:
    value = fields.any(name)  # any that a folder of this machine may have
    if not isinstance(value, str) or not value or "\0" in value:
        raise Malformed(f"{fields.path(name)} is {value!r:.100}, not a path")
    return Path(value)
