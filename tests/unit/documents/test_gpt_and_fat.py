# SPDX-License-Identifier: GPL-3.0-or-later
"""Records of disks against bytes written out here; other programs read whole ones elsewhere."""

import struct
import uuid
import zlib

from pipeline.documents import fat, gpt
from pipeline.guest.usb_image import EFI_SYSTEM, make_gpt

DISK = uuid.UUID(int=1)
SYSTEM = gpt.PartitionEntry(EFI_SYSTEM.bytes_le, bytes(range(16)), 4096, 8191, 0, b"s\0")


def test_a_table_and_its_backup_are_what_the_specification_writes() -> None:
    primary, backup = make_gpt(10_000, DISK, [SYSTEM])
    table = struct.pack("<16s16sQQQ72s", *SYSTEM).ljust(128 * 128, b"\0")
    for made, own, other, at in ((primary[:512], 1, 9999, 2), (backup[-512:], 9999, 1, 9967)):
        fields = (own, other, 34, 9966, DISK.bytes_le, at, 128, 128, zlib.crc32(table))
        head = struct.pack("<8sIIIIQQQQ16sQIII", b"EFI PART", 0x10000, 92, 0, 0, *fields)
        checksum = struct.pack("<I", zlib.crc32(head))
        assert made == (head[:16] + checksum + head[20:]).ljust(512, b"\0")
    assert primary[512:] == backup[:-512] == table


def test_a_header_reads_as_it_was_written() -> None:
    primary, _ = make_gpt(10_000, DISK, [SYSTEM])
    header = gpt.read_header(primary[:512])
    assert header is not None
    assert header.checksum == gpt.header_checksum(primary[:512])
    assert header.checksum != gpt.header_checksum(primary[:40] + b"\x01" + primary[41:512])
    assert next(gpt.read_table(primary[512:])).span == (4096 * 512, 8192 * 512)
    assert gpt.read_header(b"X" + primary[1:512]) is None


def test_a_short_name_is_shown_as_people_read_it() -> None:
    def shown(name: bytes, case: int = 0) -> str:
        return fat.read_record(name + bytes([0x20, case]) + bytes(19)).shown

    assert shown(b"README  TXT") == "README.TXT"
    assert shown(b"README  TXT", fat.SMALL_BASE) == "readme.TXT"
    assert shown(b"LIVE       ", fat.SMALL_BASE | fat.SMALL_EXTENSION) == "live"
    assert shown(b"\x05A         ") == "σA"  # as 0xE5 marks a record that is free


def test_a_record_has_its_cluster_in_two_halves() -> None:
    raw = b"A".ljust(11) + bytes(9) + b"\x02\x01" + bytes(4) + b"\x04\x03" + b"\x08\x07\x06\x05"
    record = fat.read_record(raw)
    assert (record.cluster, record.size) == (0x01020304, 0x05060708)
    assert fat.RECORD.pack(*record) == raw


def test_a_long_name_goes_into_records_and_comes_back() -> None:
    units = "a name of 26 characters is".encode("utf-16-le")
    parts = [fat.long_record(1, 0, b"ANAMEO~1   ", units[:26])]
    parts += [fat.long_record(2, fat.LONG_LAST, b"ANAMEO~1   ", units[26:])]
    assert fat.long_units(parts) == units
    assert [(part[0], part[11], part[13]) for part in parts] == [(1, 0x0F, 20), (0x42, 0x0F, 20)]
