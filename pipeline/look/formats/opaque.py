# SPDX-License-Identifier: GPL-3.0-or-later
"""Recognise containers and compressed files that cannot be opened, by their magic.

Source: the magic database of file(1).
"""

from pipeline.look.formats.source import ByteSource

# The offset of the magic, the magic, and a description.
KINDS = (
    (1080, b"\x53\xef", "an ext2, ext3 or ext4 file system"),
    (1024, b"\xe2\xe1\xf5\xe0", "an EROFS file system"),
    (0x10040, b"_BHRfS_M", "a Btrfs file system"),
    (0, b"XFSB", "an XFS file system"),
    (1024, b"\x10\x20\xf5\xf2", "an F2FS file system"),
    (3, b"NTFS    ", "an NTFS file system"),
    (3, b"EXFAT   ", "an exFAT file system"),
    (0, b"\x45\x3d\xcd\x28", "a cramfs file system"),
    (0, b"-rom1fs-", "a romfs file system"),
    (0, b"\x85\x19", "a JFFS2 file system"),
    (0, b"UBI#", "a UBI image"),
    (0, b"\x31\x18\x10\x06", "a UBIFS file system"),
    (0, b"LUKS\xba\xbe", "a LUKS volume"),
    (0, b"verity\0\0", "a dm-verity hash tree"),
    (536, b"LVM2 001", "an LVM volume"),
    (4086, b"SWAPSPACE2", "swap space"),
    (0, b"QFI\xfb", "a QCOW image"),
    (0, b"KDMV", "a VMDK image"),
    (0, b"conectix", "a VHD image"),
    (64, b"\x7f\x10\xda\xbe", "a VDI image"),
    (0, b"\x3a\xff\x26\xed", "an Android sparse image"),
    (0, b"ANDROID!", "an Android boot image"),
    (0, b"\xd0\x0d\xfe\xed", "a device tree or FIT image"),
    (0, b"\x27\x05\x19\x56", "a U-Boot image"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (0, b"Rar!\x1a\x07", "a RAR archive"),
    (0, b"MSCF\0\0\0\0", "a cabinet"),
    (0, b"xar!", "a xar archive"),
    (0, b"\xed\xab\xee\xdb", "an RPM package"),
    (0, b"\r\0\0\0\0\0\0\0nix-archive-1", "a Nix archive"),
    (0, b"JM\1\0PK\3\4", "a Java module"),
    (4, b"PK\1\2", "a zip archive with its directory first"),
    (0, b"\x89LZO\0\r\n\x1a\n", "compressed with lzop"),
    (0, b"LZIP\1", "compressed with lzip"),
    (0, b"\x1f\x9d", "compressed with compress"),
)


def say_opaque(source: ByteSource) -> str:
    """Return a note that names a content's kind and says that it is not opened; else nothing."""
    for offset, magic, name in KINDS:
        end = offset + len(magic)
        if source.size >= end and source.read(offset, len(magic)) == magic:
            return f"{name}, which is not looked into"
    return ""
