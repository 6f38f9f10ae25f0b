# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads a kit as it arrives: `docs/reference/kit.md` describes the format.

    with path.open("rb") as stream:
        kit = open_kit(stream, "3.1-to-3.3.iuk")      # FORMAT and control.json are read and checked
        kit.control                                   # decide: does it fit, is there space?
        for file in kit.files():                      # boot files in order, at last the delta
            file.path, file.size, file.sha256         # where on the system partition, and what
            for piece in file.pieces: ...             # at most PIECE bytes each

When `files` has come to its end, every byte of the kit was checked against control.json, and the
kit held nothing else; before that, nothing that was read may be believed. control.json itself is
believed because the kit's digest is in the signed upgrade description. Whatever is not exactly as
a kit must be raises InputsUnverified. Memory: one PIECE and control.json.
"""

import hashlib
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any, BinaryIO, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from pipeline.base.errors import InputsUnverified
from pipeline.base.plain import plain
from pipeline.documents.json_form import json_bytes, parse_json
from pipeline.documents.kit_control import KIT_FORMAT
from pipeline.documents.system_partition import SWITCH
from pipeline.documents.ustar import BLOCK, RECORD, ustar_header
from pipeline.farm.config import Name, ReleaseTag

FORMAT_TEXT = f"{KIT_FORMAT}\n".encode()
BOOT = "boot.tar"
PIECE = 1024 * 1024
CONTROL_LIMIT = 4 * 1024 * 1024
FILES_LIMIT = 10_000
FILE_LIMIT = 2**32  # a FAT file system has no longer files
# Printable ASCII without what a FAT cannot hold or would drop: names that are one everywhere.
NAME = r'(?! )[^\x00-\x1f"*/:<>?\\|\x7f-\U0010ffff]{1,155}(?<![. ])'
PATH = re.compile(rf"{NAME}(?:/{NAME})*")
PATH_LIMIT = 255


def _path(value: str) -> str:
    """Let pass what names a file of a FAT file system in one way only, and below its root."""
    if not PATH.fullmatch(value) or len(value) > PATH_LIMIT:
        raise ValueError(f"{plain(value)!r} is no path of a system partition")
    return value


Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Size = Annotated[int, Field(strict=True, ge=0, lt=FILE_LIMIT)]
Path = Annotated[str, AfterValidator(_path)]


class Content(BaseModel):
    """What a file holds: size in bytes and SHA-256."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: Size
    sha256: Sha256


class Base(Content):
    """The SquashFS of the release `from`, which the delta fits on; it is in `live/`."""

    file: str


class Control(BaseModel):
    """`control.json`: all that is decided before a byte is written."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["twinbuild-kit/1"]
    name: Name
    architecture: Name
    from_: ReleaseTag = Field(alias="from")
    to: ReleaseTag
    epoch: Annotated[int, Field(strict=True, ge=0, lt=2**32)]
    members: dict[str, Content]
    base: Base
    delete: Annotated[list[Path], Field(max_length=FILES_LIMIT)]
    partition: Annotated[dict[Path, Content], Field(max_length=FILES_LIMIT)]
    tree_sha256: Sha256

    @property
    def delta(self) -> str:
        """The delta's name, in the kit and in `live/` of the system partition."""
        return f"{self.to}.squashfs"

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if self.from_ == self.to or self.base.file != f"{self.from_}.squashfs":
            raise ValueError("from, to and base do not fit each other")
        if self.members.keys() != {BOOT, self.delta}:
            raise ValueError("the members are not boot.tar and the delta")
        there = {
            f"live/{self.base.file}": self.base,
            f"live/{self.delta}": self.members[self.delta],
        }
        for path, content in there.items():
            found = self.partition.get(path)
            if found is None or (found.size, found.sha256) != (content.size, content.sha256):
                raise ValueError(f"partition does not have {path} as the rest has it")
        named = [path.lower() for path in [*self.partition, *self.delete, SWITCH]]
        if len(set(named)) != len(named) or self.delete != sorted(self.delete):
            raise ValueError("a path stands twice in partition and delete, or out of order")
        return self


@dataclass(frozen=True)
class KitFile:
    """A file that the kit brings: its path on the system partition, and its bytes as they come."""

    path: str
    size: int
    sha256: str
    pieces: Iterator[bytes]


