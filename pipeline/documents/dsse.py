# SPDX-License-Identifier: GPL-3.0-or-later
"""DSSE envelopes (https://github.com/secure-systems-lab/dsse): a payload, its type, signatures.

The type is signed with the payload, so a signature over one kind of document is never one over
another. Nothing is verified here. Base64 is the standard alphabet, padded: one spelling.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

from pipeline.documents.malformed import Malformed

IN_TOTO = "application/vnd.in-toto+json"
PAYLOAD_LIMIT = 4 * 1024 * 1024  # bytes
ENVELOPE_SIGNATURES_LIMIT = 16
KEYID_LIMIT = 200


@dataclass(frozen=True)
class EnvelopeSignature:
    """A signature, and the name that its signer gave the key, which proves nothing."""

    keyid: str
    signature: bytes


@dataclass(frozen=True)
class Envelope:
    """What was signed, and the signatures; nothing of it is verified."""

    payload: bytes
    signatures: tuple[EnvelopeSignature, ...]


def read_envelope(
    document: Any,
    kind: str,
    limit: int = PAYLOAD_LIMIT,
    signatures_limit: int = ENVELOPE_SIGNATURES_LIMIT,
) -> Envelope:
    """Return the envelope of a payload of the type `kind` and at most `limit` bytes.

    Raise Malformed if it is none, has no signature or too many, or a key id twice.
    """
    try:
        content, listed = document["payload"], document["signatures"]
        if document["payloadType"] != kind:
            raise Malformed(f"payloadType is {document['payloadType']!r:.100}, not {kind!r}")
        if len(content) > limit * 4 // 3 + 4:
            raise Malformed(f"payload is larger than {limit} bytes")
        if not 1 <= len(listed) <= signatures_limit:
            many = ", which is too many" if listed else ""
            raise Malformed(f"it has {len(listed)} signatures{many}")
        signatures = tuple(
            EnvelopeSignature(_keyid(each.get("keyid", "")), _base64("sig", each["sig"]))
            for each in listed
        )
        payload = _base64("payload", content)
    except KeyError as error:
        raise Malformed(f"it is no DSSE envelope: {error.args[0]} is missing") from error
    except (TypeError, AttributeError, RecursionError) as error:
        raise Malformed(f"it is no DSSE envelope: {error!r:.200}") from error
    named = [each.keyid for each in signatures if each.keyid]
    if len(set(named)) != len(named):
        raise Malformed("keyid: two signatures have the same")
    return Envelope(payload, signatures)


def signed_bytes(kind: str, payload: bytes) -> bytes:
    """Return what is signed: the pre-authentication encoding of a payload of the type `kind`."""
    name = kind.encode()
    return b"DSSEv1 %d %b %d %b" % (len(name), name, len(payload), payload)


def make_envelope(kind: str, payload: bytes, keyid: str, signature: bytes) -> dict[str, Any]:
    """Return an envelope with one signature, ready to be written as JSON."""
    return {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": kind,
        "signatures": [{"keyid": keyid, "sig": base64.b64encode(signature).decode()}],
    }


def _keyid(value: Any) -> str:
    if not isinstance(value, str) or len(value) > KEYID_LIMIT or not value.isprintable():
        raise Malformed(f"keyid is {value!r:.100}, not a text of at most {KEYID_LIMIT} characters")
    return value


def _base64(name: str, value: Any) -> bytes:
    if not isinstance(value, str):
        raise Malformed(f"{name} is no text")
    try:
        return base64.b64decode(value, validate=True)
    except ValueError as error:
        raise Malformed(f"{name} is no base64: {error}") from error
