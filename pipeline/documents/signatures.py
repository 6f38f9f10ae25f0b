# SPDX-License-Identifier: GPL-3.0-or-later
r"""OpenPGP signatures: judges gpg's and gpgv's status lines, and reads keyrings.

The status lines are those of `doc/DETAILS` in GnuPG's source. They are bytes, and end with `\n`
alone: gpg escapes that in a user ID, but no other character that some language takes for the end
of a line. All lines about one signature stand between its NEWSIG and the next. gpgv ends with
status 0 for signatures by expired and revoked keys, so only these lines tell; and since a later
version may have new words for what is wrong, a word that is not known to be harmless is refused.

`verify.py` is put together from this, among others: Python 3.9, the standard library alone.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass

FUTURE_TOLERANCE_S = 300  # how far ahead of ours the signer's clock may be
SIGNATURES_LIMIT = 16
GPGV_OPTIONS = ("--weak-digest", "SHA1", "--weak-digest", "RIPEMD160")

FINGERPRINT = re.compile(r"[0-9A-F]{40}(?:[0-9A-F]{24})?")
STRONG_DIGESTS = (b"8", b"9", b"10", b"12", b"14")  # SHA-256, -384, -512, SHA3-256, -512
WEAK_DIGESTS = {b"1": "MD5", b"2": "SHA-1", b"3": "RIPEMD160", b"11": "SHA-224"}
HARMLESS = frozenset(
    b"KEY_CONSIDERED SIG_ID NOTATION_NAME NOTATION_FLAGS NOTATION_DATA POLICY_URL"
    b" PLAINTEXT_LENGTH PROGRESS VERIFICATION_COMPLIANCE_MODE TRUST_UNDEFINED TRUST_MARGINAL"
    b" TRUST_FULLY TRUST_ULTIMATE"
    b" KEYEXPIRED".split()  # of subkeys that were not used, too: EXPKEYSIG is the refusal
)
FAULTS = {
    b"BADSIG": "the signature is bad: this is not what was signed",
    b"REVKEYSIG": "the key that signed was revoked",
    b"KEYREVOKED": "the key that signed was revoked",
    b"EXPSIG": "the signature has expired",
    b"EXPKEYSIG": "the key that signed has expired: get its renewed form from whom you trust",
    b"TRUST_NEVER": "the key that signed is marked as not to be trusted",
}
OF_A_SIGNATURE = frozenset({b"GOODSIG", b"VALIDSIG", b"ERRSIG", b"NO_PUBKEY", *FAULTS})
NO_SIGNATURE = frozenset({b"NODATA", b"UNEXPECTED", b"BADARMOR"})


class Untrusted(Exception):
    """There is no signature that counts; the text says why, `detail` is gpg's output."""

    detail = ""


@dataclass(frozen=True)
class Signature:
    """One signature as gpg saw it.

    `fault` is why it does not count, None if it is good. `key` and `primary` are the fingerprints
    of the key that made it and of its primary key; of a key that is not in the keyring they are
    what the signature claims, perhaps a key ID only. `made` is when, in seconds since 1970.
    """

    fault: str | None
    key: str
    primary: str
    made: int = 0

    def is_by(self, fingerprint: str | None) -> bool:
        """Tell whether this key, or this primary key, has made it; None is any."""
        return fingerprint in (None, self.key, self.primary)


def judge(status: bytes, *, now: float, text: bool = False) -> list[Signature]:
    """Return what gpg's status lines say of each signature, in their order.

    `now` is the time in seconds since 1970; `text` is for a clear-signed document, whose signatures
    may be over text with any line ends instead of the exact bytes. Raise Untrusted if the lines are
    damaged, hold a word that is not known, or speak of no signature.
    """
    groups = _groups(status)
    signatures = [_signature(lines, now, text=text) for lines in groups[1:]]
    if not signatures or groups[0] != [[b"PLAINTEXT"]] * text:
        raise Untrusted("there is no OpenPGP signature, or it is not of the kind that is expected")
    return signatures


def all_good(signatures: list[Signature]) -> list[Signature]:
    """Return the signatures if every one is good; raise Untrusted with the first fault if not."""
    for signature in signatures:
        if signature.fault:
            raise Untrusted(signature.fault)
    return signatures


def any_good(signatures: list[Signature]) -> list[Signature]:
    """Return the good ones of the signatures; raise Untrusted if there is none, or a bad one."""
    faults = [signature.fault for signature in signatures if signature.fault]
    good = [signature for signature in signatures if not signature.fault]
    if FAULTS[b"BADSIG"] in faults:
        raise Untrusted(FAULTS[b"BADSIG"])
    if not good:
        raise Untrusted("; ".join(faults))
    return good


