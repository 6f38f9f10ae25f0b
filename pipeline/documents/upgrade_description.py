# SPDX-License-Identifier: GPL-3.0-or-later
"""Upgrade descriptions: whether, and how, a release can be upgraded; signed by the release key.

`upgrades/<from>.json` at the publish location is a DSSE envelope (`DESCRIPTION_TYPE`) around one
canonical JSON object; `docs/reference/documents.md` has its fields. Every release has one, the
newest too, so that no answer is never taken for "nothing newer". Each signature is a binary
detached OpenPGP signature over the envelope's pre-authentication encoding, made by gpg so that
smart cards work too, and named by the fingerprint of its key. A renewal may lie beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pipeline.documents.fields import Fields, time_text
from pipeline.documents.json_form import json_bytes, parse_json
from pipeline.documents.malformed import Malformed
from pipeline.documents.names import IMAGE, RELEASE, kit_name
from pipeline.documents.version import is_older

DESCRIPTION_TYPE = "application/vnd.twinbuild.upgrade+json"
FORMAT = "twinbuild-upgrade/2"
FIRST_FORMAT = "twinbuild-upgrade/1"  # before there were renewals
VALID_DAYS = 180  # where nobody renews it
RENEWED_DAYS = 30  # at a time, the first time too
RENEWABLE_DAYS = 365  # in all, before the release key has to sign again
MIB = 1024 * 1024
SIZE_LIMIT = 16 * 1024**3  # bytes of a kit


@dataclass(frozen=True)
class Offer:
    """A kit that leads from one release to a later one."""

    image: str
    architecture: str
    from_: str
    to: str
    size: int
    sha256: str

    @property
    def file(self) -> str:
        """The kit's name."""
        return kit_name(self.image, self.architecture, self.from_, self.to)

    @property
    def kit(self) -> str:
        """Where it is, relative to the publish location."""
        return f"{self.to}/{self.file}"


@dataclass(frozen=True)
class Renewable:
    """Who may renew a description (an ed25519 public key, hex), and how far."""

    key: str
    days: int  # at a time, from the renewal on
    until: datetime  # at the latest, however often it is renewed


@dataclass(frozen=True)
class Description:
    """What there is for systems installed from the release `from_`, and when that expires.

    `newest` is the newest release of the image when this was `issued`; `offer` is None where no
    kit leads on. `as_of` and `expires` are those of the renewal if it has one.
    """

    image: str
    architecture: str
    from_: str
    newest: str
    offer: Offer | None
    issued: datetime
    as_of: datetime
    expires: datetime
    renewable: Renewable | None

    @classmethod
    def read(cls, fields: Fields) -> Description:
        """Read its fields; raise Malformed."""
        if fields.format(FORMAT, FIRST_FORMAT) == FIRST_FORMAT:
            return _read_first(fields)
        start = _start(fields)
        newest = fields.text("newest", RELEASE)
        offer = None if fields.is_null("upgrade") else _offer(fields.object("upgrade"), start)
        renewable = None if fields.is_null("renewal") else _renewable(fields.object("renewal"))
        issued, expires = fields.time("issued"), fields.time("expires")
        fields.end()
        return cls(*start, newest, offer, issued, issued, expires, renewable)

    def __str__(self) -> str:
        """One line for people."""
        if self.offer:
            size = f"{self.offer.size / MIB:.1f} MiB"
            what = f"{self.from_} can be upgraded to {self.offer.to}: {self.offer.kit}, {size}"
            return f"{what}, until {time_text(self.expires)}"
        if self.newest == self.from_:
            what = f"nothing newer than {self.from_}"
        else:
            what = f"no upgrade from {self.from_}, and {self.newest} is the newest release"
        return f"{what}, as of {time_text(self.as_of)}, until {time_text(self.expires)}"


def describe(
    *,
    image: str,
    architecture: str,
    start: str,
    newest: str,
    offer: Offer | None,
    renewal_key: str | None,
    now: datetime,
) -> Description:
    """Return what there is from `start` on, valid from `now` on.

    With a `renewal_key` (ed25519, hex) it is valid for a short time, and that key may renew it.
    """
    now = now.astimezone(UTC).replace(microsecond=0)
    expires, renewable = now + timedelta(days=VALID_DAYS), None
    if renewal_key:
        expires = now + timedelta(days=RENEWED_DAYS)
        until = now + timedelta(days=RENEWABLE_DAYS)
        renewable = Renewable(renewal_key, RENEWED_DAYS, until)
    return Description(image, architecture, start, newest, offer, now, now, expires, renewable)


def description_bytes(description: Description) -> bytes:
    """Return the payload as it is written and signed."""
    offer, renewable = description.offer, description.renewable
    document: dict[str, Any] = {
        "format": FORMAT,
        "image": description.image,
        "architecture": description.architecture,
        "from": description.from_,
        "newest": description.newest,
        "issued": time_text(description.issued),
        "expires": time_text(description.expires),
        "upgrade": None,
        "renewal": None,
    }
    if offer:
        document["upgrade"] = {
            "to": offer.to,
            "kit": offer.kit,
            "size": offer.size,
            "sha256": offer.sha256,
        }
    if renewable:
        until = time_text(renewable.until)
        document["renewal"] = {"key": renewable.key, "days": renewable.days, "until": until}
    return json_bytes(document)


def read_description(payload: bytes) -> Description:
    """Return the description in a payload, without a renewal; raise Malformed if it is none."""
    found = Description.read(Fields(parse_json(payload)))
    highest = found.offer.to if found.offer else found.from_
    if is_older(found.newest, highest):
        raise Malformed(f"{found.newest} is older than {highest}, and cannot be the newest")
    return found


def _read_first(fields: Fields) -> Description:
    """Read the first format, which always names a kit and is valid for 180 days."""
    start = _start(fields)
    expires = fields.time("expires")
    offer = _offer(fields, start)
    try:
        issued = expires - timedelta(days=VALID_DAYS)
    except OverflowError as error:
        raise Malformed(f"expires is {time_text(expires)}") from error
    return Description(*start, offer.to, offer, issued, issued, expires, None)


def _start(fields: Fields) -> tuple[str, str, str]:
    image, architecture = fields.text("image", IMAGE), fields.text("architecture", IMAGE)
    return image, architecture, fields.text("from", RELEASE)


def _offer(fields: Fields, start: tuple[str, str, str]) -> Offer:
    to, size = fields.text("to", RELEASE), fields.number("size", 1, SIZE_LIMIT - 1)
    offer = Offer(*start, to, size, fields.sha256("sha256"))
    fields.exactly("kit", offer.kit)
    fields.end()
    return offer


def _renewable(fields: Fields) -> Renewable:
    found = Renewable(
        fields.sha256("key"), fields.number("days", 1, RENEWED_DAYS), fields.time("until")
    )
    fields.end()
    return found
