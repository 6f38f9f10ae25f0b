# SPDX-License-Identifier: GPL-3.0-or-later
"""What is in the folders of a tree, as a ledger says; it is read only if somebody asks."""

from collections import defaultdict
from collections.abc import Mapping
from functools import cached_property
from itertools import chain
from pathlib import Path

from pipeline.base.errors import TwinbuildError
from pipeline.compare.ledger import parse, read_blocks
from pipeline.documents.ledger_line import LedgerEntry

NAMES_LEAST = 3
MANY, SHARE_OF_MANY = 20, 0.3  # so many names are in one folder for a reason: those of files
SHARE = 0.9  # of a folder's names that a list of them has: later steps may have added some


class Folders:
    """The names in each folder that a ledger ever had."""

    def __init__(self, ledger: Path) -> None:
        self._ledger = ledger

    def holding(self, names: frozenset[str]) -> str:
        """Return the folder in which all these names are, and few others; empty if there is none.

        Of many names there may be more others: a list of files leaves out folders.
        Names that begin with a dot are not asked for: many lists leave them out.
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

        Those that are not absolute are anywhere where their last names are.
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