def _groups(status: bytes) -> list[list[list[bytes]]]:
    """Return the lines that say something of a signature, split into words, by signature.

    The first group is of no signature; it has a line for each text that was signed.
    """
    *lines, rest = status.split(b"\n")
    if rest:
        raise Untrusted("gpg's status lines are cut off")
    groups: list[list[list[bytes]]] = [[]]
    for line in lines:
        prefix, _, content = line.partition(b" ")
        words = content.split(b" ")
        if prefix != b"[GNUPG:]":
            raise Untrusted("gpg's status lines are damaged")
        if words[0] == b"NEWSIG":
            groups.append([])
        elif words[0] == b"PLAINTEXT":
            groups[0].append(words[:1])
        elif words[0] in OF_A_SIGNATURE and len(groups) > 1:
            groups[-1].append(words)
        elif words[0] in NO_SIGNATURE:
            raise Untrusted("there is no OpenPGP signature, or something else beside it")
        elif words[0] not in HARMLESS:
            raise Untrusted(f"gpg says what is not understood here: {ascii(words[0])[2:-1]:.40}")
    return groups


def _signature(lines: list[list[bytes]], now: float, *, text: bool) -> Signature:
    found = {line[0]: line for line in lines}
    valid = _valid(found[b"VALIDSIG"]) if b"VALIDSIG" in found else None
    key, primary, made = valid or (_claimed(found), _claimed(found), 0)
    fault = next((FAULTS[word] for word in FAULTS if word in found), None)
    if fault is None and {b"ERRSIG", b"NO_PUBKEY"} & found.keys():
        fault = _unchecked(found.get(b"ERRSIG", []), key)
    if fault is None and sorted(line[0] for line in lines) != [b"GOODSIG", b"VALIDSIG"]:
        fault = "the signature is not one good and valid signature"
    if fault is None:
        fault = _misfit(found[b"VALIDSIG"], now, text=text)
    return Signature(fault, key, primary, made)


def _valid(words: list[bytes]) -> tuple[str, str, int]:
    """Return the fingerprints and the time in a VALIDSIG line; raise Untrusted if it is damaged."""
    key, primary = words[1].decode("ascii", "replace"), words[-1].decode("ascii", "replace")
    well_formed = len(words) == 11 and FINGERPRINT.fullmatch(key) and FINGERPRINT.fullmatch(primary)
    if not well_formed or not re.fullmatch(rb"[0-9]{1,10} [0-9]{1,10}", b" ".join(words[3:5])):
        raise Untrusted("gpg's status lines are damaged")
    return key, primary, int(words[3])


def _claimed(found: dict[bytes, list[bytes]]) -> str:
    """Return the fingerprint, or the key ID, that a signature claims to be by."""
    line = next((line for line in found.values() if len(line) > 1), [b"", b"unknown"])
    claims = [line[-1], line[1]] if line[0] == b"ERRSIG" else [line[1]]
    names = [claim for claim in claims if re.fullmatch(rb"[0-9A-F]{16,64}", claim)]
    return names[0].decode() if names else "unknown"


def _unchecked(errsig: list[bytes], key: str) -> str:
    """Return why a signature could not be checked at all; `errsig` are the words of ERRSIG."""
    if len(errsig) > 6 and errsig[6] == b"5":
        return f"the signature uses the weak digest {WEAK_DIGESTS.get(errsig[3], 'of its kind')}"
    if len(errsig) > 6 and errsig[6] != b"9":
        return f"the signature by the key {key} is of a kind that gpg cannot check"
    return f"the signature is by the key {key}, which is not in the keyring"


def _misfit(valid: list[bytes], now: float, *, text: bool) -> str | None:
    """Return what is wrong with a signature that gpg itself calls good."""
    made, ends, digest, form = int(valid[3]), int(valid[4]), valid[8], valid[9]
    if digest not in STRONG_DIGESTS:
        return f"the signature uses the weak digest {WEAK_DIGESTS.get(digest, 'of its kind')}"
    if form not in ((b"00", b"01") if text else (b"00",)):
        return "the signature is not over the exact bytes"
    if made > now + FUTURE_TOLERANCE_S:
        return "the signature is from the future: check this machine's clock, and the signer's"
    if 0 < ends <= now:
        return FAULTS[b"EXPSIG"]
    return None


# --- packets (RFC 9580) --------------------------------------------------------------------------

SIGNED, SECRET_KEY, KEY, SECRET_SUBKEY, USER_ID, SUBKEY, USER_ATTRIBUTE = 2, 5, 6, 7, 13, 14, 17
KEY_REVOCATION, DIRECT_KEY = 0x20, 0x1F


def dearmour(content: bytes) -> bytes:
    """Return OpenPGP packets in binary form; raise ValueError if armour is malformed.

    A keybox stays as it is. Armoured text may have been saved as UTF-16 or with a byte order mark,
    as some editors do.
    """
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        content = content.decode("utf-16", "replace").encode("ascii", "replace")
    if content.startswith(b"\xef\xbb\xbf"):
        content = content[3:]
    if content[:1] >= b"\x80" or content[8:12] == b"KBXf":
        return content
    packets, body, state = b"", b"", "outside"
    for line in (line.strip() for line in content.split(b"\n")):
        if line.startswith(b"-----BEGIN PGP "):
            body, state = b"", "headers"
        elif line.startswith(b"-----END PGP ") and state == "body":
            packets += base64.b64decode(body, validate=True)
            state = "outside"
        elif state == "headers" and not line:
            state = "body"
        elif state == "body" and not line.startswith(b"="):  # that line is a checksum
            body += line
    if not packets or state != "outside":
        raise ValueError("no OpenPGP data in it")
    return packets


