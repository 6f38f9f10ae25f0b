# SPDX-License-Identifier: GPL-3.0-or-later
"""The byte comparison: against what Python says of whole strings, and against odd folders."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.base.errors import InfrastructureFailed
from pipeline.compare import artifacts
from pipeline.compare.artifacts import compare_files
from pipeline.farm import artifacts as folder_of_artifacts
from pipeline.farm.artifacts import list_artifacts


def first_difference(a: bytes, b: bytes) -> int | None:
    for index in range(max(len(a), len(b))):
        if a[index : index + 1] != b[index : index + 1]:
            return index
    return None


@st.composite
def pairs(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """Two contents that are often equal for a while."""
    shared = draw(st.binary(max_size=40))
    return shared + draw(st.binary(max_size=12)), shared + draw(st.binary(max_size=12))


@given(pair=pairs(), piece=st.integers(1, 16))
def test_the_comparison_is_exact(
    pair: tuple[bytes, bytes], piece: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp()
    paths = folder / "left", folder / "right"
    for path, content in zip(paths, pair, strict=True):
        path.write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(artifacts, "PIECE", piece)
        found = compare_files(*paths)
    assert found.offset == first_difference(*pair)
    assert found.equal == (pair[0] == pair[1])
    assert found.sizes == (len(pair[0]), len(pair[1]))
    assert found.sha256 == tuple(hashlib.sha256(content).hexdigest() for content in pair)


def test_a_difference_beyond_the_first_piece_is_found(tmp_path: Path) -> None:
    content = bytearray(os.urandom(1024)) * (3 * 1024)
    (tmp_path / "a").write_bytes(content)
    content[2_500_001] ^= 1
    (tmp_path / "b").write_bytes(content)
    assert compare_files(tmp_path / "a", tmp_path / "b").offset == 2_500_001


def test_the_names_are_sorted(tmp_path: Path) -> None:
    for name in ("b.iso", "a.packages"):
        (tmp_path / name).write_text("x")
    assert list_artifacts(tmp_path) == ("a.packages", "b.iso")


def test_no_artifacts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InfrastructureFailed, match="there are no artifacts"):
        list_artifacts(tmp_path)
    with pytest.raises(InfrastructureFailed, match="No such file"):
        list_artifacts(tmp_path / "missing")


def test_what_is_not_a_plain_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    makes: list[Callable[[Path], None]]
    makes = [lambda path: path.symlink_to(tmp_path / "secret"), Path.mkdir, os.mkfifo]
    for number, make in enumerate(makes):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "x.iso").write_text("x")
        odd = folder / "y\x1b[2J"
        make(odd)
        with pytest.raises(InfrastructureFailed, match="not a plain file") as caught:
            list_artifacts(folder)
        assert str(caught.value).isprintable()
        with pytest.raises(InfrastructureFailed):
            compare_files(folder / "x.iso", odd)


def test_a_folder_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real/x.iso").write_text("x")
    (tmp_path / "artifacts").symlink_to("real")
    with pytest.raises(InfrastructureFailed, match="symbolic link"):
        list_artifacts(tmp_path / "artifacts")


def test_too_many_artifacts_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_of_artifacts, "ARTIFACT_LIMIT", 3)
    for number in range(4):
        (tmp_path / str(number)).touch()
    with pytest.raises(InfrastructureFailed, match="over 3 artifacts"):
        list_artifacts(tmp_path)
