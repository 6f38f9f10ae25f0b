# SPDX-License-Identifier: GPL-3.0-or-later
"""The account of every byte: what an attacker hides beside a legitimate change is reported.

In every test the attacker holds one of the two files and can write to it what they like; the other
is honest. A file inside has changed for a good reason, and people expect a report of that.
"""

import gzip
import random
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from backports import zstd
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.look.account import Account
from pipeline.look.formats.source import Memory, Spool
from pipeline.look.locate import locate_contents
from tests import image_pairs as pairs
from tests import tampered
from tests.tampered import MAKERS, places

pytestmark = pytest.mark.tools

Pair = tuple[bytes, bytes]


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Pair]:
    """Give a function that makes a pair of a kind, once."""
    made: dict[str, Pair] = {}

    def make(name: str) -> Pair:
        if name not in made:
            made[name] = tampered.make_pair(name, tmp_path_factory.mktemp("pair") / "it")
        return made[name]

    return make


def lines(first: bytes, second: bytes) -> set[str]:
    return {*locate_contents((Memory(first), Memory(second)), work=tampered.WORK).lines()}


@pytest.mark.parametrize("name", MAKERS)
def test_the_parts_are_the_whole_file(name: str, pair: Callable[[str], Pair]) -> None:
    for content in pair(name):
        with Spool([tampered.WORK]).nested() as spool:
            source = Memory(content)
            parts = list(Account(tampered.read(source, spool), source).parts())
        ends = [0, *(part.span[1] for part in parts)]
        assert [part.span[0] for part in parts] == ends[:-1]
        assert ends[-1] == len(content)


@pytest.mark.parametrize("name", MAKERS)
def test_a_change_alone_is_reported_alone(name: str, pair: Callable[[str], Pair]) -> None:
    changes = {(path.removeprefix("it/").lower(), kind) for _, path, kind in places(*pair(name))}
    follows = {(tampered.CHANGED, "structure")} if name == "zip" else set()  # packed, now
    assert changes - follows == {(tampered.CHANGED, "content")}


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("hidden", [b"EVIL", b"\0", bytes(512), bytes(10240)])
def test_appended_bytes_are_reported(name: str, hidden: bytes, pair: Callable[[str], Pair]) -> None:
    first, second = pair(name)
    assert places(first, second + hidden) - places(first, second)


IN_AN_ISO = {"system area": (600, 1000, 20_000), "padding": (-1, -5000, -300_000)}


@pytest.mark.parametrize("offset", [*IN_AN_ISO["system area"], *IN_AN_ISO["padding"]])
def test_bytes_of_an_iso_that_belong_to_no_file(offset: int, pair: Callable[[str], Pair]) -> None:
    first, second = pair("iso, padded")
    changed = bytearray(second)
    changed[offset % len(second)] ^= 1
    region = "[system area]" if offset > 0 else "[unused space]"
    assert places(first, bytes(changed)) - places(first, second) == {("iso9660", region, "layout")}


@pytest.mark.parametrize("name", MAKERS)
@given(seed=st.integers(0, 2**64))
@example(seed=34326)
@settings(max_examples=25)
def test_whatever_is_done_beside_a_change_is_reported(
    name: str, seed: int, pair: Callable[[str], Pair]
) -> None:
    first, second = pair(name)
    at, changed = tampered.tamper(second, random.Random(seed))
    if changed in (first, second):
        return
    if lines(first, changed) <= lines(first, second):
        # nothing but what the changed file holds now, which is reported
        assert len(changed) == len(second)
        if name == "zstd" and content_of(changed) == content_of(second):
            return  # another encoding of the same content: docs/reference/locate.md
        assert any(start <= at < end for start, end in tampered.of_the_change(second))


def content_of(packed: bytes) -> bytes | None:
    try:
        return zstd.decompress(packed)
    except zstd.ZstdError:
        return None


