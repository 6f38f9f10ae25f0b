# SPDX-License-Identifier: GPL-3.0-or-later
"""Match the entries of two containers, by path or by an equivalent name."""

import re
from collections.abc import Iterator

from pipeline.documents.system_partition import without_digest
from pipeline.look.formats.container import Entry, sort_key

PACKAGE_PART = re.compile(r"(control|data)\.tar(\.(gz|xz|zst|bz2|lzma))?")

# An entry on both sides, and whether to report it; not if it is in a folder that one side lacks.
Matched = tuple[Entry | None, Entry | None, bool]


def _same_but_digest(left: str, right: str) -> bool:
    """Return whether two names are equal but for a digest of the file's content."""
    return without_digest(left) == without_digest(right)


def _same_but_packing(left: str, right: str) -> bool:
    """Return whether two names are those of one member of a .deb, compressed differently."""
    found = PACKAGE_PART.fullmatch(left), PACKAGE_PART.fullmatch(right)
    return found[0] is not None and found[1] is not None and found[0][1] == found[1][1]


def _same(left: str, right: str) -> bool:
    return _same_but_digest(left, right) or _same_but_packing(left, right)


def matched(left: Iterator[Entry], right: Iterator[Entry]) -> Iterator[Matched]:
    """Yield the entries of both sides, matched by path; both must be in the order of `sort_key`."""
    ours, theirs = next(left, None), next(right, None)
    missing: str | None = None
    while ours is not None or theirs is not None:
        keys = [sort_key(side.path) if side else None for side in (ours, theirs)]
        if ours and theirs and keys[0] != keys[1] and _same(ours.path, theirs.path):
            keys[1] = keys[0]
        first = min(key for key in keys if key is not None)
        pair = (ours if keys[0] == first else None, theirs if keys[1] == first else None)
        wanted = None not in pair or missing is None or not first.startswith(missing)
        if wanted and None in pair:
            missing = f"{first}\0"
        yield (*pair, wanted)
        if pair[0]:
            ours = next(left, None)
        if pair[1]:
            theirs = next(right, None)
