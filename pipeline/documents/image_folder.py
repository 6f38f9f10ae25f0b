# SPDX-License-Identifier: GPL-3.0-or-later
"""What the folder of an image, `images/live/<name>/`, may hold."""

import re

# Which files come first in the image's SquashFS, a path and a priority a line.
SORT_FILE = "squashfs.sort"
PRIORITIES = range(-(2**15), 2**15)

# The parts of a live-build configuration tree that a build or its lock applies.
IMAGE_PARTS = frozenset(
    {
        "apt",
        "archives",
        "exclude",
        "hooks",
        "image.yaml",
        "includes.binary",
        "includes.chroot",
        "includes.chroot_after_packages",
        "lock",
        "package-lists",
        "packages",
        "packages.chroot",
        "preferences",
        "README.md",
        SORT_FILE,
    }
)


def sort_line(path: str, priority: int) -> str:
    """Return a line of an image's SORT_FILE, with a backslash before each special character."""
    return re.sub(r'([\s"\\#])', r"\\\1", path) + f" {priority}\n"
