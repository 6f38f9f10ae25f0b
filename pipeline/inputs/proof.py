# SPDX-License-Identifier: GPL-3.0-or-later
"""Proves from a tagged snapshot, without network, that archives had what a lock names.

The chain is the one verified when the lock was made, here from the files of the snapshot alone: the
signature and date of each InRelease, the indices by the hashes in it, the packages by the hashes in
the indices, and each package's own bytes.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pipeline.base.errors import InputsUnverified, UsageError, command_line
from pipeline.base.store import Store
from pipeline.documents.digest import sha256_file
from pipeline.documents.lock import Lock, LockedPackage, Suite
from pipeline.farm.config import Archive
from pipeline.inputs.packages_index import refuse_forged
from pipeline.inputs.signed_release import INRELEASE_LIMIT, SignedRelease, read_release

DEBIAN_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
PIECE = 1024 * 1024


@dataclass(frozen=True)
class ProvenSuite:
    """A suite as it was when it was signed."""

    archive: str
    suite: str
    signed: datetime
    valid_until: datetime | None  # None if it has no Valid-Until
    is_debian: bool  # signed by one of Debian's own archive keys
    packages: int  # how many of the lock's packages it vouches for


@dataclass(frozen=True)
class Proof:
    """The result of a proof; `foreign` are the packages that are not from Debian."""

    suites: tuple[ProvenSuite, ...]
    foreign: tuple[LockedPackage, ...]


def prove(
    lock: Lock,
    snapshot: Path,
    archives: Mapping[str, Archive],
    debian_keyring: Path = DEBIAN_KEYRING,
) -> Proof:
    """Prove that each package of `lock` was in its archive at the time that the lock states.

    `snapshot` is the folder of a tagged snapshot. Signatures are checked by the keyrings of
    `archives`; `debian_keyring` tells which suites are Debian's own. Raise UsageError if there is
    no such snapshot or archive, InputsUnverified if anything is missing from it or does not verify.
    """
    if not snapshot.is_dir():
        remedy = f"{command_line(f'snapshot --tag {snapshot.name}')}, or copy it there"
        raise UsageError(f"there is no snapshot {snapshot}", remedy=remedy)
    with tempfile.TemporaryDirectory(prefix="twinbuild-proof-") as folder:
        store = Store(Path(folder))
        judged = {
            (suite.archive, suite.suite): _prove_suite(
                suite, snapshot, archives, debian_keyring, store
            )
            for suite in lock.suites
        }
        refuse_forged(store, lock)
    for locked in lock.locked:
        package = locked.package
        _check_file(snapshot / locked.place.path, package.size, package.sha256)
    suites = tuple(
        ProvenSuite(
            suite.archive,
            suite.suite,
            suite.date,
            *judged[suite.archive, suite.suite],
            sum(p.place[:2] == (suite.archive, suite.suite) for p in lock.locked),
        )
        for suite in lock.suites
    )
    foreign = tuple(p for p in lock.locked if not judged[p.place[:2]][1])
    return Proof(suites, foreign)


def _prove_suite(
    suite: Suite,
    snapshot: Path,
    archives: Mapping[str, Archive],
    debian_keyring: Path,
    store: Store,
) -> tuple[datetime | None, bool]:
    """Verify an InRelease and its indices, and add the indices to the store.

    Return until when the InRelease was valid, and whether Debian signed it.
    """
    if suite.archive not in archives:
        what = f"neither farm.yaml nor the image has the archive {suite.archive} of the lock"
        raise UsageError(what)
    dists = snapshot / suite.archive / "dists" / suite.suite
    path = dists / "InRelease"
    _check_file(path, None, suite.inrelease_sha256)
    content = path.read_bytes()
    keyring = archives[suite.archive].keyring
    release, is_debian = _judge(content, suite, keyring, debian_keyring)
    if release.date != suite.date:
        raise InputsUnverified(f"{path} was signed at {release.date:%c}, the lock says otherwise")
    for index in suite.indices:
        if release.files.get(index.path) != index:
            raise InputsUnverified(f"{path} does not vouch for {index.path} as the lock has it")
        _check_file(dists / index.path, index.size, index.sha256)
        with (dists / index.path).open("rb") as file:
            store.add(index.sha256, index.size, iter(lambda: file.read(PIECE), b""))
    return release.valid_until, is_debian


def _judge(
    content: bytes, suite: Suite, keyring: Path, debian_keyring: Path
) -> tuple[SignedRelease, bool]:
    """Verify an InRelease by its archive's keyring; return it, and whether Debian signed it."""
    release = read_release(content, keyring=keyring, suite=suite.suite, now=suite.date)
    try:
        read_release(content, keyring=debian_keyring, suite=suite.suite, now=suite.date)
    except (InputsUnverified, UsageError):  # not Debian's, or no Debian keyring on this machine
        return release, False
    return release, True


def _check_file(path: Path, size: int | None, sha256: str) -> None:
    if path.is_symlink() or not path.is_file():
        raise InputsUnverified(f"the snapshot has no file {path}")
    found = path.stat().st_size
    if found > INRELEASE_LIMIT if size is None else found != size:
        raise InputsUnverified(f"{path} has {found} bytes, which is not what the lock says")
    if sha256_file(path) != sha256:
        raise InputsUnverified(f"{path} is not what the lock says")
