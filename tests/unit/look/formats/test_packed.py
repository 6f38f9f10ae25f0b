# SPDX-License-Identifier: GPL-3.0-or-later
"""Compressed files of more than one stream, and what may stand between streams."""

import gzip
import lzma
import struct
from pathlib import Path

import pytest

from tests import image_pairs as pairs

TEXT = b"".join(b"line %d\n" % number for number in range(9000))
CHANGED = TEXT.replace(b"line 7777\n", b"line 777x\n")
AT = CHANGED.index(b"x")
HALF = len(TEXT) // 2


def xz(*parts: bytes, padding: int = 0) -> bytes:
    return bytes(padding).join(lzma.compress(part) for part in parts)


@pytest.mark.parametrize("padding", [0, 4, 8, 4096, 8192 * 20])
def test_xz_with_padding_between_streams(padding: int, tmp_path: Path) -> None:
    first, second = (xz(t[:HALF], t[HALF:], padding=padding) for t in (TEXT, CHANGED))
    (place,) = pairs.located(tmp_path, first, second)
    assert (place.where, place.path, place.kind, place.offset) == ("xz", "content", "content", AT)


def test_other_padding_of_xz_is_reported(tmp_path: Path) -> None:
    first, second = (xz(TEXT[:HALF], TEXT[HALF:], padding=size) for size in (4, 8))
    (place,) = pairs.located(tmp_path, first, second)
    assert (place.path, place.sizes) == ("[outside the streams]", (4, 8))


def zstd(folder: Path, content: bytes, program: str = "zstd") -> bytes:
    folder.mkdir(exist_ok=True)
    (folder / "x").write_bytes(content)
    pairs.run(program, "-q", "-f", folder / "x", "-o", folder / "x.zst")
    return (folder / "x.zst").read_bytes()


def skippable(content: bytes) -> bytes:
    return struct.pack("<II", 0x184D2A53, len(content)) + content


@pytest.mark.parametrize("place_of_frame", ["first", "middle", "last", "twice"])
def test_zstd_with_a_skippable_frame(place_of_frame: str, tmp_path: Path) -> None:
    made = []
    for content in (TEXT, CHANGED):
        one, other = (zstd(tmp_path, part) for part in (content[:HALF], content[HALF:]))
        frame = skippable(b"note" * 50_000)
        made.append(
            {
                "first": frame + one + other,
                "middle": one + frame + other,
                "last": one + other + frame,
                "twice": frame + frame + one + frame + other,
            }[place_of_frame]
        )
    (place,) = pairs.located(tmp_path, *made)
    assert (place.where, place.path, place.kind, place.offset) == ("zstd", "content", "content", AT)


def test_what_a_skippable_frame_holds_is_reported(tmp_path: Path) -> None:
    packed = zstd(tmp_path, TEXT)
    (place,) = pairs.located(tmp_path, skippable(b"one") + packed, skippable(b"two") + packed)
    assert (place.path, place.kind, place.offset) == ("[outside the streams]", "content", 8)


def test_what_pzstd_makes(tmp_path: Path) -> None:
    """It says in a skippable frame how long the next one is: that follows from the content."""
    first = zstd(tmp_path, TEXT, "pzstd")
    assert first.startswith(b"\x50\x2a\x4d\x18")
    (place,) = pairs.located(tmp_path, first, zstd(tmp_path, CHANGED + b"more", "pzstd"))
    assert (place.where, place.path, place.kind, place.offset) == ("zstd", "content", "content", AT)


@pytest.mark.parametrize("what", ["EVIL", "\0" * 512])
def test_what_follows_the_last_stream_is_reported(what: str, tmp_path: Path) -> None:
    """An attacker has the artifact, and changes what no unpacker reads."""
    packed = {"gzip": gzip.compress(TEXT, mtime=0), "xz": xz(TEXT), "zstd": zstd(tmp_path, TEXT)}
    for name, content in packed.items():
        (place,) = pairs.located(tmp_path, content, content + what.encode())
        assert (place.where, place.path) == (name, "[outside the streams]")


def test_a_gzip_of_several_members(tmp_path: Path) -> None:
    first, second = (
        gzip.compress(t[:HALF], mtime=0) + gzip.compress(t[HALF:], mtime=0) for t in (TEXT, CHANGED)
    )
    (place,) = pairs.located(tmp_path, first, second)
    assert (place.path, place.kind, place.offset) == ("content", "content", AT)


def test_only_the_name_of_a_gzip_that_has_one_is_reported(tmp_path: Path) -> None:
    packed = gzip.compress(TEXT, mtime=0)
    named = packed[:3] + b"\x08" + packed[4:10] + b"name\0" + packed[10:]
    (place,) = pairs.located(tmp_path, packed, named)
    assert (place.path, place.kind) == ("[header name]", "only-in-second")


def test_the_older_lzma(tmp_path: Path) -> None:
    first, second = (lzma.compress(t, lzma.FORMAT_ALONE) for t in (TEXT, CHANGED))
    (place,) = pairs.located(tmp_path, first, second)
    assert (place.where, place.path, place.kind, place.offset) == ("lzma", "content", "content", AT)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (bytes(1080) + b"\x53\xef" + bytes(900), "an ext2, ext3 or ext4 file system"),
        (bytes(1024) + b"\xe2\xe1\xf5\xe0" + bytes(900), "an EROFS file system"),
        (b"7z\xbc\xaf\x27\x1c" + bytes(99), "a 7z archive"),
        (b"\xed\xab\xee\xdb" + bytes(99), "an RPM package"),
    ],
)
def test_what_is_opaque_says_so(content: bytes, kind: str, tmp_path: Path) -> None:
    (place,) = pairs.located(tmp_path, content + b"1", content + b"2")
    assert (place.kind, place.note) == ("content", f"{kind}, which is not looked into")
