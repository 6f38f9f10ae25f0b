# SPDX-License-Identifier: GPL-3.0-or-later
"""Renewals: a key of its own says that an upgrade description still holds, and can say no more.

The description, which the release key has signed, names the key that may renew it, for how many
days at a time and until when. A renewal names the description by its SHA-256 and gives a later end;
it lies in the description's own file. So a schedule can hold the key: a thief can keep old
descriptions fresh until the end that the release key has set, and can make no new one.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from pipeline.base.errors import SignatureInvalid
from pipeline.base.plain import plain
from pipeline.documents.ed25519 import ed25519_holds
from pipeline.documents.json_form import json_bytes, parse_json
from pipeline.kits.install import envelope
from pipeline.kits.install.envelope import Time, read_time, time_text

PAYLOAD_TYPE = "application/vnd.twinbuild.renewal+json"
WHAT = "the renewal of the upgrade description"
REMEDY = "tell who runs the server"

Sign = Callable[[bytes], bytes]  # the ed25519 signature of some bytes


@dataclass(frozen=True)
class Renewable:
    """Who may renew a description (an ed25519 public key, hex), and how far."""

    key: str
    days: int  # at a time, from the renewal on
    until: datetime  # at the latest, however often it is renewed


@dataclass(frozen=True)
class Renewal:
    """When a description was said to hold still, and until when it does."""

    issued: datetime
    expires: datetime


class _Written(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: Literal["twinbuild-renewal/1"] = "twinbuild-renewal/1"
    description_sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    issued: Time
    expires: Time


def make(description: bytes, renewable: Renewable, now: datetime, sign: Sign) -> dict[str, Any]:
    """Return the envelope of a renewal of `description`, the payload that the release key signed.

    `sign` signs with the key that may renew it.
    """
    expires = min(now + timedelta(days=renewable.days), renewable.until)
    written = _Written(
        description_sha256=hashlib.sha256(description).hexdigest(),
        issued=time_text(now),
        expires=time_text(expires),
    )
    payload = json_bytes(written.model_dump())
    keyid = hashlib.sha256(bytes.fromhex(renewable.key)).hexdigest()
    signature = sign(envelope.encoded(PAYLOAD_TYPE, payload))
    return envelope.make(PAYLOAD_TYPE, payload, keyid, signature)


def read(document: Any, description: bytes, issued: datetime, renewable: Renewable) -> Renewal:
    """Return the renewal in an envelope, whatever the time is now.

    Raise SignatureInvalid unless the key that `renewable` names has signed it, for this
    `description` (issued then), and within what it may.
    """
    parsed = envelope.parse(document, PAYLOAD_TYPE, WHAT)
    signed = envelope.encoded(PAYLOAD_TYPE, parsed.payload)
    public = bytes.fromhex(renewable.key)
    if not any(ed25519_holds(public, signed, made) for made in parsed.signatures):
        raise SignatureInvalid(f"{WHAT} is not by the key that may renew it", remedy=REMEDY)
    try:
        written = _Written.model_validate(parse_json(parsed.payload))
    except (ValidationError, ValueError, RecursionError) as error:
        raise SignatureInvalid(plain(f"{WHAT} is malformed: {error}"[:300])) from error
    if written.description_sha256 != hashlib.sha256(description).hexdigest():
        raise SignatureInvalid(f"{WHAT} is for another one", remedy=REMEDY)
    renewal = Renewal(read_time(written.issued), read_time(written.expires))
    days = (renewal.expires - renewal.issued).total_seconds() / 86400
    if renewal.issued < issued or days > renewable.days or renewal.expires > renewable.until:
        raise SignatureInvalid(f"{WHAT} says more than its key may", remedy=REMEDY)
    return renewal
