# SPDX-License-Identifier: GPL-3.0-or-later
"""The names in the folders of a tree, from a ledger that is read only when needed."""

from collections import defaultdict
from collections.abc import Mapping
from functools import cached_property
from itertools import chain
from pathlib import Path

from pipeline.base.errors import TwinbuildError
from pipeline.compare.ledger import parse, read_blocks
from pipeline.documents.ledger_line import LedgerEntry

NAMES_LEAST = 3
MANY, SHARE_OF_MANY = 20, 0.3  # with so many names in one folder, they are those of files
SHARE = 0.9  # share of a folder's names that a list must have: later steps may have added some


class Folders:
    """The names in each folder that a ledger ever had."""

    def __init__(self, ledger: Path) -> None:
        self._ledger = ledger

    def holding(self, names: frozenset[str]) -> str:
        """Return the folder that has all these names and few others; empty if there is none.

        For many names more others are allowed, since a list of files leaves out folders.
        Names that begin with a dot do not count, since many lists leave them out.
        """
        asked = {name for name in names if not name.startswith(".")}
        if len(asked) < NAMES_LEAST:
            return ""
        share = SHARE if len(asked) < MANY else SHARE_OF_MANY
        fitting = (
            (len(there), folder)
            for folder, there in self._folders.items()
            if asked <= there and share * len(there) <= len(asked)
        )
        return min(fitting, default=(0, ""))[1]

    def lacks(self, paths: frozenset[str]) -> bool:
        """Tell whether the ledger is readable and never had most of these paths.

        A relative path counts as present wherever its last name is.
        """
        had = sum(map(self._has, paths))
        return bool(self._folders) and 2 * had < len(paths)

    def _has(self, path: str) -> bool:
        folder, _, name = path.rstrip("/").rpartition("/")
        if not path.startswith("/"):
            return name.startswith(".") or name in self._names
        folder = folder.lstrip("/")
        return (
            name in self._folders.get(folder, ()) or f"{folder}/{name}".strip("/") in self._folders
        )

    @cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(chain.from_iterable(self._folders.values()))

    @cached_property
    def _folders(self) -> Mapping[str, set[str]]:
        found: dict[str, set[str]] = defaultdict(set)
        try:
            for line in chain.from_iterable(read_blocks(self._ledger)):
                record = parse(line)
                if isinstance(record, LedgerEntry):
                    folder, _, name = record.path.rpartition("/")
                    if not name.startswith("."):
                        found[folder].add(name)
        except TwinbuildError:
            return {}  # the verdict reports it
        return found
