# SPDX-License-Identifier: GPL-3.0-or-later
"""The offline proof of a lock: from the files of a tagged snapshot, with nothing else to ask."""

import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from pipeline.base.errors import InputsUnverified, UsageError
from pipeline.documents.lock import Lock
from pipeline.inputs.proof import Proof, prove
from pipeline.inputs.snapshot import write_snapshot
from tests.debian_archive import SigningKey
from tests.unit.inputs.conftest import Workshop


@pytest.fixture
def lock(workshop: Workshop) -> Lock:
    return workshop.locked()


@pytest.fixture
def snapshot(workshop: Workshop, lock: Lock) -> Path:
    """A snapshot, and nothing else: store and archive are gone."""
    folder = workshop.tree.parent / "snapshots"
    path = write_snapshot(folder, "3.3", lock, workshop.farm, workshop.store)
    shutil.rmtree(workshop.store.root)
    shutil.rmtree(workshop.archive.root)
    return path


def proof(
    workshop: Workshop, lock: Lock, snapshot: Path, debian: SigningKey | None = None
) -> Proof:
    keyring = (debian or workshop.archive.key).keyring
    return prove(lock, snapshot, workshop.farm.archives, keyring)


def test_debians_packages_are_proven(workshop: Workshop, lock: Lock, snapshot: Path) -> None:
    proven = proof(workshop, lock, snapshot)
    (suite,) = proven.suites
    assert (suite.archive, suite.suite, suite.signed) == ("debian", "trixie", lock.suites[0].date)
    assert suite.is_debian
    assert suite.valid_until
    assert suite.valid_until > suite.signed
    assert suite.packages == len(lock.packages)
    assert proven.foreign == ()


def test_packages_of_another_archive_are_named(
    workshop: Workshop, lock: Lock, snapshot: Path, keys: dict[str, SigningKey]
) -> None:
    proven = proof(workshop, lock, snapshot, keys["stranger"])
    assert not proven.suites[0].is_debian
    assert proven.foreign == lock.locked


def test_a_machine_without_debians_keyring_calls_nothing_debians(
    workshop: Workshop, lock: Lock, snapshot: Path
) -> None:
    proven = prove(lock, snapshot, workshop.farm.archives, Path("/nonexistent"))
    assert proven.foreign == lock.locked


def test_a_stranger_proves_nothing(
    workshop: Workshop, lock: Lock, snapshot: Path, keys: dict[str, SigningKey]
) -> None:
    archive = workshop.farm.archives["debian"]
    archives = {"debian": archive.model_copy(update={"keyring": keys["stranger"].keyring})}
    with pytest.raises(InputsUnverified, match="not signed by a known key"):
        prove(lock, snapshot, archives, keys["stranger"].keyring)


@pytest.mark.parametrize(
    "name", ["dists/trixie/InRelease", "dists/trixie/main/binary-amd64/Packages.xz", "pool"]
)
@pytest.mark.parametrize("how", ["changed", "cut", "absent", "link"])
def test_what_is_damaged_or_missing_is_named(
    workshop: Workshop, lock: Lock, snapshot: Path, name: str, how: str
) -> None:
    path = snapshot / "debian" / (lock.locked[0].place.filename if name == "pool" else name)
    content = path.read_bytes()
    path.unlink()
    if how == "changed":
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif how == "cut":
        path.write_bytes(content[:-1])
    elif how == "link":
        (path.parent / "elsewhere").write_bytes(content)
        path.symlink_to("elsewhere")
    with pytest.raises(InputsUnverified, match=path.name):
        proof(workshop, lock, snapshot)


def test_a_date_that_is_not_the_signed_one_is_refused(
    workshop: Workshop, lock: Lock, snapshot: Path
) -> None:
    suite = lock.suites[0]
    later = replace(lock, suites=(replace(suite, date=suite.date + timedelta(seconds=1)),))
    with pytest.raises(InputsUnverified, match="the lock says otherwise"):
        proof(workshop, later, snapshot)


def test_a_package_that_no_index_names_so_is_refused(
    workshop: Workshop, lock: Lock, snapshot: Path
) -> None:
    first, *others = lock.locked
    other = replace(first, package=replace(first.package, version="9.9"))
    forged = replace(lock, locked=(other, *others))
    with pytest.raises(InputsUnverified, match="not what its signed index says"):
        proof(workshop, forged, snapshot)


def test_a_missing_snapshot_is_reported_with_what_makes_one(workshop: Workshop, lock: Lock) -> None:
    with pytest.raises(UsageError, match=r"\./farm snapshot --tag 3\.4"):
        proof(workshop, lock, workshop.tree.parent / "snapshots" / "3.4")
