# SPDX-License-Identifier: GPL-3.0-or-later
"""The formats that can be opened; a reader is loaded only when a content may have its format."""

from collections.abc import Callable, Iterator

from pipeline.documents import mbr
from pipeline.look.formats.container import Format
from pipeline.look.formats.source import ByteSource

HEAD = 512
ISO9660_MAGIC = 32769, b"CD001"
CPIO_MAGICS = (b"0707", b"\xc7\x71", b"\x71\xc7")
# gzip, xz, zstd, lz4 and its legacy format, bzip2; lzma begins with the usual properties byte
PACKED_MAGICS = (b"\x1f\x8b", b"\xfd7zXZ", b"\x28\xb5", b"\x04\x22", b"\x02\x21", b"BZh", b"\x5d")
SKIPPABLE = b"\x2a\x4d\x18"  # of a skippable frame, after the first byte


def recognise(source: ByteSource) -> Format | None:
    """Return the format of a content, judging by its first bytes, or None."""
    head = source.read(0, min(HEAD, source.size))
    found = (known for may_be, load in KINDS if may_be(source, head) for known in load())
    return next((known for known in found if known.matches(source)), None)


def _is_iso9660(source: ByteSource, _: bytes) -> bool:
    start, magic = ISO9660_MAGIC
    end = start + len(magic)
    return source.size >= end and source.read(start, len(magic)) == magic


def _is_tar(_: ByteSource, head: bytes) -> bool:
    """Return whether there is tar's magic, or digits in the place of an older header's checksum."""
    return head[257:262] == b"ustar" or head[148:156].strip(b" \0").isdigit()


def _is_packed(_: ByteSource, head: bytes) -> bool:
    return head.startswith(PACKED_MAGICS) or head[1:4] == SKIPPABLE


def _squashfs() -> Iterator[Format]:
    from pipeline.look.formats.squashfs import SQUASHFS

    yield SQUASHFS


def _iso9660() -> Iterator[Format]:
    from pipeline.look.formats.iso9660 import ISO9660

    yield ISO9660


def _with_boot_record() -> Iterator[Format]:
    from pipeline.look.formats.fat import FAT
    from pipeline.look.formats.partitions import DISK

    yield from (FAT, DISK)


def _cpio() -> Iterator[Format]:
    from pipeline.look.formats.cpio import CPIO
    from pipeline.look.formats.cpio_old import CPIO_OLD

    yield from (CPIO, CPIO_OLD)


def _packed() -> Iterator[Format]:
    from pipeline.look.formats.packed import PACKED

    yield from PACKED


def _tar() -> Iterator[Format]:
    from pipeline.look.formats.tar import TAR

    yield TAR


def _zip() -> Iterator[Format]:
    from pipeline.look.formats.zip import ZIP

    yield ZIP


def _ar() -> Iterator[Format]:
    from pipeline.look.formats.ar import AR

    yield AR


# The first match wins: hybrid ISOs and FAT file systems begin like disks.
KINDS: tuple[tuple[Callable[[ByteSource, bytes], bool], Callable[[], Iterator[Format]]], ...] = (
    (lambda _, head: head.startswith(b"hsqs"), _squashfs),
    (_is_iso9660, _iso9660),
    (lambda _, head: head[mbr.SIGNATURE_AT :] == mbr.SIGNATURE, _with_boot_record),
    (lambda _, head: head.startswith(CPIO_MAGICS), _cpio),
    (_is_packed, _packed),
    (_is_tar, _tar),
    (lambda _, head: head.startswith(b"PK"), _zip),
    (lambda _, head: head.startswith(b"!<arch>"), _ar),
)
