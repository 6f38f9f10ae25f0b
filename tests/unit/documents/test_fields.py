# SPDX-License-Identifier: GPL-3.0-or-later
"""The fields of documents are read with limits, and a message names the field that is wrong."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from pipeline.documents.fields import LIST_LIMIT, Fields
from pipeline.documents.malformed import Malformed

DIGEST = "0123456789abcdef" * 4


def document() -> dict[str, Any]:
    package = {"name": "dash", "sha256": DIGEST, "size": 7, "essential": True, "seconds": 0.5}
    return {
        "format": "x/1",
        "packages": [package],
        "names": ["a", "b"],
        "tag": None,
        "at": {"n": 1},
    }


def test_what_is_there_is_read() -> None:
    fields = Fields(document())
    assert fields.format("x/1", "x/2") == "x/1"
    assert fields.texts("names") == ("a", "b")
    assert fields.optional_text("tag") is None
    assert fields.object("at").number("n") == 1
    (package,) = fields.objects("packages")
    assert package.text("name", re.compile("[a-z]+")) == "dash"
    assert package.sha256("sha256") == DIGEST
    assert (package.number("size"), package.flag("essential")) == (7, True)
    assert package.real("seconds") == 0.5
    assert "sha256" in package
    assert fields.names() == ["at", "format", "names", "packages", "tag"]
    package.end()
    fields.end()


Reading = Callable[[Fields], object]
WRONG: dict[str, tuple[Reading, dict[str, Any], str]] = {
    "missing": (lambda f: f.text("a"), {}, "a is missing"),
    "no text": (lambda f: f.text("a"), {"a": 1}, "a is 1, not a text"),
    "empty": (lambda f: f.text("a"), {"a": ""}, "a is '', not a text"),
    "long": (lambda f: f.text("a"), {"a": "x" * 2001}, "not a text of 1 to 2000"),
    "escape": (lambda f: f.text("a"), {"a": "\x1b[31m"}, "not a text"),
    "form": (lambda f: f.sha256("a"), {"a": DIGEST[1:]}, "a is malformed"),
    "another digest": (lambda f: f.sha256("a"), {"a": DIGEST.upper()}, "a is malformed"),
    "true is no number": (lambda f: f.number("a"), {"a": True}, "a is True, not a number"),
    "a fraction": (lambda f: f.number("a"), {"a": 1.0}, "not a number from 0"),
    "negative": (lambda f: f.number("a"), {"a": -1}, "not a number from 0"),
    "large": (lambda f: f.number("a", 0, 9), {"a": 10}, "not a number from 0 to 9"),
    "true is no real": (lambda f: f.real("a"), {"a": True}, "a is True, not a number"),
    "no real": (lambda f: f.real("a"), {"a": "1"}, "not a number"),
    "real below": (lambda f: f.real("a"), {"a": -0.5}, "not from 0.0"),
    "no flag": (lambda f: f.flag("a"), {"a": 1}, "a is 1, not true or false"),
    "no object": (lambda f: f.object("a"), {"a": []}, "a is no object"),
    "none of them": (lambda f: f.one_of("a", "x", "y"), {"a": "z"}, "a is 'z', not x or y"),
    "no list": (lambda f: f.texts("a"), {"a": {}}, "a is no list"),
    "inside": (lambda f: f.texts("a"), {"a": ["x", None]}, r"a\[1\] is None"),
    "nested": (lambda f: next(f.objects("a")).end(), {"a": [{"b": 1}]}, r"a\[0\]\.b does"),
    "too many": (lambda f: f.texts("a"), {"a": ["x"] * (LIST_LIMIT + 1)}, "over 100000"),
    "too wide": (lambda f: f.names(1), {"a": 1, "b": 2}, "the document has over 1 fields"),
    "strange": (lambda f: f.end(), {"a\n": 1}, r"'a\\n' does not belong there"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_named(what: str) -> None:
    read, value, message = WRONG[what]
    with pytest.raises(Malformed, match=message):
        read(Fields(value))


@pytest.mark.parametrize("value", [None, [], "x", 1])
def test_a_document_is_an_object(value: object) -> None:
    with pytest.raises(Malformed, match="the document is no object"):
        Fields(value)
