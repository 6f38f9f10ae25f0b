#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Verify a release of Twinbuild: one file, the Python standard library (3.9 or later) and gpgv.

    python3 verify.py --url https://example.org --tag 3.3 --keyring KEY.asc --file mini.iso

It downloads SHA256SUMS and its signature from URL/TAG/, checks the signature against the keyring
that you give (never against a key that the server offers), then what the build environments state,
then your files. Exit status: 0 everything asked for holds, 1 a file or a statement differs from the
manifest, 2 wrong usage, 4 network or disk failed, 6 a signature is missing, bad or not trusted.
"""

# This file is put together from modules of Twinbuild's source by tools/put_together.py, so that
# people can take it alone: what is changed here is lost. Each section names its module.

from __future__ import annotations

import argparse
import base64
import hashlib
import http.client
import io
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime, timedelta, timezone
from itertools import combinations, permutations
from pathlib import Path
from typing import Any, NoReturn, TypeVar

# --- pipeline/verify/report.py --------------------------------------------------------------------
#
# What a verification found: an exit status, lines for people, one JSON object for programs.

if sys.version_info < (3, 9):  # noqa: UP036  it would fail below, with a status that means "differs"
    sys.stderr.write("error: verify.py needs Python 3.9 or later\n")
    sys.exit(2)

DONE, DIFFERS, USAGE, INFRASTRUCTURE, SIGNATURE = 0, 1, 2, 4, 6
LINES = 10  # of the report for people


class Refused(Exception):
    """Something does not hold: an exit status and one line for people."""

    def __init__(self, status: int, what: str) -> None:
        super().__init__(what)
        self.status = status


@dataclass
class VerificationReport:
    """The result, as `--json` prints it; `proven` is for people only."""

    tag: str | None
    status: int = DONE
    repository: str | None = None
    image: str | None = None
    commit: str | None = None
    signer: str | None = None
    verified: list[str] = field(default_factory=list)
    proven: list[str] = field(default_factory=list)
    not_proven: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def refuse(self, refused: Refused) -> None:
        """Take up an error; the first one decides the exit status, a bad signature before all."""
        self.errors.append(printable(str(refused))[:500])
        if self.status == DONE or refused.status == SIGNATURE:
            self.status = refused.status

    def as_json(self) -> str:
        """Return the report as one JSON object on one line."""
        keys = ("status", "tag", "repository", "image", "commit", "signer", "verified")
        document = {key: getattr(self, key) for key in (*keys, "not_proven", "errors")}
        return json.dumps({"ok": self.status == DONE, **document}, sort_keys=True)

    def as_text(self) -> str:
        """Return the report in at most `LINES` lines."""
        head = "verified" if self.status == DONE else f"NOT VERIFIED (status {self.status})"
        lines = [f"{self.tag}: {head}"]
        lines += _first([f"  error: {error}" for error in self.errors], 3)
        lines += _first([f"  proven: {sentence}" for sentence in self.proven], 3)
        open_ends = [f"  not proven: {sentence}" for sentence in self.not_proven]
        lines += _first(open_ends, LINES - len(lines))
        return "\n".join(map(printable, lines))


def printable(text: str) -> str:
    """Return text with control characters and invisible ones escaped."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _first(lines: list[str], count: int) -> list[str]:
    more = len(lines) - count
    return lines if more <= 0 else [*lines[: count - 1], f"  and {more + 1} more (see --json)"]


# --- pipeline/verify/transfer.py ------------------------------------------------------------------
#
# What the server has: requests with limits in bytes and in time, redirects followed by hand.

REDIRECTS_LIMIT = 5
TIMEOUT_LIMIT_S = 86400.0
TOTAL_TIMES = 10  # a whole answer may take this many times the time that a server may be silent
LEAST_RATE = 1024  # bytes a second, above that
CHUNK_LINE_LIMIT = 4096

CONTENT_LENGTH = re.compile(r"[0-9]{1,15}")
CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?\r?\n")


class Trouble(Exception):
    """A request that failed; `code` is the HTTP status if there was one, `absent` if no file."""

    def __init__(self, what: str, code: int = 0, *, absent: bool = False) -> None:
        super().__init__(what)
        self.code = code
        self.absent = absent or code in (404, 410)


FAILURES = (OSError, http.client.HTTPException, ValueError, Trouble)  # of a request, and later


@dataclass(frozen=True)
class RemoteRelease:
    """Where a release lies: URL and tag, and how long (in seconds) to wait for a sign of life."""

    url: str
    tag: str
    timeout_s: float

    def address(self, name: str) -> str:
        """Return the address of one of its files."""
        return f"{self.url.rstrip('/')}/{urllib.parse.quote(self.tag)}/{urllib.parse.quote(name)}"

    def open(self, name: str, offset: int = 0) -> Any:
        """Open one of its files from `offset` on; raise Trouble if that fails.

        Redirects are followed by hand, to http and https alone and never from https to http; the
        bodies that come with them and with errors are not read.
        """
        url = self.address(name)
        for _ in range(REDIRECTS_LIMIT + 1):
            try:
                return _open(url, offset, self.timeout_s)
            except urllib.error.HTTPError as error:
                location = error.headers.get("Location", "")
                error.close()
                if error.code not in (301, 302, 303, 307, 308):
                    raise Trouble(f"HTTP status {error.code}", error.code) from error
                url = _redirected(url, location)
        raise Trouble(f"more than {REDIRECTS_LIMIT} redirects")

    def read(self, name: str, limit: int, *, absent: int = INFRASTRUCTURE) -> bytes:
        """Read a small file; `absent` is the exit status if the server has none."""
        try:
            with self.open(name) as response:
                content = bytes(response.read(limit + 1))
                length = content_length(response)
        except FAILURES as error:
            status = absent if getattr(error, "absent", False) else INFRASTRUCTURE
            raise Refused(
                status, f"cannot read {self.address(name)}: {reason_of(error)}"
            ) from error
        if len(content) > limit:
            raise Refused(SIGNATURE, f"{name} is larger than {limit} bytes")
        if length not in (None, len(content)):
            raise Refused(INFRASTRUCTURE, f"{self.address(name)} was cut off: try again")
        return content


def _open(url: str, offset: int, timeout_s: float) -> Any:
    """Request an address, once; raise HTTPError for any answer but a file's content."""
    request = urllib.request.Request(url)  # noqa: S310
    request.add_header("Accept-Encoding", "identity")
    if offset:
        request.add_header("Range", f"bytes={offset}-")
    try:
        opener = urllib.request.build_opener(_Http, _Https, _NoRedirects)
        response = opener.open(request, timeout=timeout_s)
    except urllib.error.HTTPError:
        raise
    except (OSError, http.client.HTTPException, ValueError) as error:
        absent = isinstance(getattr(error, "reason", None), FileNotFoundError)
        raise Trouble(reason_of(error), absent=absent) from error
    try:
        _check_head(response, offset)
    except Trouble:
        response.close()
        raise
    return response


def _check_head(response: Any, offset: int) -> None:
    """Raise Trouble unless what follows is the file itself, or its rest if that was asked for."""
    status, coding = getattr(response, "status", None), response.headers.get("Content-Encoding")
    if status not in ((None, 200, 206) if offset else (None, 200)):  # None: a file of this machine
        raise Trouble(f"HTTP status {status}, which was not asked for", int(status or 0))
    if coding not in (None, "", "identity"):
        raise Trouble(f"the server sends it as {coding!r:.40}, which was not asked for")
    content_length(response)


