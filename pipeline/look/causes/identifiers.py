# SPDX-License-Identifier: GPL-3.0-or-later
"""Identifiers that each build generates anew, and memory addresses."""

import re
import struct
from collections.abc import Iterator
from itertools import pairwise
from math import log2

from pipeline.documents.explanation import Cause
from pipeline.look.causes.spots import Spot, is_text

UUID = re.compile(r"(?<![0-9a-fA-F])[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b")
PAIRS = re.compile(
    r"\b(?:(?:[0-9a-fA-F]{2}[: -]){3,}[0-9a-fA-F]{2}|(?:[0-9a-fA-F]{4}[: -]){3,}[0-9a-fA-F]{4})\b"
)
HEX = re.compile(r"(?<![0-9A-Za-z])(?:0x)?([0-9a-f]{16,128}|[0-9A-F]{16,128})(?![0-9A-Za-z])")
# DER object identifiers of keys: RSA, elliptic curves (three), and Ed25519 and its relatives.
KEY_NUMBERS = tuple(
    map(
        bytes.fromhex,
        ("2a864886f70d010101", "2a8648ce3d0201", "2a8648ce3d0301", "06052b8104", "06032b65"),
    )
)
RSA_BEGIN = re.compile(rb"\x30\x82..\x02\x01\x00\x02\x82|\x30\x82..\x02\x82..\x00", re.DOTALL)
# The beginnings of files with keys: OpenPGP, GnuPG keyboxes, Java keystores, LUKS.
KEY_FILES = re.compile(
    rb"[\x94\x95\x98\x99]..?.?\x04[\x40-\x7f]|.{8}KBXf|\xfe\xed\xfe\xed\0|LUKS\xba\xbe", re.DOTALL
)
SHORT_HEX = re.compile(r"(?<![\w.:-])(?:[0-9a-f]{8,15}|[0-9A-F]{8,15})(?![\w.:-])")
TEMPORARY = re.compile(
    r"(?<=tmp)[._-]?[A-Za-z0-9_]{6,12}\b|(?<=\.)[A-Za-z0-9]{6,10}(?=\.tmp)"
    r"|(?<=/tmp/)[\w.-]*[._-][A-Za-z0-9]{6,12}\b"
)
ADDRESS = re.compile(r"0x(?:7f|5[56]|ffff)[0-9a-f]{10}(?:[0-9a-f]{2})?\b")
# The same without 0x, of programs (12 digits) and kernels (16 digits), and in decimal digits.
BARE_ADDRESS = re.compile(r"(?<![\w.])(?:(?:7f|5[56])[0-9a-f]{10}|ffff[0-9a-f]{12})(?![\w.])")
DECIMAL_ADDRESS = re.compile(r"(?<![\w.])(?:9[345]\d{12}|1(?:39[6-9]|40[0-7])\d{11})(?![\w.])")
SMALL_ADDRESS = re.compile(r"(?<=\bat )0x[0-9a-f]{6,16}(?=>)|(?<=[A-Z]\(0x)[0-9a-f]{6,16}(?=\))")
CRYPT = re.compile(r"\$(?:1|2[abxy]|5|6|7|y|gy|apr1|md5)\$[./A-Za-z0-9$,=]{8,}")
CONSONANTS = re.compile(r"(?i:[bcdfghjklmnpqrstvwxz]{6,})")
ENCODED = re.compile(r"(?<![\w+/.-])[A-Za-z0-9+/_.-]{10,}={0,2}(?![\w+/=-])")
KEYS = re.compile(
    r"-----BEGIN ([A-Z0-9 ]+)-----|\b((?:ssh-(?:rsa|dss|ed25519)|ecdsa-sha2-nistp\d+|sk-\S+) AAAA)"
)
NUMBER = re.compile(r"(?<![\w.,:/-])-?(?:\d{3,20}|\d+[.,]\d{2,18})(?![\w.,:/-])")
BUILD_ID = re.compile(rb"\x04\x00{3}[\x08-\x14]\x00{3}\x03\x00{3}GNU\x00")
MACHINE_IDS = ("etc/machine-id", "var/lib/dbus/machine-id")
HIGH_BYTES = (0x7F, 0x55, 0x56)  # of addresses of programs, libraries and stacks on Linux amd64
ENTROPY_BITS = 2.5  # least bits per digit; a random hexadecimal digit has four
CAPITALS_LEAST = 12  # characters of a word with digits between capitals, as in base32
SURE = 16  # the fewest characters of a word without capitals that is not a weak guess


