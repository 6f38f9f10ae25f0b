# SPDX-License-Identifier: GPL-3.0-or-later
"""From what a kit is made, and how: what whoever makes it tells the program that does, as JSON."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.documents.fields import Fields
from pipeline.documents.job import RELEASE
from pipeline.documents.lock import NAME
from pipeline.documents.malformed import Malformed

PROCESSORS_LIMIT = 4096


@dataclass(frozen=True)
class Earlier:
    """The release that a kit begins from: its final ledger and its `.partition`."""

    version: str
    ledger: Path
    partition: Path

    @classmethod
    def of(cls, fields: Fields) -> Earlier:
        """Read `earlier`; raise Malformed."""
        paths = _path(fields, "ledger"), _path(fields, "partition")
        earlier = cls(fields.text("version", RELEASE), *paths)
        fields.end()
        return earlier


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
        later = cls(
            image=fields.text("image", NAME),
            architecture=fields.text("architecture", NAME),
            version=fields.text("version", RELEASE),
            epoch=fields.number("epoch"),
            compression=fields.text("compression"),
            ledger=_path(fields, "ledger"),
            partition=_path(fields, "partition"),
            tree=_path(fields, "tree"),
            files=_path(fields, "files"),
        )
        fields.end()
        return later


@dataclass(frozen=True)
class KitPlan:
    """A kit to be made, in the folder `work`; `proven` reads it back, which needs root."""

    earlier: Earlier
    later: Later
    kit: Path
    work: Path
    processors: int
    proven: bool

    @classmethod
    def of(cls, document: Any) -> KitPlan:
        """Read a plan; raise Malformed, which names the field."""
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
        """Return what is written to the plan's file."""
        return {
            **_with_texts(asdict(self)),
            "earlier": _with_texts(asdict(self.earlier)),
            "later": _with_texts(asdict(self.later)),
        }


def _with_texts(fields: dict[str, Any]) -> dict[str, Any]:
    return {n: os.fspath(v) if isinstance(v, Path) else v for n, v in fields.items()}


def _path(fields: Fields, name: str) -> Path:
    value = fields.any(name)  # any that a folder of this machine may have
    if not isinstance(value, str) or not value or "\0" in value:
        raise Malformed(f"{fields.path(name)} is {value!r:.100}, not a path")
    return Path(value)
