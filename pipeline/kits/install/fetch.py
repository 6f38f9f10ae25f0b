# SPDX-License-Identifier: GPL-3.0-or-later
"""Fetches a kit and keeps its description beside it, for `apply`."""

from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from pipeline.documents.digest import sha256_file
from pipeline.documents.upgrade_description import Offer
from pipeline.kits.install import http
from pipeline.kits.install.check import Upgrade
from pipeline.kits.install.failure import UsageError
from pipeline.kits.install.files import cannot_write, put_in_place, write_bytes


def fetch_kit(
    url: str, upgrade: Upgrade, directory: Path, progress: Callable[[int, int], None]
) -> Path | None:
    """Fetch the kit of an upgrade; return its path, None where no kit leads on.

    An interrupted download is resumed. Raise InputsUnverified if only wrong bytes are to
    be had, and keep nothing of them; UsageError if another file has the kit's name.
    """
    offer = upgrade.description.offer
    if offer is None:
        return None
    kit = directory / offer.file
    if kit.exists():
        if kit.stat().st_size != offer.size or sha256_file(kit) != offer.sha256:
            raise UsageError(f"{kit} is there and is another file", remedy="move it away")
    else:
        _download(f"{url.rstrip('/')}/{quote(offer.kit)}", offer, kit, progress)
    described = kit.with_name(f"{kit.name}.json")
    try:
        write_bytes(described, upgrade.envelope)
    except OSError as error:
        raise cannot_write(error, described) from error
    return kit


def _download(address: str, offer: Offer, kit: Path, progress: Callable[[int, int], None]) -> None:
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        progress(done, offer.size)

    part = kit.with_name(f"{kit.name}.part")
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
        http.download(address, part, size=offer.size, sha256=offer.sha256, advance=advance)
        put_in_place(part, kit)
    except OSError as error:
        raise cannot_write(error, part) from error
    finally:
        if part.exists() and not part.stat().st_size:
            part.unlink()
