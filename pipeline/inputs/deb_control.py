# SPDX-License-Identifier: GPL-3.0-or-later
"""The control file of a binary package: `control` in `control.tar` in an ar archive (deb(5))."""

import re
from pathlib import Path
from typing import BinaryIO

from debian.deb822 import Deb822

from pipeline.inputs.tar_members import read_members
from pipeline.inputs.unpacked import Unreadable, unpacked
from pipeline.look.formats import ar
from pipeline.look.formats.source import BadFormat

PARTS_LIMIT = 10  # debian-binary, control.tar, data.tar, and any extensions
CONTROL_LIMIT = 4 * 1024 * 1024  # a Rust crate may have thousands of Provides
PART = re.compile(rb"control\.tar(?:\.(gz|xz|bz2|zst))?")


def read_control(path: Path) -> Deb822:
    """Return the fields of a package's control file; raise Unreadable if it has none."""
    try:
        with path.open("rb") as file:
            return _control(file)
    except (OSError, ValueError) as error:
        raise Unreadable(str(error)) from error


def _control(file: BinaryIO) -> Deb822:
    with unpacked(file, _find_control(file)) as archive:
        for member in read_members(archive):
            if member.is_file and member.name.removeprefix("./") == "control":
                return Deb822(member.read(CONTROL_LIMIT).decode())
    raise Unreadable("its control.tar has no file control")


def _find_control(file: BinaryIO) -> str:
    """Seek to the content of control.tar; return its compression, "" if there is none."""
    if file.read(len(ar.MAGIC)) != ar.MAGIC:
        raise Unreadable("it is no package")
    for _ in range(PARTS_LIMIT):
        try:
            header = ar.read_header(file.read(ar.HEADER))
        except BadFormat:
            break
        if part := PART.fullmatch(header.name.rstrip(b"/")):
            return (part[1] or b"").decode()
        file.seek(header.size + header.size % 2, 1)
    raise Unreadable("it has no control.tar")
