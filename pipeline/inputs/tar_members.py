# SPDX-License-Identifier: GPL-3.0-or-later
"""The members of an untrusted tar archive: one at a time, each header within limits.

tarfile trusts headers: it reads a whole pax record or long name of a claimed 3 GiB, and sparse
maps of any length. Supported are the pax Interchange Format (POSIX.1-2017) and GNU tar's long
names, but no sparse files.
"""

import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.inputs.unpacked import Unpacked, Unreadable
from pipeline.look.formats.source import BadFormat
from pipeline.look.formats.tar import read_header

HEADER_LIMIT = 64 * 1024  # bytes of a long name, or of a member's pax records
MEMBERS_LIMIT = 2_000_000
FILES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
LONG = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
PAX = (tarfile.XHDTYPE, tarfile.XGLTYPE)
WITHOUT_CONTENT = (
    *(tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.DIRTYPE),
    tarfile.FIFOTYPE,
)
RECORD = re.compile(rb"([0-9]{1,5}) ([^=\n]+)=")
SIZE = re.compile(rb"[0-9]{1,15}")


@dataclass(frozen=True)
class Member:
    """A member of an archive; only a regular file has content here."""

    name: str
    is_file: bool
    size: int
    archive: Unpacked

    def read(self, limit: int) -> bytes:
        """Return its content; raise Unreadable if it has more than `limit` bytes.

        Call this before the next member is read.
        """
        if self.size > limit:
            raise Unreadable(f"{self.name[:80]!r} has {self.size} bytes, more than {limit}")
        return self.archive.read(self.size)


def read_members(archive: Unpacked) -> Iterator[Member]:
    """Yield the members of a tar archive; raise Unreadable if it is malformed."""
    count, name, size = 0, "", None
    while any(block := archive.read(tarfile.BLOCKSIZE)):
        count += 1
        if count > MEMBERS_LIMIT:
            raise Unreadable(f"it has more than {MEMBERS_LIMIT} members")
        header = _header(block)
        if header.type in LONG:
            content = _header_content(archive, header.size)
            if header.type == tarfile.GNUTYPE_LONGNAME:
                name = content.partition(b"\0")[0].decode("utf-8", "surrogateescape")
        elif header.type in PAX:
            records = _records(_header_content(archive, header.size))
            if header.type == tarfile.XHDTYPE:  # a global header names no member
                name = records.get(b"path", b"").decode("utf-8", "surrogateescape") or name
                size = _size(records.get(b"size"))
        else:
            yield from _member(archive, header, name, size)
            name, size = "", None


def _member(
    archive: Unpacked, header: tarfile.TarInfo, name: str, size: int | None
) -> Iterator[Member]:
    """Yield a member; afterwards skip whatever was not read of it."""
    if header.type not in (*FILES, *WITHOUT_CONTENT):
        raise Unreadable(f"it has a member of the type {header.type!r}")
    size = header.size if size is None else size
    size = 0 if header.type in WITHOUT_CONTENT else size
    end = archive.count + size + -size % tarfile.BLOCKSIZE
    yield Member(name or header.name, header.type in FILES, size, archive)
    archive.skip(end - archive.count)


def _header(block: bytes) -> tarfile.TarInfo:
    try:
        return read_header(block)
    except BadFormat as error:
        raise Unreadable(str(error)) from error


def _header_content(archive: Unpacked, size: int) -> bytes:
    """Return the content of an extended header, without the padding of its last block."""
    if size > HEADER_LIMIT:
        raise Unreadable(f"a header has {size} bytes, more than {HEADER_LIMIT}")
    content = archive.read(size)
    archive.skip(-size % tarfile.BLOCKSIZE)
    return content


def _records(content: bytes) -> dict[bytes, bytes]:
    """Parse pax records; raise Unreadable for a malformed one and for a sparse file."""
    found: dict[bytes, bytes] = {}
    at = 0
    content = content.rstrip(b"\0")
    while at < len(content):
        match = RECORD.match(content, at)
        end = at + int(match[1]) if match else 0
        if not match or end < match.end() or content[end - 1 : end] != b"\n":
            raise Unreadable("it has a malformed pax record")
        if match[2].startswith(b"GNU.sparse"):
            raise Unreadable("it has a sparse member")
        found[match[2]] = content[match.end() : end - 1]
        at = end
    return found


def _size(value: bytes | None) -> int | None:
    if value is not None and not SIZE.fullmatch(value):
        raise Unreadable("a member's size is no number")
    return None if value is None else int(value)