def content_length(response: Any) -> int | None:
    """Return how many bytes the server says will follow; raise Trouble if it says nonsense."""
    length = response.headers.get("Content-Length")
    if length is None or response.headers.get("Transfer-Encoding"):
        return None
    if not CONTENT_LENGTH.fullmatch(length.strip()):
        raise Trouble(f"the server says that {length!r:.40} bytes follow")
    return int(length)


def _redirected(url: str, location: str) -> str:
    """Return where a redirect leads to; raise Trouble if it must not be followed."""
    try:
        target = normal_url(urllib.parse.urljoin(url, location))
    except ValueError as error:
        raise Trouble(f"a redirect to {location!r:.200}: {error}") from error
    schemes = [urllib.parse.urlsplit(address).scheme for address in (url, target)]
    if not location or schemes not in (["http", "http"], ["http", "https"], ["https", "https"]):
        raise Trouble(f"a redirect to {target!r:.200} is not followed")
    return target


def normal_url(value: str) -> str:
    """Return an address in the characters that go over the wire; raise ValueError if it is none."""
    parts = urllib.parse.urlsplit(value)
    host, port = parts.hostname or "", parts.port  # both raise ValueError
    if "@" in parts.netloc or not re.fullmatch(r"[^\s\x00-\x1f\x7f]*", parts.netloc):
        raise ValueError("it has a user name, a password or odd characters where the host belongs")
    if parts.scheme not in ("http", "https", "file"):
        raise ValueError("it must start with https://, http:// or file://")
    if not host and parts.scheme != "file":
        raise ValueError("it names no host")
    host = f"[{host}]" if ":" in host else host.encode("idna").decode()
    netloc = host if port is None else f"{host}:{port}"
    safe = "/%:@!$&'()*+,;=~?[]"
    path, query = (
        urllib.parse.quote(part, safe, "utf-8", "surrogateescape")
        for part in (parts.path, parts.query)
    )
    return urllib.parse.urlunsplit((parts.scheme, netloc, path, query, ""))


def reason_of(error: Exception) -> str:
    """Return what an error says, or its kind if it says nothing."""
    return str(getattr(error, "reason", None) or error) or type(error).__name__


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Leaves redirects alone: urllib would read their bodies, however long."""

    def http_error_302(self, req: Any, fp: Any, code: int, msg: str, headers: Any) -> None:
        """Handle nothing, so that an HTTPError comes out."""

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


class _Clocked(io.RawIOBase):
    """What comes from a socket, for a limited time in all, and not in silence either.

    The head of an answer has to be there within the time that the server may be silent, the whole
    within `TOTAL_TIMES` that, and a second more for each `LEAST_RATE` bytes.
    """

    def __init__(self, connection: Any) -> None:
        self._socket, self._file = connection, connection.makefile("rb", buffering=0)
        self._silence = connection.gettimeout() or TIMEOUT_LIMIT_S
        self._begin, self._received, self._times = time.monotonic(), 0, 1

    def has_head(self) -> None:
        """Give the rest of the answer its time."""
        self._times = TOTAL_TIMES

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        limit = self._silence * self._times + self._received / LEAST_RATE * (self._times > 1)
        left = self._begin + limit - time.monotonic()
        if left <= 0:
            raise TimeoutError("the server is too slow")
        self._socket.settimeout(min(self._silence, left))
        try:
            count: int | None = self._file.readinto(buffer)
        except (TimeoutError, socket.timeout) as error:
            silent = f"the server was silent for {self._silence:g} s"
            why = silent if left > self._silence else "the server is too slow"
            raise TimeoutError(why) from error
        self._received += count or 0
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


class _Chunks(io.RawIOBase):
    """The content of a chunked body (RFC 9112, 7.1); http.client takes a size of -1 for all."""

    def __init__(self, file: Any) -> None:
        self._file, self._left, self._ended = file, 0, False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._left and not self._ended:
            line = self._file.readline(CHUNK_LINE_LIMIT)
            size = CHUNK.fullmatch(line)
            if not size:
                raise http.client.HTTPException("the server sends a malformed chunk")
            self._left = int(size[1], 16)
            self._ended = not self._left
        piece = self._file.read(min(len(buffer), self._left)) if self._left else b""
        buffer[: len(piece)] = piece
        self._left -= len(piece)
        if not self._ended and not piece:
            raise http.client.HTTPException("the connection was cut off")
        if not self._ended and not self._left and self._file.readline(3) not in (b"\r\n", b"\n"):
            raise http.client.HTTPException("the server sends a malformed chunk")
        return len(piece)

    def close(self) -> None:
        self._file.close()
        super().close()


class _Response(http.client.HTTPResponse):
    """An answer that is read by the clock, and whose chunks are read here."""

    def __init__(self, connection: Any, *arguments: Any, **options: Any) -> None:
        super().__init__(connection, *arguments, **options)
        self.fp.close()
        self._clock = _Clocked(connection)
        self.fp = io.BufferedReader(self._clock)

    def begin(self) -> None:
        super().begin()
        self._clock.has_head()
        if self.chunked:
            self.fp = io.BufferedReader(_Chunks(self.fp))
            self.chunked, self.length = False, None


class _Connection(http.client.HTTPConnection):
    response_class = _Response


class _SecureConnection(http.client.HTTPSConnection):
    response_class = _Response


class _Http(urllib.request.HTTPHandler):
    def http_open(self, request: Any) -> Any:
        return self.do_open(_Connection, request)


class _Https(urllib.request.HTTPSHandler):
    def https_open(self, request: Any) -> Any:
        context = ssl.create_default_context()
        return self.do_open(_SecureConnection, request, context=context)


# --- pipeline/documents/signatures.py -------------------------------------------------------------
#
# OpenPGP signatures: judges gpg's and gpgv's status lines, and reads keyrings.
#
# The status lines are those of `doc/DETAILS` in GnuPG's source. They are bytes, and end with `\n`
# alone: gpg escapes that in a user ID, but no other character that some language takes for the end
# of a line. All lines about one signature stand between its NEWSIG and the next. gpgv ends with
# status 0 for signatures by expired and revoked keys, so only these lines tell; and since a later
# version may have new words for what is wrong, a word that is not known to be harmless is refused.
#
# `verify.py` is put together from this, among others: Python 3.9, the standard library alone.

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


# --- pipeline/verify/gpgv.py ----------------------------------------------------------------------
#
# The signature of the manifest, checked by gpgv or gpg in a folder of its own.

GPG_TIMEOUT_S = 60


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
    try:
        with tempfile.TemporaryDirectory(prefix="verify-") as folder:
            home = Path(folder)
            for name, content in (("keyring", keys), ("signature", packets), ("data", manifest)):
                (home / name).write_bytes(content)
            status, complaint = _gpg(home)
    except OSError as error:
        raise Refused(INFRASTRUCTURE, f"cannot write into a temporary folder: {error}") from error
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


# --- pipeline/documents/malformed.py --------------------------------------------------------------
#
# The one error of all readers of documents.


class Malformed(ValueError):
    """A document does not keep to its format; the message names the field."""


# --- pipeline/documents/formats.py ----------------------------------------------------------------
#
# Names of formats, `twinbuild-NAME/NUMBER` or addresses in `/vNUMBER`: later ones are refused.
#
# A document that is published never changes its meaning; the number in its format goes up instead.
# So a reader that meets a higher number is too old, and the document is not at fault.

FORM = re.compile(r"([A-Za-z:./-]+/v?)([1-9][0-9]{0,5})")


class LaterFormat(Malformed):
    """A later Twinbuild has written the document; the message says what to do."""


def check_format(found: Any, *known: str) -> str:
    """Return a document's format, one of `known`; raise LaterFormat or Malformed if it is not."""
    if isinstance(found, str) and found in known:
        return found
    refuse_later(found, *known)
    raise Malformed(f"format is {found!r:.100}, not {' or '.join(known)}")


