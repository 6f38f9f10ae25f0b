# SPDX-License-Identifier: GPL-3.0-or-later
"""The file of an upgrade description: a DSSE envelope, in which the renewal's may stand too.

`docs/reference/documents.md` describes it. Nothing is verified here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.documents.dsse import Envelope, make_envelope, read_envelope
from pipeline.documents.json_form import json_bytes, parse_json
from pipeline.documents.malformed import Malformed
from pipeline.documents.upgrade_description import DESCRIPTION_TYPE
from pipeline.documents.upgrade_renewal import RENEWAL_TYPE

UPGRADE_FILE_LIMIT = 64 * 1024  # bytes
SIGNATURES_LIMIT = 4  # two keys while one follows the other


@dataclass(frozen=True)
class UpgradeFile:
    """A description's envelope, and the whole document that it stands in."""

    description: Envelope
    _document: dict[str, Any]

    @classmethod
    def of(cls, content: bytes) -> UpgradeFile:
        """Read a file but for its renewal; raise Malformed if it is no DSSE envelope."""
        if len(content) > UPGRADE_FILE_LIMIT:
            raise Malformed(f"it is larger than {UPGRADE_FILE_LIMIT} bytes")
        document = parse_json(content)
        if not isinstance(document, dict):
            raise Malformed("it is not a JSON object")
        return cls(_envelope(document, DESCRIPTION_TYPE), document)

    def renewal(self) -> Envelope | None:
        """Return the renewal's envelope, None if there is none; raise Malformed."""
        beside = self._document.get("renewal")
        return None if beside is None else _envelope(beside, RENEWAL_TYPE)

    def renewed(self, payload: bytes, keyid: str, signature: bytes) -> bytes:
        """Return the file with this renewal in place of the one that it may have."""
        renewal = make_envelope(RENEWAL_TYPE, payload, keyid, signature)
        return json_bytes({**self._document, "renewal": renewal})


def _envelope(document: Any, kind: str) -> Envelope:
    return read_envelope(document, kind, UPGRADE_FILE_LIMIT, SIGNATURES_LIMIT)
