# SPDX-License-Identifier: GPL-3.0-or-later
"""Tasks for upgrade kits: `kit.check` to `kit.keygen`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.base.errors import ExitStatus
from pipeline.cli.task import farm_task, open_display, open_farm, pinned_key

if TYPE_CHECKING:
    from invoke.context import Context

    from pipeline.kits.install.description import Trust


def _trust(keyring: str | None, fingerprint: str | None) -> Trust:
    """Return the given keyring, or else the key that this checkout pins."""
    from pipeline.kits.install.description import load_trust
    from pipeline.kits.make.farm_errors import farm_errors

    with farm_errors():
        if keyring is None and pinned_key().exists():
            return load_trust(pinned_key(), fingerprint or open_farm().farm.keys.release)
        return load_trust(Path(keyring) if keyring else None, fingerprint)


@farm_task(ExitStatus.INPUTS_UNVERIFIED, ExitStatus.SIGNATURE)
def check(
    _c: Context,
    from_: str,
    url: str,
    image: str = "mini",
    keyring: str | None = None,
    fingerprint: str | None = None,
) -> None:
    """Ask a publish location whether there is an upgrade, and trust only the release key.

    Status 0 if the answer is known, yes or no; 4 if it is not.
    --from is the release that was installed first, --keyring the exported key that you trust;
    without it the key that this checkout pins.
    """
    from pipeline.kits.install.check import check_upgrade
    from pipeline.kits.make.farm_errors import farm_errors

    trust = _trust(keyring, fingerprint)
    with farm_errors():
        print(check_upgrade(url, from_, image, trust, datetime.now(UTC)).description)


@farm_task(ExitStatus.INPUTS_UNVERIFIED, ExitStatus.SIGNATURE)
def fetch(
    _c: Context,
    from_: str,
    url: str,
    image: str = "mini",
    directory: str = ".",
    keyring: str | None = None,
    fingerprint: str | None = None,
) -> None:
    """Fetch the kit of an upgrade and its description; an interrupted download continues.

    The options are those of kit.check; --directory is where the kit goes, created if needed.
    """
    from pipeline.kits.install.check import check_upgrade
    from pipeline.kits.install.fetch import fetch_kit
    from pipeline.kits.make.farm_errors import farm_errors

    trust = _trust(keyring, fingerprint)
    with farm_errors():
        found = check_upgrade(url, from_, image, trust, datetime.now(UTC))
        if found.description.offer is None:
            print(f"{found.description}: nothing to fetch")
            return
        with open_display().bar(found.description.offer.file) as progress:
            print(f"fetched: {fetch_kit(url, found, Path(directory), progress)}")


@farm_task(ExitStatus.INPUTS_UNVERIFIED, ExitStatus.SIGNATURE)
def apply(
    _c: Context,
    kit: str,
    target: str,
    keyring: str | None = None,
    fingerprint: str | None = None,
) -> None:
    """Upgrade the installed system on a device or image file; the old release stays bootable.

    The kit's description is beside it, where kit.fetch has put it. A power cut at any moment
    leaves the old release or the new one bootable.
    """
    from pipeline.kits.install.apply import apply_kit
    from pipeline.kits.make.farm_errors import farm_errors

    trust = _trust(keyring, fingerprint)
    with farm_errors(), open_display().bars() as watch:
        applied = apply_kit(Path(kit), Path(target), trust, watch, datetime.now(UTC))
    print(applied)


@farm_task()
def rollback(_c: Context, target: str) -> None:
    """Make an installed system boot the previous release again; a second time, the newer one."""
    from pipeline.kits.install.rollback import roll_back
    from pipeline.kits.make.farm_errors import farm_errors

    with farm_errors():
        switch = roll_back(Path(target))
    print(f"{target} boots {switch.version} now; {switch.previous} is still there")


@farm_task(
    ExitStatus.DIFFERS, ExitStatus.BUILD_FAILED, ExitStatus.INPUTS_UNVERIFIED, ExitStatus.SIGNATURE
)
def make(
    _c: Context,
    from_: str,
    to: str,
    url: str | None = None,
    directory: str = ".",
    keyring: str | None = None,
    fingerprint: str | None = None,
) -> None:
    """Make a kit again from two published releases: needs unsquashfs and sqfstar, no root, no farm.

    --url is where both are published, an address or a folder; without it, as farm.yaml says. Both
    are verified by their manifests first. --directory is where the kit goes, created if needed.
    """
    from pipeline.kits.make.make import make_kit
    from pipeline.published.published import Location, of_farm

    workspace, trust = open_farm(), _trust(keyring, fingerprint)
    location = Location(url or of_farm(workspace).address, trust.keyring, trust.fingerprint)
    print(make_kit(location, from_, to, Path(directory), workspace.store, open_display().say))


@farm_task(ExitStatus.DIFFERS, ExitStatus.INPUTS_UNVERIFIED, ExitStatus.SIGNATURE)
def describe(_c: Context, tag: str) -> None:
    """Sign the upgrade descriptions of a published release's image again, with the release key."""
    from pipeline import flow

    for path in flow.describe(open_farm(), tag, open_display()):
        print(path)


@farm_task(ExitStatus.SIGNATURE)
def renew(_c: Context) -> None:
    """Extend how long the published upgrade descriptions are valid, with the renewal key alone.

    It extends what the release key has signed, and only as far as that allows.
    """
    from pipeline.base import gpgv
    from pipeline.release.renewals import renew

    workspace, now = open_farm(), datetime.now(UTC)
    keyring = gpgv.public_keys(workspace.checkout / "keys")
    for path in renew(
        workspace.farm, keyring, workspace.public, now=now, notify=open_display().say
    ):
        print(path)


@farm_task()
def keygen(_c: Context) -> None:
    """Make the key that renews upgrade descriptions; print its line for farm.yaml."""
    from pipeline.cli import keys as making

    path, public = making.make_renewal_key()
    print(f"{path} is written. In farm.yaml, under keys:\n  renewal: {public}")