def refuse_later(found: Any, *known: str) -> None:
    """Raise LaterFormat if `found` is a higher number of one of the formats `known`."""
    match = FORM.fullmatch(found) if isinstance(found, str) else None
    same = [own[2] for own in map(FORM.fullmatch, known) if own and match and own[1] == match[1]]
    if match and same and int(match[2]) > max(map(int, same)):
        raise LaterFormat(
            f"format is {found}, written by a later Twinbuild, and this one reads"
            f" {' or '.join(known)}; update this one"
        )


# --- pipeline/documents/json_form.py --------------------------------------------------------------
#
# JSON as documents are written, and as they are read: strictly (RFC 8259).


def json_bytes(document: Mapping[str, Any]) -> bytes:
    """Return the one form in which documents are written: sorted, indented, ending in a newline.

    It is UTF-8; the surrogates that stand for undecodable bytes of a path become JSON escapes.
    """
    text = json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    return text.encode(errors="backslashreplace")


def parse_json(content: bytes | str) -> Any:
    """Parse a JSON document; raise Malformed if it is not one.

    What parsers read differently is refused: an object with a key twice, NaN and the infinities,
    any encoding but UTF-8.
    """
    try:
        text = content if isinstance(content, str) else content.decode()
        return _DECODER.decode(text)
    except RecursionError:
        raise Malformed("it is nested too deeply") from None
    except Malformed:
        raise
    except ValueError as error:
        raise Malformed(str(error)) from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise Malformed(f"it has the key {twice!r:.80} twice")
    return found