def position(content: bytes, name: str) -> tuple[int, int]:
    """Return a byte that says something, beside facts and contents, and a bit of it to flip."""
    trailer = content.rfind(b"TRAILER!!!") - 76
    found = {
        "cpio, portable": (content.rfind(b"070707", 0, trailer) + 17, 1),
        "cpio": (content.find(b"000081A4") + 6, 0x20),
        "cpio, binary": (content.rfind(b"d\0", 0, content.find(b"behind")) - 6, 1),
        "cpio, sums": (content.find(b"a/b\0") - 9, 1),
        "zip": (content.rfind(b"PK\1\2") + 41, 0x80),
        "zip, stored": (content.rfind(b"PK\1\2") + 41, 0x80),
        "squashfs, plain": (content.find(b"\2\0\0\0z") - 1, 0x80),
        "squashfs, without fragments": (84, 2),
        "iso, joliet": (content.find(b"CE\x1c\1") + 21, 4),
        "iso": (content.find(b"TF\x1a\1") + 2, 4),
        "iso, hybrid": (content.find(b"ER\xed\1") + 2, 8),
        "iso, padded": (content.rfind(b"TF\x1a\1") + 2, 1),
        "fat": (content.find(b"\x08\0\0", 512) + 15, 0x40),
        "disk": (content.find(b".          \x10\0") + 11, 4),
    }
    return found[name]


@pytest.mark.parametrize(
    ("name", "means"),
    [
        ("cpio, portable", "the number of another file's inode, and so a link to it"),
        ("cpio", "a digit in small letters, where all are in capitals"),
        ("cpio, binary", "the length of a name"),
        ("cpio, sums", "the length of a name, with a zero more"),
        ("zip", "no type"),
        ("zip, stored", "no type"),
        ("squashfs, plain", "an inode's number below zero, as the root has none"),
        ("squashfs, without fragments", "the place of a table that there is not"),
        ("iso, joliet", "an area of 1,024 bytes more"),
        ("iso", "a field's length that reaches into what follows"),
        ("iso, hybrid", "a field's length that parts what follows from it"),
        ("iso, padded", "a field's length beyond the record"),
        ("fat", "the place of a label's content"),
        ("disk", "that a folder belongs to the system, in its own record of itself"),
    ],
)
def test_what_a_reader_accepts_and_does_not_use(
    name: str, means: str, pair: Callable[[str], Pair]
) -> None:
    """A bit is flipped, so that it says what `means`; each was silent once."""
    first, second = pair(name)
    at, bit = position(second, name)
    changed = bytearray(second)
    changed[at] ^= bit
    assert at > 0
    assert places(first, bytes(changed)) - places(first, second), means


FLIPS = 64  # of each kind of file, evenly over what it holds
# Their versions and levels make other bytes of the same content: no difference beside a change.
VARIOUS = ("zstd", "squashfs", "squashfs, gzip", "squashfs, without fragments")


