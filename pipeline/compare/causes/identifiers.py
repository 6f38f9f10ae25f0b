"""Identifiers that are drawn anew by each build, and addresses of memory."""

import re
import struct
from collections.abc import Iterator
from math import log2

from pipeline.compare.causes.facts import Cause
from pipeline.compare.causes.spots import Spot

UUID = re.compile(r"\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b")
HEX = re.compile(r"(?<![0-9A-Za-z])(?:0x)?([0-9a-f]{16,128}|[0-9A-F]{16,128})(?![0-9A-Za-z])")
TEMPORARY = re.compile(r"(?<=tmp)[._-]?[A-Za-z0-9]{6,10}\b|(?<=\.)[A-Za-z0-9]{6,10}(?=\.tmp)")
ADDRESS = re.compile(r"0x(?:7f|5[56])[0-9a-f]{10}\b")
BUILD_ID = re.compile(rb"\x04\x00{3}[\x08-\x14]\x00{3}\x03\x00{3}GNU\x00")
MACHINE_IDS = ("etc/machine-id", "var/lib/dbus/machine-id")
HIGH_BYTES = (0x7F, 0x55, 0x56)  # where Linux puts programs, libraries and stacks on amd64
ENTROPY_BITS = 2.5  # a digit of random hexadecimal has four


def in_identifiers(
    path: str, contents: tuple[bytes, bytes], spot: Spot, *, text: bool
) -> Iterator[Cause]:
    """Give the identifiers and addresses that differ in a spot."""
    if path in MACHINE_IDS:
        yield Cause("machine-id", f"{path} is drawn anew for each system")
        return
    yield from _uuids(spot)
    yield from _hexadecimal(spot)
    yield from _temporary(spot)
    if found := _different(ADDRESS, spot):
        yield Cause("address", f"{found[0]} and {found[1]} look like addresses of memory")
    if not text:
        yield from _binary(contents, spot)


def _different(pattern: re.Pattern[str], spot: Spot) -> tuple[str, str] | None:
    """Return the first two matches that stand for one another and differ."""
    ours, theirs = (list(pattern.finditer(text)) for text in spot.text)
    if len(ours) != len(theirs):
        return None
    for left, right in zip(ours, theirs, strict=True):
        if left[0] != right[0]:
            return left[0], right[0]
    return None


def _uuids(spot: Spot) -> Iterator[Cause]:
    found = _different(UUID, spot)
    if found:
        yield Cause("uuid", f"{found[0]} and {found[1]}")


def _hexadecimal(spot: Spot) -> Iterator[Cause]:
    found = _different(HEX, spot)
    if found and len(found[0]) == len(found[1]) and min(map(_entropy, found)) > ENTROPY_BITS:
        said = f"{found[0][:40]} and {found[1][:40]}: {len(found[0])} hexadecimal digits each"
        yield Cause("random-identifier", f"{said}, drawn at random or a digest of what differs")


def _temporary(spot: Spot) -> Iterator[Cause]:
    found = _different(TEMPORARY, spot)
    if found and len(found[0]) == len(found[1]):
        yield Cause("random-identifier", f"names of temporary files: {found[0]} and {found[1]}")


def _entropy(text: str) -> float:
    """Return the bits of information in a digit, by how often each digit occurs."""
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
    """Find 16 bytes that differ as a whole and say that they are a random UUID."""
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
            said = " and ".join(f"0x{number:x}" for number in numbers)
            return Cause("address", f"at byte {at}: {said} look like addresses of memory")
    return None
