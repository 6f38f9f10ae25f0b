# SPDX-License-Identifier: GPL-3.0-or-later
"""DSSE envelopes of what is stated about upgrades, and the one form of the times in them.

An envelope is https://github.com/secure-systems-lab/dsse: what is signed names its own type, so
that a signature over one kind of statement is never one over another.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pipeline.documents.fields import Fields
from pipeline.documents.malformed import Malformed

LIMIT = 64 * 1024  # bytes of a file with an envelope
SIGNATURES_LIMIT = 4  # two keys while one follows the other
TIME = re.compile(r"[0-9]{4}(-[0-9]{2}){2}T[0-9]{2}(:[0-9]{2}){2}Z")
TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True)
class Envelope:
    """What was signed, and the signatures; nothing of it is verified yet."""

    payload: bytes
    signatures: tuple[bytes, ...]


def read_envelope(document: Any, kind: str) -> Envelope:
    """Return the envelope of a payload of the type `kind`; raise Malformed if it is none."""
    try:
        signatures = [base64.b64decode(s["sig"], validate=True) for s in document["signatures"]]
        found = document["payloadType"]
        payload = base64.b64decode(document["payload"], validate=True)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Malformed(f"{error!s:.200}") from error
    if found != kind or not 0 < len(signatures) <= SIGNATURES_LIMIT:
        raise Malformed("it has another type, or no signature or too many")
    return Envelope(payload, tuple(signatures))


def encoded(kind: str, payload: bytes) -> bytes:
    """Return what is signed: DSSE's pre-authentication encoding of a payload."""
    name = kind.encode()
    return b"DSSEv1 %d %b %d %b" % (len(name), name, len(payload), payload)


def make_envelope(kind: str, payload: bytes, keyid: str, signature: bytes) -> dict[str, Any]:
    """Return an envelope with one signature, ready to be written as JSON."""
    return {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": kind,
        "signatures": [{"keyid": keyid, "sig": base64.b64encode(signature).decode()}],
    }


def time_text(time: datetime) -> str:
    """Return a time as it is written: UTC, to the second."""
    return time.astimezone(UTC).strftime(TIME_FORMAT)


def read_time(fields: Fields, name: str) -> datetime:
    """Return the time in a field; raise Malformed if it is none."""
    text = fields.text(name, TIME)
    try:
        return datetime.strptime(text, TIME_FORMAT).replace(tzinfo=UTC)
    except ValueError as error:
        raise Malformed(f"{fields.path(name)} is no time: {text}") from error
