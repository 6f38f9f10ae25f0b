# SPDX-License-Identifier: GPL-3.0-or-later
"""Renews upgrade descriptions in the public tree, with a key for this purpose only.

A description is renewed if the release key has signed it and lets this key renew it. One that is
older than one renewed here before is refused: somebody with write access to the public tree could
have put it back, to have it kept valid.
"""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from securesystemslib.signer import CryptoSigner

from pipeline.base import dsse
from pipeline.base.errors import SignatureInvalid, TwinbuildError, UsageError, command_line
from pipeline.base.files import alone, write_bytes
from pipeline.documents.fields import time_text
from pipeline.documents.upgrade_file import UPGRADE_FILE_LIMIT
from pipeline.farm.config import Farm
from pipeline.kits.install import description, known
from pipeline.kits.install.description import CLOCKS_APART, Trust
from pipeline.kits.make.farm_errors import farm_errors
from pipeline.kits.make.sign import with_renewal
from pipeline.release.upgrades import FOLDER

Notify = Callable[[str], None]


def renew(farm: Farm, keyring: bytes, public: Path, *, now: datetime, notify: Notify) -> list[Path]:
    """Renew every description in `public`; return the files.

    `keyring` has the public half of the release key. Raise UsageError if there is nothing to renew,
    SignatureInvalid if the key that farm.yaml names is missing, and, after renewing all others, the
    error of the first description that cannot be renewed.
    """
    key = _key(farm)
    trust = Trust(keyring, farm.keys.release)
    renewed, refused = [], list[TwinbuildError]()
    with alone(public, lambda: notify(f"another process publishes into {public}: waiting")):
        for path in sorted((public / FOLDER).glob("*.json")):
            try:
                with farm_errors():
                    _renew(path, key, trust, now)
            except TwinbuildError as error:
                refused.append(error)
                notify(f"{path} is not renewed: {error}")
            else:
                renewed.append(path)
    if refused:
        first = refused[0]
        what = f"{len(refused)} upgrade descriptions could not be renewed, the first: {first.what}"
        raise type(first)(what, remedy=first.remedy)
    if not renewed:
        raise UsageError(
            f"there is no upgrade description in {public / FOLDER}",
            remedy=f"{command_line('kit.describe --tag TAG')} makes them; see publish in farm.yaml",
        )
    return renewed


def _key(farm: Farm) -> CryptoSigner:
    for part, name in ((farm.keys.renewal, "renewal"), (farm.keys.release, "release")):
        if part is None:
            raise SignatureInvalid(
                f"farm.yaml names no {name} key", remedy=f"put it into keys.{name}"
            )
    path = dsse.renewal_key_path()
    key = dsse.load_key(path, made_by="kit.keygen")
    if dsse.public_hex(key) != farm.keys.renewal:
        raise SignatureInvalid(
            f"{path} is not the renewal key that farm.yaml names", remedy="see keys.renewal there"
        )
    return key


def _renew(path: Path, key: CryptoSigner, trust: Trust, now: datetime) -> None:
    with path.open("rb") as file:
        content = file.read(UPGRADE_FILE_LIMIT + 1)
    found = description.read(content, trust)
    if path.name != f"{found.from_}.json":
        raise SignatureInvalid(f"{path} is the description of {found.from_}")
    if found.renewable is None or found.renewable.key != dsse.public_hex(key):
        raise SignatureInvalid(
            f"{path} allows renewal by another key, or by none",
            remedy=f"sign it again with the release key: {command_line('kit.describe --tag TAG')}",
        )
    if found.renewable.until <= now:
        raise SignatureInvalid(
            f"{path} could be renewed until {time_text(found.renewable.until)}",
            remedy=f"sign it again with the release key: {command_line('kit.describe --tag TAG')}",
        )
    if found.as_of > now + CLOCKS_APART:
        raise SignatureInvalid(f"{path} is from the future", remedy="check this machine's clock")
    known.refuse_older(found, known.recall(found.image, found.from_, trust))
    made = with_renewal(
        content, found.renewable, now, lambda signed: bytes.fromhex(key.sign(signed).signature)
    )
    known.remember(description.read(made, trust), made, trust)
    write_bytes(path, made)