class Kit:
    """A kit whose control.json was read; the rest is still to come."""

    def __init__(self, control: Control, source: "_Source") -> None:
        self.control = control
        self._source = source

    def files(self) -> Iterator[KitFile]:
        """Give each file that the kit brings, once: those of boot.tar by path, then the delta.

        Raise InputsUnverified when a file's bytes have all come and are not the announced ones, at
        whatever the kit must not hold, and at its end if anything is missing or follows.
        """
        source, control = self._source, self.control
        boot = control.members[BOOT]
        source.expect_header(BOOT, boot.size)
        source.begin()
        yield from self._boot_files(source.position + boot.size)
        if source.digest() != boot.sha256:
            raise source.refused("boot.tar is not the one that control.json names")
        source.skip_padding(boot.size)
        delta = control.members[control.delta]
        source.expect_header(control.delta, delta.size)
        yield from self._file(f"live/{control.delta}", delta)
        source.skip_padding(delta.size)
        source.expect_end()
        if source.stream.read(1):
            raise source.refused("something follows its end")

    def _boot_files(self, end: int) -> Iterator[KitFile]:
        source, before, start = self._source, "", self._source.position
        squashfs = {f"live/{self.control.base.file}", f"live/{self.control.delta}"}
        while header := source.header_or_end():
            path, size = header
            content = self.control.partition.get(path)
            if path <= before or content is None or content.size != size or path in squashfs:
                raise source.refused(f"boot.tar holds {plain(path)!r}, which control.json has not")
            yield from self._file(path, content)
            source.skip_padding(size)
            before = path
        source.expect_padding((start - source.position) % RECORD)
        if source.position != end:
            raise source.refused("boot.tar does not end where control.json says")

    def _file(self, path: str, content: Content) -> Iterator[KitFile]:
        digest = hashlib.sha256()
        pieces = self._source.pieces(content.size, digest)
        yield KitFile(path, content.size, content.sha256, pieces)
        for _ in pieces:  # what the caller left
            pass
        if digest.hexdigest() != content.sha256:
            raise self._source.refused(f"{path} is not the one that control.json names")


def open_kit(stream: BinaryIO, where: str) -> Kit:
    """Read FORMAT and control.json of a kit; raise InputsUnverified if they are not sound.

    `where` names the kit in messages. `stream` is read from where it stands, never sought.
    """
    source = _Source(stream, where)
    header = source.header_or_end()
    if header is None or header[0] != "FORMAT" or header[1] > 100:
        raise source.refused("it does not begin with FORMAT")
    if source.read(header[1]) != FORMAT_TEXT:
        raise source.refused(f"it is not of the format {KIT_FORMAT}")
    source.skip_padding(header[1])
    header = source.header_or_end()
    if header is None or header[0] != "control.json" or header[1] > CONTROL_LIMIT:
        raise source.refused("control.json does not follow FORMAT")
    content = source.read(header[1])
    source.skip_padding(header[1])
    control = _control(source, content)
    if source.epoch != control.epoch:
        raise source.refused("its members are not of the time that control.json names")
    return Kit(control, source)


def _control(source: "_Source", content: bytes) -> Control:
    try:
        document: dict[str, Any] = parse_json(content)
        control = Control.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        at = ".".join(map(str, first["loc"]))
        raise source.refused(f"control.json is wrong: {plain(at)}: {plain(first['msg'])}") from None
    except (ValueError, RecursionError) as error:
        raise source.refused(f"control.json is wrong: {plain(str(error))}") from None
    if json_bytes(document) != content:
        raise source.refused("control.json is not in the one form of documents")
    return control


class _Source:
    """The stream, with the members' headers: every one must be the one that a kit has."""

    def __init__(self, stream: BinaryIO, where: str) -> None:
        self.stream, self.where = stream, where
        self.position = 0
        self.epoch: int | None = None  # of the first member; all have the same
        self._member = hashlib.sha256()

    def refused(self, what: str) -> InputsUnverified:
        return InputsUnverified(
            f"{self.where} is not a sound kit: {what}", remedy="fetch it again, or tell who made it"
        )

    def begin(self) -> None:
        """Hash all that is read from here on, to the next call of `digest`."""
        self._member = hashlib.sha256()

    def digest(self) -> str:
        return self._member.hexdigest()

    def read(self, size: int) -> bytes:
        content = self.stream.read(size)
        while len(content) < size and (more := self.stream.read(size - len(content))):
            content += more  # as a socket gives it
        if len(content) != size:
            raise self.refused("it is cut off")
        self.position += size
        self._member.update(content)
        return content

    def pieces(self, size: int, digest: "hashlib._Hash") -> Iterator[bytes]:
        while size:
            piece = self.read(min(size, PIECE))
            size -= len(piece)
            digest.update(piece)
            yield piece

    def expect_padding(self, size: int) -> None:
        if self.read(size).strip(b"\0"):
            raise self.refused("there are bytes between its members")

    def skip_padding(self, size: int) -> None:
        self.expect_padding(-size % BLOCK)

    def header_or_end(self) -> tuple[str, int] | None:
        """Return a member's name and size, or None at the archive's end (its first two blocks)."""
        block = self.read(BLOCK)
        if not block.strip(b"\0"):
            self.expect_padding(BLOCK)
            return None
        with suppress(ValueError):
            name = block[:100].rstrip(b"\0").decode("ascii")
            prefix = block[345:500].rstrip(b"\0").decode("ascii")
            size, epoch = int(block[124:135], 8), int(block[136:147], 8)
            name = f"{prefix}/{name}" if prefix else name
            if self.epoch is None:
                self.epoch = epoch
            if PATH.fullmatch(name) and block == ustar_header(name, size, self.epoch):
                return name, size
        raise self.refused("the header of a member is not as it must be")

    def expect_header(self, name: str, size: int) -> None:
        if self.header_or_end() != (name, size):
            raise self.refused(f"{name} does not stand where it must")

    def expect_end(self) -> None:
        if self.header_or_end() is not None:
            raise self.refused("it has more members than a kit has")
        self.expect_padding(-self.position % RECORD)
