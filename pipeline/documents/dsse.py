# SPDX-License-Identifier: GPL-3.0-or-later
"""DSSE envelopes (https://github.com/secure-systems-lab/dsse): a payload, its type, signatures.

The type is signed with the payload, so a signature over one kind of document is never one over
another. Nothing is verified here. Base64 is the standard alphabet, padded: one spelling.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

from pipeline.documents.fields import Fields
from pipeline.documents.malformed import Malformed

IN_TOTO = "application/vnd.in-toto+json"
PAYLOAD_LIMIT = 4 * 1024 * 1024  # bytes
ENVELOPE_SIGNATURES_LIMIT = 16
KEYID_LIMIT = 200
SIG_LIMIT = 64 * 1024


@dataclass(frozen=True)
class EnvelopeSignature:
    """A signature, and the name that its signer gave the key, which proves nothing."""

    keyid: str
    signature: bytes

    @classmethod
    def read(cls, fields: Fields) -> EnvelopeSignature:
        """Read an entry of `signatures`, which may have no `keyid`; raise Malformed."""
        keyid = fields.any_text("keyid", KEYID_LIMIT) if "keyid" in fields else ""
        if not keyid.isprintable():
            raise Malformed(f"{fields.path('keyid')} is {keyid!r:.100}, which cannot be shown")
        return cls(keyid, fields.base64("sig", SIG_LIMIT))


@dataclass(frozen=True)
class Envelope:
    """What was signed, and the signatures; nothing of it is verified."""

    payload: bytes
    signatures: tuple[EnvelopeSignature, ...]

    @classmethod
    def read(cls, fields: Fields, *kinds: str, limit: int = PAYLOAD_LIMIT) -> Envelope:
        """Read its fields, of a payload of one of the types `kinds`; raise Malformed.

        Other fields are let pass, as the specification wants it.
        """
        fields.one_of("payloadType", *kinds)
        payload = fields.base64("payload", limit)
        return cls(payload, tuple(map(EnvelopeSignature.read, fields.objects("signatures"))))


def read_envelope(
    document: Any,
    kind: str,
    limit: int = PAYLOAD_LIMIT,
    signatures_limit: int = ENVELOPE_SIGNATURES_LIMIT,
) -> Envelope:
    """Return the envelope of a payload of the type `kind` and at most `limit` bytes.

    Raise Malformed if it is none, has no signature or too many, or a key id twice.
    """
    envelope = Envelope.read(Fields(document), kind, limit=limit)
    count = len(envelope.signatures)
    if not 1 <= count <= signatures_limit:
        raise Malformed(f"it has {count} signatures{', which is too many' if count else ''}")
    named = [each.keyid for each in envelope.signatures if each.keyid]
    if len(set(named)) != len(named):
        raise Malformed("keyid: two signatures have the same")
    return envelope


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
