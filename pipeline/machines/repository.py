# SPDX-License-Identifier: GPL-3.0-or-later
"""Lays out locked packages as an apt archive, unsigned, as their hashes were checked before."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from debian.deb822 import Deb822

from pipeline.base.files import sha256_bytes
from pipeline.base.store import Store
from pipeline.documents.apt_release import release_file
from pipeline.documents.lock import Package


def select(index: bytes, packages: Iterable[Package]) -> bytes:
    """Return the paragraphs of an index that describe these packages, in its order."""
    wanted = {package.sha256 for package in packages}
    paragraphs = [
        paragraph
        for paragraph in index.split(b"\n\n")
        if Deb822(paragraph).get("SHA256", "") in wanted
    ]
    return b"\n\n".join(paragraph.strip(b"\n") for paragraph in paragraphs) + b"\n"


def files(
    suite: str, indices: Mapping[str, bytes], packages: Iterable[Package], store: Store
) -> dict[str, Path | bytes]:
    """Return the archive's files by path, relative to its root; `indices` are by component."""
    paths = {f"{name}/binary-amd64/Packages": index for name, index in indices.items()}
    hashed = {path: (sha256_bytes(index), len(index)) for path, index in paths.items()}
    release = release_file(suite, "amd64", hashed)
    dists: dict[str, Path | bytes] = {f"dists/{suite}/Release": release.encode()}
    dists |= {f"dists/{suite}/{path}": index for path, index in paths.items()}
    pool: dict[str, Path | bytes] = {f"pool/{p.file_name}": store.path(p.sha256) for p in packages}
    return {**dists, **pool}
