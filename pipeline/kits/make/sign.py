# SPDX-License-Identifier: GPL-3.0-or-later
"""Signs upgrade descriptions with the release key, by gpg, and their renewals with another key."""

import hashlib
import tempfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from pipeline.base import openpgp
from pipeline.documents.dsse import make_envelope, signed_bytes
from pipeline.documents.json_form import json_bytes
from pipeline.documents.signatures import dearmour
from pipeline.documents.upgrade_description import (
    DESCRIPTION_TYPE,
    Description,
    Renewable,
    description_bytes,
)
from pipeline.documents.upgrade_renewal import RENEWAL_TYPE, renew, renewal_bytes
from pipeline.kits.install.description import open_file

Sign = Callable[[bytes], bytes]  # the ed25519 signature of some bytes


def sign(description: Description, gpg: openpgp.Gpg, fingerprint: str) -> bytes:
    """Return the signed envelope as it is published; raise SignatureInvalid if gpg cannot sign."""
    return sign_payload(description_bytes(description), gpg, fingerprint)


def sign_payload(payload: bytes, gpg: openpgp.Gpg, fingerprint: str) -> bytes:
    """Return the signed envelope of a payload."""
    with tempfile.TemporaryDirectory(prefix="twinbuild-") as folder:
        document = Path(folder, "description")
        document.write_bytes(signed_bytes(DESCRIPTION_TYPE, payload))
        openpgp.sign(gpg, fingerprint, document)
        signature = dearmour(document.with_name("description.asc").read_bytes())
    return json_bytes(make_envelope(DESCRIPTION_TYPE, payload, fingerprint, signature))


def with_renewal(content: bytes, renewable: Renewable, now: datetime, sign: Sign) -> bytes:
    """Return a description's file with a new renewal, in place of any earlier one.

    `sign` signs with the key that `renewable` names.
    """
    file = open_file(content)
    payload = renewal_bytes(renew(file.description.payload, renewable, now))
    keyid = hashlib.sha256(bytes.fromhex(renewable.key)).hexdigest()
    return file.renewed(payload, keyid, sign(signed_bytes(RENEWAL_TYPE, payload)))
