# SPDX-License-Identifier: GPL-3.0-or-later
"""Renewals: a separate key states that an upgrade description is still valid, and nothing else.

The description, which the release key has signed, names the key that may renew it, for how many
days at a time and until when. A renewal names the description by its SHA-256 and gives a later
expiry; it lies in the description's own file. So a schedule can hold the key: a thief can keep old
descriptions fresh until the end that the release key has set, and can make no new one.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from pipeline.documents.fields import Fields, time_text
from pipeline.documents.json_form import json_bytes, parse_json

if TYPE_CHECKING:
    from pipeline.documents.upgrade_description import Renewable

RENEWAL_FORMAT = "twinbuild-renewal/1"
RENEWAL_TYPE = "application/vnd.twinbuild.renewal+json"


@dataclass(frozen=True)
class Renewal:
    """Which description is still valid, when that was stated, and when the renewal expires."""

    description_sha256: str  # of the payload that the release key has signed
    issued: datetime
    expires: datetime

    @classmethod
    def read(cls, fields: Fields) -> Renewal:
        """Read its fields; raise Malformed."""
        fields.format(RENEWAL_FORMAT)
        digest = fields.sha256("description_sha256")
        renewal = cls(digest, fields.time("issued"), fields.time("expires"))
        fields.end()
        return renewal

    def exceeds(self, renewable: Renewable, issued: datetime) -> bool:
        """Return whether it goes beyond what its key may state of a description `issued` then."""
        too_long = self.expires - self.issued > timedelta(days=renewable.days)
        return self.issued < issued or too_long or self.expires > renewable.until


def renew(description: bytes, renewable: Renewable, now: datetime) -> Renewal:
    """Return the renewal of `description`, the payload that the release key has signed."""
    expires = min(now + timedelta(days=renewable.days), renewable.until)
    return Renewal(hashlib.sha256(description).hexdigest(), now, expires)


def renewal_bytes(renewal: Renewal) -> bytes:
    """Return the payload as it is written and signed."""
    return json_bytes(
        {
            "format": RENEWAL_FORMAT,
            "description_sha256": renewal.description_sha256,
            "issued": time_text(renewal.issued),
            "expires": time_text(renewal.expires),
        }
    )


def read_renewal(payload: bytes) -> Renewal:
    """Return the renewal in a payload; raise Malformed if it is none."""
    return Renewal.read(Fields(parse_json(payload)))
