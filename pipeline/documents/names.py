# SPDX-License-Identifier: GPL-3.0-or-later
"""How images, architectures and releases are named."""

import re

IMAGE = re.compile(r"[a-z][a-z0-9-]{0,39}")  # of an architecture, too
RELEASE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,79}")  # the tag
