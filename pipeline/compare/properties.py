# SPDX-License-Identifier: GPL-3.0-or-later
"""Properties of paths that differ in more, or in something else, than their content."""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import chain

from pipeline.base.errors import TwinbuildError
from pipeline.base.plain import plain
from pipeline.compare.ledger import parse, read_blocks
from pipeline.documents.explanation import Values
from pipeline.documents.ledger_line import LedgerEntry
from pipeline.farm.run import Run
from pipeline.look.causes.facts import Pair


def read_entries(
    run: Run, names: tuple[str, str], paths: Sequence[str]
) -> dict[str, dict[str, LedgerEntry]]:
    """Return the last entries of some paths in the ledgers, by path and environment."""
    found: dict[str, dict[str, LedgerEntry]] = {}
    wanted = {b'"path":' + json.dumps(path).encode() for path in paths}
    for name in names:
        try:
            blocks = read_blocks(run.environment(name) / "ledger.jsonl.gz")
            for line in chain.from_iterable(blocks):
                begin = line.find(b'"path":')
                end = line.find(b'","', begin)
                if line[begin : end + 1] in wanted:
                    record = parse(line)
                    if isinstance(record, LedgerEntry):
                        found.setdefault(record.path, {})[name] = record
        except TwinbuildError:
            continue  # the verdict reports it
    return found


def raw_values(
    kinds: Sequence[str], entries: Mapping[str, LedgerEntry], pair: Pair
) -> Iterator[tuple[str, object, object]]:
    """Yield the properties that differ, as they are in the ledgers."""
    left, right = (entries.get(facts.name) for facts in pair)
    if left is None or right is None:
        return
    for kind in kinds:
        ours, theirs = _value(kind, left), _value(kind, right)
        if ours != theirs:
            yield kind, ours, theirs
        if kind == "content" and left.device != right.device:
            yield "device", _device(left), _device(right)


def _device(entry: LedgerEntry) -> str:
    return ":".join(map(str, entry.device)) or "none"


def _value(kind: str, entry: LedgerEntry) -> object:
    match kind:
        case "mode":
            return entry.mode
        case "time":
            return entry.mtime
        case "owner":
            return f"{entry.uid}:{entry.gid}"
        case "xattr":
            return json.dumps(dict(entry.xattrs), sort_keys=True)
        case "size" | "target" | "links" | "type":
            return getattr(entry, kind)
    return None


def values_of(
    kinds: Sequence[str], entries: Mapping[str, LedgerEntry], pair: Pair
) -> Iterator[Values]:
    """Yield the properties that differ, for people."""
    for kind, left, right in raw_values(kinds, entries, pair):
        yield Values(kind, _text(kind, left), _text(kind, right))


def _text(kind: str, value: object) -> str:
    if kind == "mode" and isinstance(value, int):
        return f"{value & 0o7777:04o}"
    if kind == "time" and isinstance(value, int) and 0 <= value < 2**33:
        return f"{datetime.fromtimestamp(value, UTC):%Y-%m-%d %H:%M:%S} UTC"
    return "none" if value is None else plain(str(value))
