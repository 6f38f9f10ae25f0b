# SPDX-License-Identifier: GPL-3.0-or-later
"""The one form of the times in upgrade descriptions and renewals: UTC, to the second."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from pipeline.documents.fields import Fields
from pipeline.documents.malformed import Malformed

TIME = re.compile(r"[0-9]{4}(-[0-9]{2}){2}T[0-9]{2}(:[0-9]{2}){2}Z")
TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"


def time_text(time: datetime) -> str:
    """Return a time as it is written."""
    return time.astimezone(UTC).strftime(TIME_FORMAT)


def read_time(fields: Fields, name: str) -> datetime:
    """Return the time in a field; raise Malformed if it is none."""
    text = fields.text(name, TIME)
    try:
        return datetime.strptime(text, TIME_FORMAT).replace(tzinfo=UTC)
    except ValueError as error:
        raise Malformed(f"{fields.path(name)} is no time: {text}") from error
