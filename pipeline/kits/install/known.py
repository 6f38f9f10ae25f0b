# SPDX-License-Identifier: GPL-3.0-or-later
"""The last verified upgrade description that this user's commands have seen, kept as it was.

It shows since when there has been no answer, and keeps a server from going back to an older
description that is still valid. Its signature is checked as that of a server's answer is.
"""

import os
from pathlib import Path

from pipeline.documents.fields import time_text
from pipeline.documents.upgrade_description import Description
from pipeline.documents.upgrade_file import UPGRADE_FILE_LIMIT
from pipeline.kits.install import description as descriptions
from pipeline.kits.install.description import Trust
from pipeline.kits.install.failure import Failure, InfrastructureFailed, SignatureInvalid
from pipeline.kits.install.files import write_bytes


def folder() -> Path:
    """Return where descriptions are kept: `twinbuild/upgrades` in the user's state folder."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state, "twinbuild", "upgrades")


def recall(image: str, start: str, trust: Trust) -> Description | None:
    """Return the description that was known last; None if there is none that `trust` accepts."""
    try:
        with _path(image, start, trust).open("rb") as file:
            found = descriptions.read(file.read(UPGRADE_FILE_LIMIT + 1), trust)
    except (OSError, Failure):
        return None
    return found if (found.image, found.from_) == (image, start) else None


def remember(found: Description, content: bytes, trust: Trust) -> None:
    """Keep a verified description; raise InfrastructureFailed if that is not possible."""
    path = _path(found.image, found.from_, trust)
    try:
        if not path.is_file() or path.read_bytes() != content:
            write_bytes(path, content)
    except OSError as error:
        raise InfrastructureFailed(
            f"cannot keep what is known about upgrades in {path}: {error.strerror}",
            remedy="let XDG_STATE_HOME name a folder that can be written",
        ) from error


def refuse_older(found: Description, before: Description | None) -> None:
    """Raise SignatureInvalid for a description older than the one that was known before."""
    if before and found.issued < before.issued:
        raise SignatureInvalid(
            f"the upgrade description from {found.from_} is of {time_text(found.issued)}, and one"
            f" of {time_text(before.issued)} was known before",
            remedy="the server, or what lies between, goes back in time: tell who runs it",
        )


def _path(image: str, start: str, trust: Trust) -> Path:
    # The release key keeps two projects apart that have images of one name.
    return folder() / (trust.fingerprint or "any") / f"{image}-{start}.json"
