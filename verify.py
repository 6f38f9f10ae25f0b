#!/usr/bin/env python3
"""Verify a release of Twinbuild: one file, the Python standard library (3.9 or later) and gpgv.

    python3 verify.py --url https://example.org --tag 3.3 --keyring KEY.asc --file mini.iso

It downloads SHA256SUMS and its signature from URL/TAG/, checks the signature against the keyring
that you give (never against a key that the server offers), then what the build environments state,
then your files. Exit status: 0 everything asked for holds, 1 a file or a statement differs from the
manifest, 2 wrong usage, 4 network or disk failed, 6 a signature is missing, bad or not trusted.
"""

# This file is longer than others of the project: people must be able to take it alone.

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any

DONE, DIFFERS, USAGE, INFRASTRUCTURE, SIGNATURE = 0, 1, 2, 4, 6

MIB = 1024 * 1024
MANIFEST_LIMIT = 16 * MIB
SIGNATURE_LIMIT = 64 * 1024
STATEMENT_LIMIT = 8 * MIB
KEYRING_LIMIT = 64 * MIB
DOWNLOAD_LIMIT = 16 * 1024 * MIB
NAMES_LIMIT = 10_000
PIECE = MIB
TRIES = 5
GPG_TIMEOUT_S = 60
LINES = 10  # of the report for people

PART = r"[A-Za-z0-9][A-Za-z0-9._+~-]{0,199}"
NAME = re.compile(rf"{PART}(?:/{PART}){{0,3}}")
MANIFEST_LINE = re.compile(rf"([0-9a-f]{{64}})  ({NAME.pattern})")
STATEMENT_NAME = re.compile(r"statements/([a-z][a-z0-9-]{0,39})\.json")
ENVIRONMENT_KEY = re.compile(r"([a-z][a-z0-9-]{0,39})=([0-9a-f]{64})")
PAYLOAD_TYPE = "application/vnd.in-toto+json"
ENVIRONMENT_ID = "https://twinbuild.invalid/environment/"


class Refused(Exception):
    """Something does not hold: an exit status and one line for people."""

    def __init__(self, status: int, what: str) -> None:
        super().__init__(what)
        self.status = status


@dataclass
class Report:
    """What came out, as `--json` prints it; `proven` is for people only."""

    tag: str
    status: int = DONE
    commit: str | None = None
    signer: str | None = None
    verified: list[str] = field(default_factory=list)
    proven: list[str] = field(default_factory=list)
    not_proven: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def refuse(self, refused: Refused) -> None:
        """Take up an error; the first one decides the exit status, a bad signature before all."""
        self.errors.append("".join(c if c.isprintable() else "?" for c in str(refused))[:500])
        if self.status == DONE or refused.status == SIGNATURE:
            self.status = refused.status

    def json(self) -> str:
        """Return the report as one JSON object on one line."""
        keys = ("status", "tag", "commit", "signer", "verified", "not_proven", "errors")
        document = {"ok": self.status == DONE, **{key: getattr(self, key) for key in keys}}
        return json.dumps(document, sort_keys=True)

    def text(self) -> str:
        """Return the report in at most `LINES` lines."""
        head = "verified" if self.status == DONE else f"NOT VERIFIED (status {self.status})"
        lines = [f"{self.tag}: {head}"]
        lines += _first([f"  error: {error}" for error in self.errors], 3)
        lines += _first([f"  proven: {sentence}" for sentence in self.proven], 3)
        open_ends = [f"  not proven: {sentence}" for sentence in self.not_proven]
        return "\n".join(lines + _first(open_ends, LINES - len(lines)))


def _first(lines: list[str], count: int) -> list[str]:
    more = len(lines) - count
    return lines if more <= 0 else [*lines[: count - 1], f"  and {more + 1} more (see --json)"]


# --- what the server has ------------------------------------------------------------------------


