# SPDX-License-Identifier: GPL-3.0-or-later
"""Deltas between random trees, and what overlayfs shows of them, both found from ledgers alone."""

import gzip
import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.documents.progress import STATUS_BUILD_FAILED, STATUS_INPUTS
from pipeline.guest.kits.delta import Delta, compare
from pipeline.guest.kits.lines import (
    entry,
    link_of,
    parent_of,
    path_of,
    read_ledger,
    reduced,
    time_of,
    tree_digest,
)
from pipeline.guest.kits.overlay import is_whiteout, prove
from pipeline.guest.serial_port import StepFailed
from tests.random_trees import Node, Tree, entries, pairs, write_ledger

Entries = dict[bytes, dict[str, Any]]
FILE, FOLDER = Node(content=b"one"), Node("dir", mode=0o755)


def delta_of(old: Tree, new: Tree, folder: Path) -> Delta:
    return compare(
        write_ledger(entries(old), folder / "old"), write_ledger(entries(new), folder / "new")
    )


def carried(delta: Delta, new: Tree) -> Entries:
    """Return what the ledger of the delta's own tree says."""
    whole = entries(new)
    found = {path: whole[path] for path in delta.shipped}
    for path in delta.deleted:
        text = path.decode("utf-8", "surrogateescape")
        found[path] = {"path": text, "type": "char", "mode": 0, "device": [0, 0]}
    return found


@given(pairs())
@settings(max_examples=80)
def test_a_delta_over_the_earlier_tree_is_the_later_tree(pair: tuple[Tree, Tree]) -> None:
    old, new = pair
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        delta = delta_of(old, new, folder)
        upper = write_ledger(carried(delta, new), folder / "upper")
        prove(folder / "old", upper, delta.opaque, folder / "new")
    assert not any(path in new or parent_of(path) in delta.deleted for path in delta.deleted)
    assert not [path for path in delta.shipped if not has_reason(path, old, new, delta)]


def has_reason(path: bytes, old: Tree, new: Tree, delta: Delta) -> bool:
    """Tell whether a path that is shipped had to be: it, a hard link or what is below changed."""
    before, after = (
        replace(tree[path], mtime=0, inode=None) if path in tree else None for tree in (old, new)
    )
    if before != after or any(n.kind == "file" and n.inode for n in (*old.values(), *new.values())):
        return True
    return any(other.startswith(path + b"/") for other in (*delta.shipped, *delta.deleted))


def test_another_time_alone_ships_nothing(tmp_path: Path) -> None:
    old = {b"usr": FOLDER, b"usr/file": FILE, b"usr/link": Node("link", b"x")}
    new = {path: replace(node, mtime=node.mtime + 5) for path, node in old.items()}
    assert delta_of(old, new, tmp_path) == Delta(frozenset(), (), frozenset())


@pytest.mark.parametrize(
    ("old", "new", "shipped", "deleted", "opaque"),
    [
        ({b"a": FOLDER, b"a/b": FILE}, {b"a": FOLDER}, {b"a"}, [b"a/b"], set()),
        ({b"a": FOLDER, b"a/b": FOLDER, b"a/b/c": FILE}, {}, set(), [b"a"], set()),
        ({b"a": FOLDER, b"a/b": FILE}, {b"a": FILE}, {b"a"}, [], set()),
        ({b"a": FILE}, {b"a": FOLDER, b"a/b": FILE}, {b"a", b"a/b"}, [], {b"a"}),
        ({b"a": FOLDER, b"a/b": FILE}, {b"a": Node("link", b"z")}, {b"a"}, [], set()),
        # "a-" stands between "a" and "a/b" in the order of bytes
        ({b"a": FOLDER, b"a-": FILE, b"a/b": FILE}, {b"a-": FILE}, set(), [b"a"], set()),
    ],
)
def test_deletions_are_topmost_and_replacements_hide(
    old: Tree, new: Tree, shipped: set[bytes], deleted: list[bytes], opaque: set[bytes],
    tmp_path: Path,
) -> None:  # fmt: skip
    delta = delta_of(old, new, tmp_path)
    assert (set(delta.shipped), list(delta.deleted), set(delta.opaque)) == (
        shipped,
        deleted,
        opaque,
    )


