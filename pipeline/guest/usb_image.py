# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the USB image, which is written to a stick, boots by BIOS and UEFI, and can be upgraded.

    sector 0        GRUB's boot.img with a protective MBR
    sector 1        GPT, the backup in the last 33 sectors
    1 MiB           BIOS boot partition: GRUB's core image
    2 MiB           system partition: FAT32 with clusters of 4 KiB, room for two kits
    last MiB        empty, except for the backup GPT

Sources: UEFI specification 2.10, chapter 5; GRUB 2.12, `util/setup.c`.
"""

import uuid
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from pipeline.documents import gpt, mbr
from pipeline.documents.digest import sha256_file
from pipeline.documents.gpt import SECTOR
from pipeline.documents.ledger_line import file_line
from pipeline.documents.progress import STATUS_BUILD_FAILED
from pipeline.guest import grub
from pipeline.guest.fat import files_below, make_fat
from pipeline.guest.job import GuestJob
from pipeline.guest.serial_port import Report, StepFailed

MIB = 1024 * 1024
CLUSTER = 4096
CORE_AT, PARTITION_AT = MIB, 2 * MIB  # in bytes
# Added to half of the content: together they are the room for two kits' deltas.
ROOM_MIB, STEP_MIB = 192, 64
SMALLEST_MIB = 320  # with fewer clusters it would be FAT16
NAMESPACE = uuid.UUID("54574230-7477-4e42-8c6b-6d696e692e69")  # any fixed one
BIOS_BOOT = uuid.UUID("21686148-6449-6e6f-744e-656564454649")
EFI_SYSTEM = uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
# Offsets in boot.img: of the core image's sector, and of a jump that skips the BIOS drive check.
KERNEL_SECTOR, DRIVE_CHECK, NOPS = 0x5C, 0x66, b"\x90\x90"
# Offset in the core image's first sector: where the rest of the image begins.
BLOCK_LIST = 500
MBR_CODE = 440


def make_usb_image(job: GuestJob, report: Report, env: Mapping[str, str]) -> Mapping[str, Path]:
    """Make the USB image from the files of the system partition, and a list of them."""
    names = files_below(job.binary)
    write_partition_list(job.binary, names, job.artifacts / job.names.partition)
    size = partition_size(job.binary / name for name in names)
    image = job.artifacts / job.names.usb_image
    core = grub.core_image(job, report, env, "(,gpt2)/boot/grub")
    write_disk(image, size, core, f"{job.document.image} {job.document.version}")
    label = job.document.volume_id[:11]
    options = ["-F", "-c", str(CLUSTER // SECTOR), "-v", label, "-T", str(size // SECTOR)]
    options += ["-h", "255", "-s", "63", "-H", str(PARTITION_AT // SECTOR)]
    make_fat(report, env, image, options, job.binary, names, offset=PARTITION_AT)
    return {image.name: image}


def write_partition_list(folder: Path, names: Iterable[str], listed: Path) -> None:
    """Write the list of the system partition's files: a JSON object per line, in order of names."""
    with listed.open("wb") as out:
        for name in names:
            path = folder / name
            out.write(file_line(name, path.stat().st_size, sha256_file(path)))


