# SPDX-License-Identifier: GPL-3.0-or-later
"""`index.json` beside the published releases, for programs. Nobody signs it, nothing rests on it.

A reader verifies the releases that it lists by their manifests.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from pipeline.documents.fields import Fields
from pipeline.documents.source import LATEST, OBJECT
from pipeline.documents.statement import FILE_NAME

INDEX_FORMAT = "twinbuild-releases/1"
RELEASES_LIMIT = 10_000
KITS_LIMIT = 1000


@dataclass(frozen=True)
class ListedRelease:
    """A published release, as its own statements describe it; `epoch` is its SOURCE_DATE_EPOCH."""

    tag: str
    image: str
    commit: str
    epoch: int
    manifest_sha256: str
    kits: tuple[str, ...]  # names of files

    @classmethod
    def of(cls, fields: Fields) -> ListedRelease:
        """Read an entry of `releases`; raise Malformed."""
        entry = cls(
            tag=fields.text("tag", FILE_NAME),
            image=fields.text("image", FILE_NAME),
            commit=fields.text("commit", OBJECT),
            epoch=fields.number("epoch", 0, LATEST),
            manifest_sha256=fields.sha256("manifest_sha256"),
            kits=fields.texts("kits", FILE_NAME, KITS_LIMIT),
        )
        fields.end()
        return entry


@dataclass(frozen=True)
class ReleaseIndex:
    """The published releases, the newest first."""

    releases: tuple[ListedRelease, ...]

    @classmethod
    def of(cls, document: Any) -> ReleaseIndex:
        """Read `index.json`; raise Malformed, which names the field."""
        return cls.read(Fields(document))

    @classmethod
    def read(cls, fields: Fields) -> ReleaseIndex:
        """Read its fields; raise Malformed."""
        fields.format(INDEX_FORMAT)
        index = cls(tuple(map(ListedRelease.of, fields.objects("releases", RELEASES_LIMIT))))
        fields.end()
        return index

    def document(self) -> dict[str, Any]:
        """Return what is written to `index.json`."""
        return {"format": INDEX_FORMAT, "releases": [asdict(entry) for entry in self.releases]}
