# SPDX-License-Identifier: GPL-3.0-or-later
"""Bytes of a binary content without any pattern: random, encrypted, or digests."""

from collections import Counter
from collections.abc import Sequence
from math import log2

from pipeline.documents.explanation import Cause
from pipeline.look.causes.spots import Spot, common_prefix

LEAST = 16  # bytes needed to judge randomness by their distribution
LOOKED_AT = 65536  # bytes of a long run that are examined
CHANCE = 0.02  # the largest share of equal bytes in two random contents
SHARE = 0.9  # the least entropy of random bytes, as a share of the maximum
AROUND = 64  # bytes on each side of an island
ISLAND_LEAST, NUMBER_BYTES = 6, 8  # the least bytes of an island, the most of a number
ISLAND_SPOTS = 8  # if there are more spots, they are not islands
CALM = 0.75  # the largest entropy of the bytes around an island, as a share of the maximum


def in_random_bytes(contents: tuple[bytes, bytes], spots: Sequence[Spot]) -> list[Cause]:
    """Guess that bytes are random if nearly all of them differ and they have no pattern.

    They are either everything between a common beginning and end, or an island in data that is not
    noise itself: in noise, such as compressed data, any difference would look random. Else, a few
    bytes may be a number that changes.
    """
    if len(contents[0]) != len(contents[1]):
        return []
    return _whole(contents) or _islands(contents, spots) or _numbers(contents, spots)


def _whole(contents: tuple[bytes, bytes]) -> list[Cause]:
    begin = common_prefix(*contents)
    end = common_prefix(contents[0][begin:][::-1], contents[1][begin:][::-1])
    left, right = (c[begin : min(len(c) - end, begin + LOOKED_AT)] for c in contents)
    size = len(left)
    if size < LEAST or size * 2 < min(len(contents[0]), LOOKED_AT):
        return []
    equal = sum(map(int.__eq__, left, right))
    if equal > max(1, CHANCE * size) or not all(map(_is_noise, (left, right))):
        return []
    evidence = (
        f"{size} bytes at byte {begin} of which {equal} are equal, and which follow no pattern"
    )
    return [_cause(evidence)]


def _islands(contents: tuple[bytes, bytes], spots: Sequence[Spot]) -> list[Cause]:
    islands = [spot for spot in spots if len(spot.left) >= ISLAND_LEAST]
    if not islands or len(spots) > ISLAND_SPOTS:
        return []
    for spot in islands:
        apart = [both for both in zip(spot.left, spot.right, strict=True) if both[0] != both[1]]
        pieces = (bytes(side) for side in zip(*apart[:LOOKED_AT], strict=True))
        if len(apart) < max(ISLAND_LEAST, 0.6 * len(spot.left)) or not all(map(_is_noise, pieces)):
            return []
        around = _around(contents, spot)
        alone = len(around) < LEAST <= len(apart)  # there is little data around it
        if not alone and not _is_calm(around):
            return []
    evidence = f"{len(islands[0].left)} bytes at byte {islands[0].offsets[0]} follow no pattern"
    return [_cause(evidence)]


def _numbers(contents: tuple[bytes, bytes], spots: Sequence[Spot]) -> list[Cause]:
    """Guess that a few bytes in data that is not noise are a number that changes in each build."""
    if not spots or len(spots) > ISLAND_SPOTS:
        return []
    if not all(
        len(spot.left) <= NUMBER_BYTES and _is_calm(_around(contents, spot)) for spot in spots
    ):
        return []
    first = spots[0]
    evidence = f"{first.left.hex()} and {first.right.hex()} at byte {first.offsets[0]}"
    return [Cause("changing-number", f"{evidence} follow from no known factor", weak=True)]


def _is_calm(around: bytes) -> bool:
    return len(around) >= LEAST and _information(around) <= CALM * log2(len(around))


def _around(contents: tuple[bytes, bytes], spot: Spot) -> bytes:
    """Return the bytes around a spot that are equal in both contents."""
    begin, end = spot.offsets[0], spot.offsets[0] + len(spot.left)
    near = (*range(max(0, begin - AROUND), begin), *range(end, min(end + AROUND, len(contents[0]))))
    return bytes(contents[0][at] for at in near if contents[0][at] == contents[1][at])


def _cause(evidence: str) -> Cause:
    evidence = f"{evidence}: drawn at random, a digest, or encrypted"
    return Cause("random-identifier", evidence, weak=True)


def _is_noise(content: bytes) -> bool:
    """Return whether bytes are distributed like random ones."""
    most = min(log2(len(content)), 8)  # bits per byte if all bytes are different
    return _information(content) >= SHARE * most


def _information(content: bytes) -> float:
    """Return the Shannon entropy in bits per byte."""
    shares = [count / len(content) for count in Counter(content).values()]
    return -sum(share * log2(share) for share in shares)