@dataclass(frozen=True)
class Release:
    """Where a release lies: URL and tag, and how long (in seconds) to wait for a sign of life."""

    url: str
    tag: str
    timeout_s: float

    def address(self, name: str) -> str:
        """Return the address of one of its files."""
        return f"{self.url.rstrip('/')}/{urllib.parse.quote(self.tag)}/{urllib.parse.quote(name)}"

    def open(self, name: str, offset: int = 0) -> Any:
        """Open one of its files from `offset` on; raises what urllib raises."""
        request = urllib.request.Request(self.address(name))  # noqa: S310
        request.add_header("Accept-Encoding", "identity")
        if offset:
            request.add_header("Range", f"bytes={offset}-")
        return urllib.request.urlopen(request, timeout=self.timeout_s)  # noqa: S310

    def read(self, name: str, limit: int, *, absent: int = INFRASTRUCTURE) -> bytes:
        """Read a small file; `absent` is the exit status if the server has none."""
        try:
            with self.open(name) as response:
                content = bytes(response.read(limit + 1))
                length = response.headers.get("Content-Length", "")
        except (OSError, HTTPException) as error:
            status = absent if _is_absent(error) else INFRASTRUCTURE
            _close(error)
            raise Refused(status, f"cannot read {self.address(name)}: {error}") from error
        if len(content) > limit:
            raise Refused(SIGNATURE, f"{name} is larger than {limit} bytes")
        if length.isdigit() and int(length) != len(content):
            raise Refused(INFRASTRUCTURE, f"{self.address(name)} was cut off: try again")
        return content


class Interrupted(Exception):
    """A download that may be resumed."""


def _close(error: Exception) -> None:
    """Close the response that an HTTP error carries."""
    if isinstance(error, urllib.error.HTTPError):
        error.close()


def _is_absent(error: Exception) -> bool:
    if isinstance(error, urllib.error.HTTPError):
        return error.code in (404, 410)
    return isinstance(getattr(error, "reason", None), FileNotFoundError)


# --- signatures: a copy of pipeline/signatures.py, which explains it -----------------------------

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
    b" KEYEXPIRED".split()  # said of subkeys that were not used, too: EXPKEYSIG is the refusal
)
FAULTS = {
    b"BADSIG": "the signature is bad: this is not what was signed",
    b"REVKEYSIG": "the key that signed was revoked",
    b"KEYREVOKED": "the key that signed was revoked",
    b"EXPSIG": "the signature has expired",
    b"EXPKEYSIG": "the key that signed has expired: get its renewed form from whom you trust",
    b"TRUST_NEVER": "the key that signed is marked as not to be trusted",
}
SAID_OF_A_SIGNATURE = frozenset({b"GOODSIG", b"VALIDSIG", b"ERRSIG", b"NO_PUBKEY", *FAULTS})
NO_SIGNATURE = frozenset({b"NODATA", b"UNEXPECTED", b"BADARMOR"})


class Untrusted(Exception):
    """There is no signature that counts; the text says why, `detail` what gpg said."""

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

    The first group is of no signature; it has a line for each text that came with them.
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
        elif words[0] in SAID_OF_A_SIGNATURE and len(groups) > 1:
            groups[-1].append(words)
        elif words[0] in NO_SIGNATURE:
            raise Untrusted("there is no OpenPGP signature, or something else beside it")
        elif words[0] not in HARMLESS:
            raise Untrusted(f"gpg says what is not understood here: {ascii(words[0])[2:-1]:.40}")
    return groups


def _signature(lines: list[list[bytes]], now: float, *, text: bool) -> Signature:
    said = {line[0]: line for line in lines}
    valid = _valid(said[b"VALIDSIG"]) if b"VALIDSIG" in said else None
    key, primary, made = valid or (_claimed(said), _claimed(said), 0)
    fault = next((FAULTS[word] for word in FAULTS if word in said), None)
    if fault is None and {b"ERRSIG", b"NO_PUBKEY"} & said.keys():
        fault = _unchecked(said.get(b"ERRSIG", []), key)
    if fault is None and sorted(line[0] for line in lines) != [b"GOODSIG", b"VALIDSIG"]:
        fault = "the signature is not one good and valid signature"
    if fault is None:
        fault = _misfit(said[b"VALIDSIG"], now, text=text)
    return Signature(fault, key, primary, made)


