# SPDX-License-Identifier: GPL-3.0-or-later
"""Extracts from `source.tar`, which is untrusted, the few files that decide the inputs.

Only regular files with the names below are extracted, each up to a size limit; links, devices and
paths with `..` never are.
"""

import hashlib
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from pipeline.base.errors import InputsUnverified, UsageError
from pipeline.base.files import sha256_bytes

MEMBERS = (
    r"images/live/{image}/(?:lock|image\.yaml|(?:package-lists|preferences|archives|apt)/[\w.+-]+"
    r"|packages/(?:[^./][^/]*\.(?:deb|dsc|urls)|[^./][^/]*/debian/(?:control|changelog))"
    r"|packages\.chroot/[^./][^/]*)"
)
OF_SOURCES = r"images/live/{image}/packages/((?!README)[^./][^/]*)/(.+)"
BUILDER_MEMBERS = r"images/builder/package-lists/[\w.+-]+"
MEMBER_LIMIT = 64 * 1024 * 1024
PIECE = 1024 * 1024


def take_out(source_tar: Path, image: str, folder: Path) -> None:
    """Extract the files of `source_tar` that decide the inputs of `image` to `folder`.

    Raise UsageError if one of them is not a regular file or is too large, InputsUnverified if the
    archive cannot be read.
    """
    wanted = re.compile(f"{MEMBERS.format(image=re.escape(image))}|{BUILDER_MEMBERS}")
    try:
        with tarfile.open(source_tar, "r|") as tar:
            for member in tar:
                if wanted.fullmatch(member.name):
                    _write(tar, member, folder / member.name)
    except (tarfile.TarError, EOFError) as error:
        raise InputsUnverified(f"{source_tar} cannot be read: {error}") from error


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    file = tar.extractfile(member) if member.isreg() and member.size <= MEMBER_LIMIT else None
    if file is None:
        raise UsageError(f"{member.name} is not a plain file of at most {MEMBER_LIMIT} bytes")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(file.read())


def paths_in(source_tar: Path, image: str) -> list[str]:
    """Return the files and links in the folder of `image`, relative to it.

    Raise InputsUnverified if the archive cannot be read.
    """
    folder = f"images/live/{image}/"
    try:
        with tarfile.open(source_tar, "r|") as tar:
            names = [member.name for member in tar if not member.isdir()]
    except (tarfile.TarError, EOFError) as error:
        raise InputsUnverified(f"{source_tar} cannot be read: {error}") from error
    return [name.removeprefix(folder) for name in names if name.startswith(folder)]


def source_digests(source_tar: Path, image: str) -> dict[str, str]:
    """Return the digest of each source package below `packages/`: of paths, types and contents.

    It is the SHA-256 of `type mode sha256 path` lines, where a link has the hash of its target.
    Raise InputsUnverified if the archive cannot be read.
    """
    within = re.compile(OF_SOURCES.format(image=re.escape(image)))
    lines: dict[str, list[str]] = {}
    try:
        with tarfile.open(source_tar, "r|") as tar:
            for member in tar:
                if match := within.fullmatch(member.name):
                    lines.setdefault(match[1], []).append(_line(tar, member, match[2]))
    except (tarfile.TarError, EOFError) as error:
        raise InputsUnverified(f"{source_tar} cannot be read: {error}") from error
    return {name: sha256_bytes("".join(sorted(of)).encode()) for name, of in lines.items()}


def _line(tar: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> str:
    content = hashlib.sha256(member.linkname.encode("utf-8", "surrogateescape"))
    if file := tar.extractfile(member) if member.isreg() else None:
        for piece in _pieces(file):
            content.update(piece)
    executable = "x" if member.mode & 0o100 else "-"
    return f"{member.type!r} {executable} {content.hexdigest()} {path!r}\n"


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    while piece := file.read(PIECE):
        yield piece
