# SPDX-License-Identifier: GPL-3.0-or-later
"""How images, architectures, releases and kits are named."""

from __future__ import annotations

import re

IMAGE = re.compile(r"[a-z][a-z0-9-]{0,39}")  # of an architecture, too
RELEASE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,79}")  # the tag


def kit_name(image: str, architecture: str, start: str, to: str) -> str:
    """Return the name of the kit that leads from the release `start` to the release `to`."""
    return f"{image}-{architecture}-{start}-to-{to}.iuk"