def linked(*paths: bytes, inode: int = 1) -> Tree:
    return {path: replace(FILE, inode=inode) for path in paths}


@pytest.mark.parametrize(
    ("old", "new", "shipped"),
    [
        (linked(b"a", b"b"), linked(b"a", b"b", b"c"), {b"a", b"b", b"c"}),  # one joined
        (linked(b"a", b"b", b"c"), linked(b"b", b"c"), set()),  # the first one left
        (linked(b"a", b"b"), {b"a": FILE, b"b": FILE}, {b"b"}),  # they parted: one may stay
        ({b"a": FILE, b"b": FILE}, linked(b"a", b"b"), {b"a", b"b"}),  # they met
        (linked(b"a", b"b"), linked(b"a") | {b"b": replace(FILE, mode=0o600)}, {b"b"}),
        (
            linked(b"a", b"b") | linked(b"c", b"d", inode=2),
            linked(b"a", b"d") | linked(b"b", b"c", inode=2),
            {b"a", b"b", b"c", b"d"},
        ),
    ],
)
def test_hard_links_stay_or_are_shipped_as_a_group(
    old: Tree, new: Tree, shipped: set[bytes], tmp_path: Path
) -> None:
    assert delta_of(old, new, tmp_path).shipped == shipped


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"type": "char", "device": [0, 0]}, "a character device 0:0"),
        ({"type": "dir", "xattrs": {"user.overlay.opaque": "eQ=="}}, "attribute of overlayfs"),
    ],
)
def test_what_overlayfs_would_misread_is_refused(
    entry: dict[str, Any], words: str, tmp_path: Path
) -> None:
    whole = {"path": "dev/nothing", "mode": 0, "uid": 0, "gid": 0, "mtime": 0} | entry
    later = write_ledger({b"dev/nothing": whole}, tmp_path / "new")
    with pytest.raises(StepFailed, match=f"dev/nothing .*{words}") as raised:
        compare(later, later)  # even where nothing changed: the base has it too
    assert raised.value.status == STATUS_BUILD_FAILED


def test_a_path_that_only_looks_like_a_mark_is_not_refused(tmp_path: Path) -> None:
    tree = {b'x"device":[0,0]': FILE, b"a.overlay.b": FILE}
    assert delta_of(tree, tree, tmp_path).shipped == frozenset()


