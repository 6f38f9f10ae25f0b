# SPDX-License-Identifier: GPL-3.0-or-later
"""Adds keys to `farm.yaml` by editing its lines, so that comments and order are preserved.

Keys are only added, never changed or removed. The result is parsed and must be the intended farm;
otherwise the file stays as it is.
"""

from collections.abc import Mapping, Sequence

from pipeline.base.errors import UsageError
from pipeline.base.yaml_reader import ValuePlace, places
from pipeline.farm.config import Farm, Keys, parse_farm

INDENT = 2


def pin(
    text: str,
    path: str,
    *,
    release: str | None = None,
    environments: Mapping[str, str] | None = None,
    signers: Sequence[str] = (),
) -> str:
    """Return `farm.yaml` with these keys added; raise UsageError if it cannot be edited.

    `release` is set if no release key is; `environments` and `signers` are added.
    """
    before = parse_farm(text.encode(), path)
    wanted = _wanted(before, release, environments or {}, signers)
    edited = text
    if release and before.keys.release is None:
        edited = _put(edited, path, ("keys", "release"), release)
    for name in wanted.keys.environments:
        if name not in before.keys.environments:
            value = f"{wanted.keys.environments[name]}"
            edited = _put(edited, path, ("keys", "environments", name), value)
    if wanted.keys.tags.signers != before.keys.tags.signers:
        value = f"[{', '.join(wanted.keys.tags.signers)}]"
        edited = _put(edited, path, ("keys", "tags", "signers"), value)
    if not _is(edited, path, wanted):
        raise UsageError(
            f"{path} is written in a form that cannot be edited here, and stays as it is",
            remedy=f"put this under keys: {_by_hand(wanted.keys)}",
        )
    return edited


def _is(text: str, path: str, wanted: Farm) -> bool:
    try:
        return parse_farm(text.encode(), path) == wanted
    except UsageError:
        return False


def _wanted(
    farm: Farm, release: str | None, environments: Mapping[str, str], signers: Sequence[str]
) -> Farm:
    keys = farm.keys
    policy = keys.tags
    more = [signer for signer in signers if signer not in policy.signers]
    if more:
        policy = policy.model_copy(update={"signers": [*policy.signers, *more]})
    changes = {
        "release": keys.release or release,
        "environments": {**environments, **keys.environments},
        "tags": policy,
    }
    return farm.model_copy(update={"keys": keys.model_copy(update=changes)})


def _put(text: str, path: str, names: Sequence[str], value: str) -> str:
    """Return the document with a value at a path of keys, in place of an earlier value."""
    try:
        place = places(text.encode(), path)
    except UsageError:
        return text
    parent = place
    for depth, name in enumerate(names):
        if name not in place.inner:
            return _add(text, place, parent, names[depth:], value)
        parent, place = place, place.inner[name]
    if text[place.start : place.start + 2] == "- ":  # a block list: the last item is new
        new = value.strip("[]").rpartition(", ")[2]
        return _insert(text, place.end, [" " * place.column + f"- {new}"])
    if place.is_flow or not place.is_mapping:
        blank = "" if text[place.start - 1 : place.start].isspace() else " "
        return text[: place.start] + blank + value + text[place.end :]
    return text


def _add(text: str, place: ValuePlace, parent: ValuePlace, names: Sequence[str], value: str) -> str:
    """Return the text with new keys in a mapping, which may be empty or null."""
    if place.is_flow and place.inner:
        entry = "".join(f"{name}: {{" for name in names[:-1]) + f"{names[-1]}: {value}"
        return text[: place.end - 1] + f", {entry}" + "}" * (len(names) - 1) + text[place.end - 1 :]
    column, at = place.column, place.end
    if not place.inner:  # {} or null is replaced by lines below
        head = text[: place.start].rstrip(" ")
        column, at = parent.column + INDENT, len(head)
        text = head + text[place.end :]
    lines = [
        " " * (column + depth * INDENT) + f"{name}:" + (f" {value}" if name is names[-1] else "")
        for depth, name in enumerate(names)
    ]
    return _insert(text, at, lines)


def _insert(text: str, at: int, lines: Sequence[str]) -> str:
    """Return the text with lines inserted after the one that contains the offset `at`."""
    end = text.find("\n", at)
    end = len(text) if end < 0 else end
    if text[:end].endswith("\r"):
        end -= 1
    newline = "\r\n" if "\r\n" in text else "\n"
    return text[:end] + "".join(newline + line for line in lines) + text[end:]


def _by_hand(keys: Keys) -> str:
    environments = ", ".join(f"{name}: {key}" for name, key in keys.environments.items())
    signers = ", ".join(keys.tags.signers)
    return (
        f"release: {keys.release} | environments: {{{environments}}} | tags: signers: [{signers}]"
    )
