"""tar archives, as the standard library reads them."""

import tarfile
from collections.abc import Iterable, Iterator

from pipeline.compare.formats.container import (
    Container,
    Entry,
    Fact,
    Format,
    Structure,
    listed,
    path_of,
)
from pipeline.compare.formats.reader import Reader
from pipeline.compare.formats.source import Extents, Malformed, Source, Spool

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
# Besides its own errors, what tarfile raises for headers that say impossible things.
ERRORS = (tarfile.TarError, ValueError, KeyError, OverflowError, EOFError, TypeError)


def _matches(source: Source) -> bool:
    if source.size < tarfile.BLOCKSIZE:
        return False
    raw = source.read(0, tarfile.BLOCKSIZE)
    return raw[257:262] == b"ustar" or _is_old(raw)


def _is_old(raw: bytes) -> bool:
    """Whether this is a header of Unix version 7, which has no magic but a checksum."""
    digits = raw[148:156].strip(b" \0")
    if not digits or not set(digits) <= set(b"01234567") or not raw[0]:
        return False
    return int(digits, 8) == sum(raw[:148]) + sum(raw[156:]) + 8 * ord(" ")


def _read(source: Source, spool: Spool) -> Container:
    try:
        with tarfile.open(fileobj=Reader(source), mode="r:", errors="surrogateescape") as archive:
            ordered, order = listed(_entry(source, member) for member in _members(archive))
            extended = repr(sorted(archive.pax_headers.items())).encode()
    except ERRORS as error:
        raise Malformed(f"it cannot be read: {error}") from error
    structures = [Structure("global extended header", (0, 0), extended)]
    return Container(structures, lambda: iter(ordered), order=order)


TAR = Format("tar", _matches, _read)


def _members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Give the members without keeping them, as tarfile would."""
    while (member := archive.next()) is not None:
        archive.members.clear()  # type: ignore[attr-defined]
        yield member


def _entry(source: Source, member: tarfile.TarInfo) -> Entry:
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
    # names, sizes and times among them are told already
    known = {"path", "linkpath", "size", "mtime", "uname", "gname", "uid", "gid"}
    extended = sorted((k, v) for k, v in member.pax_headers.items() if k not in known)
    if extended:
        facts["xattr"] = tuple(extended)
    content = None
    if member.isreg():
        content = Extents(source, [(member.offset_data, member.offset_data + _stored(member))])
    return Entry(path_of(member.name), facts, content, (member.offset, member.offset_data))


def _stored(member: tarfile.TarInfo) -> int:
    """Return how many bytes of a file are stored: not its holes."""
    if not member.issparse():
        return member.size
    parts: Iterable[tuple[int, int]] = member.sparse  # type: ignore[assignment]
    return sum(length for _, length in parts)
