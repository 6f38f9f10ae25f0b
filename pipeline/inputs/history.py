# SPDX-License-Identifier: GPL-3.0-or-later
"""Compares a lock with earlier ones: a package's hash must never change.

The locks of all images are read, in the working tree and throughout its history.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from pipeline.base import git
from pipeline.base.errors import InputsUnverified
from pipeline.documents.lock import Lock, LockedPackage

LOCKS = "images/live/*/lock"
FIELDS = ("Package", "Version", "Architecture", "Archive", "SHA256")

Identity = tuple[str, str, str, str]  # name, version, architecture, archive


def refuse_changed(tree: Path, lock: Lock) -> None:
    """Raise InputsUnverified if a package of `lock` was ever locked in `tree` with another hash."""
    now = {_identity(locked): locked.package.sha256 for locked in lock.locked}
    for identity, sha256 in _locked_before(tree):
        if now.get(identity, sha256) != sha256:
            name, version, architecture, archive = identity
            raise InputsUnverified(
                f"{name} {version} ({architecture}) of archive {archive} was locked before with"
                f" SHA-256 {sha256} and now has {now[identity]}",
                remedy="packages are immutable: publish the change under a new version",
            )


def _identity(locked: LockedPackage) -> Identity:
    package = locked.package
    return package.name, package.version, package.architecture, locked.place.archive


def _locked_before(tree: Path) -> Iterator[tuple[Identity, str]]:
    for path in sorted(tree.glob(LOCKS)):
        with path.open(encoding="utf-8", errors="replace") as file:
            yield from _identities(file)
    repository = git.open_tree(tree)
    if repository is None:
        return
    with git.opened(repository) as reader, TemporaryDirectory(prefix="twinbuild-") as folder:
        verify = ("rev-parse", "--quiet", "--verify", "HEAD")
        if git.git(reader, *verify, accept=(0, 1)).status:
            return
        printed = Path(folder, "locks")
        wanted = "".join(f"{blob}\n" for blob in _blobs(reader, _locks(repository, tree)))
        git.git(reader, "cat-file", "--batch", stdin=wanted.encode(), stdout_to=printed)
        with printed.open(encoding="utf-8", errors="replace") as file:
            yield from _identities(file)


def _locks(repository: git.Repository, tree: Path) -> str:
    """Return a pathspec that matches the locks of `tree` in its repository."""
    below = tree.resolve().relative_to(repository.worktree or tree.resolve())
    prefix = re.sub(r"([][*?\\])", r"\\\1", f"{below.as_posix()}/" if below.parts else "")
    return f":(top,glob){prefix}{LOCKS}"


def _blobs(reader: Path, locks: str) -> list[str]:
    """Return the blob of every version of every lock in the history of HEAD."""
    log = ("log", "-m", "--raw", "--no-abbrev", "--no-renames", "--format=")
    raw = git.git(reader, *log, "HEAD", "--", locks).text
    blobs = {line.split()[3] for line in raw.splitlines() if line.startswith(":")}
    return sorted(blob for blob in blobs if set(blob) != {"0"})


def _identities(lines: Iterable[str]) -> Iterator[tuple[Identity, str]]:
    """Read the packages in a lock of any format, even a damaged one; skip incomplete packages."""
    fields: dict[str, str] = {}
    for line in (*lines, "\n"):
        key, colon, value = line.partition(":")
        if colon and key in FIELDS:
            fields[key] = value.strip()
        elif not line.strip():
            if len(fields) == len(FIELDS):
                name, version, architecture, archive, sha256 = (fields[key] for key in FIELDS)
                yield (name, version, architecture, archive), sha256
            fields = {}
