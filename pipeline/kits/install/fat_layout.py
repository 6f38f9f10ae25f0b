# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the parts of a FAT32 file system lie: its boot sector, read as a stranger's.

Source: Microsoft's FAT32 File System Specification 1.03.
"""

import struct
from dataclasses import dataclass

from pipeline.documents.plain import plain
from pipeline.kits.install.failure import InfrastructureFailed

SECTOR = 512
RECORD = 32  # bytes of a directory record
PARAMETERS = struct.Struct("<11xHBHBHHBHHHII")
PARAMETERS_32 = struct.Struct("<IHHIH")  # follows at byte 36
FAT_LIMIT = 32 * 1024 * 1024  # bytes of one FAT: 8 million clusters
NO_MIRROR = 0x80


class Damaged(InfrastructureFailed):
    """A file system that contradicts itself; nothing is written to it."""

    def __init__(self, what: str) -> None:
        remedy = "mend it with `fsck.fat -a`, or write the image to it anew"
        super().__init__(f"the file system of the target is damaged: {plain(what)}", remedy=remedy)


@dataclass(frozen=True)
class Layout:
    """Offsets and lengths in bytes on the whole medium; clusters are numbered from 2."""

    start: int  # of the partition
    cluster: int  # bytes
    clusters: int
    fats: tuple[int, ...]
    fat_size: int
    data: int
    root: int  # a cluster
    info: int | None  # the FSInfo sector

    def place(self, cluster: int) -> int:
        """Return where a cluster begins."""
        return self.data + (cluster - 2) * self.cluster

    def holds(self, cluster: int) -> bool:
        """Tell whether there is a cluster of this number."""
        return 2 <= cluster < self.clusters + 2


def is_fat32(boot: bytes) -> bool:
    """Tell whether a partition's first sector is that of a FAT32 file system."""
    if len(boot) < SECTOR or boot[510:] != b"\x55\xaa":
        return False
    size, _, _, fats, roots, _, _, fat16, *_ = PARAMETERS.unpack_from(boot)
    return size in (512, 1024, 2048, 4096) and 0 < fats <= 4 and roots == 0 and fat16 == 0


def read_layout(boot: bytes, start: int, length: int) -> Layout:
    """Return the layout of the FAT32 file system in `length` bytes from `start` of a medium.

    Raise Damaged where the boot sector `boot` is impossible, or of a kind that nobody makes.
    """
    size, per, reserved, fats, _, _, _, _, _, _, _, total = PARAMETERS.unpack_from(boot)
    fat_sectors, flags, version, root, info = PARAMETERS_32.unpack_from(boot, 36)
    if size != SECTOR or per not in (1, 2, 4, 8, 16, 32, 64, 128):
        raise Damaged(f"its sectors have {size} bytes, its clusters {per} sectors")
    if fats not in (1, 2) or flags & NO_MIRROR or version or not reserved:
        raise Damaged("its boot sector asks for what no common system makes")
    data = (reserved + fats * fat_sectors) * SECTOR
    clusters = (total * SECTOR - data) // (per * SECTOR)
    if total * SECTOR > length or clusters < 1 or fat_sectors * SECTOR > FAT_LIMIT:
        raise Damaged("its boot sector describes more than there is")
    if fat_sectors * SECTOR < (clusters + 2) * 4:
        raise Damaged("its table is too short for its clusters")
    layout = Layout(
        start=start,
        cluster=per * SECTOR,
        clusters=clusters,
        fats=tuple(start + (reserved + n * fat_sectors) * SECTOR for n in range(fats)),
        fat_size=fat_sectors * SECTOR,
        data=start + data,
        root=root,
        info=start + info * SECTOR if 0 < info < reserved else None,
    )
    if not layout.holds(root):
        raise Damaged("it has no root folder")
    return layout
