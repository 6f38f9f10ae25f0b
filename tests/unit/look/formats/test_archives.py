# SPDX-License-Identifier: GPL-3.0-or-later
"""Where archives, packed files, FATs and disks differ, made with the real tools."""

import gzip
import os
import tarfile
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.base import command
from pipeline.look.locate import locate_files
from tests import image_pairs as pairs
from tests.image_pairs import EPOCH, Change
from tests.real_pairs import write

pytestmark = pytest.mark.tools

Places = set[tuple[str, str, str]]
Expected = set[tuple[str, str]]
Maker = Callable[[Path, Path], Path]
Original = Callable[[Maker], Path]


def places(first: Path, second: Path) -> Places:
    result = locate_files(first, second)
    assert result.equal == (first.read_bytes() == second.read_bytes()) == (not result.places)
    return {(place.where, place.path, place.kind) for place in result.places}


def tar(tree: Path, archive: Path, *options: str) -> Path:
    sort = ["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--format=gnu"]
    pairs.run("tar", "-C", tree, *sort, *options, "-cf", archive, ".")
    return archive


def zip_(tree: Path, archive: Path) -> Path:
    names = sorted(os.fspath(path.relative_to(tree)) for path in tree.rglob("*"))
    command.run(["zip", "-q", "-X", "-y", f"{archive}.zip", *names], timeout_s=60, cwd=tree)
    return Path(f"{archive}.zip")


def relink(tree: Path) -> None:
    (tree / "etc/alias").unlink()
    (tree / "etc/alias").symlink_to("os-release")


CHANGES: dict[str, tuple[Change, Expected]] = {
    "nothing": (pairs.nothing, set()),
    "content": (write("etc/hostname", b"M"), {("etc/hostname", "content")}),
    "longer": (write("etc/hostname", b"longer than it was"), {("etc/hostname", "content")}),
    "mode": (lambda tree: (tree / "usr/bin/tool").chmod(0o700), {("usr/bin/tool", "mode")}),
    "time": (
        lambda tree: os.utime(tree / "etc/hostname", (EPOCH - 2**25,) * 2),
        {("etc/hostname", "time")},
    ),
    "more": (
        lambda tree: (tree / "etc/machine-id").write_bytes(b"7"),
        {("etc/machine-id", "only-in-second")},
    ),
    "target": (relink, {("etc/alias", "target")}),
}
MAKERS: dict[str, Maker] = {"cpio": pairs.cpio, "tar": tar, "zip": zip_}


@pytest.mark.parametrize("cause", CHANGES)
@pytest.mark.parametrize("maker", MAKERS)
def test_causes_in_an_archive(maker: str, cause: str, tmp_path: Path, original: Original) -> None:
    change, expected = CHANGES[cause]
    tree = pairs.changed_tree(tmp_path / "tree", change)
    images = original(MAKERS[maker]), MAKERS[maker](tree, tmp_path / "image")
    wanted = {(maker, path, kind) for path, kind in expected}
    assert places(*images) == wanted


def test_another_order_is_reported_once(tmp_path: Path) -> None:
    tree = pairs.make_tree(tmp_path / "tree")
    first = pairs.cpio(tree, tmp_path / "1")
    found = places(first, pairs.cpio(tree, tmp_path / "2", sort=False))
    assert found == {("cpio", "[order of entries]", "order")}


def test_an_initramfs_with_microcode_before_it(tmp_path: Path) -> None:
    images = []
    for tree in pairs.trees(tmp_path, write("etc/hostname", b"M")):
        early = tmp_path / f"early-{tree.name}"
        (early / "kernel/x86/microcode").mkdir(parents=True)
        (early / "kernel/x86/microcode/AuthenticAMD.bin").write_bytes(b"code")
        pairs.settle(early)
        initramfs = tmp_path / f"initrd-{tree.name}"
        pairs.cpio(early, initramfs)
        main = gzip.compress(pairs.cpio(tree, tmp_path / "main").read_bytes(), mtime=0)
        initramfs.write_bytes(initramfs.read_bytes() + bytes(512) + main)
        images.append(initramfs)
    where = "cpio part 02 > gzip content > cpio"
    assert places(*images) == {(where, "etc/hostname", "content")}


