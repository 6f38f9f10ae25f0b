# SPDX-License-Identifier: GPL-3.0-or-later
"""`InRelease`: the signed list of an archive's indices, checked with gpgv before anything is read.

Only the text that gpgv outputs is parsed. One good signature is enough, since archives sign with
old and new keys at once, but any bad signature is an error.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path

from debian.deb822 import Release

from pipeline.base import gpgv
from pipeline.base.errors import InputsUnverified, UsageError
from pipeline.documents.fields import SHA256
from pipeline.documents.lock import POOL_PATH, SIZE_LIMIT, Index
from pipeline.documents.signatures import FAULTS, Untrusted

INRELEASE_LIMIT = 16 * 1024 * 1024
FUTURE_TOLERANCE = timedelta(seconds=10)  # apt's own
NOT_SIGNED = "is not signed by a known key"
COMPRESSIONS = (".xz", ".gz", ".bz2", "")  # in order of preference
ARMOR = re.compile(rb"^-----(?:BEGIN|END) PGP [A-Z ]+-----[ \t\r]*$", re.MULTILINE)


@dataclass(frozen=True)
class SignedRelease:
    """A verified InRelease: its names, its date and the files that it vouches for."""

    codename: str
    suite: str
    date: datetime
    valid_until: datetime | None
    by_hash: bool
    files: dict[str, Index]

    def index(self, path: str) -> Index | None:
        """Return the best listed form of an index, for instance `main/binary-amd64/Packages`."""
        listed = (self.files.get(path + ending) for ending in COMPRESSIONS)
        return next((index for index in listed if index), None)


def read_release(content: bytes, *, keyring: Path, suite: str, now: datetime) -> SignedRelease:
    """Verify and parse an InRelease; `now` is the time at which it must be valid.

    Raise InputsUnverified if it is not signed by the keyring, is of another suite, is from the
    future or is no longer valid.
    """
    release = _parse(verified_text(content, keyring))
    if suite not in (release.codename, release.suite):
        raise InputsUnverified(f"asked for suite {suite}, got one of {release.codename!r}")
    if release.date > datetime.now(UTC) + FUTURE_TOLERANCE:
        raise InputsUnverified(
            f"the InRelease of {suite} is from the future: {release.date:%c}",
            remedy="check this machine's clock",
        )
    if release.valid_until and release.valid_until < now:
        raise InputsUnverified(
            f"the InRelease of {suite} expired on {release.valid_until:%c}",
            remedy="use a mirror that is up to date",
        )
    return release


def verified_text(content: bytes, keyring: Path) -> bytes:
    """Return the signed text of a clear-signed document, as gpgv outputs it."""
    _one_document(content)
    try:
        keys = keyring.read_bytes()
    except OSError as error:
        remedy = "set the archive's keyring in farm.yaml"
        raise UsageError(f"no keyring {keyring}: {error.strerror}", remedy=remedy) from error
    try:
        return gpgv.check_text(content, keys)[0]
    except gpgv.NoKeyring as error:
        raise UsageError(f"{keyring} is not a keyring: {error}") from error
    except Untrusted as error:
        fault = "has a bad signature" if str(error) == FAULTS[b"BADSIG"] else NOT_SIGNED
        raise InputsUnverified(
            f"{error}: the InRelease {fault}",
            remedy=f"check the archive's keyring {keyring}",
            detail=error.detail,
        ) from error


def _one_document(content: bytes) -> None:
    """Refuse anything but one clear-signed document with nothing before or after it."""
    marks = [mark.strip() for mark in ARMOR.findall(content)]
    expected = [b"SIGNED MESSAGE", b"SIGNATURE", b"SIGNATURE"]
    stated = [mark.split(b" PGP ")[1].rstrip(b"-") for mark in marks]
    whole = content.startswith(b"-----BEGIN") and content.rstrip().endswith(b"-----")
    if stated != expected or not whole or b"\0" in content:
        raise InputsUnverified("the InRelease is not one clear-signed document")


def _parse(text: bytes) -> SignedRelease:
    try:
        fields = Release(text.decode())
        until = fields.get("Valid-Until")
        listed = (
            Index(row["name"], int(row["size"]), row["sha256"])
            for row in fields["SHA256"]
            if POOL_PATH.fullmatch(row["name"]) and SHA256.fullmatch(row["sha256"])
        )
        return SignedRelease(
            fields.get("Codename", ""),
            fields.get("Suite", ""),
            _time(fields["Date"]),
            _time(until) if until else None,
            fields.get("Acquire-By-Hash") == "yes",
            {index.path: index for index in listed if 0 < index.size <= SIZE_LIMIT},
        )
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        raise InputsUnverified(f"the InRelease cannot be read: {error!r}") from error


def _time(value: str) -> datetime:
    return parsedate_to_datetime(value.replace(" UTC", " GMT")).astimezone(UTC)