def _valid(words: list[bytes]) -> tuple[str, str, int]:
    """Return the fingerprints and the time in a VALIDSIG line; raise Untrusted if it is damaged."""
    key, primary = words[1].decode("ascii", "replace"), words[-1].decode("ascii", "replace")
    well_formed = len(words) == 11 and FINGERPRINT.fullmatch(key) and FINGERPRINT.fullmatch(primary)
    if not well_formed or not re.fullmatch(rb"[0-9]{1,10} [0-9]{1,10}", b" ".join(words[3:5])):
        raise Untrusted("gpg's status lines are damaged")
    return key, primary, int(words[3])


def _claimed(said: dict[bytes, list[bytes]]) -> str:
    """Return the fingerprint, or the key ID, of which a signature claims to be."""
    line = next((said[word] for word in said if len(said[word]) > 1), [b"", b"unknown"])
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


# --- end of the copy -----------------------------------------------------------------------------


def check_signature(manifest: bytes, signature: bytes, keyring: bytes, pin: str | None) -> str:
    """Return the primary fingerprint of the key that signed `manifest`; raise Refused if none did.

    Every signature must be good and by a key in `keyring`, one of them by the key `pin` if given.
    """
    try:
        keys = read_keyring(keyring)
    except ValueError as error:
        raise Refused(SIGNATURE, f"the keyring is none: {error}") from error
    try:
        packets = dearmour(signature)
        check_only_signatures(packets)
    except ValueError as error:
        raise Refused(SIGNATURE, f"what should be a signature is none: {error}") from error
    with tempfile.TemporaryDirectory(prefix="verify-") as folder:
        home = Path(folder)
        for name, content in (("keyring", keys), ("signature", packets), ("data", manifest)):
            (home / name).write_bytes(content)
        status, complaint = _gpg(home)
    try:
        signatures = all_good(judge(status, now=time.time()))
    except Untrusted as error:
        raise Refused(SIGNATURE, str(error)) from error
    if complaint:
        raise Refused(SIGNATURE, f"there is no good signature: {complaint}")
    for made in signatures:
        if made.is_by(pin):
            return made.primary
    raise Refused(SIGNATURE, f"the signature is by {signatures[0].primary}, not by {pin}")


