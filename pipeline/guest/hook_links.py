# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks the symbolic links among an image's hooks: they must lead to hooks of the same commit."""

from pathlib import Path

from pipeline.documents.progress import STATUS_BUILD_FAILED
from pipeline.guest.serial_port import StepFailed


def check_hook_links(hooks: Path, source: Path) -> None:
    """Raise StepFailed for a link below `hooks` that is not to a file in the `source`.

    A hook may be a link to one that images share. A link out of the commit would lead to a file of
    the machine, and a folder behind a link is not searched for hooks.
    """
    inside = source.resolve()
    for path in sorted(hooks.rglob("*")) if hooks.is_dir() else []:
        if path.is_symlink() and (fault := _fault(path, inside)):
            what = f"{path.relative_to(source)} is a link to {path.readlink()}, {fault}"
            raise StepFailed(STATUS_BUILD_FAILED, what)


def _fault(link: Path, inside: Path) -> str:
    try:
        target = link.resolve(strict=True)
    except (OSError, RuntimeError):  # for a loop of links, depending on the Python version
        target = None
    absolute = link.readlink().is_absolute()
    if absolute or (target and not target.is_relative_to(inside)):
        return "out of the commit: put a hook that images share into hooks/chroot"
    if target is None:
        return "which is not there"
    return "" if target.is_file() else "which is no file: link the hooks themselves"
