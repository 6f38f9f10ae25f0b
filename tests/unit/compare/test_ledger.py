# SPDX-License-Identifier: GPL-3.0-or-later
"""The ledger's reader against what a hostile guest could hand over."""

import gzip
import json
import os
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.base.errors import BuildFailed
from pipeline.compare import ledger
from pipeline.compare.ledger import parse, read_blocks
from pipeline.documents.ledger_line import Artifact, LedgerEntry, Step

DIGEST = "0" * 64
FILE: dict[str, Any] = {"path": "etc/x", "type": "file", "mode": 420, "sha256": DIGEST, "size": 1}


def lines_of(path: Path) -> list[bytes]:
    return [line for lines in read_blocks(path) for line in lines]


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(gzip.compress(content, mtime=0))
    return path


def test_records_are_read(tmp_path: Path) -> None:
    entry = {
        **FILE,
        "path": "usr/b\udc80d",
        "uid": 1,
        "gid": 2,
        "mtime": -5,
        "links": "usr/a",
        "xattrs": {"user.x": "AA=="},
    }
    documents = [
        {"step": "20-bootstrap"},
        entry,
        {"artifact": "a/b.img", "sha256": DIGEST, "size": 3},
    ]
    content = "".join(json.dumps(document) + "\n" for document in documents).encode()
    (lines,) = read_blocks(write(tmp_path / "l", content))
    step, file, artifact = map(parse, lines)
    assert step == Step("20-bootstrap")
    assert isinstance(file, LedgerEntry)
    assert (file.path, file.links, file.mtime) == ("usr/b\udc80d", "usr/a", -5)
    assert file.xattrs == {"user.x": "AA=="}
    assert artifact == Artifact("a/b.img", 3, DIGEST)


@pytest.mark.parametrize(
    "change",
    [
        {"path": "/etc/x"},
        {"path": "../x"},
        {"path": "a/../../x"},
        {"path": "a//b"},
        {"path": "./a"},
        {"path": ""},
        {"path": "a\0b"},
        {"path": "a\ud800"},
        {"path": "a" * 5000},
        {"path": 7},
        {"path": None},
        {"links": "../x"},
        {"type": "evil"},
        {"type": ["file"]},
        {"mode": "420"},
        {"mode": 1.5},
        {"mode": True},
        {"size": 10**30},
        {"sha256": "0" * 63},
        {"sha256": DIGEST.replace("0", "G")},
        {"sha256": 5},
        {"xattrs": []},
        {"xattrs": {"a": 1}},
        {"device": [1, "2"]},
        {"device": 5},
        {"target": ""},
        {"step": ""},
        {"step": 5},
        {"step": "x" * 5000},
    ],
)
def test_odd_entries_are_refused(change: dict[str, Any]) -> None:
    parse(json.dumps(FILE).encode())
    with pytest.raises(BuildFailed, match="a line of a ledger is malformed"):
        parse(json.dumps({**FILE, **change}).encode())


@pytest.mark.parametrize(
    "line",
    [b"", b"[]", b"5", b"null", b'"step"', b"{", b"\xff", b"[" * 100_000, b"1" * 10_000, b"{}",
     b'{"artifact":"x"}', b'{"path":"x"}', b"\x1b[2J"],
)  # fmt: skip
def test_odd_lines_are_refused(line: bytes) -> None:
    with pytest.raises(BuildFailed) as caught:
        parse(line)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000


@given(st.binary(max_size=200))
def test_no_line_gets_another_error(line: bytes) -> None:
    with suppress(BuildFailed):
        parse(line)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(DIGEST),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)
FIELDS = ("path", "type", "mode", "uid", "size", "sha256", "links", "xattrs", "device", "artifact")


@given(st.dictionaries(st.sampled_from(FIELDS), JSON), st.booleans())
def test_no_document_gets_another_error(document: dict[str, Any], complete: bool) -> None:
    with suppress(BuildFailed):
        parse(json.dumps({**FILE, **document} if complete else document).encode())


@given(st.binary(max_size=300), st.booleans())
def test_no_file_gets_another_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, compress: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "hostile"
    path.write_bytes(gzip.compress(content) if compress else content)
    try:
        assert b"".join(line + b"\n" for line in lines_of(path)) == content
    except BuildFailed:
        assert not (compress and content.endswith(b"\n"))


@given(st.data())
def test_no_flipped_bit_passes(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = b"".join(b"line %d\n" % number for number in range(50))
    packed = bytearray(gzip.compress(content, mtime=0))
    index = data.draw(st.integers(0, len(packed) - 1))
    packed[index] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path_factory.getbasetemp() / "flipped"
    path.write_bytes(packed)
    with suppress(BuildFailed):  # or it was a field of the header, of no meaning
        assert b"".join(line + b"\n" for line in lines_of(path)) == content


def test_lines_across_pieces_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "PIECE", 7)
    monkeypatch.setattr(ledger, "OUTPUT_PIECE", 5)
    lines = [b"x" * (number % 13) for number in range(300)]
    assert lines_of(write(tmp_path / "l", b"\n".join(lines) + b"\n")) == lines


def test_an_empty_ledger_has_no_lines(tmp_path: Path) -> None:
    assert lines_of(write(tmp_path / "l", b"")) == []


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda good: good[:-1], "is cut off"),
        (lambda good: b"", "is cut off"),
        (lambda good: good + good, "continues after its end"),
        (lambda good: good + b"\0", "continues after its end"),
        (lambda good: b"not gzip", "is damaged"),
        (lambda good: gzip.compress(b"no newline"), "does not end with a whole line"),
        (lambda good: zlib.compress(b"x\n"), "is damaged"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, make: Any, message: str) -> None:
    path = tmp_path / "l"
    path.write_bytes(make(gzip.compress(b"x\n")))
    with pytest.raises(BuildFailed, match=message):
        lines_of(path)


def test_bombs_are_refused_before_they_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "SIZE_LIMIT", 8 * 1024 * 1024)
    monkeypatch.setattr(ledger, "LINES_LIMIT", 100_000)
    long_line = write(tmp_path / "long", bytes(1024 * 1024))
    lines = write(tmp_path / "lines", b"\n" * 200_000)
    large = write(tmp_path / "large", (b"x" * 1000 + b"\n") * 10_000)
    for path in (long_line, lines, large):
        with pytest.raises(BuildFailed, match="larger than a ledger may be"):
            lines_of(path)


def test_links_and_pipes_are_not_opened(tmp_path: Path) -> None:
    write(tmp_path / "real", b"x\n")
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(BuildFailed, match="cannot read the ledger"):
        lines_of(tmp_path / "link")
    with pytest.raises(BuildFailed, match="cannot read the ledger"):
        lines_of(tmp_path / "missing")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BuildFailed, match="it is not a plain file"):
        lines_of(tmp_path / "pipe")
