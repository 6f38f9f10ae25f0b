# SPDX-License-Identifier: GPL-3.0-or-later
"""Tells how long the signed indices of a lock are valid, as a line of text."""

from datetime import UTC, datetime

from pipeline.documents.lock import Suite
from pipeline.inputs.signed_release import SignedRelease

DAY_S = 24 * 3600


def tell_validity(release: SignedRelease | None, suite: Suite) -> str:
    """Tell when a suite of a lock was signed, and for how many days its signed index is valid.

    `release` is its verified InRelease, None if no address still has it.
    """
    name = f"{suite.archive} {suite.suite}"
    if release is None:
        return (
            f"{name}: the InRelease of {_shown(suite.date)} is gone, and no snapshot can be made;"
            " lock anew, or set snapshot_urls in farm.yaml"
        )
    return f"{name}: signed {_shown(suite.date)}, {days_left(release.valid_until)}"


def days_left(until: datetime | None, now: datetime | None = None) -> str:
    """Tell until when an index is valid, and how many whole days are left at `now`."""
    if until is None:
        return "valid without end"
    left = (until - (now or datetime.now(UTC))).total_seconds() / DAY_S
    if left < 0:
        return f"valid until {_shown(until)}: expired, so lock anew for updates since then"
    return f"valid until {_shown(until)}: {int(left)} days left"


def _shown(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M} UTC"
