# SPDX-License-Identifier: GPL-3.0-or-later
"""FAT32 file systems changed by us, as mtools and fsck.fat read them; and broken ones refused."""

import os
import struct
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.documents import fat
from pipeline.kits.install import fat_folder
from pipeline.kits.install import fat_records as records
from pipeline.kits.install.fat import File, FileSystem, open_files
from pipeline.kits.install.fat_layout import Damaged
from pipeline.kits.install.medium import Medium, open_medium
from tests.installed import EPOCH, SECTOR, make_partition, noise, read_partition
from tests.unit.kits.install.test_power_cut import Disk

pytestmark = pytest.mark.tools

FILES = {
    "README.TXT": b"short",
    "lower.txt": b"case",
    "a name that is long enough for three records.text": noise("long", 5_000),
    "live/3.1.squashfs": noise("base", 40_000),
    "live/empty": b"",
    "EFI/BOOT/BOOTX64.EFI": noise("efi", 2_000),
}


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return make_partition(tmp_path_factory.mktemp("fat") / "image", FILES).read_bytes()


def opened(disk: Medium | Disk) -> FileSystem:
    files = open_files(disk, 0, disk.size)
    assert files is not None
    return files


def put(files: FileSystem, path: str, content: bytes, epoch: int = EPOCH) -> None:
    staged = files.stage(len(content), [content])
    files.settle()
    files.add(path, staged, epoch)


