# SPDX-License-Identifier: GPL-3.0-or-later
"""The manifest of a release and the index of all: read as they were written, faults by name."""

from typing import Any

import pytest

from pipeline.documents.json_form import json_bytes, parse_json
from pipeline.documents.malformed import Malformed
from pipeline.documents.manifest import NAMES_LIMIT, Manifest
from pipeline.documents.release_index import ListedRelease, ReleaseIndex

DIGESTS = {"mini-amd64-3.3.iso": "a" * 64, "alpha/console.log": "b" * 64}
LINE = f"{'a' * 64}  lock\n"
KIT = "mini-amd64-3.2-to-3.3.iuk"
INDEX = ReleaseIndex(
    (
        ListedRelease("3.3", "mini", "c" * 40, 1766400000, "d" * 64, (KIT,)),
        ListedRelease("3.2", "mini", "e" * 40, 1766300000, "f" * 64, ()),
    )
)


def test_a_manifest_is_sorted_and_read_as_it_was_written() -> None:
    content = Manifest(DIGESTS).content()
    assert content == f"{'b' * 64}  alpha/console.log\n{'a' * 64}  mini-amd64-3.3.iso\n".encode()
    assert Manifest.of(content) == Manifest(DIGESTS)


@pytest.mark.parametrize(
    "content",
    [
        "",
        LINE[:-1],
        LINE * 2,
        f"\n{LINE}",
        LINE.replace("  ", " *"),
        LINE.replace("lock", "../lock"),
        LINE.replace("lock", "/lock"),
        LINE.replace("lock", "a/b/c/d/e"),
        LINE.replace("lock", "lock\r"),
        LINE.replace("lock", "l\xf6ck"),
        LINE.upper(),
        "".join(LINE.replace("lock", f"lock{n}") for n in range(NAMES_LIMIT + 1)),
    ],
)
def test_a_malformed_manifest_is_refused_as_a_whole(content: str) -> None:
    with pytest.raises(Malformed, match="the manifest"):
        Manifest.of(content.encode())


def test_an_index_is_read_as_it_was_written() -> None:
    assert ReleaseIndex.of(parse_json(json_bytes(INDEX.document()))) == INDEX


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tag", "../x"),
        ("image", 5),
        ("commit", "c" * 39),
        ("epoch", "1766400000"),
        ("epoch", 2**32),
        ("manifest_sha256", "D" * 64),
        ("kits", ["../x"]),
        ("more", 1),
    ],
)
def test_a_malformed_field_of_an_index_is_named(field: str, value: object) -> None:
    document: Any = parse_json(json_bytes(INDEX.document()))
    document["releases"][1][field] = value
    with pytest.raises(Malformed, match=rf"^releases\[1\]\.{field}"):
        ReleaseIndex.of(document)
