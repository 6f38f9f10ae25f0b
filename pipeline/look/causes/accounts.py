# SPDX-License-Identifier: GPL-3.0-or-later
"""Accounts created in another order: passwd(5), group(5), their shadows, subuid(5), subgid(5)."""

from pipeline.documents.explanation import Cause
from pipeline.look.causes.facts import Pair

# The indices of the fields with allocated numbers, by the file's name; shadow files have none.
NUMBERS = {"passwd": (2, 3), "group": (2,), "shadow": (), "gshadow": (), "subuid": (1,)}
NUMBERS["subgid"] = (1,)
SHADOW_DAY = {"shadow": 2}
SHOWN = 3
Accounts = dict[str, tuple[tuple[str, ...], tuple[str, ...]]]  # fixed fields, allocated numbers


def in_accounts(path: str, contents: tuple[bytes, bytes], pair: Pair) -> Cause | None:
    """Find the same accounts with other numbers or in another order, without other differences."""
    name = path.rpartition("/")[2].removesuffix("-")
    if name not in NUMBERS or path.rpartition("/")[0].rpartition("/")[2] != "etc":
        return None
    ours, theirs = (_accounts(content, name) for content in contents)
    if ours is None or theirs is None or ours.keys() != theirs.keys():
        return None
    if any(ours[account][0] != theirs[account][0] for account in ours):
        return None
    other = [account for account in ours if ours[account][1] != theirs[account][1]]
    if other:
        evidence = (
            f"the accounts are the same, their numbers in {pair[0].name} and {pair[1].name} not"
        )
        numbers = (
            f"{a} {_formatted(ours[a][1])} and {_formatted(theirs[a][1])}" for a in other[:SHOWN]
        )
        return Cause("account-order", f"{evidence}: {', '.join(numbers)}")
    first = next(((a, b) for a, b in zip(ours, theirs, strict=True) if a != b), None)
    if first is None:
        return None
    evidence = f"{first[0]} comes first in {pair[0].name}, {first[1]} in {pair[1].name}"
    return Cause("account-order", f"the same {len(ours)} accounts in another order: {evidence}")


def _formatted(numbers: tuple[str, ...]) -> str:
    return ":".join(numbers)


def _in_order(field: str) -> str:
    """Return a field with its comma-separated members sorted."""
    return ",".join(sorted(field.split(",")))


def _accounts(content: bytes, name: str) -> Accounts | None:
    """Return the fixed fields and the allocated numbers of each account; None if malformed."""
    found = {}
    for line in content.decode(errors="replace").splitlines():
        fields = line.split(":")
        if len(fields) < 3 or fields[0] in found:
            return None
        numbers = tuple(fields[at] for at in NUMBERS[name] if at < len(fields))
        if not all(number.isdigit() for number in numbers):
            return None
        changing = {*NUMBERS[name], SHADOW_DAY.get(name, 0)}
        stays = (_in_order(field) for at, field in enumerate(fields) if at not in changing)
        found[fields[0]] = tuple(stays), numbers
    return found