def as_others_read(disk: Disk, folder: Path) -> dict[str, bytes]:
    """What mtools finds, once fsck.fat has nothing to say."""
    path = folder / "image"
    path.write_bytes(disk.content())
    done = subprocess.run(["fsck.fat", "-n", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    return read_partition(path, into=folder / "files")


def find(files: FileSystem, path: str) -> File:
    file = files.find(path)
    assert file is not None, path
    return file


def ours(files: FileSystem) -> dict[str, bytes]:
    return {file.path: b"".join(files.pieces(file)) for file in files.files()}


def test_it_reads_what_mtools_wrote(image: bytes) -> None:
    files = opened(Disk(image))
    assert ours(files) == FILES
    assert find(files, "efi/boot/bootx64.efi").path == "EFI/BOOT/BOOTX64.EFI"
    assert find(files, "LIVE/3.1.SQUASHFS").size == 40_000
    assert files.find("live") is None
    assert files.find("live/3.2.squashfs") is None


def test_new_replaced_and_removed_files(image: bytes, tmp_path: Path) -> None:
    disk = Disk(image)
    files = opened(disk)
    files.begin()
    free = files.free
    put(files, "live/3.2.squashfs", noise("delta", 30_001))
    put(files, "new/folder/deep/file.cfg", b"text")
    put(files, "lower.txt", noise("other", 1_025))
    put(files, "UPPER.TXT", b"")
    files.settle()
    files.remove(["live/3.1.squashfs", "README.TXT", "not there"])
    files.finish()
    expected = {
        **FILES,
        "live/3.2.squashfs": noise("delta", 30_001),
        "new/folder/deep/file.cfg": b"text",
        "lower.txt": noise("other", 1_025),
        "UPPER.TXT": b"",
    }
    del expected["live/3.1.squashfs"], expected["README.TXT"]
    assert as_others_read(disk, tmp_path) == expected
    assert ours(opened(disk)) == expected
    used = [30_208, 3 * 512 + 512, 1_536 - 512, -40_448, -512]
    assert files.free == free - sum(used)


def test_times_are_the_epoch_in_utc(image: bytes, tmp_path: Path) -> None:
    disk = Disk(image)
    files = opened(disk)
    put(files, "dated", b"x", epoch=1766400000)
    files.finish()
    (tmp_path / "image").write_bytes(disk.content())
    listed = subprocess.run(
        ["mdir", "-i", tmp_path / "image", "::dated"], capture_output=True, text=True, check=True
    )
    assert "2025-12-22  10:40" in listed.stdout


def test_a_folder_that_grows(image: bytes, tmp_path: Path) -> None:
    """Names of every length, so that records meet the end of a sector in every way."""
    disk = Disk(image)
    files = opened(disk)
    files.begin()
    names = [f"live/{'n' * (1 + number * 7 % 170)}-{number}" for number in range(150)]
    for name in names:
        put(files, name, name.encode())
    files.remove(names[::3])
    for name in names[::3]:
        put(files, f"{name}.again", b"")
    files.finish()
    expected = {name: name.encode() for name in set(names) - set(names[::3])}
    expected |= {f"{name}.again": b"" for name in names[::3]}
    assert as_others_read(disk, tmp_path) == {**FILES, **expected}


def test_waste_behind_the_end_of_a_folder(image: bytes, tmp_path: Path) -> None:
    """Nothing says that what follows the end mark is zero; it must not become files."""
    disk = Disk(image)
    files = opened(disk)
    put(files, "live/one", b"1")
    files.settle()
    (last,) = (file for file in files.files() if file.path == "live/one")
    sector = last.slots[-1] // SECTOR * SECTOR
    content = bytearray(disk.read(sector, SECTOR))
    end = content[::32].index(0) * 32 + 32
    waste = records.make_short(b"WASTE   TXT", 0x20, 5, 4, EPOCH)
    content[end:] = waste * ((SECTOR - end) // 32)
    disk.write(sector, bytes(content))
    files = opened(disk)
    for number in range(12):
        put(files, f"live/{'x' * 40}{number}", b"")
    files.finish()
    names = {path for path in as_others_read(disk, tmp_path) if "WASTE" in path.upper()}
    assert names == set()


@pytest.mark.parametrize("used", range(17))
def test_records_that_end_where_a_sector_does(used: int) -> None:
    """What follows the end mark in the next sector is waste, and stays behind an end mark."""
    own = records.make_short(b"OWN     TXT", 0x20, 5, 4, EPOCH)
    waste = records.make_short(b"WASTE   TXT", 0x20, 6, 4, EPOCH)
    end = own * used + bytes(32 if used < 17 else 0)
    disk = Disk((end + waste * 32)[: 2 * SECTOR] + bytes(SECTOR))
    made = b"".join(
        records.make_records("a long name in four records.txt", (), 7, 1, EPOCH, folder=False)
    )
    slots = fat_folder.place(disk, [0, SECTOR, 2 * SECTOR], made, lambda _: pytest.fail("it grew"))
    content = disk.content()
    assert content[slots[0] : slots[-1] + 32] == made
    assert slots[0] // SECTOR == slots[-1] // SECTOR
    seen = []
    for at in range(0, len(content), 32):
        if content[at] == fat.END:
            break
        seen.append(content[at : at + 32])
    assert waste not in seen
    assert [record for record in seen if record == own] == [own] * used
    assert made in b"".join(seen)


def test_names_that_would_have_one_short_name(image: bytes, tmp_path: Path) -> None:
    disk = Disk(image)
    files = opened(disk)
    names = [f"live/vmlinuz-{number:012x}" for number in range(12)]
    for name in names:
        put(files, name, name.encode())
    files.finish()
    assert as_others_read(disk, tmp_path) == {**FILES, **{name: name.encode() for name in names}}


def test_what_a_cut_has_left_is_reclaimed(image: bytes, tmp_path: Path) -> None:
    disk = Disk(image)
    files = opened(disk)
    free = files.free
    files.begin()
    files.stage(20_000, [noise("lost", 20_000)])
    files.settle()
    files = opened(disk)
    assert files.free == free
    files.begin()
    files.finish()
    assert as_others_read(disk, tmp_path) == FILES
    everything = bytes(files.free)
    put(files, "all", everything)
    files.finish()
    assert opened(disk).free == 0


def test_no_space(image: bytes) -> None:
    disk = Disk(image)
    files = opened(disk)
    with pytest.raises(Exception, match="no space left"):
        files.stage(files.free + 1, [])


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["add", "add", "remove"]),
            st.sampled_from(["", "live/", "live/a/b/", "New Folder/"]),
            st.text("aB.~+-_ é", min_size=1, max_size=30).filter(
                lambda name: name.strip(". ") == name
            ),
            st.integers(0, 3_000),
        ),
        max_size=25,
    )
)
def test_any_changes(image: bytes, steps: list[tuple[str, str, str, int]]) -> None:
    disk = Disk(image)
    files = opened(disk)
    files.begin()
    expected = dict(FILES)
    for what, folder, name, size in steps:
        path = f"{folder}{name}"
        same = [other for other in expected if other.lower() == path.lower()]
        if what == "remove":
            files.remove([path])
        elif not any(other.lower().startswith(f"{path.lower()}/") for other in folders(expected)):
            put(files, path, noise(path, size))
        else:
            continue
        for other in same:
            del expected[other]
        if what == "add":
            expected[same[0] if same else path] = noise(path, size)
    files.finish()
    assert {p.lower(): c for p, c in ours(opened(disk)).items()} == {
        path.lower(): content for path, content in expected.items()
    }


def folders(files: Mapping[str, bytes]) -> set[str]:
    return {f"{path.rpartition('/')[0]}/" for path in files} | {
        "live/a/",
        "live/a/b/",
        "New Folder/",
    }


