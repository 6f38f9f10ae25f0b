# SPDX-License-Identifier: GPL-3.0-or-later
"""Lines of ledgers: the bytes that they have, and that they are read as they were written."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.documents.ledger_line import (
    LINE_LIMIT,
    Artifact,
    LedgerEntry,
    Step,
    absent_line,
    artifact_line,
    bytes_of,
    file_line,
    parse_entry,
    parse_line,
    path_line,
    step_line,
    text_of,
)
from pipeline.documents.malformed import Malformed

DIGEST = "0" * 64
WRITTEN = {
    step_line("40-hooks/ä"): b'{"step":"40-hooks/\\u00e4"}\n',
    artifact_line("a.iso", 7, None): b'{"artifact":"a.iso","size":7}\n',
    artifact_line("a.deb", 7, DIGEST): b'{"artifact":"a.deb","sha256":"%s","size":7}\n'
    % DIGEST.encode(),
    absent_line(b"etc/\xff"): b'{"path":"etc/\\udcff","type":"absent"}\n',
    file_line("live/a", 7, DIGEST): b'{"path":"live/a","sha256":"%s","size":7,"type":"file"}\n'
    % DIGEST.encode(),
    path_line(b'a"b', "dir", 0o755, 0, 8, -1, {}): b'{"gid":8,"mode":493,"mtime":-1,'
    b'"path":"a\\"b","type":"dir","uid":0}\n',
    path_line(b"dev/x", "char", 0o660, 1, 6, 5, {}, device=(8, 0)): b'{"device":[8,0],"gid":6,'
    b'"mode":432,"mtime":5,"path":"dev/x","type":"char","uid":1}\n',
    path_line(b"l", "link", 0o777, 0, 0, 5, {}, target=b"to"): b'{"gid":0,"mode":511,"mtime":5,'
    b'"path":"l","target":"to","type":"link","uid":0}\n',
    path_line(
        b"f",
        "file",
        0o644,
        0,
        0,
        5,
        {"user.b": b"x", "user.a": b""},
        content=(DIGEST, 7),
        links=b"e",
    ): b'{"gid":0,"links":"e","mode":420,"mtime":5,"path":"f","sha256":"%s","size":7,'
    b'"type":"file","uid":0,"xattrs":{"user.a":"","user.b":"eA=="}}\n' % DIGEST.encode(),
}


@pytest.mark.parametrize(("line", "expected"), WRITTEN.items())
def test_the_form_of_a_line_stays(line: bytes, expected: bytes) -> None:
    assert line == expected
    text = json.dumps(json.loads(line), sort_keys=True, separators=(",", ":"))
    assert line == text.encode() + b"\n"


def test_what_is_no_path_is_read() -> None:
    assert parse_line(step_line("x")) == Step("x")
    assert parse_line(artifact_line("a", 7, None)) == Artifact("a", 7, None)
    with pytest.raises(Malformed, match="not the line of a path"):
        parse_entry(step_line("x"))


names = st.binary(min_size=1, max_size=20).map(lambda name: name.translate(None, b"\0/."))
paths = st.lists(names.filter(bool), min_size=1, max_size=3).map(b"/".join)
numbers = st.integers(0, 2**32)


@given(paths, numbers, numbers, numbers, st.integers(-(2**40), 2**40), st.binary(max_size=9), paths)
def test_any_path_is_read_as_it_was_written(
    path: bytes, mode: int, uid: int, gid: int, mtime: int, value: bytes, other: bytes
) -> None:
    numbers = mode, uid, gid, mtime
    line = path_line(path, "file", *numbers, {"user.x": value}, content=(DIGEST, 7), links=other)
    entry = parse_entry(line)
    assert bytes_of(entry.path) == path
    assert bytes_of(entry.links or "") == other
    assert (entry.mode, entry.uid, entry.gid, entry.mtime) == numbers
    assert (entry.sha256, entry.size) == (DIGEST, 7)
    link = parse_entry(path_line(path, "link", *numbers, {}, target=other))
    assert (link.target, link.size, link.xattrs) == (text_of(other), None, {})
    gone = parse_entry(absent_line(path))
    nothing = dict.fromkeys(("mode", "uid", "gid", "mtime", "size", "sha256", "target", "links"))
    assert gone == LedgerEntry(text_of(path), "absent", **nothing, device=(), xattrs={})


def test_a_line_that_is_too_long_is_refused() -> None:
    with pytest.raises(Malformed, match="longer than"):
        parse_line(step_line("x" * LINE_LIMIT))
