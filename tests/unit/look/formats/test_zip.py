# SPDX-License-Identifier: GPL-3.0-or-later
"""Members of zip archives, however they are packed."""

import struct
import zipfile
from pathlib import Path

import pytest

from pipeline.look.locate import locate_files
from pipeline.look.places import Place
from tests import image_pairs as pairs

TEXT = b"".join(b"line %d\n" % number for number in range(400))
CHANGED = TEXT.replace(b"line 77\n", b"line 7x\n")
AT = CHANGED.index(b"x")


def places(first: Path, second: Path) -> tuple[Place, ...]:
    return locate_files(first, second).places


def zipped(folder: Path, content: bytes, *options: str) -> Path:
    """Zip one file with Info-ZIP."""
    folder.mkdir()
    (folder / "text").write_bytes(content)
    pairs.settle(folder)
    pairs.run("zip", "-q", "-j", *options, folder / "1.zip", folder / "text")
    return folder / "1.zip"


@pytest.mark.parametrize("method", ["store", "deflate", "bzip2"])
def test_a_member_that_differs(method: str, tmp_path: Path) -> None:
    made = [zipped(tmp_path / name[-1:], t, "-Z", method, "-X") for name, t in TEXTS.items()]
    (place,) = places(*made)
    assert (place.where, place.path, place.kind) == ("zip", "text", "content")
    assert (place.offset, place.bytes, place.sizes) == (AT, 1, (len(TEXT), len(TEXT)))


TEXTS = {"content 1": TEXT, "content 2": CHANGED}


def test_an_empty_member_and_a_full_one(tmp_path: Path) -> None:
    made = [zipped(tmp_path / str(n), t, "-X") for n, t in enumerate((b"", TEXT))]
    (place,) = (p for p in places(*made) if p.kind != "structure")
    assert (place.path, place.kind, place.sizes) == ("text", "content", (0, len(TEXT)))


@pytest.mark.parametrize("method", ["store", "deflate"])
def test_an_encrypted_member_is_called_so(method: str, tmp_path: Path) -> None:
    made = [
        zipped(tmp_path / name[-1:], content, "-Z", method, "-X", "-P", "secret")
        for name, content in TEXTS.items()
    ]
    (place,) = places(*made)
    assert (place.path, place.kind, place.note) == ("text", "content", "encrypted")
    assert str(place).endswith(" (encrypted)")


def test_a_method_that_is_not_read_here(tmp_path: Path) -> None:
    for number, content in enumerate(TEXTS.values()):
        with zipfile.ZipFile(tmp_path / str(number), "w", zipfile.ZIP_LZMA) as archive:
            archive.writestr(zipfile.ZipInfo("text"), content, zipfile.ZIP_LZMA)
    (place,) = places(tmp_path / "0", tmp_path / "1")
    assert (place.path, place.kind) == ("text", "content")
    assert place.note == "compressed with lzma, which is not read here"


def test_one_archive_is_compressed_and_the_other_is_not(tmp_path: Path) -> None:
    first = zipped(tmp_path / "1", TEXT, "-X", "-0")
    found = {(p.path, p.kind) for p in places(first, zipped(tmp_path / "2", CHANGED, "-X"))}
    assert ("text", "content") in found
    assert all(kind in ("content", "structure") for _, kind in found)


def test_times_in_extra_fields_are_times(tmp_path: Path) -> None:
    """Info-ZIP writes times of one second's resolution, and when the file was read, beside it."""
    first = zipped(tmp_path / "1", TEXT, "-X")
    second = zipped(tmp_path / "2", TEXT)
    raw = bytearray(second.read_bytes())
    (tmp_path / "3").write_bytes(raw)
    at = raw.index(b"UT\x09\x00") + 5  # of the member's own header
    struct.pack_into("<i", raw, at, 77)
    (tmp_path / "4").write_bytes(raw)
    (place,) = places(tmp_path / "3", tmp_path / "4")
    assert (place.path, place.kind) == ("text", "time")
    assert (place.first, place.second) == (
        f"extra local modified={pairs.EPOCH}",
        "extra local modified=77",
    )
    kinds = {p.kind for p in places(first, second)}
    assert kinds == {"time", "owner", "structure"}


def test_a_header_that_says_something_else_than_the_directory(tmp_path: Path) -> None:
    first = zipped(tmp_path / "1", TEXT, "-X")
    raw = bytearray(first.read_bytes())
    raw[14] ^= 1  # the checksum in the member's own header
    (tmp_path / "b").write_bytes(raw)
    (place,) = places(first, tmp_path / "b")
    assert (place.path, place.kind) == ("text", "structure")
    assert place.second.startswith("local header checksum=")
