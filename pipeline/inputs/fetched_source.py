# SPDX-License-Identifier: GPL-3.0-or-later
"""Source packages that a commit names by hash: it has the `.dsc`, archives have its files.

It does not matter where these come from: the `.dsc` states their sizes and SHA-256. They are looked
for at the addresses in a `.urls` file beside it, then in the pools of the farm's and the image's
archives.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from debian.deb822 import Dsc

from pipeline.base.errors import InputsUnverified, UsageError
from pipeline.base.store import Store
from pipeline.documents.fields import SHA256
from pipeline.documents.job import SourceFile
from pipeline.documents.lock import PACKAGE, VERSION
from pipeline.documents.web_address import parse
from pipeline.farm.config import Archive
from pipeline.inputs.addresses import join
from pipeline.inputs.archive_files import open_archives
from pipeline.inputs.debian_source import TEXT_LIMIT
from pipeline.inputs.tar_members import read_members
from pipeline.inputs.unpacked import Unreadable, unpacked

DSC_LIMIT = 1024 * 1024
FILE_LIMIT = 4 * 1024**3
FILES_LIMIT = 20
FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9+.~_%-]{0,199}")
URL = re.compile(r"https?://[^\s?#]+")
TAR = re.compile(r".*\.tar\.(?:xz|gz|bz2)")
DEBIAN_TAR = re.compile(r".*\.debian\.tar\.(?:xz|gz|bz2)")
OF_DEBIAN = re.compile(r"(?:\./)?(?:[^/]+/)?debian/(control|changelog)")


@dataclass(frozen=True)
class FetchedSource:
    """What a `.dsc` states of its source package, and the addresses in the `.urls` beside it."""

    name: str
    version: str
    binaries: tuple[str, ...]
    files: tuple[SourceFile, ...]
    addresses: tuple[str, ...]


def read_dsc(path: Path, shown: str) -> FetchedSource:
    """Read a `.dsc` and the `.urls` beside it; raise UsageError if one is malformed."""
    fields = Dsc(_text(path, shown))
    try:
        files = tuple(
            SourceFile(entry["name"], int(entry["size"]), entry["sha256"])
            for entry in fields["Checksums-Sha256"]
        )
        name, version = fields["Source"], fields["Version"]
    except (KeyError, ValueError, TypeError) as error:
        raise UsageError(f"{shown} is no .dsc with Checksums-Sha256: {error!r}") from error
    if not PACKAGE.fullmatch(name) or not VERSION.fullmatch(version):
        raise UsageError(f"{shown} says that it is {name[:80]!r} {version[:80]!r}")
    odd = [file.name for file in files if not _is_possible(file)]
    if odd or not 0 < len(files) <= FILES_LIMIT or len({f.name for f in files}) != len(files):
        raise UsageError(f"{shown} names files that cannot be: {', '.join(odd)[:200]}")
    binaries = tuple(word.strip() for word in fields.get("Binary", "").split(",") if word.strip())
    urls = path.with_suffix(".urls")
    addresses = _text(urls, f"{shown[:-4]}.urls").split() if urls.exists() else []
    for address in addresses:
        _check_address(address, f"{shown[:-4]}.urls")
    return FetchedSource(name, version, binaries, files, tuple(a.rstrip("/") for a in addresses))


def _check_address(address: str, shown: str) -> None:
    what = f"{shown}: {address[:200]!r} is no http or https address"
    if not URL.fullmatch(address):
        raise UsageError(what)
    try:
        parse(address)
    except ValueError as error:
        raise UsageError(f"{what}: {error}") from error


def keep_files(source: FetchedSource, archives: Mapping[str, Archive], store: Store) -> None:
    """Bring the files of a source package into the store; raise what `Client.download` raises."""
    absent = [f for f in source.files if not store.has(f.sha256, f.size) or store.damaged(f.sha256)]
    if not absent:
        return
    prefix = source.name[: 4 if source.name.startswith("lib") else 1]
    with open_archives(archives, store) as opened:
        for file in absent:
            urls = [*join(source.addresses, file.name)]
            for name, archive in archives.items():
                for component in archive.components:
                    pool = f"pool/{component}/{prefix}/{source.name}/{file.name}"
                    urls += join(opened.bases[name], pool)
            with store.receiving(file.sha256) as out:
                size, sha256 = file.size, file.sha256
                opened.client.download(urls, out, size=size, sha256=sha256, limit=size)


def read_debian(source: FetchedSource, store: Store, shown: str) -> dict[str, bytes]:
    """Return `control` and `changelog` of a source package whose files are in the store.

    Raise UsageError for a source format without `debian/` in a tar archive, InputsUnverified if
    that archive is damaged.
    """
    tars = [file for file in source.files if TAR.fullmatch(file.name)]
    of_debian = [file for file in tars if DEBIAN_TAR.fullmatch(file.name)] or tars
    has_diff = any(file.name.endswith(".diff.gz") for file in source.files)
    if len(of_debian) != 1 or has_diff:
        remedy = "only the formats 3.0 (quilt) and 3.0 (native) are supported"
        raise UsageError(f"{shown} has no debian/ in a tar archive of its own", remedy=remedy)
    try:
        with store.path(of_debian[0].sha256).open("rb") as file:
            found = _debian(file, of_debian[0].name)
    except Unreadable as error:
        raise InputsUnverified(f"{of_debian[0].name} cannot be read: {error}") from error
    if len(found) < 2:
        what = f"{shown}: {of_debian[0].name} has no debian/control and debian/changelog"
        raise UsageError(what)
    return found


def _debian(file: BinaryIO, name: str) -> dict[str, bytes]:
    """Return `control` and `changelog`, as far as a compressed tar archive has them.

    Of several with one name the first counts.
    """
    found: dict[str, bytes] = {}
    with unpacked(file, name.rpartition(".")[2]) as archive:
        for member in read_members(archive):
            match = OF_DEBIAN.fullmatch(member.name)
            if match and member.is_file and match[1] not in found:
                found[match[1]] = member.read(TEXT_LIMIT)
            if len(found) == 2:
                break
    return found


def _is_possible(file: SourceFile) -> bool:
    right = FILE.fullmatch(file.name) and SHA256.fullmatch(file.sha256)
    return bool(right) and 0 < file.size <= FILE_LIMIT


def _text(path: Path, shown: str) -> str:
    if path.is_symlink() or not path.is_file() or path.stat().st_size > DSC_LIMIT:
        raise UsageError(f"{shown} is not a plain file of at most {DSC_LIMIT} bytes")
    return path.read_text(encoding="utf-8", errors="replace")
