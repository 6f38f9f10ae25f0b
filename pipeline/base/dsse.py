# SPDX-License-Identifier: GPL-3.0-or-later
"""Signed statements: DSSE envelopes and the ed25519 keys of the environments.

`documents/dsse.py` has the format of envelopes; securesystemslib signs and verifies. A key's id is
the SHA-256 of its raw public half; `farm.yaml` pins that half itself, in hexadecimal.
"""

import os
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.exceptions import UnverifiedSignatureError
from securesystemslib.signer import CryptoSigner, Signature, SSlibKey

from pipeline.base import private_file
from pipeline.base.errors import SignatureInvalid, UsageError, command_line
from pipeline.base.files import sha256_bytes
from pipeline.documents.dsse import (
    IN_TOTO,
    PAYLOAD_LIMIT,
    Envelope,
    make_envelope,
    read_envelope,
    signed_bytes,
)
from pipeline.documents.json_form import json_bytes, parse_json
from pipeline.documents.malformed import Malformed

KEY_FILE_LIMIT = 64 * 1024


def key_path(environment: str) -> Path:
    """Return the path of the private key of an environment.

    That is the file named by `TWINBUILD_KEY_<NAME>` (upper case, `-` as `_`), or else
    `twinbuild/keys/<name>.pem` in the user's configuration folder.
    """
    configured = os.environ.get(f"TWINBUILD_KEY_{environment.upper().replace('-', '_')}")
    if configured:
        return Path(configured).absolute()
    return _configuration() / "keys" / f"{environment}.pem"


def renewal_key_path() -> Path:
    """Return the path of the private key that renews upgrade descriptions.

    That is the file named by `TWINBUILD_RENEWAL_KEY`, or else `twinbuild/renewal.pem` in the user's
    configuration folder.
    """
    configured = os.environ.get("TWINBUILD_RENEWAL_KEY")
    return Path(configured).absolute() if configured else _configuration() / "renewal.pem"


def _configuration() -> Path:
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return home / "twinbuild"


def make_key(path: Path) -> str:
    """Make a private key (PEM, PKCS #8, readable by its owner only); return its public half in hex.

    The file is written completely or not at all. Raise UsageError if it exists already, as a key is
    never overwritten; SignatureInvalid if others can write to its folder.
    """
    signer = CryptoSigner.generate_ed25519()
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        private_file.check_folder(path.parent, f"the key {path.name}")
        _write_new(path, signer.private_bytes)
    except FileExistsError:
        remedy = "use it, or move it away first"
        raise UsageError(f"there is a key {path} already", remedy=remedy) from None
    except OSError as error:
        raise UsageError(f"cannot write the key {path}: {error.strerror}") from error
    return public_hex(signer)


def _write_new(path: Path, content: bytes) -> None:
    """Write a private file that must not exist yet; it appears once its content is on disk."""
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        os.link(temporary, path)  # unlike a rename, fails if the path exists
    finally:
        Path(temporary).unlink()


def load_key(path: Path, *, made_by: str = "keygen --environment NAME") -> CryptoSigner:
    """Read a private key; `made_by` is the task that makes one.

    Raise SignatureInvalid if it is missing, is not an ed25519 key, or can be read by others.
    """
    remedy = f"restore it, or make one: {command_line(made_by)}"
    content = private_file.read(path, "the key", limit=KEY_FILE_LIMIT, remedy=remedy)
    try:
        key = load_pem_private_key(content, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SignatureInvalid(f"{path} is not a PEM private key without passphrase") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SignatureInvalid(f"the key {path} is not an ed25519 key")
    public = key.public_key().public_bytes_raw().hex()
    return CryptoSigner(key, _public_key(public))


def public_hex(key: CryptoSigner) -> str:
    """Return the raw public half of a key in lower-case hexadecimal, as `farm.yaml` pins it."""
    return str(key.public_key.keyval["public"])


def sign(payload: Mapping[str, object], key: CryptoSigner) -> dict[str, object]:
    """Sign a document with a loaded key; return the envelope, ready for `write_json`."""
    content = json_bytes(payload)
    if len(content) > PAYLOAD_LIMIT:
        raise SignatureInvalid(f"a statement of {len(content)} bytes is too large to sign")
    made = key.sign(signed_bytes(IN_TOTO, content))
    return make_envelope(IN_TOTO, content, made.keyid, bytes.fromhex(made.signature))


def verify(envelope: object, trusted: Collection[str]) -> dict[str, object]:
    """Return the document in an envelope if one of the `trusted` public keys (hex) signed it.

    Raise SignatureInvalid if none did, or if the envelope or document is malformed or too large.
    """
    parsed = _parse(envelope)
    keys = {key.keyid: key for key in map(_public_key, trusted)}
    signed = signed_bytes(IN_TOTO, parsed.payload)
    for each in parsed.signatures:
        made = Signature(each.keyid, each.signature.hex())
        if each.keyid in keys and _holds(keys[each.keyid], made, signed):
            return _document(parsed.payload)
    signers = ", ".join(sorted(each.keyid for each in parsed.signatures))
    raise SignatureInvalid(
        f"no trusted key has signed the statement (it names {signers or 'no key'})",
        remedy="compare with keys.environments in farm.yaml",
    )


def _holds(key: SSlibKey, signature: Signature, signed: bytes) -> bool:
    try:
        key.verify_signature(signature, signed)
    except UnverifiedSignatureError:
        return False
    return True


def unverified_payload(envelope: object) -> dict[str, object]:
    """Return the document in an envelope without verifying its signature; for display only."""
    return _document(_parse(envelope).payload)


def _public_key(public: str) -> SSlibKey:
    try:
        raw = bytes.fromhex(public)
    except ValueError:
        raw = b""
    if len(raw) != 32:
        raise SignatureInvalid(f"{public[:80]!r} is not an ed25519 public key in hexadecimal")
    return SSlibKey(sha256_bytes(raw), "ed25519", "ed25519", {"public": raw.hex()})


def _parse(envelope: object) -> Envelope:
    try:
        return read_envelope(envelope, IN_TOTO, PAYLOAD_LIMIT)
    except Malformed as error:
        raise SignatureInvalid(f"a statement is malformed: {error}") from error


def _document(payload: bytes) -> dict[str, object]:
    try:
        document = parse_json(payload)
    except (ValueError, RecursionError) as error:
        raise SignatureInvalid(f"the payload of a statement is not JSON: {error}"[:300]) from error
    if not isinstance(document, dict):
        raise SignatureInvalid("the payload of a statement is not a JSON object")
    return document
