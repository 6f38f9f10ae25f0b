# SPDX-License-Identifier: GPL-3.0-or-later
"""The fixtures of releases."""

from tests.releases import *  # noqa: F403
