# SPDX-License-Identifier: GPL-3.0-or-later
"""An installed system: its partition, the switch that says which release boots, what each needs.

boot/grub/current.cfg    the switch: one sector, so that one write changes what boots
live/<version>.cfg       what GRUB loads for a release
live/<version>.module    its SquashFS files, the lowest first: the base, then the delta
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.documents.plain import plain
from pipeline.documents.system_partition import SWITCH, switch
from pipeline.kits.install.failure import InfrastructureFailed, UsageError
from pipeline.kits.install.fat import FileSystem, open_files
from pipeline.kits.install.fat_layout import SECTOR, Damaged
from pipeline.kits.install.fat_table import Device
from pipeline.kits.install.medium import Medium, open_medium
from pipeline.kits.install.partition import fat_partitions

INFO = ".disk/info"
TEXT_LIMIT = 64 * 1024
MODULES_LIMIT = 16
VERSION = r"[A-Za-z0-9][A-Za-z0-9._+~-]{0,79}"
SWITCH_TEXT = re.compile(rf"set version=({VERSION})\nset previous=({VERSION})?\n+")
MODULE = re.compile(rf"{VERSION}\.squashfs")
RELEASE = re.compile(rf"live/({VERSION})\.module")
KERNEL = re.compile(r"/(live/(?:vmlinuz-[0-9a-f]{12}|initrd-[0-9a-f]{12}\.img))(?![\w.-])")


@dataclass(frozen=True)
class Switch:
    """Which release boots, and which one before; "" if there is none."""

    version: str
    previous: str = ""

    def content(self) -> bytes:
        """Return the switch's sector."""
        return switch(self.version, self.previous)


class System:
    """An installed system on an open partition."""

    def __init__(self, files: FileSystem, image: str, architecture: str, switch: Switch) -> None:
        self.files = files
        self.image = image
        self.architecture = architecture
        self.switch = switch

    def modules(self, version: str) -> list[str]:
        """Return the paths of a release's SquashFS files, the base first.

        Raise InfrastructureFailed if the release is not there or not complete.
        """
        return read_modules(self._text(f"live/{version}.module"), version)

    def needs(self, version: str) -> set[str]:
        """Return the paths of all that a release boots from."""
        configuration = f"live/{version}.cfg"
        named = read_kernels(self._text(configuration))
        return {configuration, f"live/{version}.module", *self.modules(version), *named}

    def named(self, version: str) -> set[str]:
        """Return what a release needs as far as its own files, even incomplete ones, name it."""
        texts = {f"live/{version}.cfg", f"live/{version}.module"}
        found = set(texts)
        for path, read in zip(sorted(texts), (read_kernels, _own_modules), strict=True):
            if self.files.find(path):
                found |= read(self._text(path))
        return found

    def missing(self, version: str) -> list[str]:
        """Return what a release needs and the partition lacks."""
        try:
            return sorted(path for path in self.needs(version) if not self.files.find(path))
        except InfrastructureFailed:
            return [f"live/{version}.cfg or live/{version}.module"]

    def releases(self) -> set[str]:
        """Return the releases that the partition holds, complete or not."""
        found = (RELEASE.fullmatch(file.path) for file in self.files.files())
        return {match[1] for match in found if match}

    def turn(self, switch: Switch) -> None:
        """Write the switch: the other release boots once this returns, and not before."""
        self.files.settle()
        self.files.overwrite(SWITCH, switch.content())
        self.files.settle()
        file = self.files.find(SWITCH)
        if file is None or b"".join(self.files.pieces(file, back=True)) != switch.content():
            raise InfrastructureFailed(
                f"{SWITCH} was written and reads back as something else",
                remedy="use another medium",
            )
        self.switch = switch

    def _text(self, path: str) -> str:
        file = self.files.find(path)
        if file is None:
            raise InfrastructureFailed(
                f"the installed system lacks {path}", remedy="write the newest image to it anew"
            )
        return self.files.read(file, TEXT_LIMIT).decode("ascii", "replace")


def read_modules(text: str, version: str) -> list[str]:
    """Return the paths that a module file names; raise Damaged if it is none."""
    names = text.split()
    if not 0 < len(names) <= MODULES_LIMIT or not all(map(MODULE.fullmatch, names)):
        raise Damaged(f"live/{version}.module does not list SquashFS files")
    return [f"live/{name}" for name in names]


def _own_modules(text: str) -> set[str]:
    return {f"live/{name}" for name in text.split() if MODULE.fullmatch(name)}


def read_kernels(text: str) -> set[str]:
    """Return the paths of kernel and initramfs that a release's GRUB configuration names."""
    return set(KERNEL.findall(text))


@contextmanager
def open_system(path: Path) -> Iterator[tuple[System, Medium]]:
    """Open the installed system on an image file or device, for this process alone.

    Raise UsageError if the target is not ours or in use, InfrastructureFailed if it is damaged.
    """
    with open_medium(path) as medium:
        yield find_system(medium, medium.size), medium


def find_system(blocks: Device, size: int) -> System:
    """Return the one installed system on a medium."""
    found = []
    for start, length in fat_partitions(blocks, size):
        files = open_files(blocks, start, length)
        if files is not None and files.find(INFO) and files.find(SWITCH):
            found.append(files)
    if len(found) != 1:
        raise UsageError(
            f"the target has {len(found) or 'no'} system partitions with {INFO} and {SWITCH}",
            remedy="name the device or image that a USB image was written to",
        )
    return _read_system(found[0])


def _read_system(files: FileSystem) -> System:
    info, switch = files.find(INFO), files.find(SWITCH)
    words = files.read(info, TEXT_LIMIT).decode("ascii", "replace").split() if info else []
    text = files.read(switch, SECTOR).decode("ascii", "replace") if switch else ""
    match = SWITCH_TEXT.fullmatch(text)
    if len(words) < 3 or not match or len(text) != SECTOR:
        raise Damaged(f"{INFO} or {SWITCH} is not of the expected form: {plain(text[:60])}")
    return System(files, words[0], words[2], Switch(match[1], match[2] or ""))
