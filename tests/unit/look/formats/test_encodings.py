# SPDX-License-Identifier: GPL-3.0-or-later
"""How a content is compressed is reported, if no compressor would have done it so.

In every test the attacker holds the second file. Its content has changed for a good reason, and
unpacks as it should: what they write is only in what the compressed bytes say beside that.
"""

import bz2
import gzip
import lzma
import random
import zipfile
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest

from pipeline.base import command
from pipeline.look.formats import deflate
from pipeline.look.formats.source import Memory
from pipeline.look.locate import locate_contents
from tests.tampered import WORK, places

pytestmark = pytest.mark.tools

LINES = b"".join(b"line %d of a text, a text that says itself again\n" % n for n in range(12))
TEXT = LINES + bytes(40) + LINES[::-1] + b"all rights\n" * 9
CHANGED = TEXT.replace(b"line 7 of", b"line 7 in")
LONG = b"".join(b"line %d, %d\n" % (n, n * n) for n in range(6000))
BEGINNING = 10  # bytes of a gzip stream before its data
EMPTY_BLOCK = b"\0\0\0\xff\xff"
BEST = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 2**23}]


def program(*argv: str) -> Callable[[Path, bytes], bytes]:
    def pack(folder: Path, content: bytes) -> bytes:
        (folder / "x").write_bytes(content)
        return command.run([*argv, str(folder / "x")], timeout_s=60).stdout

    return pack


def zipped(folder: Path, content: bytes) -> bytes:
    file = BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo("member"), content, zipfile.ZIP_DEFLATED)
    return file.getvalue()


def unzip(packed: bytes) -> bytes:
    with zipfile.ZipFile(BytesIO(packed)) as archive:
        return archive.read("member")


def unpack_lz4(packed: bytes) -> bytes:
    return command.run(["lz4", "-qdc"], timeout_s=60, stdin=packed).stdout


PACKERS: dict[str, tuple[Callable[[Path, bytes], bytes], Callable[[bytes], bytes]]] = {
    "gzip": (program("gzip", "-nc"), gzip.decompress),
    "gzip -1": (program("gzip", "-nc1"), gzip.decompress),
    "zlib": (lambda _, content: gzip.compress(content, 6, mtime=0), gzip.decompress),
    "zip": (zipped, unzip),
    "bzip2": (program("bzip2", "-c"), bz2.decompress),
    "xz": (program("xz", "-c"), lzma.decompress),
    "lzma": (program("lzma", "-c"), lzma.decompress),
}
FAULTS = (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)


