# SPDX-License-Identifier: GPL-3.0-or-later
"""Upgrade descriptions and renewals: the bytes that are signed, and fields that are refused."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pipeline.documents.json_form import json_bytes
from pipeline.documents.malformed import Malformed
from pipeline.documents.upgrade_description import (
    Offer,
    describe,
    description_bytes,
    read_description,
)
from pipeline.documents.upgrade_renewal import read_renewal, renew, renewal_bytes

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
DESCRIPTION = describe(
    image="mini",
    architecture="amd64",
    start="3.1",
    newest="3.3",
    offer=Offer("mini", "amd64", "3.1", "3.2", 5, "a" * 64),
    renewal_key="b" * 64,
    now=NOW,
)
WRITTEN = b"""\
{
  "architecture": "amd64",
  "expires": "2026-12-22T12:00:00Z",
  "format": "twinbuild-upgrade/2",
  "from": "3.1",
  "image": "mini",
  "issued": "2026-11-22T12:00:00Z",
  "newest": "3.3",
  "renewal": {
    "days": 30,
    "key": "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",
    "until": "2027-11-22T12:00:00Z"
  },
  "upgrade": {
    "kit": "3.2/mini-amd64-3.1-to-3.2.iuk",
    "sha256": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "size": 5,
    "to": "3.2"
  }
}
"""
RENEWAL = b"""\
{
  "description_sha256": "c117e124c63dd4d5da50b28d21aa00b630005cc942517eb5bcf006d595744a28",
  "expires": "2026-12-23T12:00:00Z",
  "format": "twinbuild-renewal/1",
  "issued": "2026-11-23T12:00:00Z"
}
"""


def test_a_description_is_written_and_read_in_one_form() -> None:
    assert description_bytes(DESCRIPTION) == WRITTEN
    assert read_description(WRITTEN) == DESCRIPTION


def test_what_is_not_there_is_null() -> None:
    document = json.loads(WRITTEN) | {"upgrade": None, "renewal": None, "newest": "3.1"}
    found = read_description(json_bytes(document))
    assert (found.offer, found.renewable) == (None, None)
    assert description_bytes(found) == json_bytes(document)


@pytest.mark.parametrize(
    ("path", "value", "where"),
    [
        (("format",), "twinbuild-upgrade/0", "format is 'twinbuild-upgrade/0'"),
        (("format",), "twinbuild-upgrade/9", "twinbuild-upgrade/9, written by a later Twinbuild"),
        (("upgrade", "size"), True, "upgrade.size is True"),
        (("upgrade", "kit"), "x", "upgrade.kit is not 3.2/mini-amd64-3.1-to-3.2.iuk"),
        (("upgrade", "from"), "3.1", "upgrade.from does not belong there"),
        (("renewal", "days"), 31, "renewal.days is 31"),
        (("renewal", "until"), "2027-02-30T12:00:00Z", "renewal.until is no time"),
        (("expires",), 5, "expires is 5"),
        (("newest",), "3.1", "3.1 is older than 3.2"),
    ],
)
def test_a_malformed_field_is_named(path: tuple[str, ...], value: Any, where: str) -> None:
    document: Any = json.loads(WRITTEN)
    inner = document
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    with pytest.raises(Malformed, match=where):
        read_description(json_bytes(document))


def test_a_renewal_is_written_and_read_in_one_form() -> None:
    assert DESCRIPTION.renewable is not None
    renewal = renew(WRITTEN, DESCRIPTION.renewable, NOW + timedelta(days=1))
    assert renewal_bytes(renewal) == RENEWAL
    assert read_renewal(RENEWAL) == renewal
    assert not renewal.exceeds(DESCRIPTION.renewable, NOW)
    assert renewal.exceeds(DESCRIPTION.renewable, NOW + timedelta(days=2))
    with pytest.raises(Malformed, match="more does not belong there"):
        read_renewal(json_bytes(json.loads(RENEWAL) | {"more": 1}))
