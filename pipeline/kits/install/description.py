# SPDX-License-Identifier: GPL-3.0-or-later
"""Upgrade descriptions: what the release key says about the way from one release to the newest.

`upgrades/<from>.json` at the publish location is a DSSE envelope (payload type below) around one
canonical JSON object; `docs/reference/documents.md` has its fields. Every release has one, the
newest too, so that no answer is never taken for "nothing newer". Each signature is a binary
detached OpenPGP signature over the envelope's pre-authentication encoding, made by gpg so that
smart cards work too, and named by the fingerprint of its key. A renewal may lie beside it.
"""

import tempfile
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from pipeline.base import gpgv, openpgp
from pipeline.base.errors import InputsUnverified, SignatureInvalid
from pipeline.base.plain import plain
from pipeline.documents.json_form import json_bytes, parse_json
from pipeline.documents.signatures import Untrusted, dearmour, read_keyring
from pipeline.documents.version import is_older
from pipeline.farm.config import Name, ReleaseTag
from pipeline.kits.install import envelope, renewal
from pipeline.kits.install.envelope import LIMIT, Time, read_time, time_text
from pipeline.kits.install.renewal import Renewable

PAYLOAD_TYPE = "application/vnd.twinbuild.upgrade+json"
WHAT = "the upgrade description"
KEYRING_LIMIT = 64 * 1024 * 1024
VALID_DAYS = 180  # where nobody renews it
RENEWED_DAYS = 30  # at a time, the first time too
RENEWABLE_DAYS = 365  # in all, before the release key has to sign again
CLOCKS_APART = timedelta(minutes=5)
MIB = 1024 * 1024
SIZE_LIMIT = 16 * 1024**3
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


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
        return f"{self.image}-{self.architecture}-{self.from_}-to-{self.to}.iuk"

    @property
    def kit(self) -> str:
        """Where it is, relative to the publish location."""
        return f"{self.to}/{self.file}"


@dataclass(frozen=True)
class Description:
    """What there is for systems installed from the release `from_`, and how long that holds.

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


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class _Kit(_Part):
    to: ReleaseTag
    kit: str
    size: Annotated[int, Field(gt=0, lt=SIZE_LIMIT)]
    sha256: Sha256


class _Renewable(_Part):
    key: Sha256  # 32 bytes in hexadecimal
    days: Annotated[int, Field(gt=0, le=RENEWED_DAYS)]
    until: Time


class _Written(_Part):
    """The payload."""

    format: Literal["twinbuild-upgrade/2"] = "twinbuild-upgrade/2"
    image: Name
    architecture: Name
    from_: ReleaseTag = Field(alias="from")
    newest: ReleaseTag
    upgrade: _Kit | None
    issued: Time
    expires: Time
    renewal: _Renewable | None

    @classmethod
    def of(cls, said: Description) -> Self:
        """Return a description as it is written."""
        offer, renewable = said.offer, said.renewable
        document: dict[str, Any] = {
            "image": said.image,
            "architecture": said.architecture,
            "from": said.from_,
            "newest": said.newest,
            "issued": time_text(said.issued),
            "expires": time_text(said.expires),
            "upgrade": None,
            "renewal": None,
        }
        if offer:
            document["upgrade"] = {"to": offer.to, "kit": offer.kit}
            document["upgrade"] |= {"size": offer.size, "sha256": offer.sha256}
        if renewable:
            document["renewal"] = {"key": renewable.key, "days": renewable.days}
            document["renewal"]["until"] = time_text(renewable.until)
        return cls.model_validate(document)

    def read(self) -> Description:
        """Return what is written; raise ValueError if it contradicts itself."""
        offer = renewable = None
        if self.upgrade:
            kit = self.upgrade
            offer = Offer(self.image, self.architecture, self.from_, kit.to, kit.size, kit.sha256)
            if kit.kit != offer.kit:
                raise ValueError(f"the kit is not {offer.kit}")
        if self.renewal:
            until = read_time(self.renewal.until)
            renewable = Renewable(self.renewal.key, self.renewal.days, until)
        highest = offer.to if offer else self.from_
        if is_older(self.newest, highest):
            raise ValueError(f"{self.newest} is older than {highest}, and cannot be the newest")
        issued, expires = read_time(self.issued), read_time(self.expires)
        names = self.image, self.architecture, self.from_, self.newest
        return Description(*names, offer, issued, issued, expires, renewable)


class _WrittenFirst(_Part):
    """The payload before there were renewals; always of a kit, and valid for 180 days."""

    format: Literal["twinbuild-upgrade/1"]
    image: Name
    architecture: Name
    from_: ReleaseTag = Field(alias="from")
    to: ReleaseTag
    kit: str
    size: Annotated[int, Field(gt=0, lt=SIZE_LIMIT)]
    sha256: Sha256
    expires: Time

    def read(self) -> Description:
        """Return what is written; raise ValueError or OverflowError if it is nonsense."""
        offer = Offer(self.image, self.architecture, self.from_, self.to, self.size, self.sha256)
        if self.kit != offer.kit:
            raise ValueError(f"the kit is not {offer.kit}")
        expires = read_time(self.expires)
        issued = expires - timedelta(days=VALID_DAYS)
        names = self.image, self.architecture, self.from_, self.to
        return Description(*names, offer, issued, issued, expires, None)


@dataclass(frozen=True)
class Trust:
    """Whose signature counts: public keys in binary form, or of them one alone."""

    keyring: bytes
    fingerprint: str | None = None


def load_trust(keyring: Path | None, fingerprint: str | None) -> Trust:
    """Return whose signature counts; raise SignatureInvalid without a readable keyring."""
    if keyring is None:
        raise SignatureInvalid(
            "no keyring was given", remedy="--keyring FILE: the release key, from someone you trust"
        )
    try:
        with keyring.open("rb") as file:
            packets = dearmour(file.read(KEYRING_LIMIT))
        read_keyring(packets)
    except OSError as error:
        raise SignatureInvalid(f"cannot read {keyring}: {error.strerror}") from error
    except ValueError as error:
        raise SignatureInvalid(f"{keyring} is not a keyring: {error}") from error
    return Trust(packets, fingerprint)


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

    With a `renewal_key` (ed25519, hex) it holds for a short time, and that key may renew it.
    """
    now = now.astimezone(UTC).replace(microsecond=0)
    expires, renewable = now + timedelta(days=VALID_DAYS), None
    if renewal_key:
        expires = now + timedelta(days=RENEWED_DAYS)
        until = now + timedelta(days=RENEWABLE_DAYS)
        renewable = Renewable(renewal_key, RENEWED_DAYS, until)
    return Description(image, architecture, start, newest, offer, now, now, expires, renewable)


