# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of kernel and initramfs on the system partition: `live/vmlinuz-<digest>`."""

import re

DIGEST_DIGITS = 12  # how many hexadecimal digits of the file's SHA-256 are in its name
NAMED_BY_CONTENT = re.compile(
    rf"\A(live/(?:vmlinuz|initrd))-[0-9a-f]{{{DIGEST_DIGITS}}}((?:\.img)?)\Z"
)


def without_digest(path: str) -> str:
    """Return a path of the system partition without the digest of the file's content."""
    return NAMED_BY_CONTENT.sub(r"\1\2", path)
