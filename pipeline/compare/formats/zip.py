"""zip archives, whose directory the standard library reads."""

import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable
from functools import partial

from pipeline.compare.formats import compression
from pipeline.compare.formats.container import (
    Container,
    Entry,
    Fact,
    Format,
    Region,
    Structure,
    file_type,
    listed,
)
from pipeline.compare.formats.reader import Reader
from pipeline.compare.formats.source import Extents, Malformed, Packed, Source, Spool

LOCAL = struct.Struct("<4s5HIIIHH")
ERRORS = (zipfile.BadZipFile, ValueError, NotImplementedError, OverflowError, EOFError, zlib.error)
UNPACKERS: dict[int, Callable[[], compression.Unpacker]] = {
    zipfile.ZIP_DEFLATED: compression.new_deflate,
    zipfile.ZIP_BZIP2: compression.new_bzip2,
}


def _matches(source: Source) -> bool:
    return source.size >= 22 and source.read(0, 4) in (b"PK\3\4", b"PK\5\6")


def _read(source: Source, spool: Spool) -> Container:
    try:
        with zipfile.ZipFile(Reader(source)) as archive:
            members, comment = archive.infolist(), archive.comment
            directory = Region("central directory", (archive.start_dir, source.size))
    except ERRORS as error:
        raise Malformed(f"it cannot be read: {error}") from error
    ordered, order = listed(_entry(source, spool, member) for member in members)
    structures = [Structure("comment", (source.size - len(comment), source.size), comment)]
    return Container(structures, lambda: iter(ordered), [directory], order)


ZIP = Format("zip", _matches, _read)


def _entry(source: Source, spool: Spool, member: zipfile.ZipInfo) -> Entry:
    mode = member.external_attr >> 16
    year, month, day, *clock = member.date_time
    facts: dict[str, Fact] = {
        "type": file_type(mode) if mode >> 12 else "dir" if member.is_dir() else "file",
        "mode": mode & 0o7777,
        "time": f"{year}-{month:02}-{day:02} " + ":".join(f"{part:02}" for part in clock),
        "structure method": member.compress_type,
        "structure extra": member.extra.hex(),
        "structure system": f"{member.create_system} {member.create_version}",
        "structure flags": member.flag_bits,
        "structure comment": member.comment.hex(),
    }
    start = member.header_offset
    magic, *_, name, extra = LOCAL.unpack(source.read(start, LOCAL.size))
    if magic != b"PK\3\4":
        raise Malformed(f"{member.filename[:80]} is not where the directory says")
    data = start + LOCAL.size + name + extra
    span, path = (data, data + member.compress_size), member.filename.rstrip("/")
    new = UNPACKERS.get(member.compress_type)
    content: Source = Extents(source, [span])
    if new is not None:
        content = Packed(source, span, member.file_size, partial(_unpack, new), spool)
    return Entry(path, facts, content, (start, data))


def _unpack(new: Callable[[], compression.Unpacker], packed: Iterable[bytes]) -> Iterable[bytes]:
    return compression.unpack_stream(new, packed, b"")