def sign(description: Description, gpg: openpgp.Gpg, fingerprint: str) -> bytes:
    """Return the signed envelope as it is published; raise SignatureInvalid if gpg cannot sign."""
    written = _Written.of(description).model_dump(by_alias=True)
    return sign_payload(json_bytes(written), gpg, fingerprint)


def sign_payload(payload: bytes, gpg: openpgp.Gpg, fingerprint: str) -> bytes:
    """Return the signed envelope of a payload."""
    with tempfile.TemporaryDirectory(prefix="twinbuild-") as folder:
        document = Path(folder, "description")
        document.write_bytes(envelope.encoded(PAYLOAD_TYPE, payload))
        openpgp.sign(gpg, fingerprint, document)
        signature = dearmour(document.with_name("description.asc").read_bytes())
    return json_bytes(envelope.make(PAYLOAD_TYPE, payload, fingerprint, signature))


def check(content: bytes, trust: Trust, now: datetime) -> Description:
    """Return the description in a file that a trusted key has signed and that still holds.

    Raise SignatureInvalid if no trusted key has, or if it is from the future, has expired or has a
    renewal that does not count; InputsUnverified if it is malformed or leads to an older release.
    """
    found = read(content, trust)
    if found.as_of > now + CLOCKS_APART:
        raise SignatureInvalid(
            f"{WHAT} is from the future, {time_text(found.as_of)}",
            remedy="check this machine's clock; if it is right, tell who runs the server",
        )
    if found.expires <= now:
        raise SignatureInvalid(
            f"{WHAT} from {found.from_} has expired on {time_text(found.expires)}",
            remedy="check this machine's clock; if it is right, the server withholds newer ones",
        )
    return found


def read(content: bytes, trust: Trust) -> Description:
    """Return the description in a file that a trusted key has signed, whatever the time is now.

    Raise what `check` raises but for the times.
    """
    document = _parse(content)
    parsed = envelope.parse(document, PAYLOAD_TYPE, WHAT)
    signed = envelope.encoded(PAYLOAD_TYPE, parsed.payload)
    _check_signatures(signed, parsed.signatures, trust)
    found = _read_payload(parsed.payload)
    if found.offer and not is_older(found.from_, found.offer.to):
        raise InputsUnverified(
            f"{WHAT} leads from {found.from_} to {found.offer.to}, which is not newer"
        )
    beside = document.get("renewal")
    if beside is None:
        return found
    if found.renewable is None:
        raise SignatureInvalid(f"{WHAT} has a renewal, and lets nobody renew it")
    renewed = renewal.read(beside, parsed.payload, found.issued, found.renewable)
    return replace(found, as_of=renewed.issued, expires=max(found.expires, renewed.expires))


def with_renewal(content: bytes, found: Renewable, now: datetime, sign: renewal.Sign) -> bytes:
    """Return a description's file with a new renewal in place of the one that it may have."""
    document = _parse(content)
    parsed = envelope.parse(document, PAYLOAD_TYPE, WHAT)
    return json_bytes({**document, "renewal": renewal.make(parsed.payload, found, now, sign)})


def _parse(content: bytes) -> dict[str, Any]:
    try:
        if len(content) > LIMIT:
            raise ValueError(f"it is larger than {LIMIT} bytes")  # noqa: TRY301
        document = parse_json(content)
        if not isinstance(document, dict):
            raise ValueError("it is not a JSON object")  # noqa: TRY301, TRY004
    except (ValueError, RecursionError) as error:
        raise SignatureInvalid(plain(f"{WHAT} is no DSSE envelope: {error}")) from error
    return document


def _read_payload(payload: bytes) -> Description:
    try:
        document = parse_json(payload)
        first = isinstance(document, dict) and document.get("format") == "twinbuild-upgrade/1"
        model = _WrittenFirst if first else _Written
        return model.model_validate(document).read()
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        why = f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}"
    except (ValueError, OverflowError, RecursionError) as error:
        why = str(error)
    raise InputsUnverified(plain(f"{WHAT} is malformed: {why}"))


def _check_signatures(signed: bytes, signatures: tuple[bytes, ...], trust: Trust) -> None:
    """Raise SignatureInvalid unless one of the signatures is good and by a trusted key."""
    refusals = []
    for signature in signatures:
        try:
            made = gpgv.check_detached(signed, signature, trust.keyring)
            if any(each.is_by(trust.fingerprint) for each in made):
                return
            refusals.append(f"the signature is by {made[0].primary}, not by {trust.fingerprint}")
        except Untrusted as error:
            refusals.append(plain(str(error)))
    raise SignatureInvalid(
        f"{WHAT} is not signed by a trusted key: {refusals[0]}",
        remedy="give the release key with --keyring, from someone you trust",
    )
