# SPDX-License-Identifier: GPL-3.0-or-later
"""Broken and hostile contents: refused in a line, within bounds, and never taken to be equal."""

import bz2
import gzip
import lzma
import os
import struct
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from backports import zstd
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.base import command
from pipeline.look import locate
from pipeline.look.formats import container, squashfs_inode
from pipeline.look.locate import Located, locate_files
from tests import image_pairs as pairs

pytestmark = pytest.mark.tools

Maker = Callable[[Path, Path], Path]


def compare(folder: Path, first: bytes, second: bytes) -> Located:
    (folder / "first").write_bytes(first)
    (folder / "second").write_bytes(second)
    result = locate_files(folder / "first", folder / "second")
    assert result.equal == (first == second)
    assert all(str(place).isprintable() for place in result.places)
    return result


def reason(folder: Path, first: bytes, second: bytes) -> str:
    """Return why contents were refused, with the place for the message."""
    refused = [p for p in compare(folder, first, second).places if p.kind == "malformed"]
    assert refused
    return f"{refused[0].where} {refused[0].path}: {refused[0].first}"


def small_tree(folder: Path) -> Path:
    for name, content in (("a/one.txt", b"one\n"), ("a/b/big", bytes(range(256)) * 20), ("z", b"")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / "link").symlink_to("a/one.txt")
    pairs.settle(folder)
    return folder


def plain_squashfs(tree: Path, image: Path) -> Path:
    return pairs.squashfs(
        *(tree, image, "-comp", "gzip", "-noI", "-noD", "-noF", "-noX", "-nopad", "-b", "4K"),
    )


def floppy(tree: Path, image: Path) -> Path:
    (tree / "link").unlink()
    return pairs.fat(tree, image, size_kib=360)


def zip_(tree: Path, archive: Path) -> Path:
    command.run(["zip", "-q", "-r", "-y", f"{archive}.zip", "."], timeout_s=60, cwd=tree)
    return Path(f"{archive}.zip")


def tar(tree: Path, archive: Path) -> Path:
    pairs.run("tar", "-C", tree, "-cf", archive, ".")
    return archive


def ar(tree: Path, archive: Path) -> Path:
    pairs.run("ar", "rcD", archive, tree / "a/one.txt", tree / "a/b/big")
    return archive


def initramfs(tree: Path, image: Path) -> Path:
    archive = pairs.cpio(tree, image).read_bytes()
    image.write_bytes(archive + bytes(64) + gzip.compress(archive, mtime=0))
    return image


MAKERS: dict[str, Maker] = {
    "squashfs, plain": plain_squashfs,
    "squashfs": pairs.squashfs,
    "iso": lambda tree, image: pairs.iso(tree, image, "-no-pad"),
    "fat": floppy,
    "cpio": pairs.cpio,
    "initramfs": initramfs,
    "tar": tar,
    "zip": zip_,
    "ar": ar,
}


@pytest.fixture(scope="session")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("originals")
    made = {}
    for name, maker in MAKERS.items():
        tree = small_tree(folder / f"tree of {name}")
        made[name] = maker(tree, folder / name).read_bytes()
    return made


