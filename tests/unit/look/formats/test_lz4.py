# SPDX-License-Identifier: GPL-3.0-or-later
"""lz4: frames, the older frames of initramfs, and SquashFS, made with the real tools."""

import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.look.formats import lz4
from pipeline.look.locate import locate_files
from tests import image_pairs as pairs

TEXT = b"".join(b"line %d\n" % number for number in range(60_000))
CHANGED = TEXT.replace(b"line 57777\n", b"line 5777x\n")
AT = CHANGED.index(b"x")
OPTIONS = {
    "frame": (),
    "linked blocks": ("-BD", "-B4"),
    "block checksums": ("-BX", "-B5", "--content-size"),
    "no checksum": ("--no-frame-crc", "-9"),
    "old": ("-l",),
}


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    lz4._library.cache_clear()
    yield
    lz4._library.cache_clear()


def packed(path: Path, content: bytes, *options: str) -> bytes:
    path.write_bytes(content)
    pairs.run("lz4", "-q", "-f", *options, path, f"{path}.lz4")
    return Path(f"{path}.lz4").read_bytes()


@pytest.mark.parametrize("way", OPTIONS)
def test_what_lz4_packs(way: str, tmp_path: Path) -> None:
    first, second = (packed(tmp_path / "x", text, *OPTIONS[way]) for text in (TEXT, CHANGED))
    (place,) = pairs.located(tmp_path, first, second)
    where = "lz4-legacy" if way == "old" else "lz4"
    assert (place.where, place.path, place.kind, place.offset) == (where, "content", "content", AT)


@pytest.mark.parametrize("way", ["frame", "old"])
def test_noise_and_nothing(way: str, tmp_path: Path) -> None:
    noise = os.urandom(100_000)
    ours, theirs = (packed(tmp_path / "x", c, *OPTIONS[way]) for c in (noise, noise[:-1] + b"?"))
    (place,) = pairs.located(tmp_path, ours, theirs)
    assert (place.path, place.offset) == ("content", 99_999)
    found = pairs.located(tmp_path, packed(tmp_path / "x", b"", *OPTIONS[way]), ours)
    (place,) = (place for place in found if place.path != "[frame flags]")
    assert (place.path, place.sizes) == ("content", (0, 100_000))


def test_frames_in_a_row(tmp_path: Path) -> None:
    half = len(TEXT) // 2
    first, second = (
        packed(tmp_path / "x", t[:half]) + packed(tmp_path / "x", t[half:], "-B4")
        for t in (TEXT, CHANGED)
    )
    (place,) = pairs.located(tmp_path, first, second)
    assert (place.where, place.offset) == ("lz4", AT)


def test_an_initramfs_as_ubuntu_packs_it(tmp_path: Path) -> None:
    images = []
    for tree in pairs.trees(tmp_path, lambda tree: (tree / "etc/hostname").write_bytes(b"Mini\n")):
        archive = pairs.cpio(tree, tmp_path / "archive").read_bytes()
        early = pairs.cpio(tree / "usr/share", tmp_path / "early").read_bytes()
        images.append(early + packed(tmp_path / "x", archive, "-l", "-9"))
    (place,) = pairs.located(tmp_path, *images)
    assert (place.where, place.path) == ("cpio part 02 > lz4-legacy content > cpio", "etc/hostname")


def test_a_squashfs(tmp_path: Path) -> None:
    images = [
        pairs.squashfs(tree, tmp_path / f"{tree.name}.squashfs", "-comp", "lz4")
        for tree in pairs.trees(
            tmp_path, lambda tree: (tree / "etc/hostname").write_bytes(b"Mini\n")
        )
    ]
    (place,) = locate_files(*images).places
    assert (place.where, place.path, place.kind) == ("squashfs", "etc/hostname", "content")


@pytest.mark.parametrize("cut", [5, 8, 3000, -1])
def test_what_is_cut_short_is_malformed(cut: int, tmp_path: Path) -> None:
    whole = packed(tmp_path / "x", TEXT)
    (place,) = pairs.located(tmp_path, whole, whole[:cut])
    assert place.kind == "malformed"


@pytest.mark.parametrize("at", range(4, 200, 7))
def test_damage_is_reported(at: int, tmp_path: Path) -> None:
    """An attacker made the file: a length or reference in it points anywhere."""
    for way in ("frame", "old"):
        whole = packed(tmp_path / "x", TEXT[:2000], *OPTIONS[way])
        at %= len(whole)
        damaged = whole[:at] + bytes([whole[at] ^ 0xA5]) + whole[at + 1 :]
        assert pairs.located(tmp_path, whole, damaged)


def test_countless_empty_blocks_are_refused(tmp_path: Path) -> None:
    """An attacker makes much to do of few bytes."""
    frame = b"\x04\x22\x4d\x18\x60\x40\x82" + (2**31).to_bytes(4, "little") * 2_000_000
    (place,) = pairs.located(tmp_path, frame, frame + b"x")
    assert place.kind == "malformed"
    old = lz4.LEGACY + b"\1\0\0\0\0" * 2_000_000
    (place,) = pairs.located(tmp_path, old, old + b"x")
    assert "256 bytes on average" in place.first


def test_without_the_library_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (packed(tmp_path / "x", text) for text in (TEXT, CHANGED))
    monkeypatch.setattr(lz4, "LIBRARY", "libnone.so.7")
    with pytest.raises(OSError, match="libnone"):
        ctypes.CDLL("libnone.so.7")
    (place,) = pairs.located(tmp_path, first, second)
    assert place.kind == "content"
    assert place.note == "lz4 compressed with lz4, and libnone.so.7 is not installed"
