# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds pipes and devices where git expects files of a repository: it would block or never end.

Untrusted folders can have a pipe or a device in place of a file. As git opens some files without
checking their type, and would block until its time limit, they are looked for before it is started.
"""

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from pipeline.base import neutral
from pipeline.base.errors import UsageError

# Files that git opens anywhere in a working tree (gitattributes(5), gitignore(5) …), without
# following links.
IN_A_TREE = (".gitattributes", ".gitignore", ".gitmodules", ".mailmap")
# Files that git opens to see whether a folder is a repository, also through links.
IN_A_REPOSITORY = ("HEAD", "commondir")


def refuse(paths: Iterable[Path], *, through_links: bool = False) -> None:
    """Raise UsageError if a path is a pipe, a device or a socket, or is a link to one if asked."""
    for path in paths:
        if _never_ends(path, through_links=through_links):
            raise UsageError(
                f"{os.fspath(path)!r} is a pipe or a device, where a file is expected",
                remedy="remove it",
            )


def _never_ends(path: Path, *, through_links: bool) -> bool:
    try:
        mode = path.stat(follow_symlinks=through_links).st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode))


def refuse_in_worktree(tree: Path) -> None:
    """Refuse pipes in a working tree with names that git opens even if they are not committed."""
    for folder, folders, names in os.walk(tree):
        here = Path(folder)
        if here != tree and ".git" in (*folders, *names):
            refuse(_of_nested(here / ".git"), through_links=True)
        if ".git" in folders:
            folders.remove(".git")
        refuse(here / name for name in IN_A_TREE if name in names)


def _of_nested(entry: Path) -> Iterator[Path]:
    git_dir = entry
    if entry.is_file():
        named = (neutral.read(entry, neutral.TEXT_LIMIT) or b"").partition(b"gitdir: ")[2].strip()
        if not named or b"\0" in named:
            return
        git_dir = entry.parent / os.fsdecode(named)
    yield from (git_dir / name for name in IN_A_REPOSITORY)


def refuse_in_objects(objects: Path) -> None:
    """Refuse pipes in an object store."""
    refuse(_odd_objects(objects), through_links=True)


def _odd_objects(objects: Path) -> Iterator[Path]:
    folders = [os.fspath(objects)]
    for folder in folders:
        with suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif not entry.is_file(follow_symlinks=False):
                    yield Path(entry.path)