def in_identifiers(
    path: str, contents: tuple[bytes, bytes], spot: Spot, *, text: bool
) -> Iterator[Cause]:
    """Yield the identifiers and addresses that differ in a spot."""
    if path in MACHINE_IDS:
        yield Cause("machine-id", f"{path} is drawn anew for each system")
        return
    if key := _key(contents, spot):
        yield key
        return
    found = [
        *_password(spot),
        *_uuids(spot),
        *_hexadecimal(spot),
        *_temporary(spot),
        *_address(spot),
    ]
    if not text:
        found += _binary(contents, spot)
    yield from found or _encoded(spot) or _short_hexadecimal(spot) or _number(spot, text=text)


def _different(pattern: re.Pattern[str], spot: Spot) -> tuple[str, str] | None:
    """Return the first pair of corresponding matches that differ."""
    ours, theirs = (list(pattern.finditer(text)) for text in spot.text)
    if len(ours) != len(theirs):
        return None
    for left, right in zip(ours, theirs, strict=True):
        if left[0] != right[0]:
            return left[0], right[0]
    return None


def _key(contents: tuple[bytes, bytes], spot: Spot) -> Cause | None:
    """Find a key or certificate: in a line, or in any line of a file that begins with one."""
    if all(map(_is_der, contents)):
        return Cause("key", "both have another key or certificate in DER, made for each build")
    if all(map(KEY_FILES.match, contents)) and not is_text(contents[0]):
        return Cause("key", "both are a file with another key, made for each build")
    begins = (content[:200].decode("latin-1") for content in contents)
    found = [
        KEYS.search(text) or KEYS.search(begin)
        for text, begin in zip(spot.text, begins, strict=True)
    ]
    if found[0] and found[1] and found[0][0] == found[1][0]:
        kind = (found[0][1] or found[0][2].removesuffix(" AAAA")).lower()
        return Cause("key", f"both have another {kind}, which was made for each build")
    return None


def _is_der(content: bytes) -> bool:
    """Return whether a content is one DER sequence with a key: RSA, elliptic curve or Ed25519."""
    if len(content) < 4 or content[0] != 0x30:
        return False
    more = max(0, content[1] - 0x80)  # bytes of a long length
    length = int.from_bytes(content[2 : 2 + more], "big") if more else content[1]
    known = RSA_BEGIN.match(content) or any(number in content for number in KEY_NUMBERS)
    return length == len(content) - 2 - more and bool(known)


def _address(spot: Spot) -> Iterator[Cause]:
    for form in (ADDRESS, SMALL_ADDRESS, BARE_ADDRESS, DECIMAL_ADDRESS):
        if found := _different(form, spot):
            yield Cause("address", f"{found[0]} and {found[1]} look like addresses of memory")
            return


def _encoded(spot: Spot) -> list[Cause]:
    """Find words of equal length with mixed kinds of characters, like random bytes in base64."""
    words = [ENCODED.findall(text) for text in spot.text]
    if len(words[0]) != len(words[1]):
        words = [list(filter(_drawn, found)) for found in words]
    differing = [pair for pair in zip(*words, strict=False) if pair[0] != pair[1]]
    found = next((pair for pair in differing if all(map(_drawn, pair))), None)
    if len(words[0]) != len(words[1]) or not found or len(found[0]) != len(found[1]):
        return []
    if sum(map(str.__ne__, *found)) * 2 < len(found[0]):
        return []
    evidence = f"{found[0][:40]} and {found[1][:40]}: {len(found[0])} characters each"
    short = len(found[0]) < SURE and not any(map(str.isupper, found[0]))
    evidence = f"{evidence}, drawn at random or a digest of what differs"
    return [Cause("random-identifier", evidence, weak=short)]


def _drawn(word: str) -> bool:
    """Return whether a word looks random: kinds of characters alternate, or vowels are missing."""
    if len(word) >= SURE and word.isalpha() and (word.isupper() or word.islower()):
        return bool(CONSONANTS.search(word))
    if len(word) >= CAPITALS_LEAST and word.isupper() and word.isalnum():
        return len(re.findall(r"[A-Z]\d+(?=[A-Z])", word)) > 1
    kinds = [(c.islower(), c.isupper(), c.isdigit()) for c in word]
    changes = sum(one != other for one, other in pairwise(kinds))
    plain = word.isalnum() or any(map(str.isupper, word))  # paths have punctuation
    return plain and _mixed(word) and changes * 10 >= len(word) * 3


def _number(spot: Spot, *, text: bool) -> Iterator[Cause]:
    """Guess that a number changes in each run, if only numbers differ in a line."""
    found = _different(NUMBER, spot) if text else None
    alike = NUMBER.sub("", spot.text[0]) == NUMBER.sub("", spot.text[1])
    if found and alike:
        evidence = f"{found[0]} and {found[1]} follow from no known factor"
        yield Cause("changing-number", f"{evidence}: drawn, counted, or of a process", weak=True)


