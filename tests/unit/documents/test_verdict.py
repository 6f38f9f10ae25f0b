# SPDX-License-Identifier: GPL-3.0-or-later
"""verdict.json: its bytes, and what is no verdict."""

from typing import Any

import pytest

from pipeline.documents.json_form import json_bytes, parse_json
from pipeline.documents.malformed import Malformed
from pipeline.documents.verdict import (
    Difference,
    Expected,
    Judged,
    Verdict,
)

DIFFER = Verdict(
    "differ",
    ("alpha", "beta"),
    (Judged("mini-amd64-3.3.iso", 3000, None), Judged("mini.packages", 5, "a" * 64)),
    ("x is expected to differ until 2027-03-31: ä",),
    (Difference("40-hooks/10-stamp.hook.chroot", "etc/a\nb\udcff", "only-in-alpha"),),
    (Expected("var/lib/x", "a reason", "2027-03-31"),),
    only_expected=True,
)
BYTES = (
    """{
  "artifacts": [
    {
      "name": "mini-amd64-3.3.iso",
      "sha256": null,
      "size": 3000
    },
    {
      "name": "mini.packages",
      "sha256": "%s",
      "size": 5
    }
  ],
  "differences": [
    {
      "kind": "only-in-alpha",
      "path": "etc/a\\nb\\udcff",
      "step": "40-hooks/10-stamp.hook.chroot"
    }
  ],
  "environments": [
    "alpha",
    "beta"
  ],
  "expected": [
    {
      "path": "var/lib/x",
      "reason": "a reason",
      "until": "2027-03-31"
    }
  ],
  "format": "twinbuild-verdict/1",
  "only_expected": true,
  "reasons": [
    "x is expected to differ until 2027-03-31: ä"
  ],
  "verdict": "differ"
}
"""
    % ("a" * 64)
).encode()


def test_its_bytes() -> None:
    assert json_bytes(DIFFER.document()) == BYTES


def test_what_was_written_is_read() -> None:
    assert Verdict.of(parse_json(BYTES)) == DIFFER


def test_the_first_farms_wrote_nothing_of_what_is_expected() -> None:
    document = parse_json(BYTES)
    del document["expected"], document["only_expected"]
    assert Verdict.of(document).expected == ()
    assert not Verdict.of(document).only_expected


def bad(*place: Any, value: Any) -> Any:
    document = parse_json(BYTES)
    inner = document
    for each in place[:-1]:
        inner = inner[each]
    inner[place[-1]] = value
    return document


@pytest.mark.parametrize(
    ("document", "field"),
    [
        (None, "the document is no object"),
        ({}, "format is missing"),
        (bad("format", value="twinbuild-verdict/2"), "format is"),
        (bad("verdict", value="equal"), "verdict is 'equal'"),
        (bad("verdict", value=["match"]), "verdict is"),
        (bad("environments", value="alpha"), "environments is no list"),
        (bad("environments", 0, value="a\n"), r"environments\[0\]"),
        (bad("artifacts", value=None), "artifacts is no list"),
        (bad("artifacts", 1, value="a"), r"artifacts\[1\] is no object"),
        (bad("artifacts", 1, "size", value=True), r"artifacts\[1\].size"),
        (bad("artifacts", 1, "size", value=-1), r"artifacts\[1\].size"),
        (bad("artifacts", 1, "sha256", value="A" * 64), r"artifacts\[1\].sha256"),
        (bad("artifacts", 1, "more", value=1), r"artifacts\[1\].more does not belong"),
        (bad("reasons", value=[1]), r"reasons\[0\] is 1"),
        (bad("reasons", value="x"), "reasons is no list"),
        (bad("differences", 0, "path", value=1), r"differences\[0\].path is 1"),
        (bad("differences", 0, "path", value="x" * 20_001), r"differences\[0\].path"),
        (bad("differences", 0, "more", value=1), r"differences\[0\].more does not belong"),
        (bad("expected", 0, value={}), r"expected\[0\].path is missing"),
        (bad("only_expected", value=0), "only_expected is 0"),
        (bad("status", value=0), "status does not belong"),
    ],
)
def test_damage_is_named(document: Any, field: str) -> None:
    with pytest.raises(Malformed, match=field):
        Verdict.of(document)
