# SPDX-License-Identifier: GPL-3.0-or-later
"""Goes back to the release that booted before the last upgrade: one sector, as an upgrade ends."""

from pathlib import Path

from pipeline.kits.install.failure import InfrastructureFailed, UsageError
from pipeline.kits.install.system import Switch, System, open_system


def roll_back(target: Path) -> Switch:
    """Let the installed system on an image file or device boot the release before; return both.

    Doing it twice returns to where it was. Raise UsageError if there is no release to go back to,
    InfrastructureFailed if it is not complete any more.
    """
    with open_system(target) as (system, _):
        version, previous = system.switch.version, system.switch.previous
        if not previous:
            raise UsageError(f"there is no release before {version} on the target")
        missing = system.missing(previous) or _damaged(system, previous)
        if missing:
            raise InfrastructureFailed(
                f"{previous} does not boot any more: {missing[0]} is gone or damaged",
                remedy=f"stay with {version}",
            )
        system.turn(Switch(previous, version))
        return system.switch


def _damaged(system: System, version: str) -> list[str]:
    """Return the files of a release whose content is not the one that their names state."""
    found = []
    for path in sorted(system.needs(version)):
        name, file = path.rpartition("/")[2], system.files.find(path)
        _, dash, rest = name.partition("-")
        if name.startswith(("vmlinuz-", "initrd-")) and dash and file:
            digest = rest.removesuffix(".img")
            if not system.files.digest(file).startswith(digest):
                found.append(path)
    return found
