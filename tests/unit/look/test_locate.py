# SPDX-License-Identifier: GPL-3.0-or-later
"""Where two images differ: a cause is injected into one of a pair made with the real tools."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.base.errors import UsageError
from pipeline.look.locate import locate_files
from tests import image_pairs as pairs
from tests.image_pairs import Change
from tests.real_pairs import write

pytestmark = pytest.mark.tools

Expected = set[tuple[str, str, str]]
Found = set[tuple[str, str]]  # the same inside one image: path, kind
Original = Callable[[Callable[[Path, Path], Path]], Path]


def places(first: Path, second: Path) -> Expected:
    result = locate_files(first, second)
    assert result.equal == (first.read_bytes() == second.read_bytes())
    assert result.equal == (not result.places)
    assert all(str(place).isprintable() for place in result.places)
    return {(place.where, place.path, place.kind) for place in result.places}


def replaced(name: str, make: Callable[[Path], None]) -> Change:
    def change(tree: Path) -> None:
        (tree / name).unlink()
        make(tree / name)

    return change


IN_A_TREE: dict[str, tuple[Change, Found]] = {
    "nothing": (pairs.nothing, set()),
    "content": (write("etc/hostname", b"M"), {("etc/hostname", "content")}),
    "a late byte": (write("usr/lib/big", b"?", 299_999), {("usr/lib/big", "content")}),
    "mode": (lambda tree: (tree / "usr/bin/tool").chmod(0o700), {("usr/bin/tool", "mode")}),
    "time": (
        lambda tree: os.utime(tree / "etc/hostname", (1, 1)),
        {("etc/hostname", "time")},
    ),
    "time of a folder": (lambda tree: os.utime(tree / "etc", (1, 1)), {("etc", "time")}),
    "a file more": (
        lambda tree: (tree / "etc/machine-id").write_bytes(b"0123\n"),
        {("etc/machine-id", "only-in-second")},
    ),
    "a folder less": (
        lambda tree: shutil.rmtree(tree / "var/empty"),
        {("var/empty", "only-in-first")},
    ),
    "target": (
        replaced("etc/alias", lambda path: path.symlink_to("os-release")),
        {("etc/alias", "target")},
    ),
    "type": (
        replaced("etc/hostname", Path.mkdir),
        {("etc/hostname", "type")},
    ),
    "emptied": (
        lambda tree: (tree / "etc/hostname").write_bytes(b""),
        {("etc/hostname", "content")},
    ),
    "longer": (
        lambda tree: (tree / "usr/lib/big").write_bytes(os.urandom(400_000)),
        {("usr/lib/big", "content")},
    ),
    "a hard link": (
        replaced("etc/os-release", lambda path: path.hardlink_to(path.with_name("hostname"))),
        {("etc/os-release", "content"), ("etc/os-release", "links"), ("etc/hostname", "links")},
    ),
}


@pytest.mark.parametrize("cause", IN_A_TREE)
def test_causes_in_a_squashfs(cause: str, tmp_path: Path, original: Original) -> None:
    change, expected = IN_A_TREE[cause]
    tree = pairs.changed_tree(tmp_path / "tree", change)
    found = places(original(pairs.squashfs), pairs.squashfs(tree, tmp_path / "image"))
    assert found == {("squashfs", *place) for place in expected}


@pytest.mark.parametrize("cause", ["time", "longer"])
def test_a_squashfs_in_an_iso(cause: str, tmp_path: Path) -> None:
    change, expected = IN_A_TREE[cause]
    images = []
    for number, tree in enumerate(pairs.trees(tmp_path, change)):
        live = tmp_path / f"live-{number}"
        live.mkdir()
        pairs.squashfs(tree, live / "filesystem.squashfs")
        (live / "after").write_bytes(b"what comes after it")
        images.append(pairs.iso(live, tmp_path / f"{number}.iso"))
    where = "iso9660 filesystem.squashfs > squashfs"
    assert places(*images) == {(where, *place) for place in expected}


IN_AN_ISO = ("nothing", "content", "mode", "a file more", "a folder less", "target", "type")


@pytest.mark.parametrize("cause", [*IN_AN_ISO, "emptied", "longer"])
def test_causes_in_an_iso(cause: str, tmp_path: Path, original: Original) -> None:
    change, expected = IN_A_TREE[cause]
    tree = pairs.changed_tree(tmp_path / "tree", change)
    images = original(pairs.iso), pairs.iso(tree, tmp_path / "2.iso")
    follows = {("iso9660", path, "links") for path in ("var", "etc", "etc/hostname")}
    assert places(*images) - follows == {("iso9660", *place) for place in expected}


IDENTITIES: dict[str, tuple[tuple[str, ...], Found]] = {
    "volume": (("-V", "OTHER"), {("[primary volume descriptor: volume identifier]", "identifier")}),
    "time": (
        ("--modification-date=2025122210400099",),
        {("[primary volume descriptor: modification time]", "time")},
    ),
    "publisher": (
        ("-publisher", "X"),
        {("[primary volume descriptor: publisher]", "identifier")},
    ),
    "MBR": (
        ("--mbr-force-bootable", "-partition_offset", "16"),
        {("[MBR boot code]", "only-in-second")},
    ),
}


@pytest.mark.parametrize("cause", IDENTITIES)
def test_an_iso_with_another_identity(cause: str, tmp_path: Path, original: Original) -> None:
    options, expected = IDENTITIES[cause]
    tree = pairs.make_tree(tmp_path / "tree")
    found = places(original(pairs.iso), pairs.iso(tree, tmp_path / "2.iso", *options))
    assert {("iso9660", *place) for place in expected} <= found
    assert all(path.startswith("[") for _, path, _ in found)


LAYOUTS: dict[str, tuple[tuple[str, ...], Expected]] = {
    "block size": (("-b", "64K"), {("squashfs", "[block size]", "structure")}),
    "compression": (
        ("-comp", "gzip"),
        {("squashfs", "[compression]", "structure")},
    ),
    "no fragments": (("-no-fragments",), {("squashfs", "[flags]", "structure")}),
    "time of making": (("-mkfs-time", "77"), {("squashfs", "[time of making]", "time")}),
    "level": (("-Xcompression-level", "19"), {("squashfs", "[compressor options]", "structure")}),
}


@pytest.mark.parametrize("cause", LAYOUTS)
def test_a_squashfs_with_the_same_content(cause: str, tmp_path: Path, original: Original) -> None:
    options, expected = LAYOUTS[cause]
    tree = pairs.make_tree(tmp_path / "tree")
    found = places(original(pairs.squashfs), pairs.squashfs(tree, tmp_path / "2", *options))
    assert expected <= found
    assert {kind for _, _, kind in found} <= {"structure", "time", "layout", "only-in-first"}


def test_the_same_content_in_another_order(tmp_path: Path) -> None:
    tree = pairs.make_tree(tmp_path / "tree")
    (tmp_path / "sort").write_text("usr/lib/big -100\n")
    second = pairs.squashfs(tree, tmp_path / "2", "-sort", os.fspath(tmp_path / "sort"))
    found = places(pairs.squashfs(tree, tmp_path / "1"), second)
    assert found == {
        ("squashfs", "etc/hostname", "order")
    }  # the first: all others are turned round


def test_an_iso_with_its_files_in_another_order(tmp_path: Path, original: Original) -> None:
    tree = pairs.make_tree(tmp_path / "tree")
    weight = ("--sort-weight", "5", "/usr/lib/big")
    second = pairs.iso(tree, tmp_path / "2.iso", *weight)
    assert places(original(pairs.iso), second) == {("iso9660", "usr/lib/big", "order")}


def test_an_extended_attribute_in_an_iso(tmp_path: Path) -> None:
    tree = pairs.make_tree(tmp_path / "tree")
    for value in ("one", "two"):
        pairs.run(
            *("xorriso", "-outdev", tmp_path / value, "-xattr", "on", "-map", tree, "/"),
            *("-setfattr", "user.note", value, "/etc/hostname", "--"),
        )
    found = locate_files(tmp_path / "one", tmp_path / "two").places
    (place,) = (place for place in found if place.kind == "xattr")
    assert (place.path, place.kind) == ("etc/hostname", "xattr")
    assert (place.first, place.second) == ("user.note=6f6e65", "user.note=74776f")


def test_bytes_and_sizes_are_reported(tmp_path: Path) -> None:
    images = [
        pairs.squashfs(tree, tmp_path / tree.name.replace("tree", "image"))
        for tree in pairs.trees(tmp_path, write("usr/lib/big", b"\xff\xff?\xff", 200_000))
    ]
    (place,) = locate_files(*images, names=("alpha", "beta")).places
    assert (place.offset, place.bytes, place.sizes) == (200_000, 4, (320_000, 320_000))
    assert (place.first, place.second) == ("0000c350", "ffff3fff")


def test_what_is_no_known_format(tmp_path: Path) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    first.write_bytes(bytes(1_000_000))
    second.write_bytes(bytes(700_000) + b"\1" + bytes(299_999) + b"more")
    (place,) = locate_files(first, second).places
    assert (place.where, place.path, place.kind) == ("", "", "content")
    assert (place.offset, place.bytes, place.sizes) == (700_000, 1, (1_000_000, 1_000_004))


@pytest.mark.parametrize("broken", ["missing", "folder", "fifo"])
def test_what_cannot_be_read_is_refused(broken: str, tmp_path: Path) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.touch()
    if broken == "folder":
        bad.mkdir()
    elif broken == "fifo":
        os.mkfifo(bad)
    with pytest.raises(UsageError, match="bad"):
        locate_files(good, bad)


def test_places_have_a_limit(tmp_path: Path) -> None:
    def change(tree: Path) -> None:
        for number in range(50):
            (tree / f"etc/{number}").touch()

    first, second = (
        pairs.squashfs(tree, tmp_path / tree.name.replace("tree", "image"))
        for tree in pairs.trees(tmp_path, change)
    )
    result = locate_files(first, second, limit=10)
    assert (len(result.places), result.complete) == (10, False)
    assert "may be more" in result.lines()[-1]


def make_medium(folder: Path, tree: Path, early: Path, efi: Path) -> Path:
    """Make an ISO as a live system's: SquashFS, initramfs with microcode before it, EFI image."""
    live = folder / "live"
    live.mkdir(parents=True)
    pairs.squashfs(tree, live / "filesystem.squashfs")
    pairs.cpio(early, live / "initrd.img")
    main = pairs.cpio(tree, folder / "main.cpio")
    pairs.run("zstd", "-q", main)
    with (live / "initrd.img").open("ab") as file:
        file.write(bytes(512) + (folder / "main.cpio.zst").read_bytes())
    pairs.fat(efi, live / "efi.img")
    return pairs.iso(live, folder / "live.iso", "-e", "efi.img", "-no-emul-boot")


