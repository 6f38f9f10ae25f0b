# SPDX-License-Identifier: GPL-3.0-or-later
"""The source: the commit that a run builds. `source.json`, beside the exported `source.tar`."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.documents.fields import Fields

FORMAT = "twinbuild-source/1"
EARLIEST = 315532800  # 1980-01-01: the FAT file system of the EFI image knows no earlier time
LATEST = 2**32 - 1  # SquashFS keeps times in 32 bits
OBJECT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class SourceTag:
    """A tag that was verified when the run began; `object` is git's name of it."""

    name: str
    object: str
    signer: str | None


@dataclass(frozen=True)
class Source:
    """What is built; `epoch` is the commit's date, in seconds, and so SOURCE_DATE_EPOCH.

    `dirty` tells that the working tree had changes, which are not built.
    """

    repository: str
    ref: str
    commit: str
    tree: str
    epoch: int
    version: str
    tag: SourceTag | None
    dirty: bool
    tar_sha256: str

    @classmethod
    def of(cls, document: Any) -> Source:
        """Read `source.json`; raise Malformed, which names the field."""
        fields = Fields(document)
        fields.format(FORMAT)
        source = cls(
            repository=fields.line("repository"),
            ref=fields.line("ref"),
            commit=fields.text("commit", OBJECT),
            tree=fields.text("tree", OBJECT),
            epoch=fields.number("epoch", EARLIEST, LATEST),
            version=fields.line("version"),
            tag=None if fields.is_null("tag") else _tag(fields.object("tag")),
            dirty=fields.flag("dirty"),
            tar_sha256=fields.sha256("tar_sha256"),
        )
        fields.end()
        return source

    def document(self) -> dict[str, Any]:
        """Return what is written to `source.json`."""
        return {"format": FORMAT, **asdict(self)}


def _tag(fields: Fields) -> SourceTag:
    signer = None if fields.is_null("signer") else fields.line("signer")
    tag = SourceTag(fields.line("name"), fields.text("object", OBJECT), signer)
    fields.end()
    return tag
