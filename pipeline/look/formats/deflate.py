# SPDX-License-Identifier: GPL-3.0-or-later
"""Parse deflate data (RFC 1951): the matches that a compressor chose, and how it encoded them.

At each level, gzip and zlib choose the same literals and matches for a content; they differ in
where they begin a new block. Therefore these choices identify the compressor, provided that the
Huffman codes are optimal.
"""

import heapq
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from pipeline.look.formats.ranges import Span
from pipeline.look.formats.source import BadFormat

LEVELS = (6, 9, 1, 5, 7, 8, 4, 3, 2, 0)
END_OF_BLOCK = 256
AT_THE_END = 8  # last bytes of a content, for which gzip and zlib may choose differently
LENGTH_BITS = (*[0] * 8, *(bits for bits in range(1, 6) for _ in range(4)), 0)
LENGTHS = (*accumulate((1 << bits for bits in LENGTH_BITS[:27]), initial=3), 258)
DISTANCE_BITS = (0, 0, *(bits for bits in range(14) for _ in range(2)))
DISTANCES = (*accumulate((1 << bits for bits in DISTANCE_BITS[:29]), initial=1),)
ORDER = (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15)
STORED, FIXED, DYNAMIC = range(3)

# the offset in the content; a literal byte, or 256 plus a match's length; the match's distance
Choice = tuple[int, int, int]
Lengths = Sequence[int]  # of the symbols' codes, in bits


@dataclass
class Taken:
    """A parsed stream; it is `odd` if neither gzip nor zlib encodes it in this way.

    `stored` are the spans of the content in stored blocks, for which there are no choices.
    """

    choices: list[Choice] = field(default_factory=list)
    stored: list[Span] = field(default_factory=list)
    odd: bool = False


def take_apart(packed: bytes) -> Taken:
    """Parse a stream; raise BadFormat if it is damaged."""
    taken = Taken()
    taken.choices += _blocks(packed, taken)
    return taken


def is_made(packed: bytes, content: bytes, taken: Callable[[], Taken], level: int) -> bool:
    """Return whether gzip or zlib compresses a content to `packed` at a level.

    `taken` returns `packed`, parsed.
    """
    compressor = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)
    made = compressor.compress(content) + compressor.flush()
    if made == packed or not level:
        return made == packed
    return not taken().odd and _alike(made, taken(), len(content) - AT_THE_END)


def _alike(made: bytes, taken: Taken, end: int) -> bool:
    """Return whether the choices are equal, except at the end and in stored blocks of either."""
    other, theirs = Taken(), iter(taken.choices)
    for ours in _blocks(made, other):
        if _within(ours[0], taken.stored):
            continue
        known = next((one for one in theirs if not _within(one[0], other.stored)), (end, 0, 0))
        if ours != known:
            return min(ours[0], known[0]) >= end
    return all(at >= end or _within(at, other.stored) for at, _, _ in theirs)


def _within(at: int, spans: Sequence[Span]) -> bool:
    return any(start <= at < end for start, end in spans)


