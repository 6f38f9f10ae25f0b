# SPDX-License-Identifier: GPL-3.0-or-later
"""`control.json`: the bytes that kits of today have, and what is refused."""

import json
from typing import Any

import pytest

from pipeline.documents.json_form import json_bytes
from pipeline.documents.kit_control import Base, Content, Control, control_bytes, read_control
from pipeline.documents.malformed import Malformed

BASE, DELTA, MENU = Content(4, "a" * 64), Content(25004, "b" * 64), Content(0, "c" * 64)
CONTROL = Control(
    name="mini",
    architecture="amd64",
    from_="3.1",
    to="3.3",
    epoch=1_700_000_000,
    members={"boot.tar": Content(10240, "d" * 64), "3.3.squashfs": DELTA},
    base=Base("3.1.squashfs", BASE.size, BASE.sha256),
    delete=("live/3.1.cfg", "live/3.1.module"),
    partition={"live/3.3.cfg": MENU, "live/3.3.squashfs": DELTA, "live/3.1.squashfs": BASE},
    tree_sha256="e" * 64,
)
WRITTEN = b"""\
{
  "architecture": "amd64",
  "base": {
    "file": "3.1.squashfs",
    "sha256": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "size": 4
  },
  "delete": [
    "live/3.1.cfg",
    "live/3.1.module"
  ],
  "epoch": 1700000000,
  "format": "twinbuild-kit/1",
  "from": "3.1",
  "members": {
    "3.3.squashfs": {
      "sha256": "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",
      "size": 25004
    },
    "boot.tar": {
      "sha256": "dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd",
      "size": 10240
    }
  },
  "name": "mini",
  "partition": {
    "live/3.1.squashfs": {
      "sha256": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
      "size": 4
    },
    "live/3.3.cfg": {
      "sha256": "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc",
      "size": 0
    },
    "live/3.3.squashfs": {
      "sha256": "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",
      "size": 25004
    }
  },
  "to": "3.3",
  "tree_sha256": "eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee"
}
"""


def test_it_is_written_and_read_in_one_form() -> None:
    assert control_bytes(CONTROL) == WRITTEN
    assert read_control(WRITTEN) == CONTROL


@pytest.mark.parametrize(
    ("path", "value", "where"),
    [
        (("name",), "Mini", "name is malformed"),
        (("epoch",), 2**32, "epoch is 4294967296"),
        (("more",), 1, "more does not belong there"),
        (("members", "boot.tar", "size"), -1, r"members.boot.tar.size is -1"),
        (("members", "boot.tar", "sha256"), "D" * 64, r"members.boot.tar.sha256 is malformed"),
        (("base", "size"), 5, "partition does not have live/3.1.squashfs"),
        (("delete",), ["live/3.1.cfg", 7], r"delete\[1\] is 7"),
        (("delete",), ["LIVE/3.3.CFG"], "a path stands twice"),
        (("partition", "../x"), {"size": 0, "sha256": "0" * 64}, "'../x' is no path"),
        (("partition", "live/3.3.cfg", "mode"), 1, r"partition.live/3.3.cfg.mode does not belong"),
    ],
)
def test_a_malformed_field_is_named(path: tuple[str, ...], value: Any, where: str) -> None:
    document: Any = json.loads(WRITTEN)
    inner = document
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    with pytest.raises(Malformed, match=where):
        read_control(json_bytes(document))
