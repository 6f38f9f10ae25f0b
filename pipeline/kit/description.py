"""Upgrade descriptions: what the release key says about the way from one release to the newest.

`upgrades/<from>.json` at the publish location is a DSSE envelope (payload type below) around one
canonical JSON object; `docs/reference/kit-commands.md` has its fields. Each signature is a binary
detached OpenPGP signature over the envelope's pre-authentication encoding, made by gpg so that
smart cards work too, and named by the fingerprint of its key.
"""

import base64
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from pipeline import gpgv, openpgp
from pipeline.config import Name, ReleaseTag
from pipeline.errors import InputsUnverified, SignatureInvalid
from pipeline.files import json_bytes, parse_json
from pipeline.plain import plain
from pipeline.signatures import Untrusted, dearmour, read_keyring
from pipeline.version import is_older

PAYLOAD_TYPE = "application/vnd.twinbuild.upgrade+json"
LIMIT = 64 * 1024  # bytes of an envelope
KEYRING_LIMIT = 64 * 1024 * 1024
SIGNATURES_LIMIT = 4  # two keys while one follows the other
VALID_DAYS = 180
TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
MIB = 1024 * 1024
SIZE_LIMIT = 16 * 1024**3
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Time = Annotated[
    str, StringConstraints(pattern=r"^[0-9]{4}(-[0-9]{2}){2}T[0-9]{2}(:[0-9]{2}){2}Z$")
]


class Description(BaseModel):
    """The way from the release `from` to the newest one: which kit, and until when this holds."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: Literal["twinbuild-upgrade/1"] = "twinbuild-upgrade/1"
    image: Name
    architecture: Name
    from_: ReleaseTag = Field(alias="from")
    to: ReleaseTag
    kit: str  # relative to the publish location
    size: Annotated[int, Field(gt=0, lt=SIZE_LIMIT)]
    sha256: Sha256
    expires: Time

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if self.kit != f"{self.to}/{self.file}":
            raise ValueError(f"the kit is not {self.to}/{self.file}")
        datetime.strptime(self.expires, TIME_FORMAT)  # noqa: DTZ007
        return self

    @property
    def file(self) -> str:
        """The kit's name."""
        return f"{self.image}-{self.architecture}-{self.from_}-to-{self.to}.iuk"

    def __str__(self) -> str:
        """One line for people."""
        size = f"{self.size / MIB:.1f} MiB"
        return (
            f"{self.from_} can be upgraded to {self.to}: {self.kit}, {size}, until {self.expires}"
        )

    @property
    def expiry(self) -> datetime:
        """When it ends to hold."""
        return datetime.strptime(self.expires, TIME_FORMAT).replace(tzinfo=UTC)


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
    *, image: str, architecture: str, start: str, to: str, size: int, sha256: str, now: datetime
) -> Description:
    """Return the description of the kit that leads from `start` to `to`, valid from `now` on."""
    expires = (now + timedelta(days=VALID_DAYS)).astimezone(UTC).strftime(TIME_FORMAT)
    name = f"{image}-{architecture}-{start}-to-{to}.iuk"
    document = {"image": image, "architecture": architecture, "from": start, "to": to}
    document |= {"kit": f"{to}/{name}", "expires": expires, "sha256": sha256}
    return Description.model_validate({**document, "size": size})


def sign(description: Description, gpg: openpgp.Gpg, fingerprint: str) -> bytes:
    """Return the signed envelope as it is published; raise SignatureInvalid if gpg cannot sign."""
    payload = json_bytes(description.model_dump(by_alias=True))
    with tempfile.TemporaryDirectory(prefix="twinbuild-") as folder:
        document = Path(folder, "description")
        document.write_bytes(encoded(payload))
        openpgp.sign(gpg, fingerprint, document)
        signature = dearmour(document.with_name("description.asc").read_bytes())
    return json_bytes(
        {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"keyid": fingerprint, "sig": base64.b64encode(signature).decode()}],
        }
    )


def encoded(payload: bytes) -> bytes:
    """Return what is signed: DSSE's pre-authentication encoding of a payload."""
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def check(envelope: bytes, trust: Trust, now: datetime) -> Description:
    """Return the description in an envelope that a trusted key has signed and that still holds.

    Raise SignatureInvalid if no trusted key has or it has expired, InputsUnverified if it leads to
    an older release or is malformed.
    """
    payload, signatures = _opened(envelope)
    _check_signatures(encoded(payload), signatures, trust)
    try:
        description = Description.model_validate_json(payload)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(map(str, fault["loc"]))
        raise InputsUnverified(
            plain(f"the upgrade description is malformed: {where}: {fault['msg']}")
        ) from error
    if description.expiry <= now:
        raise SignatureInvalid(
            f"the upgrade description to {description.to} has expired on {description.expires}",
            remedy="check this machine's clock; if it is right, the server withholds newer ones",
        )
    if not is_older(description.from_, description.to):
        raise InputsUnverified(
            f"the upgrade description leads from {description.from_} to {description.to},"
            " which is not newer"
        )
    return description


def _opened(envelope: bytes) -> tuple[bytes, list[bytes]]:
    """Return payload and signatures of an envelope."""
    try:
        if len(envelope) > LIMIT:
            raise ValueError(f"it is larger than {LIMIT} bytes")  # noqa: TRY301
        document: Any = parse_json(envelope)
        signatures = [base64.b64decode(s["sig"], validate=True) for s in document["signatures"]]
        if document["payloadType"] != PAYLOAD_TYPE or not 0 < len(signatures) <= SIGNATURES_LIMIT:
            raise ValueError("it has another type, or no signature or too many")  # noqa: TRY301
        return base64.b64decode(document["payload"], validate=True), signatures
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        what = plain(f"the upgrade description is no DSSE envelope: {error}")
        raise SignatureInvalid(what) from error


def _check_signatures(signed: bytes, signatures: list[bytes], trust: Trust) -> None:
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
        f"the upgrade description is not signed by a trusted key: {refusals[0]}",
        remedy="give the release key with --keyring, from someone you trust",
    )