def _gpg(home: Path) -> tuple[bytes, str]:
    """Run gpgv, or gpg where there is no gpgv; return its status lines and what it complained of.

    The status goes to a file of its own that nothing else writes to: user names and notations in
    what gpgv prints for people can look like status lines.
    """
    keyring, files = str(home / "keyring"), [str(home / "signature"), str(home / "data")]
    program = shutil.which("gpgv") or shutil.which("gpg")
    if program is None:
        raise Refused(USAGE, "neither gpgv nor gpg is installed: install the package gpgv")
    options = ["--homedir", str(home), "--keyring", keyring, *GPGV_OPTIONS]
    if Path(program).name == "gpg":
        options += ["--batch", "--no-options", "--no-default-keyring", "--trust-model", "always"]
        options += ["--no-auto-key-retrieve", "--disable-dirmngr"]
        files = ["--verify", *files]
    with (home / "status").open("w+b") as status:
        number = status.fileno()
        try:
            done = subprocess.run(
                [program, *options, "--status-fd", str(number), *files],
                env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "HOME": str(home)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=[number],
                timeout=GPG_TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Refused(SIGNATURE, f"{program} failed: {error}") from error
        status.seek(0)
        complaint = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        problem = complaint or f"{program} ended with status {done.returncode}"
        return status.read(), problem if done.returncode else ""


# --- manifest and statements --------------------------------------------------------------------


def parse_manifest(content: bytes) -> dict[str, str]:
    """Return the digests in a SHA256SUMS by name; refuse it all if one line is not as expected."""
    digests: dict[str, str] = {}
    lines = content.decode("ascii", "replace").split("\n")
    if lines.pop() or not 0 < len(lines) <= NAMES_LIMIT:
        raise Refused(SIGNATURE, "the manifest is empty, too long or cut off")
    for line in lines:
        match = MANIFEST_LINE.fullmatch(line)
        if not match or match[2] in digests:
            raise Refused(SIGNATURE, f"the manifest has a bad line: {line[:100]!r}")
        digests[match[2]] = match[1]
    return digests


@dataclass(frozen=True)
class Statement:
    """What an environment says about its build, as far as it is checked here."""

    tag: str
    commit: str
    common: str  # all that the environments must state alike, as JSON
    job: dict[str, Any]
    artifacts: dict[str, str]
    others: dict[str, str]  # further files of the manifest that it vouches for


def parse_statement(envelope: Any, environment: str, public: str | None) -> Statement:
    """Read the statement of `environment`, signed by the ed25519 key `public` (hex) if given."""
    try:
        payload = base64.b64decode(envelope["payload"], validate=True)
        if public is not None:
            _check_envelope(envelope, payload, bytes.fromhex(public))
        document = json.loads(payload)
        definition = document["predicate"]["buildDefinition"]
        details = document["predicate"]["runDetails"]
        asked = definition["externalParameters"]
        lock = definition["resolvedDependencies"][1]["digest"]["sha256"]
        job = definition["internalParameters"]["job"]
        others = {f"{environment}/{k}": v for k, v in _digests(details["byproducts"]).items()}
        if details["builder"]["id"] != ENVIRONMENT_ID + environment:
            raise ValueError("it is of another environment")  # noqa: TRY301
        if not re.fullmatch("[0-9a-f]{40}", asked["commit"]):
            raise ValueError("it names no commit")  # noqa: TRY301
        return Statement(
            tag=str(asked["tag"] or ""),
            commit=asked["commit"],
            common=json.dumps([document["subject"], asked, lock, job], sort_keys=True),
            job=dict(job),
            artifacts=_digests(document["subject"]),
            others={"lock": lock, **others},
        )
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RecursionError) as error:
        raise Refused(SIGNATURE, f"the statement of {environment} is no good: {error}") from error


def _digests(entries: Any) -> dict[str, str]:
    return {str(entry["name"]): str(entry["digest"]["sha256"]) for entry in entries}


def _check_envelope(envelope: Any, payload: bytes, public: bytes) -> None:
    """Raise ValueError unless the key has signed the DSSE envelope."""
    kind = PAYLOAD_TYPE.encode()
    signed = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
    if envelope["payloadType"] != PAYLOAD_TYPE or len(envelope["signatures"]) > SIGNATURES_LIMIT:
        raise ValueError("it is of an unknown type")
    signatures = [base64.b64decode(s["sig"], validate=True) for s in envelope["signatures"]]
    if not any(ed25519_holds(public, signed, signature) for signature in signatures):
        raise ValueError("it is not signed by the key that you gave")


def read_statements(
    read: Callable[[str, int], bytes], manifest: dict[str, str], keys: dict[str, str]
) -> dict[str, Statement]:
    """Return the statements that the manifest names, by environment.

    `read` gives a file of the release by its name, of at most so many bytes.
    """
    statements = {}
    for file in sorted(manifest):
        match = STATEMENT_NAME.fullmatch(file)
        if match:
            content = read(file, STATEMENT_LIMIT)
            if hashlib.sha256(content).hexdigest() != manifest[file]:
                raise Refused(DIFFERS, f"{file} differs from the manifest")
            try:
                envelope = json.loads(content)
            except (ValueError, RecursionError) as error:
                raise Refused(SIGNATURE, f"{file} is not JSON") from error
            statements[match[1]] = parse_statement(envelope, match[1], keys.get(match[1]))
    missing = sorted(keys.keys() - statements.keys())
    if missing:
        raise Refused(SIGNATURE, f"there is no statement of {', '.join(missing)}")
    return statements