@pytest.mark.parametrize("name", MAKERS)
def test_flipped_bits_are_reported(name: str, pair: Callable[[str], Pair]) -> None:
    """They were all flipped once, in hours; these are some, the same ones each time."""
    first, second = pair(name)
    honest, silent = lines(first, second), []
    held = [at for at in range(len(second)) if any(second[max(0, at - 8) : at + 8])]
    for number in range(FLIPS):
        at = held[number * len(held) // FLIPS]
        changed = bytearray(second)
        changed[at] ^= 1 << number * 5 % 8
        if lines(first, bytes(changed)) <= honest and bytes(changed) != first:
            kinds = {kind for _, _, kind in places(second, bytes(changed))}
            silent += [] if "content" in kinds or name in VARIOUS else [at]
    assert not silent


def members(*headers: bytes) -> bytes:
    """Return gzip streams in a row, which hold the last of the headers' letters."""
    streams = []
    for header in headers:
        packed = bytearray(gzip.compress(header[-1:] * 500, mtime=0))
        packed[4:8] = header[:4]
        streams.append(bytes(packed))
    return b"".join(streams)


def unused_bit(packed: bytes) -> bytes:
    """Set the highest bit of the last byte before a gzip stream's checksum: nothing reads it."""
    changed = bytearray(packed)
    changed[-9] |= 0x80
    assert changed != packed
    assert gzip.decompress(changed) == gzip.decompress(packed)
    return bytes(changed)


def frame(content: bytes, window: int) -> bytes:
    """Return a zstd frame of one block that is not packed."""
    block = (len(content) << 3 | 1).to_bytes(3, "little")
    return b"\x28\xb5\x2f\xfd\0" + bytes([window]) + block + content


PACKED = {
    "a later header": (members(b"0000a", b"0000b"), members(b"0000a", b"1000c")),
    "a bit that gzip does not read": (
        gzip.compress(b"one" * 99, mtime=0),
        unused_bit(gzip.compress(b"two" * 99, mtime=0)),
    ),
    "a window that zstd does not need": (frame(b"one", 0x58), frame(b"two", 0x60)),
}


@pytest.mark.parametrize("hidden", PACKED)
def test_what_a_packed_file_says_beside_its_content(hidden: str) -> None:
    first, second = PACKED[hidden]
    found = places(first, second)
    assert {kind for _, path, kind in found if path == "content"} == {"content"}
    assert len(found) == 2


def packed_by_level(tmp_path: Path, fill: Callable[[Path, int], object], *options: str) -> Pair:
    """Return two SquashFS that say to be packed alike, and are not; `fill` fills their trees."""
    made = []
    for number, level in ((1, "1"), (2, "6")):
        tree = tmp_path / str(number)
        fill(tree, number)
        pairs.settle(tree)
        packing = ("-comp", "gzip", "-Xcompression-level", level, *options)
        made.append(
            bytearray(pairs.squashfs(tree, tmp_path / f"{number}.image", *packing).read_bytes())
        )
    made[1][98:106] = made[0][98:106]
    return bytes(made[0]), bytes(made[1])


def test_a_file_that_is_packed_in_other_bytes(tmp_path: Path) -> None:
    """The attacker writes what means the same, in a file that nobody expects to have changed."""

    def fill(tree: Path, number: int) -> None:
        tampered.tree(tree, changed=number == 2)
        (tree / "large").write_bytes(b"".join(b"line %d\n" % n for n in range(40_000)))

    assert places(*packed_by_level(tmp_path, fill)) == {
        ("squashfs", "c", "content"),
        ("squashfs", "[packed data]", "layout"),
    }


def test_tables_that_are_packed_in_other_bytes(tmp_path: Path) -> None:
    """The attacker packs the tables anew: what most of their blocks hold has not changed."""

    def fill(tree: Path, number: int) -> None:
        tampered.tree(tree, changed=False)
        for name in range(600):
            (tree / f"file-{name}").write_bytes(b"%d" % name)
        (tree / "z").write_bytes(b"changed" * (number - 1))

    assert places(*packed_by_level(tmp_path, fill, "-noD", "-noF")) == {
        ("squashfs", "z", "content"),
        ("squashfs", "[packed data]", "layout"),
    }


def test_checksums_that_follow_from_a_change_are_not_reported(pair: Callable[[str], Pair]) -> None:
    first, _ = pair("disk")
    changed = bytearray(first)
    for header, array in ((512, 1024), (len(first) - 512, len(first) - 33 * 512)):
        changed[array + 56] ^= 1  # a letter of the partition's name
        sums = (header + 88, array, 128 * 128), (header + 16, header, 92)
        for place, start, length in sums:
            changed[place : place + 4] = bytes(4) if place == header + 16 else changed[place:][:4]
            crc = zlib.crc32(changed[start : start + length])
            changed[place : place + 4] = crc.to_bytes(4, "little")
    assert places(first, bytes(changed)) == {
        ("disk", "[GPT partition 1]", "structure"),
        ("disk", "[backup GPT partition 1]", "structure"),
    }


@pytest.mark.parametrize("name", ["tar", "cpio", "ar", "zip", "iso", "deb"])
def test_headers_close_to_each_other_are_reported_alone(name: str, tmp_path: Path) -> None:
    """What lies between two that differ was called unused space, with equal values."""
    made = []
    for number in (1, 2):
        tree = tampered.tree(tmp_path / str(number), changed=False)
        for path in ("c", "d"):
            (tree / path).chmod(0o600 + 0o40 * number)
        made.append(MAKERS[name](tree, tmp_path / f"{number}.image").read_bytes())
    expected = set() if name == "ar" else {("c", "mode"), ("d", "mode")}  # ar -D keeps no modes
    found = {(path.lower(), kind) for where, path, kind in places(*made) if "control" not in where}
    assert found == expected