INITRD = "iso9660 initrd.img > cpio"
LAYERS: dict[str, tuple[str, Change, Expected]] = {
    "microcode": (
        "early",
        lambda tree: (tree / "amd.bin").write_bytes(b"c0de"),
        {(INITRD, "amd.bin", "content")},
    ),
    "EFI": (
        "efi",
        lambda tree: os.utime(tree / "boot.efi", (pairs.EPOCH - 2**25,) * 2),
        {("iso9660 efi.img > fat", "boot.efi", "time")},
    ),
    "tree": (
        "tree",
        write("etc/os-release", b"?", 8),
        {
            ("iso9660 filesystem.squashfs > squashfs", "etc/os-release", "content"),
            (f"{INITRD} part 02 > zstd content > cpio", "etc/os-release", "content"),
        },
    ),
}


@pytest.mark.parametrize("layer", LAYERS)
def test_layers_of_a_medium(layer: str, tmp_path: Path) -> None:
    changed, change, expected = LAYERS[layer]
    media = []
    for number in (1, 2):
        folder = tmp_path / str(number)
        parts = {name: folder / name for name in ("tree", "early", "efi")}
        pairs.make_tree(parts["tree"])
        for name, file in (("early", "amd.bin"), ("efi", "boot.efi")):
            parts[name].mkdir()
            (parts[name] / file).write_bytes(b"code")
        for part in parts.values():
            pairs.settle(part)
        if number == 2:
            change(parts[changed])
            pairs.settle(parts[changed])
        media.append(make_medium(folder, *parts.values()))
    assert places(*media) == expected