def test_clusters_of_several_sectors(tmp_path: Path) -> None:
    """As the USB image has them."""
    path = make_partition(tmp_path / "image", FILES, sectors=600_000, cluster=8)
    names = [f"live/{'n' * (number * 5 % 90)}-{number}" for number in range(60)]
    with open_medium(path) as medium:
        files = opened(medium)
        files.begin()
        for name in names:
            put(files, name, noise(name, 5_000))
        files.remove(["live/3.1.squashfs"])
        files.finish()
    done = subprocess.run(["fsck.fat", "-n", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    expected = {**FILES, **{name: noise(name, 5_000) for name in names}}
    del expected["live/3.1.squashfs"]
    assert read_partition(path, into=tmp_path / "files") == expected


# --- strangers' file systems


def test_what_is_no_fat32(image: bytes) -> None:
    assert open_files(Disk(bytes(SECTOR)), 0, SECTOR) is None
    assert open_files(Disk(os.urandom(SECTOR)), 0, SECTOR) is None


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        (11, b"\x00\x10"),  # sectors of 4096 bytes
        (13, b"\x03"),
        (13, b"\x00"),
        (14, b"\x00\x00"),
        (16, b"\x03"),
        (32, b"\xff\xff\xff\xff"),  # more sectors than there are
        (32, b"\x00\x00\x00\x00"),
        (36, b"\x01\x00\x00\x00"),  # a table of one sector
        (36, b"\xff\xff\xff\x00"),
        (40, b"\x80\x00"),
        (42, b"\x01\x00"),
        (44, b"\x00\x00\x00\x00"),  # no root folder
        (44, b"\xff\xff\xff\x0f"),
    ],
)
def test_boot_sectors_that_lie(image: bytes, offset: int, value: bytes) -> None:
    disk = Disk(image)
    boot = bytearray(image[:SECTOR])
    boot[offset : offset + len(value)] = value
    disk.write(0, bytes(boot))
    with pytest.raises(Damaged):
        open_files(disk, 0, disk.size)


def table_of(image: bytes) -> int:
    return int.from_bytes(image[14:16], "little") * SECTOR


def entry(image: bytes, cluster: int) -> int:
    at = table_of(image) + 4 * cluster
    return int.from_bytes(image[at : at + 4], "little")


@pytest.mark.parametrize("target", ["itself", "root", "beyond", "free"])
def test_chains_that_lead_astray(image: bytes, target: str) -> None:
    files = opened(Disk(image))
    first, count = find(files, "live/3.1.squashfs").runs[0]
    changed = bytearray(image)
    wrong = {"itself": first, "root": 2, "beyond": 0x0FFFFFF0, "free": 0}[target]
    at = table_of(image) + 4 * (first + count // 2)
    changed[at : at + 4] = wrong.to_bytes(4, "little")
    with pytest.raises(Damaged):
        open_files(Disk(bytes(changed)), 0, len(changed))


def test_a_folder_in_itself(image: bytes) -> None:
    files = opened(Disk(image))
    (slot,) = (f.slots[-1] for f in files.files() if f.path == "live/3.1.squashfs")
    changed = bytearray(image)
    folder = files._files["live"].runs[0][0]
    changed[slot + 11] = fat.FOLDER
    changed[slot + 26 : slot + 28] = folder.to_bytes(2, "little")
    with pytest.raises(Damaged):
        open_files(Disk(bytes(changed)), 0, len(changed))


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_damage_is_refused_or_harmless(image: bytes, data: st.DataObject) -> None:
    """Bytes of the boot sector, the table's beginning and the folders, changed at random."""
    table = table_of(image)
    size = struct.unpack_from("<I", image, 36)[0] * SECTOR
    root = table + 2 * size
    spans = [(0, 90), (table, table + 800), (root, root + 2_048), (root + 5_000, root + 60_000)]
    changed: dict[int, bytes] = {}
    for _ in range(data.draw(st.integers(1, 6))):
        start, end = data.draw(st.sampled_from(spans))
        at = data.draw(st.integers(start, end))
        sector = at // SECTOR * SECTOR
        content = bytearray(changed.get(sector, image[sector : sector + SECTOR]))
        content[at % SECTOR] = data.draw(st.integers(0, 255))
        changed[sector] = bytes(content)
    disk = Disk(image, changed)
    with suppress(Damaged):
        files = open_files(disk, 0, disk.size)
        if files:
            ours(files)
            files.begin()
            put(files, "live/new", b"new")
            files.finish()
            assert ours(opened(disk))["live/new"] == b"new"


def test_nothing_is_written_before_it_begins(image: bytes) -> None:
    disk = Disk(image)
    ours(opened(disk))
    assert disk.log == []