PACKERS = {
    "gzip": ("gzip", "-n", "-k"),
    "xz": ("xz", "-k"),
    "zstd": ("zstd", "-q", "-k"),
    "bzip2": ("bzip2", "-k"),
}
SUFFIXES = {"gzip": "gz", "xz": "xz", "zstd": "zst", "bzip2": "bz2"}


def pack(packer: str, path: Path, *options: str) -> Path:
    pairs.run(*PACKERS[packer], *options, path)
    return path.with_name(f"{path.name}.{SUFFIXES[packer]}")


@pytest.mark.parametrize("packer", PACKERS)
def test_a_packed_archive(packer: str, tmp_path: Path) -> None:
    images = [
        pack(packer, tar(tree, tmp_path / f"{tree.name}.tar"))
        for tree in pairs.trees(tmp_path, write("usr/lib/big", b"?", 200_000))
    ]
    (place,) = locate_files(*images).places
    assert (place.where, place.path) == (f"{packer} content > tar", "usr/lib/big")
    assert (place.kind, place.offset, place.bytes) == ("content", 200_000, 1)


@pytest.mark.parametrize("packer", PACKERS)
def test_the_same_packed_otherwise_is_a_layout(packer: str, tmp_path: Path) -> None:
    (tmp_path / "1").write_bytes(b"".join(number.to_bytes(3, "big") for number in range(50_000)))
    (tmp_path / "2").write_bytes((tmp_path / "1").read_bytes())
    images = [pack(packer, tmp_path / "1", "-1"), pack(packer, tmp_path / "2", "-9")]
    kinds = {kind for _, _, kind in places(*images)}
    assert kinds <= {"layout", "structure"}
    assert kinds


@pytest.mark.parametrize("packer", PACKERS)
def test_streams_in_a_row_are_one_content(packer: str, tmp_path: Path) -> None:
    """Wherever the border between streams falls in what is read at once."""
    for length in (1, 262_143 - 30, 262_144):
        for number, end in ((1, b"a"), (2, b"b")):
            parts = []
            for name, content in (("x", os.urandom(length)), ("y", end)):
                (tmp_path / name).write_bytes(bytes(length) if name == "x" else content)
                parts.append(pack(packer, tmp_path / name, "-f").read_bytes())
            (tmp_path / f"both{number}").write_bytes(b"".join(parts))
        (place,) = locate_files(tmp_path / "both1", tmp_path / "both2").places
        assert (place.where, place.path, place.offset) == (packer, "content", length)


def test_a_gzip_header(tmp_path: Path) -> None:
    for name, time in (("1", 7), ("2", 8)):
        (tmp_path / name).write_bytes(gzip.compress(b"the same", mtime=time))
    (place,) = locate_files(tmp_path / "1", tmp_path / "2").places
    assert (place.path, place.kind, place.first, place.second) == (
        "[header time]",
        "time",
        "7",
        "8",
    )


def test_a_debian_package(tmp_path: Path) -> None:
    images = []
    for tree in pairs.trees(tmp_path, write("etc/hostname", b"M")):
        (tree / "DEBIAN").mkdir()
        (tree / "DEBIAN/control").write_text(
            "Package: p\nVersion: 1\nArchitecture: all\n"
            "Maintainer: p <p@example.org>\nDescription: p\n"
        )
        package = tmp_path / f"{tree.name}.deb"
        epoch = str(EPOCH + 20_000)
        pairs.run(
            *("dpkg-deb", "--root-owner-group", "-Zxz", "-b", tree, package),
            SOURCE_DATE_EPOCH=epoch,
        )
        images.append(package)
    where = "ar data.tar.xz > xz content > tar"
    assert (where, "etc/hostname", "content") in places(*images)
    assert all(where.startswith("ar data") for where, _, _ in places(*images))


