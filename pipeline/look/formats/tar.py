# SPDX-License-Identifier: GPL-3.0-or-later
"""tar archives, as the standard library reads them."""

import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator

from pipeline.look.formats.container import (
    Container,
    Entry,
    Fact,
    Format,
    Structure,
    listed,
    path_of,
)
from pipeline.look.formats.reader import Reader
from pipeline.look.formats.rest import behind_end, without, written
from pipeline.look.formats.source import BadFormat, ByteSource, Extents, Spool

TYPES = {
    tarfile.REGTYPE: "file",
    tarfile.AREGTYPE: "file",
    tarfile.CONTTYPE: "file",
    tarfile.GNUTYPE_SPARSE: "file",
    tarfile.LNKTYPE: "hard link",
    tarfile.SYMTYPE: "link",
    tarfile.CHRTYPE: "char",
    tarfile.BLKTYPE: "block",
    tarfile.DIRTYPE: "dir",
    tarfile.FIFOTYPE: "fifo",
}
BLOCK = 512
END = 2 * BLOCK  # zeros that end an archive
RECORD_SIZE = 20 * BLOCK  # tar pads an archive to a multiple of this
NAMES = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
EXTENDED = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
FURTHER_TIMES = ("atime", "ctime")
DEVICES = (tarfile.CHRTYPE, tarfile.BLKTYPE)
# The exceptions that tarfile raises: its own, and others for headers with impossible values.
ERRORS = (tarfile.TarError, ValueError, KeyError, OverflowError, EOFError, TypeError)


def _matches(source: ByteSource) -> bool:
    if source.size < tarfile.BLOCKSIZE:
        return False
    raw = source.read(0, tarfile.BLOCKSIZE)
    return raw[257:262] == b"ustar" or _is_old(raw)


def _is_old(raw: bytes) -> bool:
    """Return whether this is a header of Unix version 7, which has a checksum but no magic."""
    digits = raw[148:156].strip(b" \0")
    if not digits or not set(digits) <= set(b"01234567") or not raw[0]:
        return False
    return int(digits, 8) == sum(raw[:148]) + sum(raw[156:]) + 8 * ord(" ")


def _read(source: ByteSource, spool: Spool) -> Container:
    try:
        with tarfile.open(fileobj=Reader(source), mode="r:", errors="surrogateescape") as archive:
            ordered, order = listed(_entry(source, member) for member in _members(archive))
            extended = repr(sorted(archive.pax_headers.items())).encode()
    except ERRORS as error:
        raise BadFormat(f"it cannot be read: {error}") from error
    structures = [Structure("global extended header", (0, 0), extended)]
    return Container(
        structures,
        lambda: iter(ordered),
        order=order,
        rest=lambda entry, _: _rest(source, entry),
        align=BLOCK,
        closes=_closes,
    )


TAR = Format("tar", _matches, _read)


def read_header(block: bytes) -> tarfile.TarInfo:
    """Parse the header block before a member; raise BadFormat if it is not a header."""
    try:
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError, OverflowError) as error:
        raise BadFormat(f"it is no tar archive: {error}") from error
    if header.size < 0:
        raise BadFormat("a member has less than no bytes")
    return header


def _members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield the members without keeping them in memory, as tarfile would."""
    while (member := archive.next()) is not None:
        archive.members.clear()  # type: ignore[attr-defined]
        yield member


def _entry(source: ByteSource, member: tarfile.TarInfo) -> Entry:
    facts: dict[str, Fact] = {
        "type": TYPES.get(member.type, repr(member.type)),
        "mode": member.mode,
        "owner": f"{member.uid}:{member.gid} {member.uname}:{member.gname}",
        "time": f"{member.mtime}",
    }
    if member.linkname:
        facts["target"] = member.linkname
    if member.isdev():
        facts["device"] = f"{member.devmajor}:{member.devminor}"
    # tarfile applies these to the member, so that they are facts already
    known = {"path", "linkpath", "size", "mtime", "uname", "gname", "uid", "gid"}
    extended = sorted((k, v) for k, v in member.pax_headers.items() if k not in known)
    times = tuple((k, v) for k, v in extended if k in FURTHER_TIMES)
    others = tuple((k, v) for k, v in extended if k not in FURTHER_TIMES)
    if times:
        facts["time further"] = times
    if others:
        facts["xattr"] = others
    content = None
    if member.isreg():
        content = Extents(source, [(member.offset_data, member.offset_data + _stored(member))])
    return Entry(path_of(member.name), facts, content, (member.offset, member.offset_data))


def _stored(member: tarfile.TarInfo) -> int:
    """Return how many bytes of a file are stored, without the holes of a sparse one."""
    if not member.issparse():
        return member.size
    parts: Iterable[tuple[int, int]] = member.sparse  # type: ignore[assignment]
    return sum(length for _, length in parts)


def _closes(start: int, end: int) -> bool:
    """Return whether zeros up to `end` are the end of an archive and its padding."""
    length = end - start - -start % BLOCK
    return length == END or (end % RECORD_SIZE == 0 and END <= length < END + RECORD_SIZE)


def _rest(source: ByteSource, entry: Entry) -> bytes:
    """Return the fields of a member's headers that are not facts, and the spelling of all."""
    if entry.record is None:
        return b""
    (at, end), found = entry.record, bytearray()
    while at + BLOCK <= end:
        header = source.read(at, BLOCK)
        found += _rest_of_header(header, entry)
        at += BLOCK
        if at < end and header[156:157] in (*EXTENDED, *NAMES):
            size = tarfile.nti(header[124:136])  # type: ignore[attr-defined]
            content = source.read(at, max(0, min(size, end - at)))
            extended = header[156:157] in EXTENDED
            found += _rest_of_extended(content) if extended else _without_names(content, entry)
            at += size
            found += source.read(at, min(-at % BLOCK, end - at)).strip(b"\0")
            at += -at % BLOCK
    return bytes(found) + source.read(at, end - at)


def _rest_of_header(raw: bytes, entry: Entry) -> bytes:
    numbers = raw[100:108], raw[108:116], raw[116:124], raw[124:136], raw[136:148], raw[148:156]
    devices = raw[329:345] if raw[156:157] not in DEVICES else written(raw[329:345])
    parts = [
        _without_names(raw[:100], entry),
        *map(written, numbers),
        raw[156:157],
        _without_names(raw[157:257], entry),
        raw[257:265],
        behind_end(raw[265:297]),
        behind_end(raw[297:329]),
        devices,
        raw[345:],
    ]
    return b"\n".join(parts)


def _without_names(field: bytes, entry: Entry) -> bytes:
    return without(without(field, entry.path), str(entry.facts.get("target", "")))


def _rest_of_extended(content: bytes) -> bytes:
    """Return the keywords of an extended header, whose values are facts, and malformed records.

    The value of a repeated keyword is included.
    """
    found, at, keys = bytearray(), 0, Counter[bytes]()
    while at < len(content):
        length, _, record = content[at:].partition(b" ")
        if not length.isdigit() or not int(length):
            break
        key, _, value = record[: int(length) - len(length) - 1].partition(b"=")
        keys[key] += 1
        found += key + b"=" + value * (keys[key] > 1) + b"\n" * value.endswith(b"\n")
        at += int(length)
    return bytes(found) + content[at:]
