# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks where releases are published for an upgrade; believes only what the release key signed.

No answer is not "nothing newer": every release has a signed description, and where there is none
nobody can tell.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote

from pipeline.documents.fields import time_text
from pipeline.documents.names import RELEASE
from pipeline.documents.plain import plain
from pipeline.documents.upgrade_description import Description
from pipeline.documents.upgrade_file import UPGRADE_FILE_LIMIT
from pipeline.kits.install import description as descriptions
from pipeline.kits.install import http, known
from pipeline.kits.install.description import CLOCKS_APART, Trust
from pipeline.kits.install.failure import (
    InfrastructureFailed,
    InputsUnverified,
    SignatureInvalid,
    UsageError,
)

ARCHITECTURE = "amd64"  # the only one that is built
ADDRESS = re.compile(r"https?://[^\s?#]+")


@dataclass(frozen=True)
class Upgrade:
    """A verified description, and the file that it is in."""

    description: Description
    envelope: bytes


def check_upgrade(url: str, start: str, image: str, trust: Trust, now: datetime) -> Upgrade:
    """Return the description for systems installed from the release `start`, and remember it.

    Raise InfrastructureFailed if nobody can tell, since there is no answer or no description;
    SignatureInvalid if no trusted key has signed it, it has expired, is from the future or is older
    than one that was known; InputsUnverified if it is for something else.
    """
    if not ADDRESS.fullmatch(url):
        raise UsageError(f"{plain(url)} is no http or https address")
    if not RELEASE.fullmatch(start):
        raise UsageError(f"{plain(start)} cannot be the name of a release")
    before = known.recall(image, start, trust)
    _check_clock(before, now)
    address = f"{url.rstrip('/')}/upgrades/{quote(start)}.json"
    content = _ask(address, start, before)
    found = descriptions.check(content, trust, now)
    names = (found.image, found.architecture, found.from_)
    if names != (image, ARCHITECTURE, start):
        raise InputsUnverified(
            f"{address} is for {' '.join(names)}, not for {image} {ARCHITECTURE} {start}",
            remedy="tell who runs the server",
        )
    known.refuse_older(found, before)
    known.remember(found, content, trust)
    return Upgrade(found, content)


def _ask(address: str, start: str, before: Description | None) -> bytes:
    try:
        return http.get(address, limit=UPGRADE_FILE_LIMIT)
    except http.NotFound as error:
        why = f"{address} does not exist"
        remedy = f"see that {start} was released there; every release has a description"
        detail = error.detail
    except InfrastructureFailed as error:
        why = error.what
        remedy = error.remedy or "try again later, or ask who publishes"
        detail = error.detail
    last = f"last known: {before}" if before else "nothing was ever known here"
    raise InfrastructureFailed(
        f"cannot tell whether there is an upgrade from {start}: {why} ({last})",
        remedy=remedy,
        detail=detail,
    )


def _check_clock(before: Description | None, now: datetime) -> None:
    """Raise SignatureInvalid if this machine's clock is behind what it has seen signed."""
    if before and before.as_of > now + CLOCKS_APART:
        raise SignatureInvalid(
            f"this machine's clock says {time_text(now)}, and it has seen an upgrade description"
            f" of {time_text(before.as_of)}",
            remedy="set the clock: what has expired would seem to hold",
        )
