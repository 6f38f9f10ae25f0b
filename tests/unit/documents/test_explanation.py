# SPDX-License-Identifier: GPL-3.0-or-later
"""`explanation.json` is read as it was written, and what is malformed is named by its field."""

from typing import Any

import pytest

from pipeline.documents.explanation import (
    Cause,
    DiffoscopeOutput,
    Explained,
    Explanation,
    Inside,
    Row,
    Shown,
    Values,
)
from pipeline.documents.json_form import json_bytes, parse_json
from pipeline.documents.malformed import Malformed

SHOWN = Shown(("-a", "+b"), (Row(0, "00 01", "00 02", (1,)),), cut=True)
CAUSE = Cause("umask", "the umasks differ", weak=True)
INSIDE = Inside("ar data.tar > tar", "etc/x", "content", 3, 4, "", "", SHOWN, (CAUSE,))
FILE = Explained(
    path="var/cache/x",
    step="40-hooks/10-stamp",
    kinds=("content", "mode"),
    offset=12,
    bytes=4,
    values=(Values("mode", "0644", "0640"),),
    shown=SHOWN,
    causes=(CAUSE,),
    inside=(INSIDE,),
    note="only a part was looked at",
    diffoscope=DiffoscopeOutput(("one",), cut=False, note=""),
)
BARE = Explained("etc/y", "20-bootstrap", ("only-in-alpha",))
WHOLE = Explanation(("alpha", "beta"), ("clock",), (FILE, BARE), 7, "not installed")


def test_it_is_read_as_it_was_written() -> None:
    assert Explanation.of(parse_json(json_bytes(WHOLE.document()))) == WHOLE


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        (["format"], "twinbuild-explanation/2", "later Twinbuild"),
        (["left_out"], -1, "left_out is -1"),
        (["environments"], [1], r"environments\[0\] is 1"),
        (["files", 0, "path"], "a\nb", r"files\[0\]\.path"),
        (["files", 0, "bytes"], "4", r"files\[0\]\.bytes"),
        (["files", 0, "values", 0, "left"], None, r"files\[0\]\.values\[0\]\.left"),
        (["files", 0, "shown", "rows", 0, "marks"], [True], r"shown\.rows\[0\]\.marks\[0\]"),
        (["files", 0, "shown", "lines"], "x", r"shown\.lines is no list"),
        (["files", 0, "causes", 0, "weak"], 1, r"causes\[0\]\.weak"),
        (["files", 0, "inside", 0, "shown", "cut"], None, r"inside\[0\]\.shown\.cut"),
        (["files", 0, "inside", 0, "more"], 1, r"inside\[0\]\.more does not belong there"),
        (["files", 0, "diffoscope", "note"], 5, r"files\[0\]\.diffoscope\.note"),
        (["more"], 1, "more does not belong there"),
    ],
)
def test_a_malformed_field_is_named(path: list[Any], value: object, reason: str) -> None:
    document = parse_json(json_bytes(WHOLE.document()))
    inner = document
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    with pytest.raises(Malformed, match=reason):
        Explanation.of(document)