@pytest.mark.parametrize("name", MAKERS)
@given(data=st.data())
@settings(max_examples=15)
def test_damaged_contents_are_refused_or_reported(
    name: str,
    data: st.DataObject,
    originals: dict[str, bytes],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    original = originals[name]
    damaged = bytearray(original)
    ends = st.integers(0, min(700, len(original) - 1)) | st.integers(0, len(original) - 1)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(ends)
        number = data.draw(
            st.sampled_from([0, 1, 2**16 - 1, 2**31, 2**32 - 1]) | st.integers(0, 2**32 - 1)
        )
        damaged[at : at + 4] = number.to_bytes(4, "little")
    if data.draw(st.booleans()):
        del damaged[data.draw(ends) :]
    folder = tmp_path_factory.mktemp("damaged")
    compare(folder, original, bytes(damaged))
    compare(folder, bytes(damaged), original)


@pytest.mark.parametrize("name", MAKERS)
def test_truncated_contents_are_reported(
    name: str, originals: dict[str, bytes], tmp_path: Path
) -> None:
    original = originals[name]
    for length in (0, 1, 97, len(original) // 2, len(original) - 1):
        assert not compare(tmp_path, original, original[:length]).equal


def squashfs_places(image: bytes) -> tuple[int, int]:
    """Return where a plain SquashFS lists inodes and folders, without their blocks' headers."""
    inodes, folders = struct.unpack_from("<QQ", image, 64)
    return inodes + 2, folders + 2


def folder_inode(image: bytearray, number: int) -> int:
    """Return where an inode of a folder stands in a plain SquashFS."""
    start, end = squashfs_places(bytes(image))
    for at in range(start, end):
        kind, _, _, _, _, found = squashfs_inode.HEADER.unpack_from(image, at)
        if (kind, found) == (1, number):
            return at
    raise AssertionError(f"no folder has the inode {number}")


def test_a_squashfs_folder_that_contains_itself(
    originals: dict[str, bytes], tmp_path: Path
) -> None:
    image = bytearray(originals["squashfs, plain"])
    raw = originals["squashfs, plain"]
    start, _ = squashfs_places(raw)
    root = start + (struct.unpack_from("<Q", raw, 32)[0] & 0xFFFF)
    number = squashfs_inode.HEADER.unpack_from(raw, root)[5]
    # every other folder gets the list of the root
    for other in range(1, number):
        try:
            at = folder_inode(image, other)
        except AssertionError:
            continue
        image[at + 16 : at + 28] = image[root + 16 : root + 28]
    assert "contains itself" in reason(tmp_path, raw, bytes(image))


def test_a_squashfs_with_absurd_counts(originals: dict[str, bytes], tmp_path: Path) -> None:
    raw = originals["squashfs, plain"]
    for at, code, value in ((16, "<I", 2**32 - 1), (26, "<H", 2**16 - 1), (40, "<Q", 2**63)):
        image = bytearray(raw)
        struct.pack_into(code, image, at, value)
        assert "is no squashfs that can be read" in reason(tmp_path, raw, bytes(image))


@pytest.mark.parametrize(("size", "why"), [(2**30, "table ends"), (2**32 - 1, "over 1000000")])
def test_a_squashfs_file_of_more_blocks_than_are_listed(
    size: int, why: str, originals: dict[str, bytes], tmp_path: Path
) -> None:
    raw = originals["squashfs, plain"]
    image = bytearray(raw)
    start, end = squashfs_places(raw)
    for at in range(start, end):
        kind, *_ = squashfs_inode.HEADER.unpack_from(raw, at)
        if kind == 2 and struct.unpack_from("<I", raw, at + 28) == (5120,):
            struct.pack_into("<I", image, at + 28, size)
    assert why in reason(tmp_path, raw, bytes(image))


def test_a_fat_chain_without_end(originals: dict[str, bytes], tmp_path: Path) -> None:
    raw = originals["fat"]
    image = bytearray(raw)
    image[512 + 3 : 512 + 3 + 300] = (
        b"\x02\x20\x00" * 100
    )  # every cluster is followed by the second
    assert "no end" in reason(tmp_path, raw, bytes(image))


def test_an_iso_folder_that_contains_itself(originals: dict[str, bytes], tmp_path: Path) -> None:
    raw = originals["iso"]
    image = bytearray(raw)
    (root,) = struct.unpack_from("<I", raw, 32768 + 156 + 2)
    at = root * 2048
    for _ in range(2):
        at += image[at]
    while image[at]:
        if image[at + 25] & 2:
            image[at + 2 : at + 18] = raw[32768 + 156 + 2 : 32768 + 156 + 18]
        at += image[at]
    assert "contains itself" in reason(tmp_path, raw, bytes(image))


def test_a_rock_ridge_area_that_goes_on_in_itself(
    originals: dict[str, bytes], tmp_path: Path
) -> None:
    raw = originals["iso"]
    image = bytearray(raw)
    (root,) = struct.unpack_from("<I", raw, 32768 + 156 + 2)
    at = raw.index(b"PX", root * 2048)
    # 28 bytes: go on at this very field
    image[at : at + 28] = b"CE\x1c\x01" + b"".join(
        struct.pack("<I", value) + struct.pack(">I", value) for value in (at // 2048, at % 2048, 28)
    )
    assert "goes on and on" in reason(tmp_path, raw, bytes(image))


BOMBS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstd.compress,
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_bomb_is_not_unpacked_to_its_end(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locate, "WORK_LEAST", 4 * 1024 * 1024)
    pack = BOMBS[kind]
    first, second = pack(bytes(12_000_000) + b"1"), pack(bytes(12_000_000) + b"2")
    assert "more work" in reason(tmp_path, first, second)


def test_a_zstd_frame_that_wants_two_gibibytes(tmp_path: Path) -> None:
    frames = [b"\x28\xb5\x2f\xfd\x00\xa8" + content * 20 for content in (b"\x01", b"\x02")]
    assert "cannot be unpacked" in reason(tmp_path, *frames)


def test_an_xz_block_that_wants_a_gibibyte(tmp_path: Path) -> None:
    files = []
    for end in (b"1", b"2"):
        raw = bytearray(lzma.compress(b"content" + end))
        size = (raw[12] + 1) * 4
        raw[16] = 36  # the size of the dictionary: a GiB
        raw[12 + size - 4 : 12 + size] = struct.pack("<I", zlib.crc32(raw[12 : 12 + size - 4]))
        files.append(bytes(raw))
    assert "Memory" in reason(tmp_path, *files)


def test_packed_in_packed_in_packed(tmp_path: Path) -> None:
    files = []
    for content in (b"1" * 30, b"2" * 30):
        for _ in range(locate.DEPTH_LIMIT + 10):
            content = gzip.compress(content, mtime=0)
        files.append(content)
    (place,) = compare(tmp_path, *files).places
    assert place.where.count("gzip") == locate.DEPTH_LIMIT


def test_too_many_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container, "ENTRY_LIMIT", 10)
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(11):
        (tree / str(number)).touch()
    for name in ("cpio", "tar", "zip", "iso"):
        raw = MAKERS[name](tree, tmp_path / name).read_bytes()
        assert "too much" in reason(tmp_path, raw, raw[:-1] + b"\7") or name == "zip"


def test_names_with_control_characters_are_shown_escaped(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for image in ("1", "2"):
        (tree / "\x1b[2Jname\n").write_text(image)
        os.utime(tree / "\x1b[2Jname\n", (1, 1))
        pairs.squashfs(tree, tmp_path / image)
    (place,) = locate_files(tmp_path / "1", tmp_path / "2").places
    assert str(place).isprintable()
    assert r"\x1b[2Jname\n" in str(place)


def test_a_sparse_map_that_goes_on_and_on(tmp_path: Path) -> None:
    """tarfile keeps each number of it: 1 GiB of memory for a tar of 200 MiB."""
    member = tarfile.TarInfo("f")
    member.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "f"}
    numbers = b"90000000\n" + (b"1" * 400 + b"\n") * 15_000
    member.size = len(numbers) + -len(numbers) % 512
    packed = member.tobuf(tarfile.PAX_FORMAT) + numbers.ljust(member.size, b"\0") + bytes(1024)
    assert "over 4194304" in reason(tmp_path, packed + b"a", packed + b"b")