def _no_number(name: str) -> None:
    raise Malformed(f"{name} is no number of JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_no_number)


# --- pipeline/documents/fields.py -----------------------------------------------------------------
#
# The fields of a JSON object, read one by one, each with its limits.
#
# What is wrong raises Malformed, which names the field by its path: `packages[3].sha256`. A reader
# ends with `end()`, so that a field that it does not know is refused as well.

Element = TypeVar("Element")

SHA256 = re.compile(r"[0-9a-f]{64}")
CONTROL = re.compile(r"[\x00-\x1f]")
NUMBER_LIMIT = 2**63 - 1
TEXT_LIMIT = 2000  # characters
LIST_LIMIT = 100_000  # elements
TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"  # of times in documents: UTC, to the second
TIME_FORM = re.compile(r"[0-9]{4}(-[0-9]{2}){2}T[0-9]{2}(:[0-9]{2}){2}Z")


def time_text(time: datetime) -> str:
    """Return a time as documents have it: UTC, to the second."""
    return time.astimezone(timezone.utc).strftime(TIME_FORMAT)


class Fields:
    """An object of a document; `where` is its path in it, empty for the document itself."""

    def __init__(self, value: Any, where: str = "") -> None:
        if not isinstance(value, dict):
            raise Malformed(f"{where or 'the document'} is no object")
        self._value = value
        self._where = where
        self._left = set(value)

    def __contains__(self, name: str) -> bool:
        return name in self._value

    def format(self, *known: str, name: str = "format") -> str:
        """Return the format, one of `known`; raise LaterFormat for a higher number."""
        return check_format(self.any(name), *known)

    def any(self, name: str) -> Any:
        """Return a field as it is; raise Malformed if it is missing, as all that follow do."""
        if name not in self._value:
            raise Malformed(f"{self.path(name)} is missing")
        self._left.discard(name)
        return self._value[name]

    def is_null(self, name: str) -> bool:
        """Tell whether a field is null."""
        return self.any(name) is None

    def text(self, name: str, pattern: re.Pattern[str] | None = None) -> str:
        """Return a printable text of 1 to 2000 characters, of the form of `pattern`."""
        value = self.any(name)
        fits = isinstance(value, str) and value.isprintable() and 0 < len(value) <= TEXT_LIMIT
        if not fits:
            self._refuse(name, value, f"not a text of 1 to {TEXT_LIMIT} characters")
        if pattern and not pattern.fullmatch(value):
            raise Malformed(f"{self.path(name)} is malformed: {value!r:.100}")
        return str(value)

    def optional_text(self, name: str, pattern: re.Pattern[str] | None = None) -> str | None:
        """Return a text, or None if the field is null."""
        return None if self.is_null(name) else self.text(name, pattern)

    def texts(
        self, name: str, pattern: re.Pattern[str] | None = None, limit: int = LIST_LIMIT
    ) -> tuple[str, ...]:
        """Return a list of texts."""
        return self.each(name, limit, lambda inner, place: inner.text(place, pattern))

    def line(self, name: str, limit: int = TEXT_LIMIT) -> str:
        """Return a text without control characters, which may be empty."""
        value = self.any_text(name, limit)
        if CONTROL.search(value):
            self._refuse(name, value, "not a line of text")
        return value

    def any_text(self, name: str, limit: int) -> str:
        """Return a text with any characters, as a path may have them."""
        value = self.any(name)
        if not isinstance(value, str) or len(value) > limit:
            self._refuse(name, value, f"not a text of at most {limit} characters")
        return str(value)

    def exactly(self, name: str, value: str) -> str:
        """Return a text that follows from other fields."""
        if self.any(name) != value:
            raise Malformed(f"{self.path(name)} is not {value}")
        return value

    def time(self, name: str) -> datetime:
        """Return a time in UTC, to the second."""
        text = self.text(name, TIME_FORM)
        try:
            return datetime.strptime(text, TIME_FORMAT).replace(tzinfo=timezone.utc)
        except ValueError as error:
            raise Malformed(f"{self.path(name)} is no time: {text}") from error

    def one_of(self, name: str, *values: str) -> str:
        """Return a text that is one of `values`."""
        value = self.any(name)
        if value not in values:
            self._refuse(name, value, f"not {' or '.join(values)}")
        return str(value)

    def sha256(self, name: str) -> str:
        """Return a SHA-256 in 64 lower-case hexadecimal digits."""
        return self.text(name, SHA256)

    def optional_sha256(self, name: str) -> str | None:
        """Return a SHA-256, or None if the field is null."""
        return self.optional_text(name, SHA256)

    def number(self, name: str, low: int = 0, high: int = NUMBER_LIMIT) -> int:
        """Return an integer from `low` to `high`."""
        value = self.any(name)
        if type(value) is not int or not low <= value <= high:
            self._refuse(name, value, f"not a number from {low} to {high}")
        return int(value)

    def real(self, name: str, low: float = 0.0, high: float = float(NUMBER_LIMIT)) -> float:
        """Return a number from `low` to `high`, which may have a fraction."""
        value = self.any(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            self._refuse(name, value, "not a number")
        if not low <= value <= high:
            self._refuse(name, value, f"not from {low} to {high}")
        return value

    def base64(self, name: str, limit: int) -> bytes:
        """Return at most `limit` bytes, which are written as base64."""
        value = self.any(name)
        if not isinstance(value, str):
            raise Malformed(f"{self.path(name)} is no text")
        if len(value) > limit * 4 // 3 + 4:
            raise Malformed(f"{self.path(name)} is larger than {limit} bytes")
        try:
            return base64.b64decode(value, validate=True)
        except ValueError as error:
            raise Malformed(f"{self.path(name)} is no base64: {error}") from error

    def flag(self, name: str) -> bool:
        """Return true or false."""
        value = self.any(name)
        if not isinstance(value, bool):
            self._refuse(name, value, "not true or false")
        return bool(value)

    def object(self, name: str) -> Fields:
        """Return an object."""
        return Fields(self.any(name), self.path(name))

    def objects(self, name: str, limit: int = LIST_LIMIT) -> Iterator[Fields]:
        """Give the objects of a list."""
        yield from self.each(name, limit, Fields.object)

    def pair(self, name: str) -> tuple[Fields, Fields]:
        """Return the objects of a list of exactly two."""
        found = self.each(name, 2, Fields.object)
        if len(found) != 2:
            raise Malformed(f"{self.path(name)} has not two elements")
        return found[0], found[1]

    def each(
        self, name: str, limit: int, read: Callable[[Fields, str], Element]
    ) -> tuple[Element, ...]:
        """Return the elements of a list, read as if they were fields."""
        values = self.any(name)
        if not isinstance(values, list):
            raise Malformed(f"{self.path(name)} is no list")
        if len(values) > limit:
            raise Malformed(f"{self.path(name)} has over {limit} elements")
        places = {f"{name}[{number}]": value for number, value in enumerate(values)}
        inner = Fields(places, self._where)
        return tuple(read(inner, place) for place in places)

    def whatever(self, name: str) -> Mapping[str, Any]:
        """Return an object as it is, to be read elsewhere."""
        found: Mapping[str, Any] = self.any(name)
        self.object(name)
        return found

    def names(self, limit: int = LIST_LIMIT) -> list[str]:
        """Return the names of all fields, sorted."""
        if len(self._value) > limit:
            raise Malformed(f"{self._where or 'the document'} has over {limit} fields")
        return sorted(self._value)

    def end(self) -> None:
        """Raise Malformed if there is a field that was not asked for."""
        if self._left:
            raise Malformed(f"{self.path(min(self._left))} does not belong there")

    def path(self, name: str) -> str:
        """Return where a field stands, for messages."""
        shown = name if name.isprintable() and len(name) <= 80 else repr(name)[:80]
        return f"{self._where}.{shown}" if self._where else shown

    def _refuse(self, name: str, value: Any, why: str) -> NoReturn:
        raise Malformed(f"{self.path(name)} is {value!r:.100}, {why}")


# --- pipeline/documents/manifest.py ---------------------------------------------------------------
#
# `SHA256SUMS`, the manifest of a release: the SHA-256 of each of its files.
#
# It has the form of sha256sum, so that `sha256sum -c` does as well: digest, two spaces, path.

NAMES_LIMIT = 10_000
PART = r"[A-Za-z0-9][A-Za-z0-9._+~-]{0,199}"
NAME = re.compile(rf"{PART}(?:/{PART}){{0,3}}")
MANIFEST_LINE = re.compile(rf"([0-9a-f]{{64}})  ({NAME.pattern})")


@dataclass(frozen=True)
class Manifest:
    """The digests of a release's files, by their paths in it."""

    digests: Mapping[str, str]

    @classmethod
    def of(cls, content: bytes) -> Manifest:
        """Read a SHA256SUMS; raise Malformed if one line is not as expected, or names one twice."""
        digests: dict[str, str] = {}
        lines = content.decode("ascii", "replace").split("\n")
        if lines.pop() or not 0 < len(lines) <= NAMES_LIMIT:
            raise Malformed("the manifest is empty, too long or cut off")
        for line in lines:
            match = MANIFEST_LINE.fullmatch(line)
            if not match or match[2] in digests:
                raise Malformed(f"the manifest has a bad line: {line[:100]!r}")
            digests[match[2]] = match[1]
        return cls(digests)

    def content(self) -> bytes:
        """Return it as it is written and signed: sorted by path."""
        return "".join(f"{self.digests[name]}  {name}\n" for name in sorted(self.digests)).encode()


# --- pipeline/documents/dsse.py -------------------------------------------------------------------
#
# DSSE envelopes (https://github.com/secure-systems-lab/dsse): a payload, its type, signatures.
#
# The type is signed with the payload, so a signature over one kind of document is never one over
# another. Nothing is verified here. Base64 is the standard alphabet, padded: one spelling.

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


# --- pipeline/documents/statement.py --------------------------------------------------------------
#
# What an environment states about its build: an in-toto Statement v1 with SLSA provenance v1.
#
# The shape is that of `docs/reference/documents.md`; the stage that makes
# statements, the gate and `verify.py`, which this is a part of, all use it.

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "https://twinbuild.invalid/build/v1"
ENVIRONMENT_ID = "https://twinbuild.invalid/environment/"

# What a build says while it runs, with times to fractions of a second: never the same twice.
LOGS = ("console.log", "progress.jsonl", "timings.json")
# Factors that are drawn at random for each run: they do not tell machines apart.
DRAWN = frozenset({"directory_seed", "environment_variables"})
RELEASED = "all"  # the level of variation of a release
BYPRODUCTS = ("console.log", "ledger.jsonl.gz", "progress.jsonl", "timings.json")
FILES_LIMIT = 1000

COMMIT = re.compile(r"[0-9a-f]{40}")
FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~-]{0,199}")
ENVIRONMENT = re.compile(r"[a-z][a-z0-9-]{0,39}")
BUILDER_ID = re.compile(re.escape(ENVIRONMENT_ID) + ENVIRONMENT.pattern)


@dataclass(frozen=True)
class Statement:
    """One build: who built what, from what, where, with what result.

    `job` is the environment's `job.json`, `machine` what the environment is and varied on purpose;
    `artifacts` and `byproducts` are SHA-256 digests by file name; the times are in UTC.
    """

    environment: str
    run_id: str
    repository: str
    commit: str
    tag: str | None
    image: str
    compression: str
    lock_sha256: str
    job: Mapping[str, Any]
    machine: Mapping[str, Any]
    artifacts: Mapping[str, str]
    byproducts: Mapping[str, str]
    started: datetime
    finished: datetime

    @classmethod
    def read(cls, fields: Fields) -> Statement:
        """Read its fields; raise Malformed."""
        fields.format(STATEMENT_TYPE, name="_type")
        fields.format(PREDICATE_TYPE, name="predicateType")
        predicate = fields.object("predicate")
        definition, details = predicate.object("buildDefinition"), predicate.object("runDetails")
        definition.format(BUILD_TYPE, name="buildType")
        external = definition.object("externalParameters")
        internal = definition.object("internalParameters")
        builder, metadata = details.object("builder"), details.object("metadata")
        statement = cls(
            environment=builder.text("id", BUILDER_ID)[len(ENVIRONMENT_ID) :],
            run_id=metadata.text("invocationId"),
            repository=external.text("repository"),
            commit=external.text("commit", COMMIT),
            tag=external.optional_text("tag"),
            image=external.text("image", ENVIRONMENT),
            compression=external.text("compression"),
            lock_sha256=_dependencies(definition),
            job=internal.whatever("job"),
            machine=internal.whatever("machine"),
            artifacts=_named_files(fields, "subject"),
            byproducts=_named_files(details, "byproducts"),
            started=metadata.time("startedOn"),
            finished=metadata.time("finishedOn"),
        )
        for each in (external, internal, builder, metadata, definition, details, predicate, fields):
            each.end()
        return statement


def make(statement: Statement) -> dict[str, Any]:
    """Return the document that is signed."""
    return {
        "_type": STATEMENT_TYPE,
        "subject": _digest_list(statement.artifacts),
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "repository": statement.repository,
                    "commit": statement.commit,
                    "tag": statement.tag,
                    "image": statement.image,
                    "compression": statement.compression,
                },
                "internalParameters": {
                    "job": dict(statement.job),
                    "machine": dict(statement.machine),
                },
                "resolvedDependencies": [
                    {
                        "uri": f"git+{statement.repository}@{statement.commit}",
                        "digest": {"gitCommit": statement.commit},
                    },
                    {"name": "lock", "digest": {"sha256": statement.lock_sha256}},
                ],
            },
            "runDetails": {
                "builder": {"id": ENVIRONMENT_ID + statement.environment},
                "metadata": {
                    "invocationId": statement.run_id,
                    "startedOn": time_text(statement.started),
                    "finishedOn": time_text(statement.finished),
                },
                "byproducts": _digest_list(statement.byproducts),
            },
        },
    }