def check_only_signatures(packets: bytes) -> None:
    """Raise ValueError unless these are OpenPGP signature packets and nothing else.

    A signed message in the place of a detached signature could vouch for itself.
    """
    count = 0
    for tag, _ in read_packets(packets):
        count += 1
        if tag != SIGNED or count > SIGNATURES_LIMIT:
            raise ValueError("it is not a detached signature")
    if not count:
        raise ValueError("it is empty")


def read_packets(packets: bytes) -> Iterator[tuple[int, bytes]]:
    """Give the tag and the body of each packet; raise ValueError at what is none."""
    offset = 0
    while offset < len(packets):
        tag, start, length = _header(packets, offset)
        offset = start + length
        if offset > len(packets):
            raise ValueError("it is cut off")
        yield tag, packets[start:offset]


def _header(packets: bytes, offset: int) -> tuple[int, int, int]:
    """Return the tag of the packet at `offset`, where its body starts and how long that is."""
    head, rest = packets[offset], packets[offset + 1 : offset + 6] + bytes(5)
    if head & 0xC0 == 0xC0:
        if rest[0] < 192:
            return head & 0x3F, offset + 2, rest[0]
        if rest[0] < 224:
            return head & 0x3F, offset + 3, (rest[0] - 192 << 8) + rest[1] + 192
        if rest[0] == 255:
            return head & 0x3F, offset + 6, int.from_bytes(rest[1:5], "big")
    elif head & 0x80 and head & 3 < 3:
        octets = 1 << (head & 3)
        return head >> 2 & 15, offset + 1 + octets, int.from_bytes(rest[:octets], "big")
    raise ValueError("it is not made of OpenPGP packets")


def read_keyring(content: bytes) -> bytes:
    """Return the public keys of a file as packets, each key once with all that is known of it.

    `content` is armoured, binary or a keybox. gpgv looks at the first copy of a key alone, whose
    revocation or expiry may stand in a later one; so the copies are joined, as `gpg --import` joins
    them. Raise ValueError if it is no keyring.
    """
    packets = dearmour(content)
    packets = _keybox(packets) if packets[8:12] == b"KBXf" else packets
    keys: dict[bytes, dict[tuple[int, bytes], dict[bytes, None]]] = {}
    revocations: dict[bytes, None] = {}
    parts: dict[tuple[int, bytes], dict[bytes, None]] = {}
    signatures: dict[bytes, None] | None = None  # of the part that was read last
    for tag, body in read_packets(packets):
        if tag in (SECRET_KEY, SECRET_SUBKEY):
            raise ValueError("it holds a secret key: gpg --export gives the public one")
        if tag == KEY:
            parts = keys.setdefault(body, {})
            signatures = parts.setdefault((tag, body), {})
        elif tag in (USER_ID, USER_ATTRIBUTE, SUBKEY) and parts:
            signatures = parts.setdefault((tag, body), {})
        elif tag == SIGNED and _kind(body) == KEY_REVOCATION:
            revocations[body] = None
        elif tag == SIGNED and signatures is not None:
            signatures = next(iter(parts.values())) if _kind(body) == DIRECT_KEY else signatures
            signatures[body] = None
    if not keys:
        raise ValueError("there is no public key in it")
    return b"".join(_joined(parts, revocations) for parts in keys.values())


def _kind(signature: bytes) -> int:
    """Return the type of a signature packet; 0 if it is malformed."""
    at = 2 if signature[:1] == b"\x03" else 1
    return signature[at] if len(signature) > at else 0


def _joined(
    parts: dict[tuple[int, bytes], dict[bytes, None]], revocations: dict[bytes, None]
) -> bytes:
    """Return a key as packets: itself, its user IDs, its subkeys, each with its signatures.

    It gets every revocation there is: a revocation certificate need not stand behind its key, and
    one that is of another key means nothing.
    """
    joined = []
    for tag, body in sorted(parts, key=lambda part: (part[0] != KEY, part[0] == SUBKEY)):
        signatures = [*(revocations if tag == KEY else ()), *parts[tag, body]]
        joined += [(tag, body), *((SIGNED, signature) for signature in signatures)]
    return b"".join(
        bytes([0xC0 | tag, 0xFF]) + len(body).to_bytes(4, "big") + body for tag, body in joined
    )


def _keybox(content: bytes) -> bytes:
    """Return the packets in a keybox, gpg's own form of a keyring (`kbx/keybox-blob.c`)."""
    packets, offset = b"", 0
    while offset < len(content):
        blob = content[offset : offset + int.from_bytes(content[offset : offset + 4], "big")]
        if len(blob) < 16:
            raise ValueError("it is a damaged keybox")
        if blob[4] == 2:  # a key of OpenPGP
            start, length = (int.from_bytes(blob[at : at + 4], "big") for at in (8, 12))
            packets += blob[start : start + length]
        offset += len(blob)
    return packets
