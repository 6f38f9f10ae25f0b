# SPDX-License-Identifier: GPL-3.0-or-later
"""The system partition of an image: how files are named there, and which release boots."""

import re

# Kernel and initramfs are named by their content: so many digits of their SHA-256 are in the name.
DIGEST_DIGITS = 12
NAMED_BY_CONTENT = re.compile(
    rf"\A(live/(?:vmlinuz|initrd))-[0-9a-f]{{{DIGEST_DIGITS}}}((?:\.img)?)\Z"
)

PARTITION_LIST_LIMIT = 16 * 1024 * 1024  # bytes of the list of its files

# Which release an installed system boots: one sector, which a disk writes whole or not at all.
SWITCH = "boot/grub/current.cfg"
SWITCH_SIZE = 512  # bytes


def switch(version: str, previous: str = "") -> bytes:
    """Return the switch: the sector that names the release that boots, and the one before it."""
    return f"set version={version}\nset previous={previous}\n".encode().ljust(SWITCH_SIZE, b"\n")


def without_digest(path: str) -> str:
    """Return a path of the system partition without the digest of the file's content."""
    return NAMED_BY_CONTENT.sub(r"\1\2", path)
