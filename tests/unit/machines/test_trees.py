# SPDX-License-Identifier: GPL-3.0-or-later
"""The index of kept trees: what machines may tell, what keys are made of, what stays."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.machines import trees
from pipeline.machines.machine import LAYERS_BYTES
from pipeline.machines.trees import KeptLayer, TreeKeys, fitting, read_layers

A, B = "a" * 64, "b" * 64


def layer_record(step: str = "20-bootstrap", **changes: Any) -> dict[str, Any]:
    fine = {
        "record": "layer",
        "step": step,
        "offset": 0,
        "size": 10240,
        "head": 100,
        "started": 1_800_000_000,
        "ended": 1_800_000_300,
        "digest": A,
        "sha256": B,
    }
    return {**fine, **changes}


def test_the_record_of_a_layer_is_read() -> None:
    first, second = read_layers([layer_record(), layer_record("30-includes", offset=12288)])
    assert (first.step, first.offset, first.size) == ("20-bootstrap", 0, 10240)
    assert second.offset == 12288


@pytest.mark.parametrize(
    "changes",
    [
        {"step": ""},
        {"step": "a\nb"},
        {"step": "x" * 301},
        {"step": 7},
        {"offset": -1},
        {"offset": LAYERS_BYTES},
        {"offset": "0; rm -rf /"},
        {"offset": 1.5},
        {"offset": True},
        {"size": 0},
        {"size": 2**70},
        {"head": 10240},
        {"head": -1},
        {"ended": 1_799_999_999},
        {"started": 2**41},
        {"digest": A.upper()},
        {"sha256": f"{B}\n"},
        {"sha256": None},
        {"more": 1},
    ],
)
def test_what_cannot_be_ends_it(changes: dict[str, Any]) -> None:
    good = layer_record("20-bootstrap")
    bad = layer_record("30-includes", offset=12288) | changes
    later = layer_record("50-initramfs", offset=24576)
    assert [layer.step for layer in read_layers([good, bad, later])] == ["20-bootstrap"]


def test_a_step_is_recorded_once_and_before_what_follows() -> None:
    """A hook that has the machine in its hands cannot take back what was reported before it ran."""
    first, second = layer_record(), layer_record("30-includes", offset=12288)
    again = layer_record(digest=B, sha256=A, offset=24576)
    assert len(read_layers([first, second, again])) == 2
    over = layer_record("40-hooks/x", offset=0)
    assert len(read_layers([first, second, over])) == 2


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from([*layer_record(), "x"]),
            st.one_of(st.integers(), st.text(), st.none(), st.lists(st.integers())),
        )
    )
)
def test_no_record_is_an_error(records: list[dict[str, Any]]) -> None:
    assert len(read_layers(records)) <= len(records)


STEPS = ["20-bootstrap", "30-includes", "40-hooks/a", "50-initramfs"]


def test_all_keys_depend_on_what_went_in_before() -> None:
    keys = TreeKeys("bootstrap", "commit").chain(STEPS)
    assert len(set(keys)) == len(STEPS)
    assert TreeKeys("another", "commit").chain(STEPS)[0] != keys[0]
    later = TreeKeys("bootstrap", "another").chain(STEPS)
    assert later[0] == keys[0]  # a commit that changes only a hook begins after the bootstrap
    assert not set(later[1:]) & set(keys)
    between = TreeKeys("bootstrap", "commit").chain([*STEPS[:2], "40-hooks/0", *STEPS[2:]])
    assert between[:2] == keys[:2]
    assert not set(between[2:]) & set(keys)


def kept(key: str, parent: str | None, size: int, used: int) -> KeptLayer:
    return KeptLayer(
        key=key * 64,
        parent=parent and parent * 64,
        step="x",
        size=size,
        head=1,
        started=0,
        ended=0,
        digest=A,
        used=used,
    )


def index(*layers: KeptLayer) -> dict[str, KeptLayer]:
    return {layer.key: layer for layer in layers}


def names(layers: list[KeptLayer]) -> str:
    return "".join(sorted(layer.key[0] for layer in layers))


def test_what_was_not_used_for_longest_goes_first() -> None:
    all_of_them = index(
        kept("a", None, 50, 1),
        kept("b", "a", 10, 1),
        kept("c", None, 50, 9),
        kept("d", "c", 10, 5),
        kept("e", "c", 10, 9),
    )
    assert names(fitting(all_of_them, 130)) == "abcde"
    assert names(fitting(all_of_them, 120)) == "acde"
    assert names(fitting(all_of_them, 119)) == "cde"
    assert names(fitting(all_of_them, 60)) == "ce"
    assert names(fitting(all_of_them, 49)) == ""


def test_a_layer_without_what_it_rests_on_goes() -> None:
    assert names(fitting(index(kept("b", "a", 1, 1), kept("c", None, 1, 1)), 10)) == "c"
    circle = index(kept("a", "b", 1, 1), kept("b", "a", 1, 1))
    assert fitting(circle, 10) == []


def test_what_was_made_from_a_dropped_layer_goes_with_it() -> None:
    layers = index(
        kept("a", None, 1, 1), kept("b", "a", 1, 1), kept("c", "b", 1, 1), kept("d", "a", 1, 1)
    )
    assert names(list(trees._without(layers, "b" * 64).values())) == "ad"
    assert trees._without(layers, "a" * 64) == {}