def _uuids(spot: Spot) -> Iterator[Cause]:
    found = _different(UUID, spot)
    if found:
        yield Cause("uuid", f"{found[0]} and {found[1]}")


def _password(spot: Spot) -> Iterator[Cause]:
    """Find password hashes of crypt(5), which have random salts."""
    found = _different(CRYPT, spot)
    if found and found[0].split("$")[1] == found[1].split("$")[1]:
        evidence = f"{found[0][:20]}… and {found[1][:20]}…: hashes of a password"
        yield Cause("random-identifier", f"{evidence}, whose salt is drawn")


def _hexadecimal(spot: Spot) -> Iterator[Cause]:
    found = _different(HEX, spot)
    if found and all(map(str.isdigit, found)):  # a decimal number
        return
    if found and len(found[0]) == len(found[1]) and min(map(_entropy, found)) > ENTROPY_BITS:
        evidence = f"{found[0][:40]} and {found[1][:40]}: {len(found[0])} hexadecimal digits each"
        yield Cause("random-identifier", f"{evidence}, drawn at random or a digest of what differs")


def _short_hexadecimal(spot: Spot) -> list[Cause]:
    """Find short hexadecimal numbers most of whose digits differ, or groups of 2 or 4 digits."""
    pairs = _different(PAIRS, spot)
    if pairs and all(map(_mixed, pairs)):
        return [Cause("random-identifier", f"{pairs[0]} and {pairs[1]}, drawn or a digest")]
    found = _different(SHORT_HEX, spot)
    if not found or len(found[0]) != len(found[1]) or not all(map(_mixed, found)):
        return []
    if sum(map(str.__ne__, *found)) * 4 < len(found[0]) * 3:
        return []
    evidence = f"{found[0]} and {found[1]}: {len(found[0])} hexadecimal digits each"
    return [Cause("random-identifier", f"{evidence}, drawn at random or a digest of what differs")]


def _mixed(word: str) -> bool:
    return any(map(str.isdigit, word)) and any(map(str.isalpha, word))


def _temporary(spot: Spot) -> Iterator[Cause]:
    found = _different(TEMPORARY, spot)
    if found and len(found[0]) == len(found[1]):
        yield Cause("temporary-name", f"names of temporary files: {found[0]} and {found[1]}")


def _entropy(text: str) -> float:
    """Return the Shannon entropy in bits per character."""
    counts = [text.count(c) / len(text) for c in set(text)]
    return -sum(share * log2(share) for share in counts)


def _binary(contents: tuple[bytes, bytes], spot: Spot) -> Iterator[Cause]:
    before = [c[max(0, at - 36) : at + 16] for c, at in zip(contents, spot.offsets, strict=True)]
    if contents[0][:4] == b"\x7fELF" and all(map(BUILD_ID.search, before)):
        yield Cause("build-id", f"the build-id note at byte {spot.offsets[0]} of an ELF file")
    elif uuid := _binary_uuid(contents, spot):
        yield uuid
    elif pointer := _pointer(contents, spot):
        yield pointer


def _binary_uuid(contents: tuple[bytes, bytes], spot: Spot) -> Cause | None:
    """Find 16 bytes, most of which differ, with the version and variant of a random UUID."""
    for at in range(max(0, spot.offsets[0] - 2), spot.offsets[0] + 1):
        pieces = [content[at : at + 16] for content in contents]
        random = all(len(p) == 16 and p[6] >> 4 == 4 and p[8] >> 6 == 2 for p in pieces)
        inside = at + 16 >= spot.offsets[0] + len(spot.left)
        if random and inside and sum(a != b for a, b in zip(*pieces, strict=True)) >= 12:
            return Cause("uuid", f"16 bytes at byte {at} have the form of a random UUID")
    return None


def _pointer(contents: tuple[bytes, bytes], spot: Spot) -> Cause | None:
    for at in range(max(0, spot.offsets[0] - 5), spot.offsets[0] + 1):
        pieces = [content[at : at + 8] for content in contents]
        if pieces[0] == pieces[1] or any(len(piece) < 8 for piece in pieces):
            continue
        numbers = [struct.unpack("<Q", piece)[0] for piece in pieces]
        if all(number >> 40 in HIGH_BYTES for number in numbers):
            evidence = " and ".join(f"0x{number:x}" for number in numbers)
            return Cause("address", f"at byte {at}: {evidence} look like addresses of memory")
    return None
