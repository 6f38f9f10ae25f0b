"""Asks where releases are published for an upgrade; believes only what the release key signed."""

from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote

from pydantic import TypeAdapter, ValidationError

from pipeline.config import HttpUrl, ReleaseTag
from pipeline.errors import InputsUnverified, UsageError
from pipeline.kit import description as descriptions
from pipeline.kit.description import Description, Trust
from pipeline.plain import plain
from pipeline.transfer import Client, Missing

ARCHITECTURE = "amd64"  # the only one there is


@dataclass(frozen=True)
class Upgrade:
    """A verified description, and the signed envelope that it came in."""

    description: Description
    envelope: bytes


def check_upgrade(url: str, start: str, image: str, trust: Trust, now: datetime) -> Upgrade:
    """Return what leads on from the release `start`.

    Raise SignatureInvalid if no trusted key has signed it or it has expired, InputsUnverified if
    it is for something else, Missing if there is none, InfrastructureFailed if nobody answers.
    """
    try:
        TypeAdapter(HttpUrl).validate_python(url)
        TypeAdapter(ReleaseTag).validate_python(start)
    except ValidationError as error:
        what = f"{plain(url)} is no http(s) address, or {plain(start)} no release"
        raise UsageError(what) from error
    address = f"{url.rstrip('/')}/upgrades/{quote(start)}.json"
    try:
        with Client() as client:
            envelope = client.get([address], limit=descriptions.LIMIT)
    except Missing as error:
        raise Missing(
            f"no upgrade from {start} is published: it is the newest release, or has none",
            remedy="the index of the releases tells which are there",
            detail=error.detail,
        ) from error
    description = descriptions.check(envelope, trust, now)
    found = (description.image, description.architecture, description.from_)
    if found != (image, ARCHITECTURE, start):
        raise InputsUnverified(
            f"{address} is for {' '.join(found)}, not for {image} {ARCHITECTURE} {start}",
            remedy="tell who runs the server",
        )
    return Upgrade(description, envelope)
