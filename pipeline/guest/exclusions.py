# SPDX-License-Identifier: GPL-3.0-or-later
"""Removes the paths that the image's file `exclude` lists from the tree."""

import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pipeline.documents.progress import STATUS_BUILD_FAILED
from pipeline.guest.job import GuestJob
from pipeline.guest.serial_port import Report, StepFailed

FILE = "exclude"
WORD = re.compile(r"(\*\*/)|(\*\*)|(\*)|(\?)|\[(!?)([^]/]+)\]")
MEANINGS = ("(?:.*/)?", ".*", "[^/]*", "[^/]")  # of the first four groups of WORD


def exclude(job: GuestJob, report: Report) -> None:
    """Remove the paths that the image's exclusion list matches, and log how much that saves.

    Links are not followed, so nothing outside the tree can match. A pattern without a match is
    logged, as it may be obsolete. Raise StepFailed for a malformed pattern.
    """
    listed = job.image_folder / FILE
    if not listed.is_file():
        return
    name = f"images/live/{job.image_folder.name}/{FILE}"
    paths = list(_paths(job.tree))
    count = size = 0
    for line, pattern in parse(listed.read_text(encoding="utf-8", errors="replace"), name).items():
        found = [path for path in paths if pattern.fullmatch(path)]
        if not found:
            report.log(f"{name}: {line} matches nothing")
        for path in found:
            removed, saved = _remove(job.tree / path)
            count, size = count + removed, size + saved
    report.log(f"{name}: {count} paths are left out, {size / 1e6:.1f} MB")


def parse(text: str, name: str) -> Mapping[str, re.Pattern[str]]:
    """Return the patterns of an exclusion list by their lines; `name` is its name for errors."""
    patterns = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].strip()
        if not words:
            continue
        try:
            patterns[words] = re.compile(_expression(words), re.DOTALL)
        except (ValueError, re.error) as error:
            what = f"{name}:{number}: {words!r} is no path pattern: {error}"
            raise StepFailed(STATUS_BUILD_FAILED, what) from error
    return patterns


def _expression(words: str) -> str:
    """Return a pattern as a regular expression; raise ValueError if it is not a path."""
    if {"", ".", ".."} & set(words.split("/")):
        raise ValueError("give it from the root, as usr/share/doc")
    parts, end = [], 0
    for word in WORD.finditer(words):
        parts.append(re.escape(words[end : word.start()]))
        *wild, negated, letters = word.groups()
        if letters:
            escaped = re.sub(r"([\\^[&~|])", r"\\\1", letters)
            parts.append(f"[^/{escaped}]" if negated else f"[{escaped}]")
        else:
            parts += [meaning for meaning, found in zip(MEANINGS, wild, strict=True) if found]
        end = word.end()
    return "".join(parts) + re.escape(words[end:])


def _paths(tree: Path) -> Iterator[str]:
    """Yield all paths below a tree's root, each folder before its content."""
    root = os.fspath(tree)
    for folder, folders, files in os.walk(root):
        below = os.path.relpath(folder, root)
        for name in (*folders, *files):
            yield os.path.normpath(os.path.join(below, name))


def _remove(path: Path) -> tuple[int, int]:
    """Remove a path and all below it; return the number of paths and bytes, 0 if already gone."""
    if not os.path.lexists(path):
        return 0, 0
    if path.is_symlink() or not path.is_dir():
        saved = _content([path])
        path.unlink()
        return 1, saved
    below = [path / inside for inside in _paths(path)]
    saved = _content(below)
    shutil.rmtree(path)
    return 1 + len(below), saved


def _content(paths: Sequence[Path]) -> int:
    """Return the size in bytes of files; those with further hard links do not count."""
    statuses = [path.lstat() for path in paths]
    return sum(s.st_size for s in statuses if stat.S_ISREG(s.st_mode) and s.st_nlink == 1)
