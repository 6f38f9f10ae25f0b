# SPDX-License-Identifier: GPL-3.0-or-later
"""Upgrade descriptions: `public/upgrades/<from>.json` leads each release to its newest kit.

Every published release of the image has one. That of the newest says that there is nothing newer,
so that a missing answer cannot be mistaken for that. They are written once `public/<tag>/` is in
place, each by one rename, and never lead to an older release than before: so publishing a fix of an
old release takes no system back to it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pipeline.base import openpgp
from pipeline.base.errors import Differs, InputsUnverified, SignatureInvalid
from pipeline.base.files import write_bytes
from pipeline.documents.upgrade_description import Description, Offer, describe
from pipeline.documents.upgrade_file import UPGRADE_FILE_LIMIT
from pipeline.documents.version import in_order, is_older
from pipeline.kits.install import description
from pipeline.kits.install.description import Trust
from pipeline.kits.make.farm_errors import farm_errors
from pipeline.kits.make.sign import sign
from pipeline.published.published import Location, Published
from pipeline.release.index import read_entries

FOLDER = "upgrades"
Notify = Callable[[str], None]


@dataclass(frozen=True)
class Signer:
    """The release key: a gpg that has its secret half, its fingerprint and its public half.

    `renewal` is the public key (ed25519, hex) that may renew what the release key signs, if any.
    """

    gpg: openpgp.Gpg
    fingerprint: str
    keyring: bytes
    renewal: str | None = None


class _Shelf:
    """The published releases of the image of `release`, each opened once, when first needed."""

    def __init__(self, public: Path, release: Published, signer: Signer, notify: Notify) -> None:
        """List the releases in `public`; `release` is verified already."""
        self.public = public
        self.release = release
        self.tags = [e.tag for e in read_entries(public) if e.image == release.image]
        self._location = Location(str(public), signer.keyring, signer.fingerprint)
        self._opened: dict[str, Published | None] = {release.version: release}
        self._notify = notify

    def best_offer(self, start: str) -> Offer | None:
        """Return the kit from `start` that leads furthest; raise Differs if a file is missing."""
        for tag in reversed(in_order([*self.tags, self.release.version])):
            if not is_older(start, tag):
                return None
            release = self._open(tag)
            if release and (offer := self._offer(release, start)):
                return offer
        return None

    def _open(self, tag: str) -> Published | None:
        if tag not in self._opened:
            try:
                self._opened[tag] = self._location.open(tag)
            except (SignatureInvalid, InputsUnverified) as error:
                self._notify(f"no upgrade leads to {tag}: {error.what}")
                self._opened[tag] = None
        return self._opened[tag]

    def _offer(self, release: Published, start: str) -> Offer | None:
        kits = zip(release.job.kits, release.names.kits, strict=True)
        for name in (name for kit, name in kits if kit.start == start):
            path = self.public / release.version / name
            if name in release.files and path.is_file():
                names = release.image, release.architecture, start, release.version
                return Offer(*names, path.stat().st_size, release.files[name])
            if release is self.release:
                raise Differs(f"{path} is missing", remedy="restore it")
        return None


def write_descriptions(
    public: Path,
    release: Published,
    signer: Signer,
    *,
    again: bool,
    now: datetime,
    notify: Notify,
) -> list[Path]:
    """Write the descriptions of all releases of a verified release's image; return their paths.

    A description that is still valid and unchanged is kept, unless `again` is true. Raise
    SignatureInvalid if the key cannot sign, Differs if a kit is missing.
    """
    folder = public / FOLDER
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)
    before = {path.stem: _read_own(path, signer) for path in folder.glob("*.json")}
    before = {tag: found for tag, found in before.items() if _is_of(found, release)}
    shelf = _Shelf(public, release, signer, notify)
    known = [*shelf.tags, release.version, *(old.newest for old in before.values() if old)]
    newest = in_order(known)[-1]
    written = []
    for start in in_order([*shelf.tags, *(kit.start for kit in release.job.kits), *before]):
        path, old = folder / f"{start}.json", before.get(start)
        made = describe(
            image=release.image,
            architecture=release.architecture,
            start=start,
            newest=newest,
            offer=_further(shelf.best_offer(start), old),
            renewal_key=signer.renewal,
            now=now,
        )
        _tell_of_newer(path, made, release, notify)
        if again or not old or not _holds(old, made, now):
            write_bytes(path, sign(made, signer.gpg, signer.fingerprint))
            notify(f"{path}: {made}")
            written.append(path)
    return written


def _read_own(path: Path, signer: Signer) -> Description | None:
    """Return a file's description, expired or not; None if it is not signed by this key."""
    trust = Trust(signer.keyring, signer.fingerprint)
    try:
        with farm_errors(), path.open("rb") as file:
            found = description.read(file.read(UPGRADE_FILE_LIMIT + 1), trust)
    except (OSError, SignatureInvalid, InputsUnverified):
        return None
    return found if f"{found.from_}.json" == path.name else None


def _is_of(found: Description | None, release: Published) -> bool:
    names = release.image, release.architecture
    return found is not None and (found.image, found.architecture) == names


def _further(found: Offer | None, old: Description | None) -> Offer | None:
    """Return the offer of the newer release: the one found here, or the one described before."""
    if old and old.offer and (not found or is_older(found.to, old.offer.to)):
        return old.offer
    return found


def _tell_of_newer(path: Path, made: Description, release: Published, notify: Notify) -> None:
    if made.offer and is_older(release.version, made.offer.to):
        notify(f"{path} leads to {made.offer.to} already, which is newer")


def _holds(old: Description, made: Description, now: datetime) -> bool:
    renewed_by = [each.renewable and each.renewable.key for each in (old, made)]
    same = (old.offer, old.newest, renewed_by[0]) == (made.offer, made.newest, renewed_by[1])
    return same and old.expires > now