@pytest.mark.parametrize("name", PACKERS)
def test_no_bit_is_silent(name: str, tmp_path: Path) -> None:
    """Each bit is flipped; what then unpacks to the same is reported beside the content."""
    pack, unpack = PACKERS[name]
    first, second = pack(tmp_path, TEXT), pack(tmp_path, CHANGED)
    honest, same, silent = places(first, second), 0, []
    assert {kind for _, _, kind in honest} == {"content"}
    for at in range(8 * len(second)):
        changed = bytearray(second)
        changed[at // 8] ^= 1 << at % 8
        try:
            unpacked = unpack(bytes(changed))
        except (*FAULTS, NotImplementedError, RuntimeError, KeyError):
            continue
        if unpacked == CHANGED:
            same += 1
            silent += [at] if places(first, bytes(changed)) <= honest else []
    assert not silent
    assert same or name in ("xz", "lzma")


@pytest.mark.parametrize("options", [(), ("-9",), ("-BX", "-B4"), ("--content-size",), ("-l",)])
def test_no_bit_of_lz4_is_silent(options: tuple[str, ...], tmp_path: Path) -> None:
    """Checksums and reserved bits of a frame are verified, and its references are those of lz4."""
    pack = program("lz4", "-qc", *options)
    first, second = pack(tmp_path, TEXT), pack(tmp_path, CHANGED)
    honest = places(first, second)
    for at in range(len(second)):
        for bit in (1 << at % 8, 1 << (at + 3) % 8):
            changed = bytearray(second)
            changed[at] ^= bit
            alone = places(second, bytes(changed))
            content = any(kind == "content" for _, _, kind in alone)
            assert content or places(first, bytes(changed)) - honest, (at, bit)


@pytest.mark.parametrize("name", ["gzip", "gzip -1", "zlib", "zip", "bzip2", "xz", "lzma"])
@pytest.mark.parametrize("size", [30, 300, 6000, 40_000])
def test_an_honest_change_is_reported_alone(name: str, size: int, tmp_path: Path) -> None:
    pack, _ = PACKERS[name]
    noise = random.Random(size).randbytes(size // 3)
    for content in (LONG[:size], noise + LONG[: size // 2] + noise[:40]):
        for changed in (content[:-1] + b"?", content * 2, content[: size // 2] + b"x"):
            found = places(pack(tmp_path, content), pack(tmp_path, changed))
            assert {kind for _, _, kind in found} == {"content"}


OTHERWISE = {
    "gzip, an empty block": (
        gzip.compress(TEXT, mtime=0),
        (lambda p: p[:BEGINNING] + EMPTY_BLOCK + p[BEGINNING:])(gzip.compress(CHANGED, mtime=0)),
    ),
    "gzip, bits before a stored block": (
        gzip.compress(TEXT, 0, mtime=0),
        (lambda p: p[:BEGINNING] + bytes([p[BEGINNING] | 0xF8]) + p[BEGINNING + 1 :])(
            gzip.compress(CHANGED, 0, mtime=0)
        ),
    ),
    "gzip, another level": (
        gzip.compress(LONG, 6, mtime=0),
        (lambda p: p[:8] + b"\0" + p[9:])(gzip.compress(LONG + b"more\n", 1, mtime=0)),
    ),
    "xz, another level": (
        lzma.compress(LONG),
        lzma.compress(LONG + b"more\n", filters=BEST),
    ),
    "bzip2, an empty stream": (
        bz2.compress(TEXT),
        bz2.compress(CHANGED) + bz2.compress(b""),
    ),
    "bzip2, blocks as of another level": (
        bz2.compress(LONG * 3, 2),
        (lambda p: p[:3] + b"2" + p[4:])(bz2.compress(LONG * 3 + b"more\n", 1)),
    ),
}


@pytest.mark.parametrize("name", OTHERWISE)
def test_another_encoding_is_reported(name: str) -> None:
    first, second = OTHERWISE[name]
    assert gzip.decompress(second) if name.startswith("gzip") else True
    found = places(first, second)
    assert {kind for _, path, kind in found if path == "content"} >= {"content"}
    assert len(found) == 2


def test_it_says_what_makes_it() -> None:
    first, second = OTHERWISE["xz, another level"]
    compared = locate_contents((Memory(first), Memory(second)), work=WORK)
    place = next(place for place in compared.places if place.kind == "layout")
    assert str(place) == ("xz: content: layout: what xz -6 makes of it / what xz -6e makes of it")


def test_what_no_compressor_makes_is_reported_of_both() -> None:
    """Neither side's honesty is known: their blocks are laid out as xz never does it."""
    odd = [{"id": lzma.FILTER_LZMA2, "dict_size": 2**23, "lc": 0, "nice_len": 17}]
    first, second = (lzma.compress(text, filters=odd) for text in (LONG[:5000], LONG[:6000]))
    assert places(first, second) == {("xz", "content", "content"), ("xz", "content", "layout")}


def test_two_other_programs_that_deflate_are_not_reported() -> None:
    """Many do, each in its way: zlib itself with another strategy stands for them."""
    made = []
    for content in (LONG, LONG + b"more\n"):
        compressor = zlib.compressobj(6, zlib.DEFLATED, 31, 8, zlib.Z_HUFFMAN_ONLY)
        made.append(compressor.compress(content) + compressor.flush())
    assert places(*made) == {("gzip", "content", "content")}


def test_what_stands_around_a_content_that_is_packed_otherwise() -> None:
    """The packing differs on both sides, for a good reason; the attacker appends to one."""
    first = gzip.compress(TEXT, mtime=0)
    assert places(first, lzma.compress(TEXT)) == {("", "", "structure")}
    assert places(first, lzma.compress(TEXT) + b"EVIL") == {
        ("", "", "structure"),
        ("xz", "[outside the streams]", "only-in-second"),
    }
    named = first[:3] + b"\x10" + first[4:BEGINNING] + b"EVIL\0" + first[BEGINNING:]
    assert places(lzma.compress(TEXT), named) == {
        ("", "", "structure"),
        ("gzip", "[header comment]", "only-in-second"),
    }


def test_the_headers_behind_a_skipped_frame(tmp_path: Path) -> None:
    """pzstd writes such a frame first: the header behind it was not looked at."""
    pack = program("pzstd", "-qc")
    first, second = pack(tmp_path, TEXT), pack(tmp_path, CHANGED)
    for at, bit in ((0, 1), (16, 16), (17, 1)):
        changed = bytearray(second)
        changed[at] ^= bit
        assert places(first, bytes(changed)) - places(first, second)


def test_what_is_taken_apart_is_the_whole_content() -> None:
    for level in (1, 6, 9):
        packed = zlib.compress(LONG, level)[2:-4]
        taken = deflate.take_apart(packed)
        lengths = (1 if what < 256 else what - 256 for _, what, _ in taken.choices)
        assert sum(lengths) == len(LONG)
        assert not taken.odd