def _digest_list(files: Mapping[str, str]) -> list[dict[str, Any]]:
    return [{"name": name, "digest": {"sha256": files[name]}} for name in sorted(files)]


def read_statement(document: Any) -> Statement:
    """Return what a document states; raise Malformed, which names the field."""
    return Statement.read(Fields(document))


def check(document: Any) -> Statement:
    """Parse the document of an envelope whose signature holds.

    Raise Malformed if it is not in the form that `make` gives it, or contradicts itself.
    """
    try:
        statement = read_statement(document)
        check_whole(statement, document)
    except ValueError as error:
        raise Malformed(f"a statement is malformed: {error}"[:300]) from error
    return statement


def check_whole(statement: Statement, document: Any) -> None:
    """Raise ValueError unless the statement agrees with itself, and the document is all of it."""
    for name in ("commit", "image", "compression", "lock_sha256"):
        if statement.job.get(name) != getattr(statement, name):
            raise ValueError(f"the job has another {name}")
    if not statement.artifacts:
        raise ValueError("it names no artifact")
    if set(statement.byproducts) != set(BYPRODUCTS):
        raise ValueError(f"its by-products are not {', '.join(BYPRODUCTS)}")
    if statement.finished < statement.started:
        raise ValueError("it was finished before it was started")
    if make(statement) != document:
        raise ValueError("it has fields that do not belong to it")


def why_no_release(statement: Statement) -> str | None:
    """Return why a build is not one that a release is made of."""
    machine = statement.machine
    if machine.get("kept_trees") != []:
        return "began with a kept tree, or does not say that it did not"
    level = machine.get("vary")
    if level != RELEASED or not isinstance(machine.get("varied"), dict):
        return f"varied {level!r:.80}, and a release varies {RELEASED!r}"
    return None


def why_one_build(one: Statement, other: Statement) -> str | None:
    """Return what shows that two statements are of one build: its logs, or its factors."""
    for name in LOGS:
        if one.byproducts[name] == other.byproducts[name]:
            return f"their {name} is the same"
    if _factors(one) == _factors(other):
        return "nothing was varied between them"
    return None


def _factors(stated: Statement) -> dict[str, Any]:
    varied = stated.machine["varied"]
    return {name: varied[name] for name in varied.keys() - DRAWN - {"description"}}


def _dependencies(fields: Fields) -> str:
    """Read what was built from: the commit, and the lock, whose SHA-256 this returns."""
    source, lock = fields.pair("resolvedDependencies")
    source.text("uri")
    digests = source.object("digest")
    digests.text("gitCommit", COMMIT)
    lock.one_of("name", "lock")
    digest = lock.object("digest")
    lock_sha256 = digest.sha256("sha256")
    for each in (digests, source, digest, lock):
        each.end()
    return lock_sha256


def _named_files(fields: Fields, name: str) -> dict[str, str]:
    files: dict[str, str] = {}
    for entry in fields.objects(name, FILES_LIMIT):
        file, digest = entry.text("name", FILE_NAME), entry.object("digest")
        if file in files:
            raise Malformed(f"{entry.path('name')}: a file stands in it twice")
        files[file] = digest.sha256("sha256")
        digest.end()
        entry.end()
    return files


# --- pipeline/documents/verdict.py ----------------------------------------------------------------
#
# `verdict.json`: whether the builds of a run match, and if not, in what they differ.

VERDICT_FORMAT = "twinbuild-verdict/1"
VERDICTS = ("match", "differ", "failed")
LINE_LIMIT = 20_000  # characters of a path or a reason


@dataclass(frozen=True)
class Judged:
    """An artifact: `size` and `sha256` are None where the environments do not agree on them."""

    name: str
    size: int | None
    sha256: str | None


@dataclass(frozen=True)
class Difference:
    """What differs in a path, and since which step.

    `kind` is content, mode, owner, time, size, xattr, target, type, links or
    only-in-<environment>.
    """

    step: str
    path: str
    kind: str


@dataclass(frozen=True)
class Expected:
    """A path that may differ until a day (year-month-day), and why."""

    path: str
    reason: str
    until: str


OfLines = TypeVar("OfLines", Difference, Expected)


@dataclass(frozen=True)
class Verdict:
    """The result of a comparison: `match`, `differ` or `failed`, `reasons` for people.

    `only_expected` is a `differ` that the image allows for a while, and that no release may have.
    """

    verdict: str
    environments: tuple[str, ...]
    artifacts: tuple[Judged, ...] = ()
    reasons: tuple[str, ...] = ()
    differences: tuple[Difference, ...] = ()
    expected: tuple[Expected, ...] = ()
    only_expected: bool = False

    @classmethod
    def of(cls, document: Any) -> Verdict:
        """Read `verdict.json`; raise Malformed, which names the field.

        `expected` and `only_expected` may be missing: the first farms did not write them.
        """
        return cls.read(Fields(document))

    @classmethod
    def read(cls, found: Fields) -> Verdict:
        """Read its fields; raise Malformed."""
        found.format(VERDICT_FORMAT)
        verdict = cls(
            found.one_of("verdict", *VERDICTS),
            found.texts("environments"),
            tuple(_judged(each) for each in found.objects("artifacts")),
            found.each("reasons", LIST_LIMIT, lambda each, place: each.any_text(place, LINE_LIMIT)),
            _of_lines(Difference, found, "differences"),
            _of_lines(Expected, found, "expected") if "expected" in found else (),
            found.flag("only_expected") if "only_expected" in found else False,
        )
        found.end()
        return verdict

    def document(self) -> dict[str, Any]:
        """Return what is written to `verdict.json`."""
        values = asdict(self)
        return {
            "format": VERDICT_FORMAT,
            **{each.name: values[each.name] for each in fields(Verdict)},
        }


def _judged(found: Fields) -> Judged:
    size = None if found.is_null("size") else found.number("size")
    digest = None if found.is_null("sha256") else found.sha256("sha256")
    judged = Judged(found.text("name"), size, digest)
    found.end()
    return judged


def _of_lines(kind: type[OfLines], found: Fields, name: str) -> tuple[OfLines, ...]:
    """Return a list of objects whose fields are all lines of text."""
    read = []
    for each in found.objects(name):
        lines = {one.name: each.any_text(one.name, LINE_LIMIT) for one in fields(kind)}
        each.end()
        read.append(kind(**lines))
    return tuple(read)


# --- pipeline/documents/names.py ------------------------------------------------------------------
#
# How images, architectures, releases and kits are named.