def test_an_ar_member_with_a_long_name(tmp_path: Path) -> None:
    name = "a-very-long-name-for-a-member.txt"
    for number, content in ((1, "a"), (2, "b")):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / name).write_text(content)
        pairs.run("ar", "rcD", tmp_path / f"{number}.a", folder / name)
    found = places(tmp_path / "1.a", tmp_path / "2.a")
    assert found == {("ar", name, "content")}


IN_A_FAT: dict[str, tuple[Change, Expected]] = {
    "nothing": (pairs.nothing, set()),
    "content": (write("usr/lib/big", b"?", 200_000), {("usr/lib/big", "content")}),
    "time": CHANGES["time"],
    "more": CHANGES["more"],
}


def fat(tree: Path, image: Path, *, size_kib: int = 1440) -> Path:
    (tree / "etc/alias").unlink()  # there are no links in a FAT
    pairs.settle(tree)
    return pairs.fat(tree, image, size_kib=size_kib)


def large_fat(tree: Path, image: Path) -> Path:
    return fat(tree, image, size_kib=20_000)


FATS = [*((fat, cause) for cause in IN_A_FAT), (large_fat, "content")]


@pytest.mark.parametrize(("maker", "cause"), FATS)
def test_causes_in_a_fat(maker: Maker, cause: str, tmp_path: Path, original: Original) -> None:
    change, expected = IN_A_FAT[cause]
    tree = pairs.changed_tree(tmp_path / "tree", change)
    found = places(original(maker), maker(tree, tmp_path / "image"))
    assert found == {("fat", *place) for place in expected}


def test_a_fat_in_a_partition_and_its_serial_number(tmp_path: Path) -> None:
    tree, disk = tmp_path / "tree", tmp_path / "disk"
    tree.mkdir()
    with disk.open("wb") as file:
        file.truncate(4 * 1024 * 1024)
    one = "00000001-0000-4000-8000-000000000000"
    pairs.run("sgdisk", "-n", "1:2048:+1M", "-u", f"1:{one}", disk)
    raw, images = disk.read_bytes(), []
    for serial in ("11111111", "22222222"):
        image = pairs.fat(tree, tmp_path / f"{serial}.fat", serial=serial)
        unique = raw.replace(uuid.UUID(one).bytes_le, (serial * 2).encode())
        images.append(tmp_path / f"{serial}.img")
        images[-1].write_bytes(unique[: 2**20] + image.read_bytes() + unique[2 * 2**20 :])
    assert places(*images) == {
        ("disk partition 1 > fat", "[volume serial number]", "identifier"),
        ("disk", "[GPT partition 1 GUID]", "identifier"),
        ("disk", "[backup GPT partition 1 GUID]", "identifier"),
    }


