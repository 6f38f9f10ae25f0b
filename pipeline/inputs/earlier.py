# SPDX-License-Identifier: GPL-3.0-or-later
"""Chooses the earlier releases that kits are made from, and brings their files into the store."""

from collections.abc import Callable, Iterable, Iterator

from pipeline.base.errors import InputsUnverified, UsageError
from pipeline.base.store import Store
from pipeline.documents.job import KitRequest
from pipeline.documents.system_partition import PARTITION_LIST_LIMIT
from pipeline.documents.version import in_order, is_older, major
from pipeline.farm.config import Image
from pipeline.published.published import Location, Published

LEDGER_LIMIT = 512 * 1024 * 1024
IMAGE_LIMIT = 16 * 1024**3

Notify = Callable[[str], None]


def choose(
    location: Location, name: str, image: Image, version: str, notify: Notify
) -> tuple[KitRequest, ...]:
    """Return the releases from which `version` of the image `name` has kits, the oldest first.

    Raise UsageError if image.yaml lists one that is not an earlier release of this image,
    InputsUnverified or SignatureInvalid for one that is missing or cannot be verified.
    """
    kits = []
    for release in _wanted(location, name, image, version):
        if not release.job.upgrade:
            notify(f"no kit from {release.version}: it asked not to be upgraded")
        elif release.names.usb_image not in release.files:
            notify(f"no kit from {release.version}: it has no USB image")
        else:
            kit = _kit(release)
            slower = " (it has no ledger: from its USB image, which is slower)"
            notify(f"a kit from {release.version}{slower if kit.image_sha256 else ''}")
            kits.append(kit)
    return tuple(kits)


def keep(location: Location, kits: Iterable[KitRequest], store: Store) -> None:
    """Bring the files of the earlier releases into the store.

    Raise InputsUnverified or SignatureInvalid for a release that has changed since it was chosen.
    """
    for kit in kits:
        if all(store.has(digest) and not store.damaged(digest) for digest in kit.files().values()):
            continue
        release = location.open(kit.start)
        if _kit(release) != kit:
            raise InputsUnverified(
                f"the release {release.version} at {location.address} is not the one chosen before",
                remedy="start a new run",
            )
        names = release.names
        if kit.image_sha256:
            location.keep(release, names.usb_image, store, IMAGE_LIMIT)
        else:
            location.keep(release, names.ledger, store, LEDGER_LIMIT)
            location.keep(release, names.partition, store, PARTITION_LIST_LIMIT)


def _wanted(location: Location, name: str, image: Image, version: str) -> Iterator[Published]:
    if image.upgrades.from_ == "none":
        return
    if image.upgrades.from_ == "same-major":
        tags = [listed.tag for listed in location.releases() if listed.image in (None, name)]
        for tag in in_order(tags):
            if major(tag) == major(version) and is_older(tag, version):
                release = location.open(tag)
                if (release.image, release.architecture) == (name, image.architecture):
                    yield release
        return
    for tag in in_order(image.upgrades.from_):
        if not is_older(tag, version):
            raise UsageError(
                f"{version} cannot have a kit from {tag}, which is not earlier",
                remedy=f"correct upgrades.from in images/live/{name}/image.yaml",
            )
        release = location.open(tag)
        if (release.image, release.architecture) != (name, image.architecture):
            raise UsageError(
                f"{tag} is a release of {release.image} ({release.architecture}), not of {name}",
                remedy=f"correct upgrades.from in images/live/{name}/image.yaml",
            )
        yield release


def _kit(release: Published) -> KitRequest:
    names, files = release.names, release.files
    by_ledger = names.ledger in files and names.partition in files
    return KitRequest(
        start=release.version,
        ledger_sha256=files[names.ledger] if by_ledger else None,
        partition_sha256=files[names.partition] if by_ledger else None,
        image_sha256=None if by_ledger else files.get(names.usb_image),
    )
