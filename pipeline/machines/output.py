# SPDX-License-Identifier: GPL-3.0-or-later
"""Receives a machine's output, which is hostile: only expected names and sizes are accepted."""

import hashlib
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from pipeline.base.errors import InfrastructureFailed, UsageError
from pipeline.base.files import new_file, write_pieces
from pipeline.documents.artifact_names import ArtifactNames
from pipeline.documents.disks import ARTIFACTS, LEDGER, TIMINGS
from pipeline.documents.system_partition import PARTITION_LIST_LIMIT

PIECE = 1024 * 1024
ARTIFACT_LIMIT = 16 * 1024**3
LIST_LIMIT = 512 * 1024**2
MIB = 1024 * 1024


def expected(names: ArtifactNames) -> dict[str, int]:
    """Return the paths that a machine may return, and no others, with the size limit of each.

    Raise UsageError if one is too long for a plain tar header.
    """
    limits = {
        names.iso: ARTIFACT_LIMIT,
        names.usb_image: ARTIFACT_LIMIT,
        names.packages: 16 * MIB,
        names.partition: PARTITION_LIST_LIMIT,
        names.ledger: LIST_LIMIT,
        **dict.fromkeys((*names.kits, *names.built), ARTIFACT_LIMIT),
    }
    for name in limits:
        if len(f"{ARTIFACTS}/{name}".encode()) > tarfile.LENGTH_NAME:
            remedy = "shorten the tag, or the name of the image or package"
            raise UsageError(f"the artifact's name {name} is too long", remedy=remedy)
    return {
        **{f"{ARTIFACTS}/{name}": limit for name, limit in limits.items()},
        LEDGER: LIST_LIMIT,
        TIMINGS: MIB,
    }


def receive(stream: BinaryIO, limits: Mapping[str, int], folder: Path) -> dict[str, str]:
    """Write the files of a tar stream below `folder`; return their SHA-256 by path.

    Accepted are exactly the names in `limits`, each once, as regular files. tarfile's own reader is
    not used, as it supports extensions (sparse, pax, long names) that are not needed here. Raise
    InfrastructureFailed for anything else.
    """
    digests: dict[str, str] = {}
    while (member := _header(stream)) is not None:
        name = member.name
        if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
            raise InfrastructureFailed(f"the machine handed back {name!r}, which is no plain file")
        if name not in limits or name in digests:
            raise InfrastructureFailed(f"the machine handed back {name!r}, which nobody asked for")
        if not 0 <= member.size <= limits[name]:
            raise InfrastructureFailed(f"the machine handed back {name!r} with {member.size} bytes")
        digests[name] = _copy(stream, member.size, folder / name)
        _read(stream, -member.size % tarfile.BLOCKSIZE)
    missing = sorted(limits.keys() - digests.keys())
    if missing:
        raise InfrastructureFailed(f"the machine did not hand back {', '.join(missing)}")
    return digests


def _header(stream: BinaryIO) -> tarfile.TarInfo | None:
    block = _read(stream, tarfile.BLOCKSIZE)
    if not any(block):
        return None
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "strict")
    except (tarfile.HeaderError, ValueError) as error:
        raise InfrastructureFailed(f"the machine handed back no tar archive: {error}") from error


def _copy(stream: BinaryIO, size: int, path: Path) -> str:
    """Write a file and return its SHA-256; pieces of zeros, as in USB images, become holes."""
    digest = hashlib.sha256()

    def pieces() -> Iterator[bytes]:
        left = size
        while left:
            piece = _read(stream, min(left, PIECE))
            digest.update(piece)
            yield piece
            left -= len(piece)

    with new_file(path) as file:
        write_pieces(file, pieces())
    return digest.hexdigest()


def _read(stream: BinaryIO, size: int) -> bytes:
    """Read exactly `size` bytes."""
    pieces = []
    while size:
        piece = stream.read(size)
        if not piece:
            raise InfrastructureFailed("what the machine handed back breaks off")
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)
