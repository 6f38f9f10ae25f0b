# SPDX-License-Identifier: GPL-3.0-or-later
"""What an upgrade kit says of itself."""

KIT_FORMAT = "twinbuild-kit/1"
