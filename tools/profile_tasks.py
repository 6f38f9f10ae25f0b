# SPDX-License-Identifier: GPL-3.0-or-later
"""The task that writes in which order a boot reads an image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.base.errors import ExitStatus
from pipeline.cli.task import farm_task, open_display, open_farm

if TYPE_CHECKING:
    from invoke.context import Context


@farm_task(ExitStatus.INPUTS_UNVERIFIED)
def profile_boot(
    _c: Context,
    image: str = "mini",
    iso: str | None = None,
    seconds: int = 0,
    source: str | None = None,
) -> None:
    """Boot an image's newest ISO and write in which order it reads its files: squashfs.sort.

    --iso boots this one, which says which image it is. --seconds ends the boot after so long,
    instead of when the system announces itself on its console. --source is the working tree of
    another repository that holds the image.
    """
    from tools import profile_boot as profiles

    path = profiles.profile_boot(
        open_farm(),
        image,
        open_display(),
        iso=Path(iso) if iso else None,
        seconds=seconds or None,
        tree=Path(source) if source else None,
    )
    print(f"{path} is written; commit it, and the next build packs these files first")
