# SPDX-License-Identifier: GPL-3.0-or-later
"""`control.json` of an upgrade kit: all that an installer decides by before it writes a byte.

`docs/reference/kit.md` describes its fields. Paths are those of the system partition.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.documents.fields import Fields
from pipeline.documents.json_form import json_bytes, parse_json
from pipeline.documents.malformed import Malformed
from pipeline.documents.names import IMAGE, RELEASE
from pipeline.documents.system_partition import SWITCH

KIT_FORMAT = "twinbuild-kit/1"
BOOT = "boot.tar"
CONTROL_LIMIT = 4 * 1024 * 1024  # bytes
FILES_LIMIT = 10_000
FILE_LIMIT = 2**32  # bytes: a FAT file system has no longer files
EPOCH_LIMIT = 2**32  # seconds since 1970
# Printable ASCII without what a FAT cannot hold or would drop: names that are one everywhere.
NAME = r'(?! )[^\x00-\x1f"*/:<>?\\|\x7f-\U0010ffff]{1,155}(?<![. ])'
PATH = re.compile(rf"{NAME}(?:/{NAME})*")
PATH_LIMIT = 255  # characters


@dataclass(frozen=True)
class Content:
    """What a file holds: its size in bytes and its SHA-256."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Base:
    """The SquashFS of the release `from`, which the delta fits on; its `file` is in `live/`."""

    file: str
    size: int
    sha256: str

    @property
    def content(self) -> Content:
        """What it holds."""
        return Content(self.size, self.sha256)


@dataclass(frozen=True)
class Control:
    """What a kit leads from and to, what it brings, and the system partition that results.

    `members` are the kit's own by name; `partition` is all that the system partition then has but
    for the switch; `delete` is what it has no more, sorted; `tree_sha256` is of the final ledger.
    """

    name: str
    architecture: str
    from_: str
    to: str
    epoch: int  # seconds since 1970
    members: Mapping[str, Content]
    base: Base
    delete: tuple[str, ...]
    partition: Mapping[str, Content]
    tree_sha256: str

    @classmethod
    def read(cls, fields: Fields) -> Control:
        """Read its fields; raise Malformed."""
        fields.format(KIT_FORMAT)
        base = fields.object("base")
        control = cls(
            name=fields.text("name", IMAGE),
            architecture=fields.text("architecture", IMAGE),
            from_=fields.text("from", RELEASE),
            to=fields.text("to", RELEASE),
            epoch=fields.number("epoch", high=EPOCH_LIMIT - 1),
            members=_read_table(fields.object("members")),
            base=Base(base.text("file"), *_size_and_sha256(base)),
            delete=fields.texts("delete", limit=FILES_LIMIT),
            partition=_read_table(fields.object("partition")),
            tree_sha256=fields.sha256("tree_sha256"),
        )
        fields.end()
        return control

    @property
    def delta(self) -> str:
        """The delta's name, in the kit and in `live/` of the system partition."""
        return f"{self.to}.squashfs"


def control_bytes(control: Control) -> bytes:
    """Return `control.json` as it is written."""
    return json_bytes(
        {
            "format": KIT_FORMAT,
            "name": control.name,
            "architecture": control.architecture,
            "from": control.from_,
            "to": control.to,
            "epoch": control.epoch,
            "members": _table(control.members),
            "base": {"file": control.base.file, **_entry(control.base.content)},
            "delete": list(control.delete),
            "partition": _table(control.partition),
            "tree_sha256": control.tree_sha256,
        }
    )


def read_control(content: bytes) -> Control:
    """Return what a `control.json` holds; raise Malformed if it is none, or contradicts itself."""
    if len(content) > CONTROL_LIMIT:
        raise Malformed(f"it is larger than {CONTROL_LIMIT} bytes")
    control = Control.read(Fields(parse_json(content)))
    for path in (*control.delete, *control.partition):
        _check_path(path)
    _check_agrees(control)
    if control_bytes(control) != content:
        raise Malformed("it is not in the one form of documents")
    return control


def _entry(content: Content) -> dict[str, Any]:
    return {"size": content.size, "sha256": content.sha256}


def _table(files: Mapping[str, Content]) -> dict[str, Any]:
    return {path: _entry(content) for path, content in files.items()}


def _read_table(fields: Fields) -> dict[str, Content]:
    return {name: _read_content(fields.object(name)) for name in fields.names(FILES_LIMIT)}


def _read_content(fields: Fields) -> Content:
    return Content(*_size_and_sha256(fields))


def _size_and_sha256(fields: Fields) -> tuple[int, str]:
    found = fields.number("size", high=FILE_LIMIT - 1), fields.sha256("sha256")
    fields.end()
    return found


def _check_path(value: str) -> None:
    """Raise Malformed unless a path means one file on every FAT file system."""
    if not PATH.fullmatch(value) or len(value) > PATH_LIMIT:
        raise Malformed(f"{value!r:.300} is no path of a system partition")


def _check_agrees(control: Control) -> None:
    """Raise Malformed if it contradicts itself."""
    if control.from_ == control.to or control.base.file != f"{control.from_}.squashfs":
        raise Malformed("from, to and base do not fit each other")
    if control.members.keys() != {BOOT, control.delta}:
        raise Malformed("the members are not boot.tar and the delta")
    there = {
        f"live/{control.base.file}": control.base.content,
        f"live/{control.delta}": control.members[control.delta],
    }
    for path, content in there.items():
        if control.partition.get(path) != content:
            raise Malformed(f"partition does not have {path} as the rest has it")
    named = [path.lower() for path in [*control.partition, *control.delete, SWITCH]]
    if len(set(named)) != len(named) or list(control.delete) != sorted(control.delete):
        raise Malformed("a path stands twice in partition and delete, or out of order")
