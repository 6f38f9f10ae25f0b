# SPDX-License-Identifier: GPL-3.0-or-later
"""The records in a FAT folder, changed one sector at a time.

A new file's records always come to lie in a single sector, so that one write gives it its name.
"""

from collections.abc import Callable

from pipeline.documents import fat
from pipeline.kits.install import fat_records as records
from pipeline.kits.install.fat_layout import SECTOR
from pipeline.kits.install.fat_table import Device

RECORD = fat.RECORD.size
SLOTS = SECTOR // RECORD


def place(
    blocks: Device, sectors: list[int], made: bytes, grow: Callable[[bytes], int]
) -> tuple[int, ...]:
    """Write a file's records into one of a folder's sectors; return where each of them is.

    Where no sector has room, `grow` adds a cluster that begins with the records it is given, and
    returns where that is.
    """
    for number, offset in enumerate(sectors):
        content = blocks.read(offset, SECTOR)
        follows = sectors[number + 1 : number + 2]
        at, is_end = _gap(content, len(made))
        if at is not None and (not is_end or _ends_well(blocks, at + len(made), follows)):
            rest = bytes(SECTOR - at - len(made)) if is_end else content[at + len(made) :]
            blocks.write(offset, content[:at] + made + rest)
            return _slots(offset + at, made)
        if fat.END in content[::RECORD]:
            return _place_after(blocks, offset, follows, made, grow)
    return _slots(grow(made), made)


def redirect(blocks: Device, slot: int, cluster: int, size: int, epoch: int) -> None:
    """Let the short record at `slot` name other content."""
    at = slot % SECTOR
    sector = bytearray(blocks.read(slot - at, SECTOR))
    sector[at : at + RECORD] = records.redirected(
        bytes(sector[at : at + RECORD]), cluster, size, epoch
    )
    blocks.write(slot - at, bytes(sector))


def erase(blocks: Device, slots: tuple[int, ...]) -> None:
    """Remove a file's records, the short one first: without it the others are ignored."""
    for sector in dict.fromkeys(slot // SECTOR for slot in reversed(slots)):
        content = bytearray(blocks.read(sector * SECTOR, SECTOR))
        for slot in slots:
            if slot // SECTOR == sector:
                content[slot % SECTOR] = fat.DELETED
        blocks.write(sector * SECTOR, bytes(content))


def _gap(sector: bytes, length: int) -> tuple[int | None, bool]:
    """Return where `length` bytes of records fit into a sector, and whether the folder ends."""
    wanted, start = length // RECORD, 0
    for at, mark in enumerate(sector[::RECORD]):
        if mark == fat.END:
            return (start * RECORD if SLOTS - start >= wanted else None), True
        if mark != fat.DELETED:
            start = at + 1
        elif at + 1 - start == wanted:
            return start * RECORD, False
    return None, False


def _ends_well(blocks: Device, end: int, follows: list[int]) -> bool:
    """Return whether nothing behind records that end at `end` would be read as a record."""
    return end < SECTOR or not follows or not blocks.read(follows[0], SECTOR)[0]


def _place_after(
    blocks: Device,
    ending: int,
    follows: list[int],
    made: bytes,
    grow: Callable[[bytes], int],
) -> tuple[int, ...]:
    """Write records into the sector after the one in which the folder ends, or a new cluster.

    Readers stop at the end mark, so the sector that has it is filled up last.
    """
    if follows:
        offset = follows[0]
        blocks.write(offset, made.ljust(SECTOR, b"\0"))
        blocks.flush()
    else:
        offset = grow(made)
    content = bytearray(blocks.read(ending, SECTOR))
    first = content[::RECORD].index(fat.END) * RECORD
    waste = bytes([fat.DELETED]).ljust(RECORD, b"\0")
    content[first:] = waste * ((SECTOR - first) // RECORD)
    blocks.write(ending, bytes(content))
    return _slots(offset, made)


def _slots(offset: int, made: bytes) -> tuple[int, ...]:
    return tuple(range(offset, offset + len(made), RECORD))
