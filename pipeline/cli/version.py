# SPDX-License-Identifier: GPL-3.0-or-later
"""Twinbuild's own version, which is only in pyproject.toml."""

import tomllib
from importlib import metadata

from pipeline.base import places

PROJECT = places.PROGRAM / "pyproject.toml"


def version() -> str:
    """Return the version of the checkout that this is part of, or of the installed package."""
    if PROJECT.is_file():
        return str(tomllib.loads(PROJECT.read_text())["project"]["version"])
    return metadata.version("twinbuild")
