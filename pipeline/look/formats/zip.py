# SPDX-License-Identifier: GPL-3.0-or-later
"""zip archives; the standard library reads the central directory.

Source: PKWARE's APPNOTE.TXT 6.3.10; for extra fields, Info-ZIP's extrafld.txt.
"""

import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial

from pipeline.look.formats import compression
from pipeline.look.formats.container import (
    LINK_LIMIT,
    Container,
    Entry,
    Fact,
    Format,
    Region,
    Structure,
    file_type,
    listed,
    name_of,
)
from pipeline.look.formats.ranges import Span
from pipeline.look.formats.reader import Reader
from pipeline.look.formats.recompress import Compressed
from pipeline.look.formats.source import BadFormat, ByteSource, Extents, Packed, Spool
from pipeline.look.formats.zip_account import regions_of_directory, rest_of_member

LOCAL = struct.Struct("<4s5HIIIHH")
ENCRYPTED, SIZES_FOLLOW = 0x01, 0x08
STORED, ZSTD, XZ = 0, 93, 95
# compression methods that are not supported here
METHODS = {9: "deflate64", 14: "lzma", 96: "JPEG", 97: "WavPack", 98: "PPMd"}
ERRORS = (zipfile.BadZipFile, ValueError, NotImplementedError, OverflowError, EOFError, zlib.error)
UNPACKERS: dict[int, Callable[[], compression.Unpacker]] = {
    zipfile.ZIP_DEFLATED: compression.new_deflate,
    zipfile.ZIP_BZIP2: compression.new_bzip2,
    ZSTD: compression.new_zstd,
    XZ: compression.new_xz,
}
PACKINGS = {zipfile.ZIP_DEFLATED: "deflate", zipfile.ZIP_BZIP2: "bzip2", XZ: "xz"}
TIMES, OWNER = 0x5455, 0x7875
TIME_NAMES = ("modified", "read", "made")


def _matches(source: ByteSource) -> bool:
    return source.size >= 22 and source.read(0, 4) in (b"PK\3\4", b"PK\5\6")


def _read(source: ByteSource, spool: Spool) -> Container:
    try:
        with zipfile.ZipFile(Reader(source)) as archive:
            members, comment = archive.infolist(), archive.comment
            start = archive.start_dir
    except ERRORS as error:
        raise BadFormat(f"it cannot be read: {error}") from error
    regions: list[Region] = []
    checksums = {member.header_offset: member.CRC for member in members}
    ordered, order = listed(_entry(source, spool, member, regions) for member in members)
    structures = [Structure("comment", (source.size - len(comment), source.size), comment)]
    return Container(
        structures,
        lambda: iter(ordered),
        lambda: regions_of_directory(source, start, ordered, regions),
        order,
        unlike=lambda entry: isinstance(entry.content, Packed) and entry.content.unlike,
        rest=lambda entry, changed: rest_of_member(
            source, entry, checksums[entry.record[0]] if entry.record else 0, changed=changed
        ),
    )


ZIP = Format("zip", _matches, _read)


def _entry(
    source: ByteSource, spool: Spool, member: zipfile.ZipInfo, regions: list[Region]
) -> Entry:
    """Return a member's entry; add the region of its data descriptor, if it has one."""
    mode = member.external_attr >> 16
    start = member.header_offset
    header = LOCAL.unpack(source.read(start, LOCAL.size))
    if header[0] != b"PK\3\4":
        raise BadFormat(f"{member.filename[:80]} is not where the directory says")
    name, extra = header[-2:]
    data = start + LOCAL.size + name + extra
    local = source.read(data - extra, extra)
    facts: dict[str, Fact] = {
        "type": file_type(mode) if mode >> 12 else "dir" if member.is_dir() else "file",
        "mode": mode & 0o7777,
        "mode attributes": _attributes(member.external_attr),
        "structure internal attributes": f"{member.internal_attr:#06x}",
        "time": _dos_time(member),
        "structure method": f"{member.compress_type} version {_version(member)}",
        "structure system": f"{member.create_system} {member.create_version}",
        "structure flags": member.flag_bits,
        "structure comment": member.comment.hex(),
        "structure local header": _local_differs(header, member),
        **_extra_facts(member.extra, local),
    }
    if member.flag_bits & SIZES_FOLLOW:
        descriptor = _descriptor(source, data + member.compress_size, member)
        facts["structure data descriptor"] = "" if descriptor else "none"
        regions += [Region("data descriptor", descriptor, bytes)] if descriptor else []
    entry = Entry(member.filename.rstrip("/"), facts, None, (start, data))
    entry.content, entry.note = _content(source, spool, member, data)
    entry.compressed = _compressed(entry.content, source, member, data)
    stored = member.compress_type == STORED and not entry.note
    if facts["type"] == "link" and stored and member.file_size <= LINK_LIMIT:
        facts["target"] = name_of(entry.content.read(0, entry.content.size))
        entry.content, entry.record = None, (start, data + member.compress_size)
    return entry


def _descriptor(source: ByteSource, start: int, member: zipfile.ZipInfo) -> Span | None:
    """Return the span of the data descriptor after a member's data, or None.

    It must repeat the checksum and the sizes in the central directory.
    """
    values = member.CRC, member.compress_size, member.file_size
    layouts = ("<IQQ",) if max(values) >= 2**32 else ("<III", "<IQQ")
    for layout in layouts:
        for signature in (b"PK\x07\x08", b""):
            expected = signature + struct.pack(layout, *values)
            end = start + len(expected)
            if end <= source.size and source.read(start, len(expected)) == expected:
                return start, end
    return None


