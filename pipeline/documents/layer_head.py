# SPDX-License-Identifier: GPL-3.0-or-later
"""What a kept layer begins with: the paths that a step changed and removed. JSON.

One machine writes it, a later one of the same programs reads it: docs/reference/cache.md.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from pipeline.documents.fields import Fields
from pipeline.documents.json_form import parse_json
from pipeline.documents.ledger_line import bytes_of, text_of, tree_path
from pipeline.documents.malformed import Malformed

SIZE_LIMIT = 1024**3  # bytes
PATHS_LIMIT = 10_000_000


@dataclass(frozen=True)
class LayerHead:
    """The changed paths, each with whether the build made it itself, and the removed ones."""

    changed: tuple[bytes, ...]
    made: tuple[bool, ...]
    removed: tuple[bytes, ...]

    @classmethod
    def parse(cls, content: bytes) -> LayerHead:
        """Read the head of a layer; raise Malformed."""
        fields = Fields(parse_json(content))
        made = _elements(fields, "made")
        if not all(isinstance(value, bool) for value in made):
            raise Malformed("made is not a list of true and false")
        head = cls(_paths(fields, "changed"), tuple(made), _paths(fields, "removed"))
        if len(head.made) != len(head.changed):
            raise Malformed("made is not about the changed paths")
        fields.end()
        return head

    def content(self) -> bytes:
        """Return what stands at the beginning of the layer."""
        changed, removed = (list(map(text_of, paths)) for paths in (self.changed, self.removed))
        return json.dumps({"changed": changed, "made": self.made, "removed": removed}).encode()


def _paths(fields: Fields, name: str) -> tuple[bytes, ...]:
    try:
        return tuple(map(_path, _elements(fields, name)))
    except ValueError as error:
        raise Malformed(f"{name} has what is no path of the tree") from error


def _path(value: object) -> bytes:
    return b"" if value == "" else bytes_of(tree_path(value))  # the tree's own folder has none


def _elements(fields: Fields, name: str) -> list[Any]:
    value = fields.any(name)
    if not isinstance(value, list) or len(value) > PATHS_LIMIT:
        raise Malformed(f"{fields.path(name)} is not a list of at most {PATHS_LIMIT} elements")
    return value
