# SPDX-License-Identifier: GPL-3.0-or-later
"""Which upgrade descriptions are believed: those that a trusted key has signed, and in time.

`pipeline/documents/upgrade_description.py` has what they hold.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path

from pipeline.documents.dsse import Envelope, EnvelopeSignature, signed_bytes
from pipeline.documents.ed25519 import ed25519_holds
from pipeline.documents.fields import time_text
from pipeline.documents.malformed import Malformed
from pipeline.documents.plain import plain
from pipeline.documents.signatures import Untrusted, dearmour, read_keyring
from pipeline.documents.upgrade_description import (
    DESCRIPTION_TYPE,
    Description,
    Renewable,
    read_description,
)
from pipeline.documents.upgrade_file import UpgradeFile
from pipeline.documents.upgrade_renewal import RENEWAL_TYPE, Renewal, read_renewal
from pipeline.documents.version import is_older
from pipeline.kits.install import programs
from pipeline.kits.install.failure import InputsUnverified, SignatureInvalid

WHAT = "the upgrade description"
RENEWAL = "the renewal of the upgrade description"
SERVER_REMEDY = "tell who runs the server"
KEYRING_LIMIT = 64 * 1024 * 1024
CLOCKS_APART = timedelta(minutes=5)


@dataclass(frozen=True)
class Trust:
    """Whose signature counts: the public keys in a keyring, or one of them."""

    keyring: bytes
    fingerprint: str | None = None


def load_trust(keyring: Path | None, fingerprint: str | None) -> Trust:
    """Return whose signature counts; raise SignatureInvalid without a readable keyring."""
    if keyring is None:
        raise SignatureInvalid(
            "no keyring was given", remedy="--keyring FILE: the release key, from someone you trust"
        )
    try:
        with keyring.open("rb") as file:
            packets = dearmour(file.read(KEYRING_LIMIT))
        read_keyring(packets)
    except OSError as error:
        raise SignatureInvalid(f"cannot read {keyring}: {error.strerror}") from error
    except ValueError as error:
        raise SignatureInvalid(f"{keyring} is not a keyring: {error}") from error
    return Trust(packets, fingerprint)


def check(content: bytes, trust: Trust, now: datetime) -> Description:
    """Return the description in a file that a trusted key has signed and that is still valid.

    Raise SignatureInvalid if no trusted key has, or if it is from the future, has expired or has a
    renewal that does not count; InputsUnverified if it is malformed or leads to an older release.
    """
    found = read(content, trust)
    if found.as_of > now + CLOCKS_APART:
        raise SignatureInvalid(
            f"{WHAT} is from the future, {time_text(found.as_of)}",
            remedy="check this machine's clock; if it is right, tell who runs the server",
        )
    if found.expires <= now:
        raise SignatureInvalid(
            f"{WHAT} from {found.from_} has expired on {time_text(found.expires)}",
            remedy="check this machine's clock; if it is right, the server withholds newer ones",
        )
    return found


def read(content: bytes, trust: Trust) -> Description:
    """Return the description in a file that a trusted key has signed; expiry is not checked.

    Raise what `check` raises except for the times.
    """
    file = open_file(content)
    payload = file.description.payload
    _check_signatures(signed_bytes(DESCRIPTION_TYPE, payload), file.description.signatures, trust)
    try:
        found = read_description(payload)
    except Malformed as error:
        raise InputsUnverified(plain(f"{WHAT} is malformed: {error}")) from error
    if found.offer and not is_older(found.from_, found.offer.to):
        raise InputsUnverified(
            f"{WHAT} leads from {found.from_} to {found.offer.to}, which is not newer"
        )
    try:
        renewal = file.renewal()
    except Malformed as error:
        raise SignatureInvalid(plain(f"{RENEWAL} is no DSSE envelope: {error}")) from error
    if renewal is None:
        return found
    if found.renewable is None:
        raise SignatureInvalid(f"{WHAT} has a renewal, and allows no renewal")
    renewed = _read_renewal(renewal, payload, found.issued, found.renewable)
    return replace(found, as_of=renewed.issued, expires=max(found.expires, renewed.expires))


def open_file(content: bytes) -> UpgradeFile:
    """Return a description's file, of which nothing is verified yet.

    Raise SignatureInvalid if it is no DSSE envelope.
    """
    try:
        return UpgradeFile.of(content)
    except Malformed as error:
        raise SignatureInvalid(plain(f"{WHAT} is no DSSE envelope: {error}")) from error


def _read_renewal(
    parsed: Envelope, description: bytes, issued: datetime, renewable: Renewable
) -> Renewal:
    """Return the renewal in an envelope; its expiry is not checked.

    Raise SignatureInvalid unless the key that `renewable` names has signed it, for this
    `description` (issued then), and within what it may.
    """
    signed, public = signed_bytes(RENEWAL_TYPE, parsed.payload), bytes.fromhex(renewable.key)
    if not any(ed25519_holds(public, signed, each.signature) for each in parsed.signatures):
        raise SignatureInvalid(
            f"{RENEWAL} is not by the key that may renew it", remedy=SERVER_REMEDY
        )
    try:
        renewal = read_renewal(parsed.payload)
    except Malformed as error:
        raise SignatureInvalid(plain(f"{RENEWAL} is malformed: {error}")) from error
    if renewal.description_sha256 != sha256(description).hexdigest():
        raise SignatureInvalid(f"{RENEWAL} is for another one", remedy=SERVER_REMEDY)
    if renewal.exceeds(renewable, issued):
        raise SignatureInvalid(
            f"{RENEWAL} goes beyond what its key may state", remedy=SERVER_REMEDY
        )
    return renewal


def _check_signatures(
    signed: bytes, signatures: tuple[EnvelopeSignature, ...], trust: Trust
) -> None:
    """Raise SignatureInvalid unless one of the signatures is good and by a trusted key."""
    refusals = []
    for each in signatures:
        try:
            made = programs.check_detached(signed, each.signature, trust.keyring)
            if any(signer.is_by(trust.fingerprint) for signer in made):
                return
            refusals.append(f"the signature is by {made[0].primary}, not by {trust.fingerprint}")
        except Untrusted as error:
            refusals.append(plain(str(error)))
    raise SignatureInvalid(
        f"{WHAT} is not signed by a trusted key: {refusals[0]}",
        remedy="give the release key with --keyring, from someone you trust",
    )
