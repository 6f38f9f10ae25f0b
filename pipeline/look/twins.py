# SPDX-License-Identifier: GPL-3.0-or-later
"""Pair paths that only one side has with their counterparts on the other side."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import product

from pipeline.look.causes.properties import shared

MOST = 200  # paths of one folder that are compared with each other


def find_twins(ours: Iterable[str], theirs: Iterable[str]) -> dict[str, str]:
    """Pair the paths that only one side has, folder by folder; map each to its counterpart.

    The most similar names are paired first. The rest are paired in order if both sides have equally
    many. The paths in a folder that has a twin are paired with those in the twin.
    """
    sides = [_by_folder(paths) for paths in (ours, theirs)]
    twins: dict[str, str] = {}
    for folder in sorted(sides[0], key=lambda folder: (folder.count("/"), folder)):
        here = sides[0][folder]
        there = sides[1].get(twins.get(folder, folder), [])
        for left, right in _pairs(here, there):
            twins |= {left: right, right: left}
    return twins


def _by_folder(paths: Iterable[str]) -> Mapping[str, list[str]]:
    found: dict[str, list[str]] = {}
    for path in sorted(paths):
        found.setdefault(path.rpartition("/")[0], []).append(path)
    return found


def _pairs(here: Sequence[str], there: Sequence[str]) -> list[tuple[str, str]]:
    """Pair the paths of one folder."""
    likeness = [
        (-_alike(left, right), left, right)
        for left, right in product(here[:MOST], there[:MOST])
        if _alike(left, right)
    ]
    pairs: dict[str, str] = {}
    taken: set[str] = set()
    for _, left, right in sorted(likeness):
        if left not in pairs and right not in taken:
            pairs[left] = right
            taken.add(right)
    rest = [path for path in here if path not in pairs], [p for p in there if p not in taken]
    if len(rest[0]) == len(rest[1]):
        pairs |= dict(zip(*rest, strict=True))
    return list(pairs.items())


def _alike(left: str, right: str) -> int:
    """Return how many characters two names share at their ends; 0 if that is too few to matter."""
    names = left.rpartition("/")[2], right.rpartition("/")[2]
    common = sum(shared(*names))
    return common if 3 * common >= min(map(len, names)) else 0
