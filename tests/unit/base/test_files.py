# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes are whole or not there; documents have one form and are read with limits."""

import hashlib
import json
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.base.errors import InfrastructureFailed, UsageError
from pipeline.base.files import (
    new_file,
    open_plain,
    put_in_place,
    read_json,
    write_bytes,
    write_json,
    write_pieces,
)
from pipeline.documents.digest import sha256_file
from pipeline.documents.json_form import json_bytes


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """A disk that is full after `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@given(st.lists(st.sampled_from([b"", b"\0", bytes(5000), b"data", b"\0data\0"])))
def test_zeros_are_content_too(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes]
) -> None:
    path = tmp_path_factory.getbasetemp() / "pieces"
    with new_file(path) as file:
        write_pieces(file, pieces)
    assert path.read_bytes() == b"".join(pieces)


def test_zeros_take_no_room(tmp_path: Path) -> None:
    with new_file(tmp_path / "image") as file:
        write_pieces(file, [b"boot", *[bytes(1024 * 1024)] * 64])
    status = (tmp_path / "image").stat()
    assert status.st_size == 64 * 1024 * 1024 + 4
    assert status.st_blocks * 512 < 1024 * 1024


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep/er/file"
    old = os.umask(0o077)
    try:
        with new_file(path) as file:
            file.write(b"half")
            assert not path.exists()
            file.write(b"whole")
    finally:
        os.umask(old)
    assert path.read_bytes() == b"halfwhole"
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_failure_leaves_what_was_there(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"old", mode=0o600)

    def fail() -> None:
        with new_file(path) as file:
            file.write(b"new")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_bytes() == b"old"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_reported_and_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"old")
    with file_size_limit(4096), pytest.raises(InfrastructureFailed, match="its limits"):
        write_bytes(path, b"x" * 10_000)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_is_replaced_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"target")
    (tmp_path / "link").symlink_to("target")
    write_bytes(tmp_path / "link", b"new")
    assert (tmp_path / "target").read_bytes() == b"target"
    assert not (tmp_path / "link").is_symlink()


def test_a_program_s_file_is_put_in_place(tmp_path: Path) -> None:
    (tmp_path / "partial").write_bytes(b"x")
    put_in_place(tmp_path / "partial", tmp_path / "whole")
    assert [path.name for path in tmp_path.iterdir()] == ["whole"]


def test_files_are_hashed(tmp_path: Path) -> None:
    content = os.urandom(300_000)
    (tmp_path / "x").write_bytes(content)
    assert sha256_file(tmp_path / "x") == hashlib.sha256(content).hexdigest()


def test_a_document_has_one_form() -> None:
    document = {"b": [1, None], "a": "ä\n"}
    assert (
        json_bytes(document) == '{\n  "a": "ä\\n",\n  "b": [\n    1,\n    null\n  ]\n}\n'.encode()
    )


@given(st.dictionaries(st.text(), st.binary().map(os.fsdecode)))
def test_every_text_survives(document: dict[str, str]) -> None:
    assert json.loads(json_bytes(document)) == document
    json_bytes(document).decode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a JSON document"),
        (b"{", "not a JSON document"),
        (b"\xff", "not a JSON document"),
        (b"[" * 200_000, "not a JSON document"),
        (b"1" * 5000, "not a JSON document"),
        (b'"' + b"x" * 300_000 + b'"', "is larger than 250000 bytes"),
    ],
)
def test_what_is_no_document_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=message):
        read_json(path, failure=UsageError, limit=250_000)


def test_a_missing_document_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        read_json(tmp_path / "x.json", failure=UsageError)


def test_a_document_is_read_back(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"a": ["\udcff"]})
    assert read_json(tmp_path / "x.json", failure=UsageError) == {"a": ["\udcff"]}


def test_only_plain_files_are_opened(tmp_path: Path) -> None:
    """Another user holds the folder: a pipe would block the reader, a link lead it elsewhere."""
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "pipe")
    with open_plain(tmp_path / "file") as file, open_plain(tmp_path / "link", follow=True) as same:
        assert file.read() == same.read() == b"content"
    for name in ("link", "pipe", ".", "none", "/dev/null"):
        with pytest.raises(OSError):  # noqa: PT011  of several kinds
            open_plain(tmp_path / name)
