"""Upgrade descriptions: `public/upgrades/<from>.json` leads an earlier release to its newest kit.

They are written once `public/<tag>/` is in place, each by one rename, and never lead to an older
release than before: who publishes a fix of an old release takes nobody back to it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pipeline import openpgp
from pipeline.errors import Differs, InputsUnverified, SignatureInvalid
from pipeline.files import write_bytes
from pipeline.kit import description
from pipeline.kit.description import Description
from pipeline.published import Published
from pipeline.version import is_older

FOLDER = "upgrades"
EVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Signer:
    """The release key: gpg that has its secret half, its fingerprint and its public half."""

    gpg: openpgp.Gpg
    fingerprint: str
    keyring: bytes


def write_descriptions(
    public: Path,
    release: Published,
    signer: Signer,
    *,
    again: bool,
    now: datetime,
    notify: Callable[[str], None],
) -> list[Path]:
    """Describe every kit of a verified release in `public`; return what was written.

    What is described already and holds is left alone, unless `again`. Raise SignatureInvalid if
    the key cannot sign, Differs if a kit is missing.
    """
    written = []
    (public / FOLDER).mkdir(exist_ok=True)
    (public / FOLDER).chmod(0o755)
    for kit, name in zip(release.job["kits"], release.names.kits, strict=True):
        path = public / FOLDER / f"{kit['from']}.json"
        before = _before(path, signer)
        if before and is_older(release.version, before.to):
            notify(f"{path} leads to {before.to} already, which is newer")
        elif again or not before or not _holds(before, release, name, now):
            made = _describe(public, release, kit["from"], name, now)
            write_bytes(path, description.sign(made, signer.gpg, signer.fingerprint))
            notify(f"{path} leads to {made.to} and expires on {made.expires}")
            written.append(path)
    return written


def _before(path: Path, signer: Signer) -> Description | None:
    """Return what is described now, expired or not; None if that is nothing of this key's."""
    if not path.is_file():
        return None
    trust = description.Trust(signer.keyring, signer.fingerprint)
    try:
        with path.open("rb") as file:
            return description.check(file.read(description.LIMIT + 1), trust, EVER)
    except (SignatureInvalid, InputsUnverified):
        return None


def _holds(before: Description, release: Published, name: str, now: datetime) -> bool:
    same = (before.to, before.sha256) == (release.version, release.files.get(name))
    return same and before.expiry > now


def _describe(
    public: Path, release: Published, start: str, name: str, now: datetime
) -> Description:
    path = public / release.version / name
    if name not in release.files or not path.is_file():
        raise Differs(f"{path} is missing", remedy="restore it")
    return description.describe(
        image=release.image,
        architecture=release.architecture,
        start=start,
        to=release.version,
        size=path.stat().st_size,
        sha256=release.files[name],
        now=now,
    )
