# SPDX-License-Identifier: GPL-3.0-or-later
"""Random trees: described, written to disk, and changed; for what compares and rebuilds trees."""
# ruff: noqa: PTH101, PTH102, PTH118, PTH123, PTH211 -- names here are bytes, in any encoding

import base64
import gzip
import hashlib
import json
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from pipeline.guest.ledger import Ledger

CAPABILITY = bytes.fromhex("0100000200200000" + "00" * 12)  # cap_net_raw+ep


@dataclass(frozen=True)
class Node:
    """What is at a path; files with the same `inode` are hard links of the first of them."""

    kind: str = "file"
    content: bytes = b""  # or a link's target
    mode: int = 0o644
    owner: tuple[int, int] = (0, 0)
    mtime: int = 1_700_000_000
    xattrs: Mapping[str, bytes] = field(default_factory=dict)
    inode: int | None = None


Tree = dict[bytes, Node]
Change = Callable[[Path], object]


def replaced(make: Change) -> Change:
    """Return what makes something else in a file's place."""

    def change(path: Path) -> None:
        path.unlink()
        make(path)

    return change


NAMES = st.sampled_from(
    [b"a", b"b", b"a-", b"a.b", b".wh.a", b"\xff\n\\", b"\xc3\xa4*", b"x" * 120]
)
PATHS = st.lists(NAMES, min_size=1, max_size=4).map(b"/".join)
NODES = st.builds(
    Node,
    kind=st.sampled_from(["file", "file", "file", "dir", "dir", "link", "fifo", "char"]),
    content=st.sampled_from([b"", b"one", b"two", b"\xfe\xff", b"long" * 200]),
    mode=st.sampled_from([0o644, 0o755, 0o4755, 0o1777, 0o000]),
    owner=st.sampled_from([(0, 0), (0, 0), (100, 65534), (2**31, 7)]),
    mtime=st.sampled_from([0, 1_600_000_000, 1_700_000_000]),
    xattrs=st.sampled_from(
        [{}, {}, {"security.capability": CAPABILITY}, {"user.k": b"\xff=\n", "user.l": b"1"}]
    ),
    inode=st.sampled_from([None, None, 1, 2]),
)


def standing(tree: Mapping[bytes, Node]) -> Tree:
    """Return the tree with directories above every path, and nothing below what is none."""
    whole: Tree = {}
    for path in sorted(tree):
        parts = path.split(b"/")
        above = [b"/".join(parts[:depth]) for depth in range(1, len(parts))]
        if all(whole.setdefault(folder, Node("dir", mode=0o755)).kind == "dir" for folder in above):
            whole[path] = tree[path]
    first: dict[int, Node] = {}
    for path in sorted(whole):
        node = whole[path]
        if node.kind == "file" and node.inode is not None:
            whole[path] = first.setdefault(node.inode, node)
    return whole


TREES = st.dictionaries(PATHS, NODES, max_size=12).map(standing)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Tree, Tree]:
    """Draw two trees of which the second is the first, changed here and there."""
    old = draw(TREES)
    new = dict(old)
    for path in draw(st.lists(st.sampled_from(sorted(old)), max_size=4) if old else st.just([])):
        change = draw(st.sampled_from(["delete", "replace", "touch", "mode", "inode"]))
        if change == "delete":
            new = {p: n for p, n in new.items() if p != path and not p.startswith(path + b"/")}
        elif path in new:
            new[path] = {
                "replace": draw(NODES),
                "touch": replace(new[path], mtime=1_650_000_000),
                "mode": replace(new[path], mode=0o711),
                "inode": replace(new[path], inode=draw(st.sampled_from([None, 1, 2, 3]))),
            }[change]
    return old, standing({**new, **draw(st.dictionaries(PATHS, NODES, max_size=3))})


def write(tree: Tree, root: Path) -> None:
    """Write a tree to disk, as root."""
    root.mkdir(mode=0o755)
    written: dict[int, bytes] = {}
    for path in sorted(tree):
        node, full = tree[path], os.path.join(os.fsencode(root), path)
        inode = node.inode if node.kind == "file" else None
        if inode is not None and inode in written:
            os.link(written[inode], full)
            continue
        if inode is not None:
            written[inode] = full
        _make(node, full)
    for path in sorted(tree, reverse=True):  # what is made in a directory changes its time
        full = os.path.join(os.fsencode(root), path)
        os.utime(full, (tree[path].mtime, tree[path].mtime), follow_symlinks=False)


def _make(node: Node, full: bytes) -> None:
    if node.kind == "file":
        with open(full, "wb") as file:
            file.write(node.content)
    elif node.kind == "dir":
        os.mkdir(full)
    elif node.kind == "link":
        os.symlink(node.content or b"nowhere", full)
    elif node.kind == "fifo":
        os.mkfifo(full)
    else:
        os.mknod(full, stat.S_IFCHR, os.makedev(1, 3))
    os.chown(full, *node.owner, follow_symlinks=False)
    if node.kind != "link":
        os.chmod(full, node.mode)
    if node.kind in ("file", "dir"):
        for name, value in node.xattrs.items():
            if node.kind == "file" or name.startswith("user."):
                os.setxattr(full, name, value)


def record(root: Path, final: Path) -> Path:
    """Write the final ledger of a tree on disk, with the farm's own recorder."""
    ledger = Ledger(root, final.with_suffix(".steps"))
    ledger.record("all")
    ledger.close()
    with final.open("wb") as out:
        ledger.write_final(out)
    return final


def entries(tree: Tree) -> dict[bytes, dict[str, Any]]:
    """Return what the final ledger of a tree says of each path, without any disk."""
    found: dict[bytes, dict[str, Any]] = {}
    first: dict[int, bytes] = {}
    for path in sorted(tree):
        inode = tree[path].inode if tree[path].kind == "file" else None
        named = path if inode is None else first.setdefault(inode, path)
        found[path] = _entry(path, tree[path], named)
    return found


def write_ledger(found: Mapping[bytes, Mapping[str, Any]], final: Path) -> Path:
    """Write a final ledger that says this."""
    lines = [
        json.dumps(found[path], sort_keys=True, separators=(",", ":")) for path in sorted(found)
    ]
    final.write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode(), 1))
    return final


def _entry(path: bytes, node: Node, first: bytes) -> dict[str, Any]:
    found: dict[str, Any] = {
        "path": path.decode("utf-8", "surrogateescape"),
        "type": node.kind,
        "mode": 0o777 if node.kind == "link" else node.mode,
        "uid": node.owner[0],
        "gid": node.owner[1],
        "mtime": node.mtime,
    }
    if node.kind == "file":
        found |= {"size": len(node.content), "sha256": hashlib.sha256(node.content).hexdigest()}
        if first != path:
            found["links"] = first.decode("utf-8", "surrogateescape")
    if node.kind == "link":
        found["target"] = (node.content or b"nowhere").decode("utf-8", "surrogateescape")
    if node.kind == "char":
        found["device"] = [1, 3]
    if node.kind == "file" and node.xattrs:
        values = sorted(node.xattrs.items())
        found["xattrs"] = {name: base64.b64encode(value).decode() for name, value in values}
    return found