IMAGE = re.compile(r"[a-z][a-z0-9-]{0,39}")  # of an architecture, too
RELEASE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,79}")  # the tag


def kit_name(image: str, architecture: str, start: str, to: str) -> str:
    """Return the name of the kit that leads from the release `start` to the release `to`."""
    return f"{image}-{architecture}-{start}-to-{to}.iuk"


# --- pipeline/documents/artifact_names.py ---------------------------------------------------------
#
# The names of all that a build hands back.
#
# `verify.py` is put together from this, among others: Python 3.9, the standard library alone.


@dataclass(frozen=True)
class ArtifactNames:
    """The names of all that a build hands back to be compared and published."""

    iso: str
    usb_image: str
    packages: str
    partition: str  # what the USB image's system partition holds
    ledger: str  # of the final tree
    kits: tuple[str, ...]  # one for each of the job's `kits`, in its order
    built: tuple[str, ...] = ()  # the packages that the image builds itself

    def all(self) -> tuple[str, ...]:
        """Return every name."""
        names = (self.iso, self.usb_image, self.packages, self.partition, self.ledger)
        return (*names, *self.kits, *self.built)


def deb_name(name: str, version: str, architecture: str) -> str:
    """Return what dpkg-deb calls the file of a package: without the epoch of its version."""
    return f"{name}_{version.partition(':')[2] or version}_{architecture}.deb"


def artifact_names(job: Mapping[str, Any]) -> ArtifactNames:
    """Return the names of the artifacts of a job, which is `job.json`."""
    image, architecture, version = job["image"], job["architecture"], job["version"]
    stem = f"{image}-{architecture}-{version}"
    return ArtifactNames(
        iso=f"{stem}.iso",
        usb_image=f"{stem}.img",
        packages=f"{stem}.packages",
        partition=f"{stem}.partition",
        ledger=f"{stem}.ledger.jsonl.gz",
        kits=tuple(kit_name(image, architecture, k["from"], version) for k in job.get("kits", ())),
        built=tuple(
            deb_name(p["name"], p["version"], p["architecture"])
            for p in (job.get("local") or {}).get("packages", ())
            if p["source"]
        ),
    )


# --- pipeline/documents/ed25519.py ----------------------------------------------------------------
#
# Checks ed25519 signatures (RFC 8032): the standard library does not; it needs no secrets.

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


# --- pipeline/verify/statements.py ----------------------------------------------------------------
#
# The manifest, and whether what the environments state makes a release.

STATEMENT_LIMIT = 8 * 1024 * 1024
CLOCKS_APART = timedelta(hours=1)  # between the machines of a farm and this one, at most
EARLIEST, LATEST = 315532800, 2**32 - 1  # what an image can be dated: the years 1980 to 2105

STATEMENT_NAME = re.compile(r"statements/([a-z][a-z0-9-]{0,39})\.json")

Read = Callable[[str, int], bytes]  # gives a file of the release by its name, of so many bytes


def parse_manifest(content: bytes) -> Mapping[str, str]:
    """Return the digests in a SHA256SUMS by name; refuse it all if one line is not as expected."""
    try:
        return Manifest.of(content).digests
    except Malformed as error:
        raise Refused(SIGNATURE, str(error)) from error


@dataclass(frozen=True)
class Stated:
    """A statement and the document that it was read from."""

    statement: Statement
    document: Any

    @property
    def common(self) -> str:
        """All that the environments must state alike, as JSON: what was built from what."""
        stated = self.statement
        asked = self.document["predicate"]["buildDefinition"]["externalParameters"]
        job = [stated.lock_sha256, stated.job]
        return json.dumps([self.document["subject"], asked, job], sort_keys=True)


def _read_document(read: Read, manifest: Mapping[str, str], name: str) -> Any:
    """Return a JSON document of the release; refuse it if it is not the one in the manifest."""
    content = read(name, STATEMENT_LIMIT)
    if hashlib.sha256(content).hexdigest() != manifest[name]:
        raise Refused(DIFFERS, f"{name} differs from the manifest")
    try:
        return parse_json(content)
    except (ValueError, RecursionError) as error:
        raise Refused(SIGNATURE, f"{name} is not JSON: {error}") from error


def read_statements(
    read: Read, manifest: Mapping[str, str], keys: Mapping[str, str]
) -> dict[str, Stated]:
    """Return the statements that the manifest names, by environment.

    `keys` are ed25519 public keys (hex) by environment; who has signed the others is not checked,
    but it must not be seen to be one key.
    """
    statements, envelopes = {}, {}
    for file in sorted(manifest):
        match = STATEMENT_NAME.fullmatch(file)
        if match:
            name, document = match[1], _read_document(read, manifest, file)
            envelopes[name], statements[name] = parse_statement(document, name, keys.get(name))
    missing = sorted(keys.keys() - statements.keys())
    if missing:
        raise Refused(SIGNATURE, f"there is no statement of {', '.join(missing)}")
    _check_signers(envelopes, keys)
    return statements


def _check_signers(envelopes: Mapping[str, Envelope], keys: Mapping[str, str]) -> None:
    """Raise Refused where one key has signed for two environments, as far as that shows.

    A key that was given for one is tried on the others; beyond that, the envelopes' key ids tell,
    which are only what their signers say.
    """
    for one, other in permutations(sorted(envelopes), 2):
        named = _key_ids(envelopes[one]) & _key_ids(envelopes[other])
        if named or (one in keys and _signed_by(envelopes[other], keys[one])):
            names = " and ".join(sorted((one, other)))
            raise Refused(
                SIGNATURE, f"{names} are signed by the same key: they are not two parties"
            )


def _key_ids(envelope: Envelope) -> set[str]:
    """Return the key ids that an envelope names."""
    return {each.keyid for each in envelope.signatures if each.keyid}


def _signed_by(envelope: Envelope, public: str) -> bool:
    """Tell whether a key (hex) has signed an envelope."""
    signed, key = signed_bytes(IN_TOTO, envelope.payload), bytes.fromhex(public)
    return any(ed25519_holds(key, signed, each.signature) for each in envelope.signatures)


def parse_statement(document: Any, environment: str, public: str | None) -> tuple[Envelope, Stated]:
    """Read the statement of `environment`, signed by the ed25519 key `public` (hex) if given."""
    try:
        envelope = read_envelope(document, IN_TOTO)
        if public is not None and not _signed_by(envelope, public):
            raise ValueError("it is not signed by the key that you gave")  # noqa: TRY301
        payload = parse_json(envelope.payload)
        statement = read_statement(payload)
        if statement.environment != environment:
            raise ValueError("it is of another environment")  # noqa: TRY301
    except ValueError as error:
        raise Refused(SIGNATURE, f"the statement of {environment} is no good: {error}") from error
    return envelope, Stated(statement, payload)


def check_statements(
    statements: Mapping[str, Stated], manifest: Mapping[str, str], tag: str
) -> Statement:
    """Return what all environments state alike, their builds being those of the release `tag`.

    It asks of them what the farm's own gate asks (pipeline/release/), as far as it is published:
    that they agree, are of the manifest's files, whole, of a release's kind, and of two builds.
    Raise Refused if not.
    """
    if len(statements) < 2:
        raise Refused(SIGNATURE, f"{len(statements)} environments have stated a result, not two")
    first = next(iter(statements.values()))
    _check_agreement(statements, manifest, tag)
    try:
        for name, stated in statements.items():
            _check_statement(name, stated, first.statement)
    except ValueError as error:
        raise Refused(SIGNATURE, str(error)) from error
    for one, other in combinations(statements.values(), 2):
        if why := why_one_build(one.statement, other.statement):
            names = f"{one.statement.environment} and {other.statement.environment}"
            raise Refused(SIGNATURE, f"{names} state one build: {why}")
    return first.statement


