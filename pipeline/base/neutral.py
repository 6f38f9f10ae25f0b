# SPDX-License-Identifier: GPL-3.0-or-later
"""A repository as git may see it: its objects and refs, without its configuration.

A repository's `config`, hooks and included files can name programs that git starts (a file system
monitor, a signature's verifier, the transport of a lazy fetch). So git is never started in a
repository that somebody else may have written. It gets a *neutral* repository instead: a temporary
one with its own configuration, which borrows the objects and has copies of the refs. This module
makes it and starts no program; the layout is that of gitrepository-layout(5).
"""

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.base.errors import UsageError
from pipeline.base.files import open_plain

TEXT_LIMIT = 1024**2  # bytes of a configuration, an attributes file or HEAD
PACKED_LIMIT = 256 * 1024**2
INDEX_LIMIT = 1024**3
REFS_LIMIT = 200_000
PSEUDO_REF = re.compile(r"([A-Z]+_)?HEAD")
SHARED_INDEX = re.compile(r"sharedindex\.[0-9a-f]{40}")
# Every blob is exported as it was committed, regardless of the commit's .gitattributes.
AS_COMMITTED = b"* -export-ignore -export-subst -filter -ident -text -working-tree-encoding !eol\n"


@dataclass(frozen=True)
class RepositoryLayout:
    """Where the parts of a repository are."""

    git_dir: Path  # HEAD and the index
    common: Path  # objects, refs and configuration, which worktrees may share
    worktree: Path | None  # None for a bare repository

    @property
    def objects(self) -> Path:
        """The object store."""
        return self.common / "objects"

    @property
    def shallow(self) -> bool:
        """Whether the history is incomplete, as after `git clone --depth`."""
        return bool(read(self.common / "shallow", PACKED_LIMIT))

    @property
    def partial(self) -> bool:
        """Whether objects may be missing, as after `git clone --filter`."""
        return any((self.objects / "pack").glob("*.promisor"))


def find(folder: Path, *, above: bool = False) -> RepositoryLayout | None:
    """Return the repository whose working tree is `folder`, or that is `folder` itself if bare.

    With `above`, the working tree may also be a parent of `folder`.
    """
    start = folder.resolve()
    for worktree in (start, *(start.parents if above else ())):
        layout = _of_worktree(worktree)
        if layout:
            return layout
    return _layout(start, None)


def _of_worktree(worktree: Path) -> RepositoryLayout | None:
    entry = worktree / ".git"
    if entry.is_dir():
        return _layout(entry.resolve(), worktree)
    named = re.fullmatch(rb"gitdir: ([^\n\0]+)\n*", read(entry, TEXT_LIMIT) or b"")
    if named is None:
        return None
    return _layout((worktree / os.fsdecode(named[1])).resolve(), worktree)


def _layout(git_dir: Path, worktree: Path | None) -> RepositoryLayout | None:
    shared = (read(git_dir / "commondir", TEXT_LIMIT) or b".").rstrip(b"\n")
    if b"\0" in shared:
        return None
    common = (git_dir / os.fsdecode(shared)).resolve()
    layout = RepositoryLayout(git_dir, common, worktree)
    complete = read(git_dir / "HEAD", TEXT_LIMIT) is not None and (common / "refs").is_dir()
    return layout if complete and layout.objects.is_dir() else None


def make(layout: RepositoryLayout, folder: Path, settings: Mapping[str, str]) -> None:
    """Make `folder` the neutral repository of `layout`, with only `settings` configured.

    Raise UsageError if the repository cannot be read this way.
    """
    if b"\n" in os.fsencode(layout.objects):
        raise UsageError(f"{os.fspath(layout.objects)!r} has a line break in its name")
    if (layout.common / "reftable").is_dir():
        raise UsageError(
            f"{layout.common} keeps its refs as a reftable, which is not read here",
            remedy="git refs migrate --ref-format=files",
        )
    for name in ("objects/info", "refs", "info"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "config").write_text("".join(_setting(*item) for item in settings.items()))
    (folder / "objects/info/alternates").write_bytes(os.fsencode(layout.objects) + b"\n")
    (folder / "info/attributes").write_bytes(AS_COMMITTED)
    _copy_refs(layout, folder)


def add_worktree(layout: RepositoryLayout, folder: Path) -> None:
    """Copy the index of `layout`, and other files that its status depends on, to `folder`."""
    (folder / "info/attributes").unlink()
    for name in ("attributes", "exclude"):
        _copy(layout.common / "info" / name, folder / "info" / name, TEXT_LIMIT)
    sparse = "info/sparse-checkout"
    _copy(layout.git_dir / sparse, folder / sparse, TEXT_LIMIT)
    names = ["index", *filter(SHARED_INDEX.fullmatch, os.listdir(layout.git_dir))]  # noqa: PTH208
    for name in names:
        _copy(layout.git_dir / name, folder / name, INDEX_LIMIT)


def read(path: Path, limit: int) -> bytes | None:
    """Return the content of a regular file, or None if there is none; never block on a pipe.

    Raise UsageError if it is larger than `limit` bytes.
    """
    try:
        file = open_plain(path)
    except OSError:
        return None
    with file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise UsageError(f"{path} is larger than {limit} bytes")
    return content


def _copy(source: Path, target: Path, limit: int) -> None:
    """Copy a regular file, if it exists, with its time, which git compares with the index."""
    content = read(source, limit)
    if content is None:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)
    with suppress(OSError):
        time = source.stat().st_mtime_ns
        os.utime(target, ns=(time, time))


def _setting(name: str, value: str) -> str:
    section, _, key = name.rpartition(".")
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'[{section}]\n\t{key} = "{escaped}"\n'


def _copy_refs(layout: RepositoryLayout, folder: Path) -> None:
    for name in filter(PSEUDO_REF.fullmatch, os.listdir(layout.git_dir)):  # noqa: PTH208
        _copy(layout.git_dir / name, folder / name, TEXT_LIMIT)
    for name in ("packed-refs", "shallow"):
        _copy(layout.common / name, folder / name, PACKED_LIMIT)
    count = 0
    for parent, _, names in os.walk(layout.common / "refs"):
        for name in names:
            count += 1
            if count > REFS_LIMIT:
                raise UsageError(
                    f"{layout.common} has more than {REFS_LIMIT} loose refs",
                    remedy="git pack-refs --all",
                )
            path = Path(parent, name)
            _copy(path, folder / path.relative_to(layout.common), TEXT_LIMIT)
