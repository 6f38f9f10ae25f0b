# SPDX-License-Identifier: GPL-3.0-or-later
"""Addresses that the operator names: in a file, a variable or an option."""

from pipeline.base.errors import UsageError
from pipeline.documents.plain import plain
from pipeline.documents.web_address import WebAddress, parse


def parse_named(url: str) -> WebAddress:
    """Parse an address that the operator names; raise UsageError if it is malformed."""
    try:
        return parse(url)
    except ValueError as error:
        shown = plain(url.rpartition("@")[2], limit=200)
        raise UsageError(f"{shown} is no address to fetch from: {error}") from error
