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
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO

from pipeline.documents.formats import LaterFormat, refuse_later
from pipeline.documents.kit_control import (
    BOOT,
    CONTROL_LIMIT,
    KIT_FORMAT,
    PATH,
    Content,
    Control,
    read_control,
)
from pipeline.documents.malformed import Malformed
from pipeline.documents.plain import plain
from pipeline.documents.ustar import BLOCK, RECORD, ustar_header
from pipeline.kits.install.failure import InputsUnverified

FORMAT_TEXT = f"{KIT_FORMAT}\n".encode()
PIECE = 1024 * 1024


@dataclass(frozen=True)
class KitFile:
    """A file that the kit brings: its path on the system partition, and its bytes."""

    path: str
    size: int
    sha256: str
    pieces: Iterator[bytes]


class Kit:
    """A kit whose control.json was read, and nothing after it."""

    def __init__(self, control: Control, source: "_Source") -> None:
        self.control = control
        self._source = source

    def files(self) -> Iterator[KitFile]:
        """Give each file that the kit brings, once: those of boot.tar by path, then the delta.

        Raise InputsUnverified at the end of a file that is not the announced one, at any member
        that does not belong there, and at the end if something is missing or follows.
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
            raise source.refused("data follow its end")

    def _boot_files(self, end: int) -> Iterator[KitFile]:
        source, before, start = self._source, "", self._source.position
        squashfs = {f"live/{self.control.base.file}", f"live/{self.control.delta}"}
        while header := source.header_or_end():
            path, size = header
            content = self.control.partition.get(path)
            if path <= before or content is None or content.size != size or path in squashfs:
                raise source.refused(
                    f"boot.tar holds {plain(path)!r}, which is not in control.json"
                )
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
        for _ in pieces:  # what the caller did not read
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
    source.expect_format(source.read(header[1]))
    source.skip_padding(header[1])
    header = source.header_or_end()
    if header is None or header[0] != "control.json" or header[1] > CONTROL_LIMIT:
        raise source.refused("control.json does not follow FORMAT")
    content = source.read(header[1])
    source.skip_padding(header[1])
    try:
        control = read_control(content)
    except LaterFormat as error:
        raise source.later(error) from error
    except Malformed as error:
        raise source.refused(f"control.json is malformed: {plain(str(error))}") from error
    if source.epoch != control.epoch:
        raise source.refused("its members do not have the time that control.json names")
    return Kit(control, source)


class _Source:
    """The stream, with the members' headers: each must have the one form of a kit."""

    def __init__(self, stream: BinaryIO, where: str) -> None:
        self.stream, self.where = stream, where
        self.position = 0
        self.epoch: int | None = None  # of the first member; all have the same
        self._member = hashlib.sha256()

    def refused(self, what: str) -> InputsUnverified:
        return InputsUnverified(
            f"{self.where} is not a sound kit: {what}", remedy="fetch it again, or tell who made it"
        )

    def later(self, error: LaterFormat) -> InputsUnverified:
        return InputsUnverified(f"{self.where} cannot be read: {error}")

    def expect_format(self, text: bytes) -> None:
        try:
            refuse_later(text.decode("ascii", "replace").removesuffix("\n"), KIT_FORMAT)
        except LaterFormat as error:
            raise self.later(error) from error
        if text != FORMAT_TEXT:
            raise self.refused(f"it is not of the format {KIT_FORMAT}")

    def begin(self) -> None:
        """Hash all that is read from here on, to the next call of `digest`."""
        self._member = hashlib.sha256()

    def digest(self) -> str:
        return self._member.hexdigest()

    def read(self, size: int) -> bytes:
        content = self.stream.read(size)
        while len(content) < size and (more := self.stream.read(size - len(content))):
            content += more  # a socket gives less at a time
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
        raise self.refused("the header of a member is malformed")

    def expect_header(self, name: str, size: int) -> None:
        if self.header_or_end() != (name, size):
            raise self.refused(f"{name} is not where it must be")

    def expect_end(self) -> None:
        if self.header_or_end() is not None:
            raise self.refused("it has more members than a kit has")
        self.expect_padding(-self.position % RECORD)
