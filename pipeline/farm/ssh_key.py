# SPDX-License-Identifier: GPL-3.0-or-later
"""SSH public keys as in `id_ed25519.pub`: their normal form and their fingerprints."""

import base64
import hashlib
import re
from pathlib import Path

TYPES = (
    "ssh-ed25519",
    "sk-ssh-ed25519@openssh.com",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "ssh-rsa",
)
LINE = re.compile(r"([a-z0-9@.-]+) ([A-Za-z0-9+/]{20,8000}={0,2})(?: ([ -~]{1,200}))?")


def checked(line: str) -> str:
    """Return a public key as a line without its comment, so that each key has one form.

    Raise ValueError if it is malformed, or if options stand before it.
    """
    match = LINE.fullmatch(line)
    if not match or match[1] not in TYPES:
        raise ValueError("it is not an SSH public key as in id_ed25519.pub, of one line")
    blob = _blob(line)
    kind, at = _field(blob, 0), 0
    while at < len(blob):
        at += 4 + len(_field(blob, at))
    if kind != match[1].encode() or 4 + len(kind) == len(blob):
        raise ValueError(f"the key is not of the type {match[1]}")
    return f"{match[1]} {match[2]}"


def fingerprint(line: str) -> str:
    """Return the fingerprint of a public key as `ssh-keygen -l` prints it."""
    return _named(_blob(line))


def signer_of(armoured: bytes) -> str:
    """Return the fingerprint of the key that a signature names, without verifying anything.

    The format is PROTOCOL.sshsig of OpenSSH: "SSHSIG", a version of four bytes, the public key.
    """
    try:
        lines = armoured.split(b"-----END SSH SIGNATURE-----")[0].split(b"\n")[1:]
        return _named(_field(base64.b64decode(b"".join(lines), validate=True), 10))
    except ValueError:
        return "which is malformed"


def allow(line: str, path: Path) -> None:
    """Write an allowed-signers file (ssh-keygen(1)) in which only this key may sign for git."""
    kind, blob, *_ = line.split(" ")
    path.write_text(f'{fingerprint(line)} namespaces="git" {kind} {blob}\n')


def _blob(line: str) -> bytes:
    return base64.b64decode(line.split(" ")[1], validate=True)


def _field(blob: bytes, at: int) -> bytes:
    """Return the string at an offset in SSH's wire format; raise ValueError if it is truncated."""
    length = int.from_bytes(blob[at : at + 4], "big")
    value = blob[at + 4 : at + 4 + length]
    if not value or len(value) != length:
        raise ValueError("it is cut off")
    return value


def _named(blob: bytes) -> str:
    digest = base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
    return f"SHA256:{digest}"