def _check_agreement(
    statements: Mapping[str, Stated], manifest: Mapping[str, str], tag: str
) -> None:
    first = next(iter(statements.values()))
    for name, stated in statements.items():
        if stated.statement.tag != tag:
            raise Refused(SIGNATURE, f"the manifest is of the release {stated.statement.tag!r:.80}")
        if stated.common != first.common:
            raise Refused(DIFFERS, f"the statements of the environments differ: {name}")
        for file, digest in _vouched_for(stated.statement).items():
            if manifest.get(file) != digest:
                raise Refused(DIFFERS, f"{file} is not in the manifest as {name} states it")


def _vouched_for(stated: Statement) -> dict[str, str]:
    """Return the files of the manifest that a statement names, with their digests."""
    others = {f"{stated.environment}/{file}": it for file, it in stated.byproducts.items()}
    return {**stated.artifacts, "lock": stated.lock_sha256, **others}


def _check_statement(name: str, stated: Stated, first: Statement) -> None:
    """Raise ValueError unless it is whole, of a release's kind, and of the run of the first."""
    statement = stated.statement
    try:
        check_whole(statement, stated.document)
    except ValueError as error:
        raise ValueError(f"the statement of {name} is no good: {error}") from error
    if why := why_no_release(statement):
        raise ValueError(f"the build of {name} {why}")
    if statement.run_id != first.run_id:
        raise ValueError(f"{first.environment} and {name} have built in different runs")
    if statement.finished > datetime.now(timezone.utc) + CLOCKS_APART:
        raise ValueError(f"the build of {name} ends in the future: check this machine's clock")


def check_job(stated: Statement) -> None:
    """Raise Refused unless the job is of this release and its artifacts are the job's."""
    try:
        _check_job(stated)
    except ValueError as error:
        raise Refused(SIGNATURE, str(error)) from error


def _check_job(stated: Statement) -> None:
    job = stated.job
    epoch, version = job.get("epoch"), job.get("version")
    if version != stated.tag:
        raise ValueError(f"the job is of the version {version!r:.80}, not {stated.tag!r:.80}")
    if type(epoch) is not int or not EARLIEST <= epoch <= LATEST:
        raise ValueError(f"the job has the impossible epoch {epoch!r:.80}")
    try:
        names = artifact_names(job).all()
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"the job is malformed: {error!r:.200}") from error
    if len(set(names)) != len(names) or set(names) != stated.artifacts.keys():
        odd = min(set(names) ^ stated.artifacts.keys(), default="two of one name")
        raise ValueError(f"the artifacts are not those of the job: {odd:.200}")


def check_verdict(
    read: Read, manifest: Mapping[str, str], environments: Sequence[str], stated: Statement
) -> None:
    """Raise Refused unless the farm's own verdict is that these builds match, without a but."""
    if "verdict.json" not in manifest:
        raise Refused(SIGNATURE, "the manifest has no verdict.json")
    try:
        verdict = Verdict.of(_read_document(read, manifest, "verdict.json"))
    except ValueError as error:
        raise Refused(SIGNATURE, f"verdict.json is malformed: {error}") from error
    buts = (verdict.reasons, verdict.differences, verdict.expected, verdict.only_expected)
    if verdict.verdict != "match" or any(buts):
        raise Refused(DIFFERS, "verdict.json does not say that the builds match")
    judged = {artifact.name: artifact.sha256 for artifact in verdict.artifacts}
    same = sorted(verdict.environments) == sorted(environments)
    if not same or judged != stated.artifacts:
        raise Refused(DIFFERS, "verdict.json is on other builds than the statements")


# --- pipeline/verify/files.py ---------------------------------------------------------------------
#
# The files of a release: those that somebody has, and those to be downloaded.

DOWNLOAD_LIMIT = 16 * 1024**3
PIECE = 1024 * 1024
TRIES = 5


class Interrupted(Exception):
    """A download that may be resumed."""


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file of any size."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(PIECE))
    with path.open("rb", buffering=0) as file:
        for length in iter(lambda: file.readinto(buffer) or 0, 0):
            digest.update(buffer[:length])
    return digest.hexdigest()


def check_file(path: Path, manifest: Mapping[str, str]) -> str:
    """Return the name under which the manifest has this file, by its own name and content.

    A file whose own name is not in the manifest, as a browser renames what it downloads twice, is
    known by its content alone.
    """
    try:
        found = sha256(path)
    except OSError as error:
        raise Refused(USAGE, f"cannot read {path}: {error.strerror}") from error
    names = [name for name in manifest if name.rpartition("/")[2] == path.name]
    for name in names or manifest:
        if manifest[name] == found:
            return name
    if not names:
        raise Refused(DIFFERS, f"{path.name} is not in the manifest, nor is its content")
    raise Refused(DIFFERS, f"{path} differs: it has {found}, not {manifest[names[0]]}")


def download(release: RemoteRelease, name: str, digest: str, folder: Path) -> None:
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


def _download(release: RemoteRelease, name: str, part: Path) -> None:
    """Fill `part` from where it ends, and go on after interruptions as long as that helps."""
    problem = ""
    for _ in range(TRIES):
        size = part.stat().st_size if part.exists() else 0
        try:
            if _more(release, name, part, size):
                return
            problem = "the connection was cut off"
        except Trouble as error:
            problem = str(error)
            if error.code == 416 and size:
                part.unlink()
            elif error.absent or 0 < error.code < 500:
                break
        except Interrupted as error:
            problem = str(error)
    raise Refused(INFRASTRUCTURE, f"{release.address(name)}: {problem}; try again to resume")


def _more(release: RemoteRelease, name: str, part: Path, offset: int) -> bool:
    """Add to `part` what a request from `offset` on gives; tell whether that was all."""
    with release.open(name, offset) as response:
        resumed = response.headers.get("Content-Range", "").startswith(f"bytes {offset}-")
        length = content_length(response)
        written = offset if resumed else 0
        end = None if length is None else written + length
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
        except FAILURES as error:
            raise Interrupted(reason_of(error)) from error
        if not piece:
            return
        yield piece


# --- pipeline/verify/command.py -------------------------------------------------------------------
#
# The command: its arguments, the order of the checks, what is printed.

UNREAD = 141  # as a program that SIGPIPE ends
MANIFEST_LIMIT = 16 * 1024 * 1024
SIGNATURE_LIMIT = 64 * 1024
KEYRING_LIMIT = 64 * 1024 * 1024
ENVIRONMENT_KEY = re.compile(r"([a-z][a-z0-9-]{0,39})=([0-9a-f]{64})")


