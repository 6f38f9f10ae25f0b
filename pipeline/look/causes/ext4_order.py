# SPDX-License-Identifier: GPL-3.0-or-later
"""The order in which ext4 lists a folder: by a hash of each name, with the file system's seed.

The hash is `half_md4`, ext4's default, implemented here for ASCII names; debugfs's
`dx_hash -s SEED NAME` prints the same. Source: the kernel's
Documentation/filesystems/ext4/directory.rst, "Hash Tree Directories".
"""

import struct
import uuid
from collections.abc import Sequence

MASK = 0xFFFFFFFF
BLOCK = 32  # bytes of a name that are hashed at once
# Each round: the constant added to every word, the order of the words, and the rotations in bits.
ROUNDS = (
    (0, (0, 1, 2, 3, 4, 5, 6, 7), (3, 7, 11, 19)),
    (0x5A827999, (1, 3, 5, 7, 0, 2, 4, 6), (3, 5, 9, 13)),
    (0x6ED9EBA1, (3, 7, 2, 6, 1, 5, 0, 4), (3, 9, 11, 15)),
)


def in_order_of_hashes(names: Sequence[str], seed: str) -> bool:
    """Return whether names are in the order of ext4's hashes with `seed`, a UUID."""
    try:
        words = struct.unpack("<4I", uuid.UUID(seed).bytes)
    except ValueError:
        return False
    if not all(name.isascii() for name in names):
        return False
    hashes = [half_md4(name.encode(), words) for name in names]
    return hashes == sorted(hashes)


def half_md4(name: bytes, seed: Sequence[int]) -> tuple[int, int]:
    """Return the hash of a name, and the minor hash that orders names with equal hashes."""
    state = list(seed)
    for begin in range(0, max(1, len(name)), BLOCK):
        state = _mixed(state, _words(name[begin : begin + BLOCK], len(name) - begin))
    return state[1] & ~1, state[2]


def _words(piece: bytes, left: int) -> list[int]:
    """Return a piece of a name as eight numbers, padded with the remaining length `left`."""
    size = left & 0xFF
    filling = size | size << 8
    filling |= filling << 16
    words = []
    for begin in range(0, BLOCK, 4):
        value = filling
        for byte in piece[begin : begin + 4]:
            value = (byte + (value << 8)) & MASK
        words.append(value)
    return words


def _mixed(state: Sequence[int], words: Sequence[int]) -> list[int]:
    """Return the state after a block: MD4 with half of its steps."""
    a, b, c, d = state
    for mix, (constant, order, shifts) in enumerate(ROUNDS):
        for step, number in enumerate(order):
            total = (a + _mix(mix, b, c, d) + words[number] + constant) & MASK
            shift = shifts[step % 4]
            a, b, c, d = d, (total << shift | total >> (32 - shift)) & MASK, b, c
    return [(old + new) & MASK for old, new in zip(state, (a, b, c, d), strict=True)]


def _mix(number: int, x: int, y: int, z: int) -> int:
    """Return the auxiliary function of a round of MD4, applied to three numbers."""
    return (z ^ (x & (y ^ z)), (x & y) + ((x ^ y) & z), x ^ y ^ z)[number]
