# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks that the builds of a run are separate builds, and not copies of one."""

import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations
from pathlib import Path

from pipeline.base.errors import SignatureInvalid
from pipeline.documents.statement import Statement, why_one_build
from pipeline.farm.run import Run

REMEDY = "build again, in each environment by itself"


def check_folders(run: Run, environments: Iterable[str]) -> None:
    """Raise SignatureInvalid if an environment's folder is a link, perhaps to that of another."""
    for name in environments:
        for folder in (run.environment(name), run.environment(name) / "artifacts"):
            if folder.is_symlink():
                raise SignatureInvalid(
                    f"{folder} is a symbolic link: {name} has no build of its own", remedy=REMEDY
                )


def check_apart(run: Run, statements: Mapping[str, Statement]) -> None:
    """Raise SignatureInvalid if two environments share one build: its logs, factors or files."""
    for one, other in combinations(statements.values(), 2):
        if why := why_one_build(one, other) or _shared_file(run, one, other):
            raise SignatureInvalid(
                f"{one.environment} and {other.environment} state one build: {why}", remedy=REMEDY
            )


def _shared_file(run: Run, one: Statement, other: Statement) -> str | None:
    """Return the paths, as text, under which two environments have the same file; None if none."""
    paths = {_identity(path): path for path in _files(run, one)}
    for path in _files(run, other):
        if same := paths.get(_identity(path)):
            return f"{path} is {same}"
    return None


def _files(run: Run, stated: Statement) -> Iterator[Path]:
    folder = run.environment(stated.environment)
    names = ["job.json", "statement.json", *stated.byproducts]
    paths = [folder / name for name in names] + [
        folder / "artifacts" / name for name in stated.artifacts
    ]
    return (path for path in paths if os.path.lexists(path))


def _identity(path: Path) -> tuple[int, int] | Path:
    """Return the device and inode of a file, following links; of a broken link, its path."""
    try:
        found = path.stat()
    except OSError:
        return path  # a broken link
    return found.st_dev, found.st_ino