def _content(
    source: ByteSource, spool: Spool, member: zipfile.ZipInfo, start: int
) -> tuple[ByteSource, str]:
    """Return a member's content, or its stored bytes and the reason for not decompressing them."""
    span = (start, start + member.compress_size)
    new = UNPACKERS.get(member.compress_type)
    if member.flag_bits & ENCRYPTED:
        return Extents(source, [span]), "encrypted"
    if new is not None:
        unpack = partial(compression.unpack_one, new)
        return Packed(source, span, member.file_size, unpack, spool), ""
    if member.compress_type == STORED:
        return Extents(source, [span]), ""
    method = METHODS.get(member.compress_type, f"method {member.compress_type}")
    return Extents(source, [span]), f"compressed with {method}, which is not read here"


def _compressed(
    content: ByteSource, source: ByteSource, member: zipfile.ZipInfo, start: int
) -> Compressed | None:
    name = PACKINGS.get(member.compress_type)
    if name is None or not isinstance(content, Packed):
        return None
    spans, holds = [(start, start + member.compress_size)], [(0, member.file_size)]
    return Compressed(name, source, spans, content, holds)


def _attributes(external: int) -> str:
    """Return the external attributes besides type and mode, and whether the type is missing."""
    untyped = external >> 16 and not external >> 28
    return f"{external & 0xFFFF:#06x}" + " without a type" * bool(untyped)


def _version(member: zipfile.ZipInfo) -> int:
    """Return the version of the format that is needed to extract a member, in tenths."""
    return member.extract_version | member.reserved << 8


def _dos_time(member: zipfile.ZipInfo) -> str:
    year, month, day, *clock = member.date_time
    return f"{year}-{month:02}-{day:02} " + ":".join(f"{part:02}" for part in clock)


def _local_differs(header: tuple[bytes | int, ...], member: zipfile.ZipInfo) -> Fact:
    """Return the fields of a member's local header that contradict the central directory."""
    _, version, flags, method, time, day, crc, packed, size, _, _ = header
    year, month, date, hour, minute, second = member.date_time
    fields: list[tuple[str, object, object]] = [
        ("version", version, _version(member)),
        ("flags", flags, member.flag_bits),
        ("method", method, member.compress_type),
        ("time", time, hour << 11 | minute << 5 | second // 2),
        ("day", day, year - 1980 << 9 | month << 5 | date),
    ]
    if not member.flag_bits & SIZES_FOLLOW:
        fields += [("checksum", crc, member.CRC)]
    if not member.flag_bits & SIZES_FOLLOW and 2**32 - 1 not in (packed, size):
        fields += [("packed size", packed, member.compress_size), ("size", size, member.file_size)]
    return tuple((name, str(ours)) for name, ours, theirs in fields if ours != theirs)


def _extra_facts(central: bytes, local: bytes) -> dict[str, Fact]:
    """Return the facts in extra fields: times, owners, others by number; and their numbers."""
    times: list[tuple[str, str]] = []
    owners: list[tuple[str, str]] = []
    others: list[tuple[str, str]] = []
    for where, raw in (("", central), ("local ", local)):
        fields = list(_extra_fields(raw))
        for number, data in fields:
            known = _times(data) if number == TIMES else _owner(data) if number == OWNER else None
            if known is None:
                others.append((f"{where}{number:#06x}", data.hex() or "empty"))
            elif number == TIMES:
                times += [(f"{where}{name}", value) for name, value in known]
            else:
                owners += [(f"{where}{name}", value) for name, value in known]
        if fields:
            # the first byte of a field of times says which times it should have
            listed = (f"{n:#06x}" + data[:1].hex() * (n == TIMES) for n, data in fields)
            others.append((f"{where}fields", ",".join(listed)))
    found: dict[str, Fact] = {}
    for fact, values in (("time extra", times), ("owner", owners), ("structure extra", others)):
        if values:
            found[fact] = tuple(values)
    return found


def _times(data: bytes) -> list[tuple[str, str]] | None:
    """Parse Info-ZIP's extended timestamps; return None if they are malformed.

    In the central directory, there are fewer times than flags.
    """
    names = [name for bit, name in enumerate(TIME_NAMES) if data[:1] and data[0] >> bit & 1]
    if len(data) % 4 != 1 or data[0] >> len(TIME_NAMES) or len(data) // 4 > len(names):
        return None
    stamps = struct.iter_unpack("<i", data[1:])
    return [(name, str(stamp)) for name, (stamp,) in zip(names, stamps, strict=False)]


def _owner(data: bytes) -> list[tuple[str, str]] | None:
    """Parse Info-ZIP's user and group numbers; return None if they are malformed."""
    if len(data) != 11 or data[:2] != b"\1\4" or data[6] != 4:
        return None
    user, group = data[2:6], data[7:]
    return [("ids", ":".join(str(int.from_bytes(number, "little")) for number in (user, group)))]


def _extra_fields(raw: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the number and data of every extra field; trailing bytes have the number -1."""
    at = 0
    while at + 4 <= len(raw):
        number, length = struct.unpack_from("<HH", raw, at)
        if at + 4 + length > len(raw):
            break
        yield number, raw[at + 4 : at + 4 + length]
        at += 4 + length
    if at < len(raw):
        yield -1, raw[at:]
