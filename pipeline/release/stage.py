# SPDX-License-Identifier: GPL-3.0-or-later
"""Stage 5: sign and publish a run whose builds match.

Everything is checked first (`checks`); then `release/` is assembled and its manifest signed
(`assemble`, `openpgp`); then it is published as `public/<tag>/` (`publish`, `index`); finally the
upgrade descriptions of all releases of the image are written (`upgrades`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pipeline.base import openpgp
from pipeline.base.disk_room import cannot_write, no_room
from pipeline.base.errors import InfrastructureFailed, SignatureInvalid
from pipeline.base.files import alone, sha256_bytes
from pipeline.base.openpgp import Gpg
from pipeline.documents.digest import sha256_file
from pipeline.documents.json_form import json_bytes
from pipeline.farm.config import Farm
from pipeline.farm.run import Run
from pipeline.farm.tag import VerifiedTag
from pipeline.published.immutable import refuse_changed
from pipeline.published.published import Location
from pipeline.release.assemble import MANIFEST, assemble
from pipeline.release.checks import CheckedRun, check
from pipeline.release.publish import ReleaseTrust, publish
from pipeline.release.upgrades import Signer, write_descriptions

STAGE = "release"


@dataclass(frozen=True)
class Release:
    """A published release; `new` is false if it was published before, byte for byte."""

    tag: str
    folder: Path
    manifest_sha256: str
    new: bool


def run_release(
    run: Run,
    farm: Farm,
    public: Path,
    verified: VerifiedTag,
    *,
    notify: Callable[[str], None],
) -> Release:
    """Sign the results of the run and publish them as `<public>/<tag>`; `notify` gets each step.

    `verified` is the run's tag, just verified; `farm` has the keys of the policy that it satisfies.
    Raise SignatureInvalid if there is no usable release key or a good statement is missing, Differs
    if the builds, their files or an earlier publication differ, InputsUnverified if one of the
    image's own packages is published with other content, UsageError if the run has no tag,
    InfrastructureFailed if a disk fails.
    """
    try:
        return _release(run, farm, public, verified, notify)
    except OSError as error:
        if no_room(error):
            raise cannot_write(error) from error
        raise InfrastructureFailed(
            f"the release of the run {run.id} broke off: {error}",
            remedy="see that there is room, and that nothing else changes these folders",
        ) from error


def _release(
    run: Run, farm: Farm, public: Path, verified: VerifiedTag, notify: Callable[[str], None]
) -> Release:
    fingerprint = _fingerprint(farm)
    notify("checking both statements and every artifact")
    checked = check(run, farm, verified)
    keys = {name: farm.keys.environments[name] for name in checked.environments}
    with openpgp.open_gpg(notify) as gpg:
        trust = ReleaseTrust(fingerprint, openpgp.public_key(gpg, fingerprint), keys)
        if checked.local:
            published = Location(str(public), trust.keyring, fingerprint)
            refuse_changed(published, checked.tag, checked.local, checked.artifacts)
        _assemble(run, checked, gpg, trust, notify)
        notify(f"verifying and publishing {public / checked.tag}")
        new = publish(run.release, checked.tag, public, trust, notify)
        notify(f"{public / checked.tag} {'is published' if new else 'was published already'}")
        signer = Signer(gpg, fingerprint, trust.keyring, farm.keys.renewal)
        _describe(public, checked.tag, signer, again=False, notify=notify)
    folder = public / checked.tag
    return Release(checked.tag, folder, sha256_file(folder / MANIFEST), new)


def describe_again(
    tag: str, farm: Farm, public: Path, *, notify: Callable[[str], None]
) -> list[Path]:
    """Sign the upgrade descriptions of a published release's image again; return their paths.

    Raise SignatureInvalid if there is no usable release key, and what `Location.open` raises.
    """
    fingerprint = _fingerprint(farm)
    with openpgp.open_gpg(notify) as gpg:
        public_key = openpgp.public_key(gpg, fingerprint)
        signer = Signer(gpg, fingerprint, public_key, farm.keys.renewal)
        return _describe(public, tag, signer, again=True, notify=notify)


def _fingerprint(farm: Farm) -> str:
    if farm.keys.release is None:
        raise SignatureInvalid(
            "farm.yaml names no release key", remedy="put its fingerprint into keys.release"
        )
    return farm.keys.release


def _describe(
    public: Path, tag: str, signer: Signer, *, again: bool, notify: Callable[[str], None]
) -> list[Path]:
    release = Location(str(public), signer.keyring, signer.fingerprint).open(tag)
    with alone(public, lambda: notify(f"another process publishes into {public}: waiting")):
        return write_descriptions(
            public, release, signer, again=again, now=datetime.now(UTC), notify=notify
        )


def _assemble(
    run: Run, checked: CheckedRun, gpg: Gpg, trust: ReleaseTrust, notify: Callable[[str], None]
) -> None:
    reads = _reads(run, checked, trust)
    why = run.why_again(STAGE, reads)
    if why is None:
        notify("release/ is complete: nothing to sign")
        return
    notify(f"signing SHA256SUMS with {trust.fingerprint}: {why}")
    files = assemble(run, checked, gpg, trust.fingerprint)
    run.complete(STAGE, reads, files)


def _reads(run: Run, checked: CheckedRun, trust: ReleaseTrust) -> dict[str, str]:
    """Return the digests of all that `release/` depends on; the statements name the artifacts."""
    reads = {
        "source.json": sha256_file(run.source_json),
        "inputs.json": sha256_file(run.inputs_json),
        "verdict.json": sha256_file(run.verdict_json),
        "keys": sha256_bytes(json_bytes({"release": trust.fingerprint, **trust.environments})),
    }
    for name in checked.environments:
        reads[f"{name}/statement.json"] = sha256_file(run.environment(name) / "statement.json")
    return reads
