# SPDX-License-Identifier: GPL-3.0-or-later
"""A line of a ledger: a step begins, or it left a path so, or it made a file outside the tree.

`docs/reference/documents.md` describes the format. The lines of a final ledger, and of the list of
a system partition, are those of paths. A line is JSON in ASCII, with sorted keys and no spaces, so
that a reader can cut out of it what it needs: a quote inside a text has a backslash before it.

The machine writes a line for each path, on a CPU that may be emulated. So a line is put together as
text, of values that are taken as they are; what is read is checked field by field.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.documents.fields import SHA256
from pipeline.documents.json_form import parse_json
from pipeline.documents.malformed import Malformed

LINE_LIMIT = 256 * 1024  # bytes
NAME_LIMIT = 4096  # characters
NUMBER_LIMIT = 2**63

STEP_START = b'{"step":'
ARTIFACT_START = b'{"artifact":'
TYPES = frozenset({"file", "dir", "link", "char", "block", "fifo", "socket", "absent"})

_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


@dataclass(frozen=True, slots=True)
class Step:
    """A step of the build begins."""

    name: str


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file that the step made outside the tree; one that was delivered has no hash here."""

    name: str
    size: int
    sha256: str | None


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """A path of the tree as it is after the step; `mode`, `uid` and the rest are None if absent."""

    path: str
    type: str
    mode: int | None
    uid: int | None
    gid: int | None
    mtime: int | None
    size: int | None
    sha256: str | None
    target: str | None
    links: str | None
    device: tuple[int, ...]
    xattrs: Mapping[str, str]  # in Base64


Record = Step | Artifact | LedgerEntry


def parse_line(line: bytes) -> Record:
    """Return the record of one line; raise Malformed."""
    if len(line) > LINE_LIMIT:
        raise Malformed(f"it is longer than {LINE_LIMIT} bytes")
    try:
        return _record(parse_json(line))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Malformed(f"{error!r:.200}") from error


def parse_entry(line: bytes) -> LedgerEntry:
    """Return what a line says of a path; raise Malformed if it is none of those lines."""
    record = parse_line(line)
    if not isinstance(record, LedgerEntry):
        raise Malformed("it is not the line of a path")
    return record


def step_line(name: str) -> bytes:
    """Return the line with which a step begins."""
    return _line({"step": name})


def artifact_line(name: str, size: int, sha256: str | None) -> bytes:
    """Return the line of a file outside the tree."""
    return _line({"artifact": name, "size": size, **({"sha256": sha256} if sha256 else {})})


def absent_line(path: bytes) -> bytes:
    """Return the line of a path that is no longer there."""
    return _line({"path": text_of(path), "type": "absent"})


def file_line(path: str, size: int, sha256: str) -> bytes:
    """Return the line of a file of a system partition, which has content and name alone."""
    return _line({"path": path, "type": "file", "size": size, "sha256": sha256})


def path_line(
    path: bytes,
    kind: str,
    mode: int,
    uid: int,
    gid: int,
    mtime: int,
    xattrs: Mapping[str, bytes],
    *,
    content: tuple[str, int] | None = None,
    links: bytes | None = None,
    target: bytes | None = None,
    device: tuple[int, int] | None = None,
) -> bytes:
    """Return the line of a path as it is: of a file with its `content`, SHA-256 and size.

    `links` is the first path of the same inode, if that is another one.
    """
    first = f'"device":[{device[0]},{device[1]}],' if device else ""
    link = f'"links":{_quoted(links)},' if links is not None else ""
    more = f'"sha256":"{content[0]}","size":{content[1]},' if content else ""
    if target is not None:
        more = f'"target":{_quoted(target)},'
    end = f',"xattrs":{_encoded(xattrs)}' if xattrs else ""
    return (  # the keys in their order
        f'{{{first}"gid":{gid},{link}"mode":{mode},"mtime":{mtime},"path":{_quoted(path)},'
        f'{more}"type":"{kind}","uid":{uid}{end}}}\n'
    ).encode("ascii")


def text_of(path: bytes) -> str:
    """Return a path as text: names that are not UTF-8 stay apart from all others."""
    return path.decode("utf-8", "surrogateescape")


def bytes_of(text: str) -> bytes:
    """Return the bytes of a path, a target or a name in a ledger."""
    return text.encode("utf-8", "surrogateescape")


def _line(entry: Mapping[str, Any]) -> bytes:
    return _encode(entry).encode() + b"\n"


def _quoted(path: bytes) -> str:
    return _encode(path.decode("utf-8", "surrogateescape"))


def _encoded(xattrs: Mapping[str, bytes]) -> str:
    return _encode({name: base64.b64encode(value).decode() for name, value in xattrs.items()})


def _record(document: dict[str, Any]) -> Record:
    if "step" in document:
        return Step(_name(document["step"]))
    if "artifact" in document:
        digest = _digest(document["sha256"]) if "sha256" in document else None
        return Artifact(_name(document["artifact"]), _number(document["size"]), digest)
    kind = document["type"]
    if kind not in TYPES:
        raise ValueError(kind)
    get = document.get
    return LedgerEntry(
        path=tree_path(document["path"]),
        type=kind,
        mode=_optional_number(get("mode")),
        uid=_optional_number(get("uid")),
        gid=_optional_number(get("gid")),
        mtime=_optional_number(get("mtime")),
        size=_optional_number(get("size")),
        sha256=None if get("sha256") is None else _digest(get("sha256")),
        target=None if get("target") is None else _name(get("target")),
        links=None if get("links") is None else tree_path(get("links")),
        device=tuple(map(_number, get("device", ()))),
        xattrs={_name(k): _xattr(v) for k, v in get("xattrs", {}).items()},
    )


def _name(value: object) -> str:
    if not isinstance(value, str) or not value or len(value) > NAME_LIMIT or "\0" in value:
        raise ValueError("no name")
    value.encode("utf-8", "surrogateescape")  # which only the surrogates of bytes survive
    return value


def tree_path(value: object) -> str:
    """Return a path of the tree as it stands in JSON; raise ValueError if it leads elsewhere."""
    path = _name(value)
    if {"", ".", ".."} & set(path.split("/")):
        raise ValueError("no path below the tree")
    return path


def _digest(value: object) -> str:
    if not isinstance(value, str) or not SHA256.fullmatch(value):
        raise ValueError("no digest")
    return value


def _number(value: object) -> int:
    if type(value) is not int or not -NUMBER_LIMIT <= value < NUMBER_LIMIT:
        raise ValueError("no number")
    return value


def _optional_number(value: object) -> int | None:
    return None if value is None else _number(value)


def _xattr(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("no extended attribute")
    return value
