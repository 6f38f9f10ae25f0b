# SPDX-License-Identifier: GPL-3.0-or-later
"""The folder of this user's cache: the store, fetched repositories, locks."""

import os
from pathlib import Path


def default_cache() -> Path:
    """Return the cache folder: `TWINBUILD_CACHE`, or `twinbuild` in the user's cache."""
    configured = os.environ.get("TWINBUILD_CACHE")
    if configured:
        return Path(configured).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "twinbuild"