def verify(options: argparse.Namespace, report: VerificationReport) -> None:
    """Do what was asked for and fill the report; raise Refused where it cannot go on."""
    keyring = _keyring(options.keyring)
    keys = _environment_keys(options.environment_key)
    release = RemoteRelease(options.url, options.tag, options.timeout)
    content = release.read("SHA256SUMS", MANIFEST_LIMIT)
    signature = release.read("SHA256SUMS.asc", SIGNATURE_LIMIT, absent=SIGNATURE)
    report.signer = check_signature(content, signature, keyring, options.fingerprint)
    report.proven.append(f"SHA256SUMS of {options.url} {options.tag} is signed by {report.signer}")
    report.verified.append("SHA256SUMS")
    manifest = parse_manifest(content)
    statements = read_statements(release.read, manifest, keys)
    common = check_statements(statements, manifest, options.tag)
    check_job(common)
    check_verdict(release.read, manifest, list(statements), common)
    report.repository, report.image, report.commit = common.repository, common.image, common.commit
    _check_pins(options, common)
    names = " and ".join(statements)
    report.proven.append(
        f"it says that {names} built {common.image} of {common.repository}, commit"
        f" {common.commit}, to the same bits"
    )
    report.verified += ["verdict.json", *(f"statements/{name}.json" for name in statements)]
    files = _check_files(options, release, manifest, report)
    report.verified += [name for name in files.values() if name not in report.verified]
    if files:
        known = [
            name if own in (name, Path(name).name) else f"{own} has the content of {name}"
            for own, name in files.items()
        ]
        shown = ", ".join(known[:3]) + (f" and {len(known) - 3} more" if len(known) > 3 else "")
        report.proven.append(f"what was signed is what you have: {shown}")
    report.not_proven = _not_proven(options, list(statements), set(files.values()), common)


def _environment_keys(pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Return the environments' keys by name; no name and no key may stand twice."""
    keys = dict(pairs)
    if len(keys) != len(pairs):
        raise Refused(USAGE, "--environment-key names an environment twice")
    if len(set(keys.values())) != len(keys):
        names = ", ".join(sorted(keys))
        raise Refused(SIGNATURE, f"of {names}, two have the same key: they are not two parties")
    return keys


def _check_pins(options: argparse.Namespace, stated: Statement) -> None:
    """Raise Refused if the release is of another image, or of another repository, than asked for.

    One key may sign the releases of several.
    """
    for what, found in (("repository", stated.repository), ("image", stated.image)):
        wanted = getattr(options, what)
        if wanted is not None and wanted != found:
            raise Refused(SIGNATURE, f"the release is of the {what} {found}, not {wanted}")


def _not_proven(
    options: argparse.Namespace, names: list[str], files: set[str], stated: Statement
) -> list[str]:
    sentences = [
        "that source and Debian packages are harmless: both builds used the same ones",
        f"that {' and '.join(names)} are two parties: one operator may run both",
    ]
    unchecked = [name for name in names if name not in dict(options.environment_key)]
    if unchecked:
        sentences.append(f"that {', '.join(unchecked)} signed it (--environment-key NAME=HEX)")
    unpinned = [pin for pin in ("--repository", "--image") if getattr(options, pin[2:]) is None]
    if unpinned:
        sentences.append(f"that this is the project that you mean ({', '.join(unpinned)})")
    if not files:
        sentences.append("any file: none was checked (--file, --download)")
    elif not stated.artifacts.keys() >= files:
        sentences.append("that files other than the artifacts were built twice")
    return sentences


def _keyring(path: Path | None) -> bytes:
    """Return the keyring in binary form; without one nothing can be verified."""
    if path is None:
        raise Refused(SIGNATURE, "no keyring: give the release key that you trust by --keyring")
    try:
        with path.open("rb") as file:
            content = file.read(KEYRING_LIMIT + 1)
        if len(content) > KEYRING_LIMIT:
            raise ValueError(f"it is larger than {KEYRING_LIMIT} bytes")  # noqa: TRY301
        return read_keyring(content)
    except OSError as error:
        raise Refused(USAGE, f"cannot read the keyring {path}: {error.strerror}") from error
    except ValueError as error:
        raise Refused(USAGE, f"{path} is not a keyring: {error}") from error


def _check_files(
    options: argparse.Namespace,
    release: RemoteRelease,
    manifest: Mapping[str, str],
    report: VerificationReport,
) -> dict[str, str]:
    """Check and download every file asked for; take up what fails and go on with the next.

    Return the names in the manifest of those that hold, by what they are called here.
    """
    files = {}
    for path in options.file:
        try:
            files[path.name] = check_file(path, manifest)
        except Refused as refused:
            report.refuse(refused)
    for name in manifest if options.all else options.download:
        try:
            if name not in manifest:
                raise Refused(DIFFERS, f"{name!r} is not in the manifest")  # noqa: TRY301
            download(release, name, manifest[name], options.directory)
            files[name] = name
        except Refused as refused:
            report.refuse(refused)
    return files


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with the arguments as all else does."""

    def error(self, message: str) -> NoReturn:
        raise Refused(USAGE, message)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; raise Refused if it is wrong, SystemExit after `--help`."""
    parser = _parser()
    try:
        if any("\0" in argument for argument in argv):
            parser.error("an argument has a null character in it")
        options = parser.parse_args(argv)
    except Refused:
        if "--json" not in argv:
            _print(parser.format_usage(), sys.stderr)
        raise
    options.environment_key = [tuple(pair.split("=")) for pair in options.environment_key]
    return options


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="verify", description="Verify a release of Twinbuild.", allow_abbrev=False
    )
    add = parser.add_argument
    add("--url", required=True, type=_url, help="where the releases are (http, https or file)")
    add("--tag", required=True, type=_matching(PART), help="the release")
    add("--keyring", type=Path, help="the release key that you trust, a file")
    add("--fingerprint", type=_fingerprint, help="accept only this key of the keyring")
    add("--repository", metavar="URL", help="accept only a release that was built from there")
    add("--image", metavar="NAME", help="accept only a release of this image")
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
    add("--timeout", type=_seconds, default=60.0, help="seconds to wait for a sign of life")
    return parser


def _url(value: str) -> str:
    try:
        parts = urllib.parse.urlsplit(value)
        if parts.query or parts.fragment or "?" in value:
            raise ValueError("it must have no ? and no #")  # noqa: TRY301
        return normal_url(value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{printable(value)[:200]!r}: {error}") from error


def _seconds(value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= TIMEOUT_LIMIT_S:
        raise argparse.ArgumentTypeError(f"it must be a number above 0, up to {TIMEOUT_LIMIT_S:g}")
    return seconds


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


def _print(text: str, stream: Any) -> int:
    """Print text, escaped where the stream cannot have it; return the exit status of doing so."""
    encoding = getattr(stream, "encoding", None) or "ascii"
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)
    except BrokenPipeError:
        return UNREAD
    except (OSError, ValueError):
        return INFRASTRUCTURE
    return DONE


def main(argv: Sequence[str] | None = None) -> int:
    """Verify as the command line says, print the report, return the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    report = VerificationReport(None)
    try:
        options = parse(arguments)
        report.tag = options.tag
        verify(options, report)
    except SystemExit as end:  # --help
        return int(end.code or 0)
    except Refused as refused:
        report.refuse(refused)
    except Exception as error:  # noqa: BLE001 - people and programs get a report in any case
        what = f"unexpected, please report it: {type(error).__name__}: {error}"
        report.refuse(Refused(INFRASTRUCTURE, what))
    if "--json" in arguments:
        printed = _print(report.as_json(), sys.stdout)
    elif report.tag is None:
        printed = _print(f"verify: error: {'; '.join(report.errors)}", sys.stderr)
    else:
        printed = _print(report.as_text(), sys.stdout)
    return report.status or printed


def _command() -> NoReturn:
    """Run as a program: nothing but the exit status is left to say once this has ended."""
    try:
        status = main()
    except KeyboardInterrupt:
        status = 130
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):  # nobody reads it any more: do not try again at the exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(status)


if __name__ == "__main__":
    _command()