def changed(entry: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {**entry, **fields}


BREAKS: dict[str, Callable[[Entries], Any]] = {
    "mode": lambda e: e.update({b"d/f": changed(e[b"d/f"], mode=0o600)}),
    "owner": lambda e: e.update({b"d/f": changed(e[b"d/f"], uid=1)}),
    "content": lambda e: e.update({b"d/f": changed(e[b"d/f"], sha256="0" * 64)}),
    "xattr": lambda e: e.update({b"d/f": changed(e[b"d/f"], xattrs={"user.k": "eQ=="})}),
    "time": lambda e: e.update({b"d/f": changed(e[b"d/f"], mtime=5)}),
    "target": lambda e: e.update({b"d/s": changed(e[b"d/s"], target="elsewhere")}),
    "link": lambda e: e[b"d/h"].pop("links"),
    "missing": lambda e: e.pop(b"d/f"),
    "not deleted": lambda e: e.pop(b"gone"),
    "too much": lambda e: e.update({b"d/z": changed(e[b"d/f"], path="d/z")}),
}
OLD: Tree = {b"d": FOLDER, b"gone": FILE, b"kept": FILE}
NEW: Tree = {
    **linked(b"d/g", b"d/h"),
    **dict.fromkeys([b"d/f", b"kept"], FILE),
    b"d": FOLDER,
    b"d/s": Node("link", b"here"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_delta_that_is_wrong_in_anything_is_found(name: str, tmp_path: Path) -> None:
    delta = delta_of(OLD, NEW, tmp_path)
    upper = carried(delta, NEW)
    prove(tmp_path / "old", write_ledger(upper, tmp_path / "upper"), set(), tmp_path / "new")
    BREAKS[name](upper)
    with pytest.raises(StepFailed, match="would not lead to the new tree: "):
        prove(tmp_path / "old", write_ledger(upper, tmp_path / "upper"), set(), tmp_path / "new")


def test_a_base_that_shows_through_is_found(tmp_path: Path) -> None:
    old = {b"d": FILE, b"e": FOLDER, b"e/x": FILE}
    new = {b"d": FOLDER, b"e": FOLDER}
    delta = delta_of(old, new, tmp_path)
    upper = carried(delta, new)
    prove(tmp_path / "old", write_ledger(upper, tmp_path / "upper"), {b"d"}, tmp_path / "new")
    del upper[b"e/x"]
    write_ledger(upper, tmp_path / "upper")
    with pytest.raises(StepFailed, match="e/x is there in only one"):
        prove(tmp_path / "old", tmp_path / "upper", set(), tmp_path / "new")


NASTY = st.sampled_from(['","mtime":5,"', '"links":"a",', "\\", '\\"', "ä", "\udcff", "\n", "a"])
TEXTS = st.lists(NASTY, min_size=1, max_size=4).map("".join)


TIMES = st.integers(-(2**63), 2**63 - 1)


@given(path=TEXTS, links=st.none() | TEXTS, target=st.none() | TEXTS, mtime=TIMES)
def test_what_is_cut_out_of_a_line_is_what_json_says(
    path: str, links: str | None, target: str | None, mtime: int
) -> None:
    fields: dict[str, Any] = {"path": path, "type": "file", "mtime": mtime, "mode": 0, "gid": 0}
    fields |= {"links": links} if links else {}
    fields |= {"target": target} if target else {}
    line = json.dumps(fields, sort_keys=True, separators=(",", ":")).encode() + b"\n"
    assert path_of(line) == path.encode("utf-8", "surrogateescape")
    assert time_of(line) == str(mtime).encode()
    assert link_of(line) == (links.encode("utf-8", "surrogateescape") if links else None)
    kept = {key: value for key, value in fields.items() if key not in ("mtime", "links")}
    assert json.loads(reduced(line)) == kept
    assert reduced(line) == json.dumps(kept, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def test_the_digest_is_the_documented_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page has a program of its own, for whoever writes another."""
    page = (Path(__file__).parents[4] / "docs/reference/kit.md").read_text()
    program = page.partition("```python\n")[2].partition("```")[0]
    tree = {b"bin": Node("link", b"usr/bin"), **linked(b"a", b"b"), b"\xff\n": FOLDER}
    final = write_ledger(entries(tree), tmp_path / "mini-amd64-3.3.ledger.jsonl.gz")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"print": lambda _: None}
    exec(program, names)
    assert names["digest"].hexdigest() == tree_digest(read_ledger(final))


@pytest.mark.parametrize("of", [entry, link_of, is_whiteout])
def test_a_malformed_line_is_reported_as_wrong_inputs(of: Callable[[bytes], object]) -> None:
    line = b'{"device":[0,0],"links":"../x","path":"a","type":"char"}\n'
    with pytest.raises(StepFailed, match="a line of a ledger is malformed") as raised:
        of(line)
    assert raised.value.status == STATUS_INPUTS


@pytest.mark.parametrize(
    "content",
    [b"not gzip", b"", b"\x1f\x8b\x08\0\0\0\0\0\0\xff"],
)
def test_what_is_no_ledger_is_reported_as_wrong_inputs(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(content)
    write_ledger(entries({b"a": FILE}), tmp_path / "new")
    with pytest.raises(StepFailed, match="old is not the ledger of a tree") as raised:
        compare(tmp_path / "old", tmp_path / "new")
    assert raised.value.status == STATUS_INPUTS


@pytest.mark.parametrize("lines", ['{"path":"b"}\n{"path":"a"}\n', '{"path":"a"}', '{"a":1}\n'])
def test_a_ledger_out_of_order_or_cut_off_is_refused(lines: str, tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(gzip.compress(lines.encode()))
    with pytest.raises(StepFailed, match="not the ledger"):
        list(read_ledger(tmp_path / "old"))
