"""The formats that are looked into."""

from pipeline.compare.formats.ar import AR
from pipeline.compare.formats.container import Format
from pipeline.compare.formats.cpio import CPIO
from pipeline.compare.formats.cpio_old import CPIO_OLD
from pipeline.compare.formats.fat import FAT
from pipeline.compare.formats.iso9660 import ISO9660
from pipeline.compare.formats.packed import PACKED
from pipeline.compare.formats.partitions import DISK
from pipeline.compare.formats.source import Source
from pipeline.compare.formats.squashfs import SQUASHFS
from pipeline.compare.formats.tar import TAR
from pipeline.compare.formats.zip import ZIP

# The first that matches counts: a hybrid ISO begins like a disk, and so does a FAT.
FORMATS = (SQUASHFS, ISO9660, FAT, DISK, CPIO, CPIO_OLD, *PACKED, TAR, ZIP, AR)


def recognise(source: Source) -> Format | None:
    """Return the format that a content begins like, or None."""
    return next((known for known in FORMATS if known.matches(source)), None)
