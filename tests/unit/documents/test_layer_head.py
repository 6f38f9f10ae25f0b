# SPDX-License-Identifier: GPL-3.0-or-later
"""The head of a kept layer: its form stays, and no path of it leads out of the tree."""

import json
from typing import Any

import pytest

from pipeline.documents.layer_head import LayerHead
from pipeline.documents.malformed import Malformed

HEAD = LayerHead((b"", b"etc", b"etc/\xff"), (False, True, False), (b"a\nb",))
WRITTEN = (
    b'{"changed": ["", "etc", "etc/\\udcff"], "made": [false, true, false], "removed": ["a\\nb"]}'
)


def test_it_is_written_in_one_form_and_read_again() -> None:
    assert HEAD.content() == WRITTEN
    assert LayerHead.parse(WRITTEN) == HEAD


@pytest.mark.parametrize(
    "change",
    [
        {"changed": ["../etc", "a", "b"]},
        {"changed": ["/etc", "a", "b"]},
        {"changed": [0, "a", "b"]},
        {"changed": [None, "a", "b"]},
        {"changed": [["a"], "a", "b"]},
        {"changed": "abc"},
        {"removed": ["a/../../b"]},
        {"removed": {"a": 1}},
        {"made": [True]},
        {"made": [1, 0, 1]},
        {"more": 1},
    ],
)
def test_anything_else_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        LayerHead.parse(json.dumps({**json.loads(WRITTEN), **change}).encode())


@pytest.mark.parametrize("content", [b"", b"{}", b"[" * 100_000, WRITTEN[:-1], b'{"made": NaN}'])
def test_what_is_no_head_is_refused(content: bytes) -> None:
    with pytest.raises(Malformed):
        LayerHead.parse(content)