def partition_size(files: Iterable[Path]) -> int:
    """Return the size in bytes of a system partition for these files and two kits."""
    content = sum(-(-path.stat().st_size // CLUSTER) * CLUSTER for path in files)
    steps = -(-(content * 3 // 2 + ROOM_MIB * MIB) // (STEP_MIB * MIB))
    return max(steps * STEP_MIB, SMALLEST_MIB) * MIB


def write_disk(image: Path, partition: int, core: bytes, identity: str) -> None:
    """Write a disk with an empty system partition of `partition` bytes, and GRUB for BIOS.

    Its GUIDs are derived from `identity`. Raise StepFailed if the core image is too large.
    """
    if len(core) > PARTITION_AT - CORE_AT:
        room = PARTITION_AT - CORE_AT
        what = f"GRUB's core image has {len(core)} bytes and must have {room} at most"
        raise StepFailed(STATUS_BUILD_FAILED, what)
    size = PARTITION_AT + partition + MIB
    primary, backup = _gpt(size // SECTOR, partition // SECTOR, identity)
    with image.open("wb") as file:
        file.truncate(size)
        file.write(_boot_record(size // SECTOR) + primary)
        file.seek(CORE_AT)
        block_list = (CORE_AT // SECTOR + 1).to_bytes(8, "little")
        file.write(core[:BLOCK_LIST] + block_list + core[BLOCK_LIST + len(block_list) :])
        file.seek(size - len(backup))
        file.write(backup)


def _boot_record(sectors: int) -> bytes:
    code = bytearray((grub.BIOS / "boot.img").read_bytes()[:MBR_CODE])
    code[KERNEL_SECTOR : KERNEL_SECTOR + 8] = (CORE_AT // SECTOR).to_bytes(8, "little")
    code[DRIVE_CHECK : DRIVE_CHECK + 2] = NOPS
    length = min(sectors - 1, 2**32 - 1)
    protective = mbr.PartitionRecord(0, b"\x00\x02\x00", mbr.PROTECTIVE, b"\xff\xff\xff", 1, length)
    # Some BIOSes boot no disk without an active partition; this one has the type 0, unused.
    active = mbr.PartitionRecord(mbr.ACTIVE, bytes(3), 0, bytes(3), 0, 1)
    record = bytes(code).ljust(mbr.ENTRIES_AT, b"\0")
    record += mbr.ENTRY.pack(*protective) + mbr.ENTRY.pack(*active)
    return record.ljust(mbr.SIGNATURE_AT, b"\0") + mbr.SIGNATURE


def _gpt(sectors: int, partition: int, identity: str) -> tuple[bytes, bytes]:
    """Return the GPT that follows the boot record, and the backup at the end of the disk."""
    first = PARTITION_AT // SECTOR
    entries = [
        gpt.PartitionEntry(
            kind=kind.bytes_le,
            guid=uuid.uuid5(NAMESPACE, f"{identity} {name}").bytes_le,
            first=start,
            last=end - 1,
            attributes=0,
            name=name.encode("utf-16-le"),
        )
        for kind, name, start, end in (
            (BIOS_BOOT, "boot", CORE_AT // SECTOR, first),
            (EFI_SYSTEM, "system", first, first + partition),
        )
    ]
    return make_gpt(sectors, uuid.uuid5(NAMESPACE, identity), entries)


def make_gpt(
    sectors: int, disk: uuid.UUID, entries: list[gpt.PartitionEntry]
) -> tuple[bytes, bytes]:
    """Return the GPT of a disk of `sectors` sectors, as header and table, and its backup.

    The backup is table and header: it ends the disk.
    """
    table = b"".join(gpt.ENTRY.pack(*entry) for entry in entries)
    table = table.ljust(gpt.TABLE_SECTORS * SECTOR, b"\0")
    here, there = 1, sectors - 1
    primary = gpt.Header(
        magic=gpt.MAGIC,
        revision=0x10000,
        length=gpt.HEADER.size,
        checksum=0,
        reserved=0,
        own=here,
        other=there,
        first_usable=here + 1 + gpt.TABLE_SECTORS,
        last_usable=there - 1 - gpt.TABLE_SECTORS,
        disk=disk.bytes_le,
        table=here + 1,
        entries=gpt.ENTRIES,
        entry_size=gpt.ENTRY.size,
        table_checksum=zlib.crc32(table),
    )
    backup = primary._replace(own=there, other=here, table=there - gpt.TABLE_SECTORS)
    return _header_bytes(primary) + table, table + _header_bytes(backup)


def _header_bytes(header: gpt.Header) -> bytes:
    """Return a header's sector, with its checksum filled in."""
    checksum = gpt.header_checksum(gpt.HEADER.pack(*header._replace(checksum=0)))
    return gpt.HEADER.pack(*header._replace(checksum=checksum)).ljust(SECTOR, b"\0")
