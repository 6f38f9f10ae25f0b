"""The formats that are looked into."""

from pipeline.compare.formats.container import Format
from pipeline.compare.formats.fat import FAT
from pipeline.compare.formats.iso9660 import ISO9660
from pipeline.compare.formats.partitions import DISK
from pipeline.compare.formats.source import Source
from pipeline.compare.formats.squashfs import SQUASHFS

# The first that matches counts: an ISO that boots from a disk begins like a disk.
FORMATS = (SQUASHFS, ISO9660, FAT, DISK)


def recognise(source: Source) -> Format | None:
    """Return the format that a content begins like, or None."""
    return next((known for known in FORMATS if known.matches(source)), None)