def test_what_is_left_over_in_a_cluster_is_reported(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_bytes(b"short")
    os.utime(tree / "file", (EPOCH, EPOCH))
    first = pairs.fat(tree, tmp_path / "1")
    raw = bytearray(first.read_bytes())
    raw[raw.index(b"short") + 100] = 7
    (tmp_path / "2").write_bytes(raw)
    assert places(first, tmp_path / "2") == {("fat", "[slack after a file's end]", "layout")}


def test_a_tar_with_extended_headers(tmp_path: Path) -> None:
    for number, value in ((1, "a"), (2, "b")):
        with tarfile.open(tmp_path / str(number), "w", format=tarfile.PAX_FORMAT) as archive:
            member = tarfile.TarInfo("x" * 200)
            member.pax_headers = {"SCHILY.xattr.user.note": value}
            archive.addfile(member)
    ((_, path, kind),) = places(tmp_path / "1", tmp_path / "2")
    assert (path, kind) == ("x" * 200, "xattr")


def deb(tree: Path, package: Path, compression: str) -> Path:
    (tree / "DEBIAN").mkdir()
    (tree / "DEBIAN/control").write_text(
        "Package: p\nVersion: 1\nArchitecture: all\nMaintainer: p <p@example.org>\nDescription: p\n"
    )
    argv = ("dpkg-deb", "--root-owner-group", f"-Z{compression}", "-b", tree, package)
    pairs.run(*argv, SOURCE_DATE_EPOCH=str(EPOCH + 20_000))
    return package


WAYS = [("xz", "zstd"), ("gzip", "xz"), ("none", "xz"), ("zstd", "none")]


@pytest.mark.parametrize(("ours", "theirs"), WAYS)
def test_debian_packages_whose_members_are_packed_otherwise(
    ours: str, theirs: str, tmp_path: Path
) -> None:
    images = [
        deb(tree, tmp_path / f"{tree.name}.deb", compression)
        for compression, tree in zip(
            (ours, theirs), pairs.trees(tmp_path, write("etc/hostname", b"M")), strict=True
        )
    ]
    found = locate_files(*images).places
    within = {(p.where.rpartition(" > ")[2], p.path, p.kind) for p in found if " > " in p.where}
    assert within == {("tar", "etc/hostname", "content")}
    outer = [place for place in found if " > " not in place.where]
    assert [p.path.split(".")[0] for p in outer] == ["control", "control", "data", "data"]
    assert {(p.where, p.kind) for p in outer} == {("ar", "name"), ("ar", "structure")}
    assert (outer[3].first, outer[3].second) == (f"packing {ours}", f"packing {theirs}")


@pytest.mark.parametrize(("ours", "theirs"), [("gzip", "zstd"), ("bzip2", "xz")])
def test_an_archive_packed_otherwise(ours: str, theirs: str, tmp_path: Path) -> None:
    images = [
        pack(packer, tar(tree, tmp_path / f"{tree.name}.tar"))
        for packer, tree in zip(
            (ours, theirs), pairs.trees(tmp_path, write("etc/hostname", b"M")), strict=True
        )
    ]
    assert places(*images) == {
        ("", "", "structure"),
        (f"{ours}/{theirs} content > tar", "etc/hostname", "content"),
    }


def test_an_archive_that_is_packed_on_one_side(tmp_path: Path) -> None:
    tree = pairs.make_tree(tmp_path / "tree")
    archive = tar(tree, tmp_path / "archive")
    packed = pack("gzip", archive)
    assert places(archive, packed) == {("", "", "structure")}


def test_bytes_behind_an_archive_are_no_other_archive(tmp_path: Path) -> None:
    """An attacker appends to an initramfs what the kernel may unpack, too."""
    archive = pairs.cpio(pairs.make_tree(tmp_path / "tree"), tmp_path / "1")
    (tmp_path / "2").write_bytes(archive.read_bytes() + b"EVIL and more")
    assert places(archive, tmp_path / "2") == {("cpio", "part 02", "only-in-second")}


def test_a_hard_link_and_a_copy_in_a_cpio(tmp_path: Path) -> None:
    """The archive stores what linked files hold with the last of them alone."""
    first = pairs.make_tree(tmp_path / "1")
    os.link(first / "etc/hostname", first / "etc/mirror")
    second = pairs.make_tree(tmp_path / "2")
    (second / "etc/mirror").write_bytes((second / "etc/hostname").read_bytes())
    for tree in (first, second):
        os.utime(tree / "etc/mirror", (EPOCH, EPOCH))
        os.utime(tree / "etc", (EPOCH, EPOCH))
    images = [pairs.cpio(tree, tmp_path / f"{tree.name}.cpio") for tree in (first, second)]
    assert places(*images) == {
        ("cpio", "etc/hostname", "links"),
        ("cpio", "etc/mirror", "links"),
    }