def check_statements(
    statements: dict[str, Statement], manifest: dict[str, str], tag: str
) -> Statement:
    """Return what all environments state alike; raise Refused where they or the manifest differ."""
    if len(statements) < 2:
        raise Refused(SIGNATURE, f"{len(statements)} environments have stated a result, not two")
    first = next(iter(statements.values()))
    for name, statement in statements.items():
        if statement.tag != tag:
            raise Refused(SIGNATURE, f"the manifest is of the release {statement.tag!r:.80}")
        if statement.common != first.common:
            raise Refused(DIFFERS, f"the statements of the environments differ: {name}")
        for file, digest in {**statement.artifacts, **statement.others}.items():
            if manifest.get(file) != digest:
                raise Refused(DIFFERS, f"{file} is not in the manifest as {name} states it")
    return first


# --- ed25519 (RFC 8032): the standard library has none, and checking needs no secrets -----------

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
ROOT = pow(2, (P - 1) // 4, P)
Point = tuple[int, int, int, int]  # extended homogeneous coordinates


def ed25519_holds(public: bytes, message: bytes, signature: bytes) -> bool:
    """Tell whether an ed25519 signature holds."""
    key, commitment = _decompress(public), _decompress(signature[:32])
    scalar = int.from_bytes(signature[32:], "little")
    if len(signature) != 64 or key is None or commitment is None or scalar >= ORDER:
        return False
    digest = hashlib.sha512(signature[:32] + public + message).digest()
    challenge = int.from_bytes(digest, "little") % ORDER
    left, right = _times(scalar, BASE), _add(commitment, _times(challenge, key))
    return (
        (left[0] * right[2] - right[0] * left[2]) % P
        == 0
        == (left[1] * right[2] - right[1] * left[2]) % P
    )


def _add(a: Point, b: Point) -> Point:
    m, n = (a[1] - a[0]) * (b[1] - b[0]) % P, (a[1] + a[0]) * (b[1] + b[0]) % P
    c, d = 2 * a[3] * b[3] * D % P, 2 * a[2] * b[2] % P
    e, f, g, h = n - m, d - c, d + c, n + m
    return e * f % P, g * h % P, f * g % P, e * h % P


def _times(scalar: int, point: Point) -> Point:
    result = (0, 1, 1, 0)
    while scalar:
        if scalar & 1:
            result = _add(result, point)
        point, scalar = _add(point, point), scalar >> 1
    return result


def _decompress(encoded: bytes) -> Point | None:
    y = int.from_bytes(encoded, "little") & (1 << 255) - 1
    if len(encoded) != 32 or y >= P:
        return None
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * ROOT % P
    if (x * x - square) % P or (not x and encoded[31] >> 7):
        return None
    if x & 1 != encoded[31] >> 7:
        x = P - x
    return x, y, 1, x * y % P


BASE_Y = 4 * pow(5, P - 2, P) % P
BASE_X = 15112221349535400772501151409588531511454012693041857206046113283949847762202
BASE = (BASE_X, BASE_Y, 1, BASE_X * BASE_Y % P)


# --- files --------------------------------------------------------------------------------------


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file of any size."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(PIECE))
    with path.open("rb", buffering=0) as file:
        for length in iter(lambda: file.readinto(buffer) or 0, 0):
            digest.update(buffer[:length])
    return digest.hexdigest()


def check_file(path: Path, manifest: dict[str, str]) -> str:
    """Return the name under which the manifest has this file, by its own name and content."""
    names = [name for name in manifest if name.rpartition("/")[2] == path.name]
    if not names:
        raise Refused(DIFFERS, f"{path.name} is not in the manifest")
    try:
        found = sha256(path)
    except OSError as error:
        raise Refused(USAGE, f"cannot read {path}: {error.strerror}") from error
    for name in names:
        if manifest[name] == found:
            return name
    raise Refused(DIFFERS, f"{path} differs: it has {found}, not {manifest[names[0]]}")


def download(release: Release, name: str, digest: str, folder: Path) -> None:
    """Download a file into `folder`; it gets its name once its content is what was signed.

    What an interrupted download has left in `<name>.part` is not downloaded again.
    """
    path = folder / name
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            if sha256(path) != digest:
                raise Refused(DIFFERS, f"{path} is there and differs: move it away")
            return
        resumed = part.exists()
        _download(release, name, part)
        if resumed and sha256(part) != digest:  # the part was of something else: once from scratch
            part.unlink()
            _download(release, name, part)
        if sha256(part) != digest:
            part.unlink()
            raise Refused(DIFFERS, f"{release.address(name)} differs from the manifest")
        part.replace(path)
    except OSError as error:
        raise Refused(INFRASTRUCTURE, f"cannot write {path}: {error.strerror}") from error


def _download(release: Release, name: str, part: Path) -> None:
    """Fill `part` from where it ends, and go on after interruptions as long as that helps."""
    for _ in range(TRIES):
        size = part.stat().st_size if part.exists() else 0
        try:
            if _more(release, name, part, size):
                return
            problem = "the connection was cut off"
        except urllib.error.HTTPError as error:
            problem = str(error)
            error.close()
            if error.code == 416 and size:
                part.unlink()
            elif error.code < 500:
                break
        except Interrupted as error:
            problem = str(error)
    raise Refused(INFRASTRUCTURE, f"{release.address(name)}: {problem}; try again to resume")


def _more(release: Release, name: str, part: Path, offset: int) -> bool:
    """Add to `part` what a request from `offset` on gives; tell whether that was all."""
    try:
        response = release.open(name, offset)
    except urllib.error.HTTPError:
        raise
    except (OSError, HTTPException) as error:
        raise Interrupted(str(error)) from error
    with response:
        resumed = response.headers.get("Content-Range", "").startswith(f"bytes {offset}-")
        length = response.headers.get("Content-Length", "")
        written = offset if resumed else 0
        end = written + int(length) if length.isdigit() else None
        with part.open("ab" if resumed else "wb") as file:
            for piece in _pieces(response):
                written += len(piece)
                if written > DOWNLOAD_LIMIT:
                    raise Refused(DIFFERS, f"{name} is larger than {DOWNLOAD_LIMIT} bytes")
                file.write(piece)
    return end in (None, written)


def _pieces(response: Any) -> Iterator[bytes]:
    while True:
        try:
            piece = response.read(PIECE)
        except (OSError, HTTPException) as error:
            raise Interrupted(str(error)) from error
        if not piece:
            return
        yield piece


# --- the command --------------------------------------------------------------------------------


def verify(options: argparse.Namespace, report: Report) -> None:
    """Do what was asked for and fill the report; raise Refused where it cannot go on."""
    keyring = _keyring(options.keyring)
    release = Release(options.url, options.tag, options.timeout)
    content = release.read("SHA256SUMS", MANIFEST_LIMIT)
    signature = release.read("SHA256SUMS.asc", SIGNATURE_LIMIT, absent=SIGNATURE)
    report.signer = check_signature(content, signature, keyring, options.fingerprint)
    report.proven.append(f"SHA256SUMS of {options.url} {options.tag} is signed by {report.signer}")
    report.verified.append("SHA256SUMS")
    manifest = parse_manifest(content)
    statements = read_statements(release.read, manifest, dict(options.environment_key))
    common = check_statements(statements, manifest, options.tag)
    names = " and ".join(statements)
    report.commit = common.commit
    report.proven.append(f"it says that {names} built commit {common.commit} to the same bits")
    report.verified += [f"statements/{name}.json" for name in statements]
    files = _files(options, release, manifest, report)
    report.verified += [name for name in files if name not in report.verified]
    if files:
        shown = ", ".join(files[:3]) + (f" and {len(files) - 3} more" if len(files) > 3 else "")
        report.proven.append(f"what was signed is what you have: {shown}")
    report.not_proven = _not_proven(options, statements, files, common)


def _not_proven(
    options: argparse.Namespace, statements: dict[str, Statement], files: list[str], said: Statement
) -> list[str]:
    sentences = [
        "that source and Debian packages are harmless: both builds used the same ones",
        f"that {' and '.join(statements)} are two parties: one operator may run both",
    ]
    unchecked = [name for name in statements if name not in dict(options.environment_key)]
    if unchecked:
        sentences.append(f"that {', '.join(unchecked)} signed it (--environment-key NAME=HEX)")
    if not files:
        sentences.append("any file: none was checked (--file, --download)")
    elif not said.artifacts.keys() >= set(files):
        sentences.append("that files other than the artifacts were built twice")
    return sentences


def _keyring(path: Path | None) -> bytes:
    """Return the keyring in binary form; without one nothing can be verified."""
    if path is None:
        raise Refused(SIGNATURE, "no keyring: give the release key that you trust by --keyring")
    try:
        with path.open("rb") as file:
            return read_keyring(file.read(KEYRING_LIMIT))
    except OSError as error:
        raise Refused(USAGE, f"cannot read the keyring {path}: {error.strerror}") from error
    except ValueError as error:
        raise Refused(USAGE, f"{path} is not a keyring: {error}") from error


def _files(
    options: argparse.Namespace, release: Release, manifest: dict[str, str], report: Report
) -> list[str]:
    """Check and download every file asked for; take up what fails and go on with the next."""
    files = []
    for path in options.file:
        try:
            files.append(check_file(path, manifest))
        except Refused as refused:
            report.refuse(refused)
    for name in manifest if options.all else options.download:
        try:
            if name not in manifest:
                raise Refused(DIFFERS, f"{name!r} is not in the manifest")  # noqa: TRY301
            download(release, name, manifest[name], options.directory)
            files.append(name)
        except Refused as refused:
            report.refuse(refused)
    return files


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; exits with status 2 if it is wrong."""
    parser = argparse.ArgumentParser(
        prog="verify", description="Verify a release of Twinbuild.", allow_abbrev=False
    )
    add = parser.add_argument
    add("--url", required=True, type=_url, help="where the releases are (http, https or file)")
    add("--tag", required=True, type=_matching(PART), help="the release")
    add("--keyring", type=Path, help="the release key that you trust, a file")
    add("--fingerprint", type=_fingerprint, help="accept only this key of the keyring")
    add("--file", action="append", default=[], type=Path, help="a file that you have")
    add("--download", action="append", default=[], metavar="NAME", help="download and check")
    add("--all", action="store_true", help="download and check everything in the manifest")
    add("--directory", type=Path, default=Path(), help="where downloads go")
    add(
        "--environment-key",
        action="append",
        default=[],
        metavar="NAME=HEX",
        type=_matching(ENVIRONMENT_KEY.pattern),
        help="check the statement of an environment by its ed25519 key",
    )
    add("--json", action="store_true", help="print one JSON object")
    add("--timeout", type=float, default=60.0, help="seconds to wait for a sign of life")
    options = parser.parse_args(argv)
    options.environment_key = [tuple(pair.split("=")) for pair in options.environment_key]
    return options


def _url(value: str) -> str:
    if urllib.parse.urlsplit(value).scheme not in ("http", "https", "file"):
        raise argparse.ArgumentTypeError("it must start with https://, http:// or file://")
    return value


def _fingerprint(value: str) -> str:
    fingerprint = re.sub(r"\s", "", value).upper().removeprefix("0X")
    if not FINGERPRINT.fullmatch(fingerprint):
        raise argparse.ArgumentTypeError("a full fingerprint has 40 (or 64) hexadecimal digits")
    return fingerprint


def _matching(pattern: str) -> Callable[[str], str]:
    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise argparse.ArgumentTypeError(f"{value[:80]!r} is not of the right form")
        return value

    return check


def main(argv: Sequence[str] | None = None) -> int:
    """Verify as the command line says, print the report, return the exit status."""
    try:
        options = parse(sys.argv[1:] if argv is None else argv)
    except SystemExit as end:
        return int(end.code or 0)
    report = Report(options.tag)
    try:
        verify(options, report)
    except Refused as refused:
        report.refuse(refused)
    print(report.json() if options.json else report.text())
    return report.status


if __name__ == "__main__":
    sys.exit(main())
