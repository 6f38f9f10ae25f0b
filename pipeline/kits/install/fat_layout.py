# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the parts of a FAT32 file system lie: its boot sector, checked before anything is used."""

from dataclasses import dataclass

from pipeline.documents import fat
from pipeline.documents.plain import plain
from pipeline.kits.install.failure import InfrastructureFailed

SECTOR = 512
CLUSTERS = (1, 2, 4, 8, 16, 32, 64, 128)  # sectors
NO_MIRROR = 0x80


class Damaged(InfrastructureFailed):
    """A file system that contradicts itself; nothing is written to it."""

    def __init__(self, what: str) -> None:
        remedy = "repair it with `fsck.fat -a`, or write the image to it anew"
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
    if len(boot) < SECTOR or boot[fat.SIGNATURE_AT :] != fat.SIGNATURE:
        return False
    head = fat.read_boot(boot)
    return head.sector in fat.SECTOR_SIZES and 0 < head.fats <= 4 and head.roots == head.fat_16 == 0


def read_layout(boot: bytes, start: int, length: int) -> Layout:
    """Return the layout of the FAT32 file system in `length` bytes from `start` of a medium.

    Raise Damaged where the boot sector `boot` is impossible, or of an unsupported kind.
    """
    head, more = fat.read_boot(boot), fat.read_boot_32(boot)
    if head.sector != SECTOR or head.cluster not in CLUSTERS:
        raise Damaged(f"its sectors have {head.sector} bytes, its clusters {head.cluster} sectors")
    if head.fats not in (1, 2) or more.flags & NO_MIRROR or more.version or not head.reserved:
        raise Damaged("its boot sector has fields that no common system writes")
    cluster, fat_size = head.cluster * SECTOR, more.fat * SECTOR
    data = head.reserved * SECTOR + head.fats * fat_size
    clusters = (head.total_32 * SECTOR - data) // cluster
    if head.total_32 * SECTOR > length or clusters < 1 or fat_size > fat.TABLE_LIMIT:
        raise Damaged("its boot sector describes more than there is")
    if fat_size < (clusters + 2) * 4:
        raise Damaged("its table is too short for its clusters")
    layout = Layout(
        start=start,
        cluster=cluster,
        clusters=clusters,
        fats=tuple(start + head.reserved * SECTOR + n * fat_size for n in range(head.fats)),
        fat_size=fat_size,
        data=start + data,
        root=more.root,
        info=start + more.info * SECTOR if 0 < more.info < head.reserved else None,
    )
    if not layout.holds(more.root):
        raise Damaged("it has no root folder")
    return layout