def test_a_kit_is_a_squashfs_in_a_squashfs(tmp_path: Path) -> None:
    kits = []
    for tree in pairs.trees(tmp_path, write("usr/lib/big", b"?", 100_000)):
        kit = tmp_path / f"kit-{tree.name}"
        kit.mkdir()
        pairs.squashfs(tree, kit / "system.squashfs")
        (kit / "control.yml").write_text("from: 3.2\n")
        pairs.settle(kit)
        kits.append(pairs.squashfs(kit, tmp_path / f"{kit.name}.iuk", "-b", "64K"))
    (place,) = locate_files(*kits).places
    assert place.where == "squashfs system.squashfs > squashfs"
    assert (place.path, place.kind, place.offset) == ("usr/lib/big", "content", 100_000)


def test_no_image_is_unpacked_where_it_is_equal(tmp_path: Path) -> None:
    """What is damaged but equal on both sides is never looked into."""
    tree = pairs.make_tree(tmp_path / "tree")
    raw = bytearray(pairs.squashfs(tree, tmp_path / "1").read_bytes())
    (tmp_path / "iso").mkdir()
    raw[96:3000] = bytes(2904)
    (tmp_path / "iso/broken.squashfs").write_bytes(raw)
    images = []
    for content in ("one", "two"):
        (tmp_path / "iso/file").write_text(content)
        os.utime(tmp_path / "iso/file", (1, 1))
        images.append(pairs.iso(tmp_path / "iso", tmp_path / f"{content}.iso"))
    assert places(*images) == {("iso9660", "file", "content")}
