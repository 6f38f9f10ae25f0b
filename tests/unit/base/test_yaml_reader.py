# SPDX-License-Identifier: GPL-3.0-or-later
"""YAML that a stranger's tree or a careless merge brings: read one way only, or refused at once."""

import re
import time
from contextlib import suppress
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.base.errors import UsageError
from pipeline.base.yaml_reader import SIZE_LIMIT, parse_yaml
from pipeline.farm.config import load_farm, parse_image


def test_what_a_configuration_needs_is_read() -> None:
    content = b"a: 1\nb: [x, 'y', 3.10]\nc: {d: true, e: null}\nf: 2026-01-31\ng: |\n  h\n  i\n"
    assert parse_yaml(content, "x") == {
        "a": 1,
        "b": ["x", "y", "3.10"],
        "c": {"d": True, "e": None},
        "f": date(2026, 1, 31),
        "g": "h\ni\n",
    }


def test_a_second_block_does_not_switch_signatures_off(tmp_path: Path) -> None:
    """The attacker may add lines at the end of farm.yaml, far from the block that people read."""
    path = tmp_path / "farm.yaml"
    path.write_text("keys: {tags: {signed: true}}\narchives: {}\nkeys: {tags: {signed: false}}\n")
    with pytest.raises(UsageError, match=r"farm\.yaml:3 .*'keys' stands twice, first in line 1"):
        load_farm(path)


@pytest.mark.parametrize(
    ("content", "line", "why"),
    [
        ("a: 1\na: 1\n", 2, "'a' stands twice, first in line 1"),
        ("a:\n  b: 1\n  c: 2\n  b: 1\n", 4, "'b' stands twice, first in line 2"),
        ("- {a: 1, b: 2,\n   'a': 3}\n", 2, "'a' stands twice, first in line 1"),
        ('a: 1\n"\\x61": 2\n', 2, "stands twice"),
        ("1: x\n0x1: y\n", 2, "stands twice"),
        ("no: x\nfalse: y\n", 2, "stands twice"),
        ("? a\n: 1\n? a\n: 2\n", 3, "stands twice"),
        ("b: *x\n", 1, "undefined alias"),
        ("a: &x [*x]\n", 1, "inside of what it stands for"),
        ("a: &x\n  b: *x\n", 2, "inside of what it stands for"),
        ("&a a: 1\n*a : 2\n", 1, "stands twice"),
        ("a: &x {b: 1}\nc:\n  <<: *x\n", 3, "merge key"),
        ("a: 1\n<<: {b: 2}\n", 2, "merge key"),
        ("a: !!python/name:os.system x\n", 1, "tag"),
        ("a: !!timestamp x\n", 1, "tag"),
        ("a: !!int ''\n", 1, "tag"),
        ("a: ! x\n", 1, "tag"),
        ("[a, b]: 1\n", 1, "a key is a word"),
        ("{a: 1}: 1\n", 1, "a key is a word"),
        ("x: 1\na: 2001-99-99\n", 2, "2001-99-99"),
        ("a: 2001-01-01T00:00:00+99:99\n", 1, "2001-01-01"),
        ("a: 2001-01-01T99:00:00Z\n", 1, "2001-01-01"),
        (f"a: {'9' * 5000}\n", 1, "a number of 5000 characters"),
        (f"a: 0x{'9' * 5000}\n", 1, "a number of 5002 characters"),
        (f"a: 1{':1' * 5000}\n", 1, "a number of 10001 characters"),
        (f"a: 1\n{'9' * 900}: 1\n", 2, "a number of 900 characters"),
        (f"a: 1\n{'9' * 5000}: 1\n", 2, "is not YAML"),
        ('a: "\\ud800"\n', 1, "no character"),
        ('a: "\\0"\n', 1, "no character"),
        ('a: "\\Uffffffff"\n', 1, "is not YAML"),
        (f"%YAML 1.{'9' * 5000}\n---\na: 1\n", 1, "is not YAML"),
        ("--- a\n--- b\n", 2, "is not YAML"),
        ("a: 09\nb: @\n", 2, "is not YAML"),
        ("[" * 100, 1, "more than 20 deep"),
        ("- " * 100, 1, "more than 20 deep"),
        ("? " * 100, 1, "more than 20 deep"),
    ],
)
def test_what_can_be_read_two_ways_or_not_at_all_is_refused(
    content: str, line: int, why: str
) -> None:
    with pytest.raises(UsageError, match=rf"images/x\.yaml:{line} .*{re.escape(why)}") as caught:
        parse_yaml(content.encode(), "images/x.yaml")
    assert len(str(caught.value)) <= 500


@pytest.mark.parametrize("until", ["2001-99-99", "9" * 5000, "2001-01-01T00:00:00+99:00"])
def test_a_strangers_image_ends_in_one_line(until: str) -> None:
    """The attacker's commit brings the image.yaml."""
    text = f"description: x\nvolume_id: X\nexpected_differences: [{{until: {until}}}]\n"
    with pytest.raises(UsageError, match=r"image\.yaml:3 "):
        parse_image(text.encode(), "image.yaml")


@pytest.mark.parametrize(
    "piece", ["[", "{", "- ", "? ", "!", ":", "&a ", '"\\', "%TAG ! a\n", "&a *a"]
)
def test_no_document_takes_long(piece: str) -> None:
    content = (piece * SIZE_LIMIT)[:SIZE_LIMIT].encode()
    began = time.process_time()
    with pytest.raises(UsageError):
        parse_yaml(content, "x")
    assert time.process_time() - began < 5


def test_aliases_are_what_they_stand_for() -> None:
    assert parse_yaml(b"a: &x {b: 1}\nc: [*x, *x]\n", "x") == {"a": {"b": 1}, "c": [{"b": 1}] * 2}


def test_aliases_of_aliases_are_counted() -> None:
    """The attacker's image.yaml is of 400 bytes and stands for 10**9 values."""
    lines = ["a0: &a0 [x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    with pytest.raises(UsageError, match=r"x:6 .*aliases stand for more than"):
        parse_yaml("\n".join(lines).encode(), "x")


def test_a_large_document_is_not_parsed() -> None:
    with pytest.raises(UsageError, match="is larger than"):
        parse_yaml(b"#" * (SIZE_LIMIT + 1), "x")


PIECES = [
    "a",
    "1",
    "-",
    "- ",
    ": ",
    "\n",
    " ",
    "[",
    "]",
    "{",
    "}",
    ", ",
    "'",
    '"',
    "\\",
    "&",
    "*",
    "!",
    "|",
    ">",
]
PIECES += [
    "%",
    "#",
    "?",
    "<<",
    "---",
    "...",
    "\t",
    "0x",
    "2001-01-01",
    "~",
    "\\U",
    "\\x",
    "\ufeff",
    "\x85",
    "é",
]


@given(
    st.one_of(
        st.binary(max_size=60), st.lists(st.sampled_from(PIECES)).map("".join).map(str.encode)
    )
)
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    with suppress(UsageError):
        parse_yaml(content, "x")