class _Bits:
    """Reads bits, the lowest of each byte first; beyond the end, they are zeros."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = self.held = self.count = 0

    def fill(self) -> None:
        """Ensure that at least 48 bits are buffered."""
        if self.count < 48:
            if self.at > len(self.data) + 16:
                raise BadFormat("deflated data has no end")
            self.held |= int.from_bytes(self.data[self.at : self.at + 8], "little") << self.count
            self.at, self.count = self.at + 8, self.count + 64

    def take(self, number: int) -> int:
        self.fill()
        value = self.held & ((1 << number) - 1)
        self.held >>= number
        self.count -= number
        return value

    def bytes(self, number: int) -> bytes:
        """Return the next bytes; the bits before them must have been consumed."""
        start = self.at - self.count // 8
        self.at, self.held, self.count = start + number, 0, 0
        return self.data[start : start + number]


class _Code:
    """A Huffman code: a table from the next bits to a symbol and its length."""

    def __init__(self, lengths: Lengths) -> None:
        longest = max(lengths)
        self.mask = (1 << longest) - 1
        self.found: list[tuple[int, int]] = [(-1, 0)] * (self.mask + 1)
        code = 0
        for length in range(1, longest + 1):
            for symbol, own in enumerate(lengths):
                if own == length:
                    first = int(f"{code:0{length}b}"[::-1], 2)
                    for at in range(first, self.mask + 1, 1 << length):
                        self.found[at] = symbol, length
                    code += 1
            code <<= 1

    def next(self, bits: _Bits) -> int:
        bits.fill()
        symbol, length = self.found[bits.held & self.mask]
        if symbol < 0:
            raise BadFormat("deflated data has bits that mean nothing")
        bits.held >>= length
        bits.count -= length
        return symbol


FIXED_LENGTHS = [8] * 144 + [9] * 112 + [7] * 24 + [8] * 8, [5] * 30


def _blocks(packed: bytes, taken: Taken) -> Iterator[Choice]:
    """Yield the choices of a compressor, block by block."""
    bits, position, final = _Bits(packed), 0, 0
    while not final:
        final, kind = bits.take(1), bits.take(2)
        if kind == STORED:
            position = _stored(bits, position, taken)
            continue
        if kind not in (FIXED, DYNAMIC):
            raise BadFormat("deflated data has a block of no kind")
        lengths = FIXED_LENGTHS if kind == FIXED else _lengths(bits, taken)
        used: Counter[int] = Counter()
        far: Counter[int] = Counter()
        for choice in _chosen(bits, lengths, position, (used, far)):
            yield choice
            position += 1 if choice[1] < END_OF_BLOCK else choice[1] - END_OF_BLOCK
        taken.odd |= not used and not final
        if kind == DYNAMIC:
            used[END_OF_BLOCK] += 1
            taken.odd |= any(map(_is_long, (used, far), lengths))
    taken.odd |= bits.take(bits.count % 8) != 0 or bits.at - bits.count // 8 != len(packed)


def _stored(bits: _Bits, position: int, taken: Taken) -> int:
    """Skip a stored block, which is odd if it is compressible; return its end in the content."""
    taken.odd |= bits.take(bits.count % 8) != 0  # decompressors ignore the bits up to a whole byte
    size = bits.take(32) & 0xFFFF
    content = bits.bytes(size)
    shortest = len(zlib.compress(content, 9))
    taken.odd |= not size or shortest < size - size // 50
    taken.stored.append((position, position + size))
    return position + size


def _lengths(bits: _Bits, taken: Taken) -> tuple[Lengths, Lengths]:
    """Return the code lengths of a block, for literals and match lengths, and for distances."""
    letters, distances = bits.take(5) + 257, bits.take(5) + 1
    own = [0] * len(ORDER)
    last = 0
    for symbol in ORDER[: bits.take(4) + 4]:
        last = own[symbol] = bits.take(3)
    code, found = _Code(own), list[int]()
    while len(found) < letters + distances:
        symbol = code.next(bits)
        if symbol < 16:
            found.append(symbol)
        elif symbol == 16:
            found += found[-1:] * (3 + bits.take(2))
        else:
            found += [0] * (3 + bits.take(3) if symbol == 17 else 11 + bits.take(7))
    first, second = found[:letters], found[letters:]
    taken.odd |= not last or (letters > 257 and not first[-1])
    taken.odd |= distances > 1 and not second[-1]
    return first, second


def _chosen(
    bits: _Bits, lengths: tuple[Lengths, Lengths], position: int, counts: tuple[Counter[int], ...]
) -> Iterator[Choice]:
    """Yield the literals and matches of a block, and count the symbols of both codes."""
    code, distances = _Code(lengths[0]), _Code(lengths[1])
    while (symbol := code.next(bits)) != END_OF_BLOCK:
        counts[0][symbol] += 1
        if symbol < END_OF_BLOCK:
            yield position, symbol, 0
            position += 1
            continue
        number = symbol - END_OF_BLOCK - 1
        length = LENGTHS[number] + bits.take(LENGTH_BITS[number])
        far = distances.next(bits)
        counts[1][far] += 1
        yield position, END_OF_BLOCK + length, DISTANCES[far] + bits.take(DISTANCE_BITS[far])
        position += length


def _is_long(used: Counter[int], lengths: Lengths) -> bool:
    """Return whether another code would encode the used symbols in fewer bits.

    A code that has lengths of 15 bits, the maximum, is accepted.
    """
    written = sum(number * lengths[symbol] for symbol, number in used.items())
    heap = sorted(used.values())
    shortest = sum(heap) if len(heap) == 1 else 0
    while len(heap) > 1:
        joined = heapq.heappop(heap) + heapq.heappop(heap)
        shortest += joined
        heapq.heappush(heap, joined)
    return written > shortest and max(lengths) < 15
