# SPDX-License-Identifier: GPL-3.0-or-later
"""The one form of tar archives in a kit: POSIX.1-1988 ustar, regular files alone.

Not by `tarfile`, whose bytes changed with Python's version.
"""

from pipeline.documents.malformed import Malformed

BLOCK = 512
RECORD = 20 * BLOCK  # an archive's length is a multiple of it
NAME_LIMIT = 100
PREFIX_LIMIT = 155
NUMBER_LIMIT = 8**11  # of a size in bytes, and of a time in seconds


def ustar_header(name: str, size: int, epoch: int) -> bytes:
    """Return the one header that a file of this name has: mode 0644, owner and group 0 unnamed.

    `size` is in bytes, `epoch` in seconds since 1970. Raise Malformed if no header can hold them.
    """
    if not (0 <= size < NUMBER_LIMIT and 0 <= epoch < NUMBER_LIMIT):
        raise Malformed(f"{name!r}: no ustar header holds the size {size} and the time {epoch}")
    prefix, short = _split(name)
    header = bytearray(BLOCK)
    for at, field in (
        (0, short.encode("ascii")),
        (100, b"0000644\0" + b"0000000\0" * 2),
        (124, b"%011o\0%011o\0" % (size, epoch)),
        (148, b" " * 8 + b"0"),
        (257, b"ustar\x0000"),
        (329, b"0000000\0" * 2),
        (345, prefix.encode("ascii")),
    ):
        header[at : at + len(field)] = field
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def _split(name: str) -> tuple[str, str]:
    """Return the fields prefix and name; the name takes as much as it can."""
    prefix, short = "", name
    if len(name) > NAME_LIMIT:
        cut = name.find("/", len(name) - NAME_LIMIT - 1)
        prefix, short = name[: max(cut, 0)], name[cut + 1 :]
    if not (0 < len(short) <= NAME_LIMIT and len(prefix) <= PREFIX_LIMIT and name.isascii()):
        raise Malformed(f"{name!r} has too long a name, or none in ASCII: no ustar header holds it")
    return prefix, short
