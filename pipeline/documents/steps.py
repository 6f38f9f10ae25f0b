# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps of a build that both sides know by name."""

PACKAGES = "15-packages"  # what builds the image's own packages; a step for each source follows
# Where sources lie in the tree that builds them, the build path below it: a root directory may have
# file systems mounted anywhere but here.
BUILD_FOLDER = "build"
BOOTSTRAP = "20-bootstrap"  # the first step of the tree, which depends on the lock alone

LAST_KEPT = "50-initramfs"  # what follows is fast, and settles times as no kept tree shows
