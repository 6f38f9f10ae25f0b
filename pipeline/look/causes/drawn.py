# SPDX-License-Identifier: GPL-3.0-or-later
"""Bytes of a binary content that follow no pattern: drawn at random, encrypted, or digests."""

from collections import Counter
from collections.abc import Sequence
from math import log2

from pipeline.documents.explanation import Cause
from pipeline.look.causes.spots import Spot, common_prefix

LEAST = 16  # bytes that can be judged random by their distribution
LOOKED_AT = 65536  # bytes of a long run
CHANCE = 0.02  # of the bytes of two random contents are equal, at most
SHARE = 0.9  # of the information that bytes which are all different have
AROUND = 64  # bytes on each side of an island
ISLAND_LEAST, NUMBER_BYTES = 6, 8
ISLAND_SPOTS = 8  # more than this are no islands
CALM = 0.75  # of the information that random bytes have: what is around an island has less


def in_random_bytes(contents: tuple[bytes, bytes], spots: Sequence[Spot]) -> list[Cause]:
    """Guess that bytes which differ as a whole and follow no pattern are drawn.

    They are all of a content, all between what both begin and end with, or an island in what is
    no noise itself: in noise, as of compressed data, any change looks so.
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
        alone = len(around) < LEAST <= len(apart)  # there is little else
        if not alone and not _is_calm(around):
            return []
    evidence = f"{len(islands[0].left)} bytes at byte {islands[0].offsets[0]} follow no pattern"
    return [_cause(evidence)]


def _numbers(contents: tuple[bytes, bytes], spots: Sequence[Spot]) -> list[Cause]:
    """Guess that few bytes in what is no noise are a number that is another in each build."""
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
    """Return the bytes around a spot that both contents have."""
    begin, end = spot.offsets[0], spot.offsets[0] + len(spot.left)
    near = (*range(max(0, begin - AROUND), begin), *range(end, min(end + AROUND, len(contents[0]))))
    return bytes(contents[0][at] for at in near if contents[0][at] == contents[1][at])


def _cause(evidence: str) -> Cause:
    evidence = f"{evidence}: drawn at random, a digest, or encrypted"
    return Cause("random-identifier", evidence, weak=True)


def _is_noise(content: bytes) -> bool:
    """Tell whether bytes are spread as random ones are."""
    most = min(log2(len(content)), 8)  # bits a byte, if all are different
    return _information(content) >= SHARE * most


def _information(content: bytes) -> float:
    """Return the bits of information in a byte, by how often each occurs."""
    shares = [count / len(content) for count in Counter(content).values()]
    return -sum(share * log2(share) for share in shares)
