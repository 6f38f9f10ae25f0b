# SPDX-License-Identifier: GPL-3.0-or-later
"""tar as Unix version 7 had it, and cpio in its older forms: they are tar and cpio, too."""

import os
from pathlib import Path

import pytest

from pipeline.base import command
from pipeline.look.locate import locate_files
from tests import image_pairs as pairs
from tests.unit.look.formats.test_archives import CHANGES, places, tar

pytestmark = pytest.mark.tools

FORMS = ("bin", "odc", "tar", "v7")


def archive(form: str, tree: Path, path: Path) -> Path:
    if form == "v7":
        return tar(tree, path, "--format=v7")
    names = sorted(os.fspath(p.relative_to(tree)) for p in tree.rglob("*"))
    completed = command.run(
        ["cpio", "--quiet", "-o", "-H", form, "--reproducible", "--null"],
        timeout_s=60,
        cwd=tree,
        stdin="".join(f"{name}\0" for name in names).encode(),
    )
    path.write_bytes(completed.stdout)
    return path


@pytest.mark.parametrize("cause", CHANGES)
@pytest.mark.parametrize("form", FORMS)
def test_causes_in_an_older_archive(form: str, cause: str, tmp_path: Path) -> None:
    change, expected = CHANGES[cause]
    images = [
        archive(form, tree, tmp_path / f"{tree.name}.archive")
        for tree in pairs.trees(tmp_path, change)
    ]
    name = "tar" if form in ("tar", "v7") else "cpio"
    assert places(*images) == {(name, path, kind) for path, kind in expected}


def test_a_binary_cpio_of_the_other_byte_order(tmp_path: Path) -> None:
    made = []
    for tree in pairs.trees(tmp_path, CHANGES["content"][0]):
        raw = bytearray(archive("odc", tree, tmp_path / "archive").read_bytes())
        made.append(_as_big_endian(bytes(raw)))
    for number, content in enumerate(made):
        (tmp_path / str(number)).write_bytes(content)
    found = locate_files(tmp_path / "0", tmp_path / "1").places
    assert [(p.where, p.path, p.kind) for p in found] == [("cpio", "etc/hostname", "content")]


def _as_big_endian(portable: bytes) -> bytes:
    """Write an archive of the portable form again, in the binary form of a big-endian machine."""
    at, out = 0, b""
    while True:
        fields, start = [], at
        for width in (6, 6, 6, 6, 6, 6, 6, 6, 11, 6, 11):
            fields.append(int(portable[start : start + width], 8))
            start += width
        name, size = fields[9], fields[10]
        data = start + name
        numbers = [n & 0xFFFF for n in fields[:8]]
        for number in (fields[8] >> 16, fields[8], name, size >> 16, size):
            numbers.append(number & 0xFFFF)
        out += b"".join(n.to_bytes(2, "big") for n in numbers)
        for piece in (portable[start:data], portable[data : data + size]):
            out += piece + bytes(len(piece) % 2)
        if portable[start:data] == b"TRAILER!!!\0":
            return out
        at = data + size
