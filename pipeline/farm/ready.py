# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks everything that a release needs before the first machine starts; `doctor` does so, too.

Each check returns its finding as text, or raises a TwinbuildError that says what to do.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from pipeline.base import dsse, gpg_failure, openpgp
from pipeline.base.cache_folder import default_cache
from pipeline.base.errors import (
    InfrastructureFailed,
    SignatureInvalid,
    TwinbuildError,
    UsageError,
    command_line,
)
from pipeline.farm.config import Farm, TagPolicy
from pipeline.farm.workspace import Workspace

GIB = 1024**3
FREE_DISK_GIB = 10  # for a run, the store and the container hosts of a small image
ENGINE_FOLDER = Path("/var/lib/docker")

Checks = Mapping[str, Callable[[], str]]
Notify = Callable[[str], None]


def checks(workspace: Workspace, *, tag: str | None = None, notify: Notify) -> Checks:
    """Return the checks for a release, by name; with a `tag`, also that it is not published yet."""
    farm = workspace.farm
    found: dict[str, Callable[[], str]] = {"disk": partial(disk, folders(workspace))}
    found["tags"] = partial(tags, farm.keys.tags)
    for name in farm.environments:
        pinned = farm.keys.environments
        found[f"key {name}"] = partial(environment_key, name, pinned.get(name), pinned)
    if tag is not None:
        found["tag"] = partial(unpublished, workspace.public, tag)
    # Last, as it may ask for a passphrase.
    found["release key"] = partial(release_key, farm.keys.release, notify)
    return found


def check_release(workspace: Workspace, *, tag: str | None, notify: Notify) -> None:
    """Raise the error of the first check that fails, with the errors of the others as detail."""
    failed: list[tuple[str, TwinbuildError]] = []
    for name, check in checks(workspace, tag=tag, notify=notify).items():
        try:
            notify(f"{name}: {check()}")
        except TwinbuildError as error:
            failed.append((name, error))
    if not failed:
        return
    failed.sort(key=lambda fault: fault[0] != "release key")  # its fault is the most important
    name, first = failed[0]
    others = "\n".join(f"{other}: {error}" for other, error in failed[1:])
    detail = "\n".join(filter(None, [first.detail, others]))
    raise type(first)(f"nothing is built: {name}: {first.what}", remedy=first.remedy, detail=detail)


def folders(workspace: Workspace) -> list[Path]:
    """Return the folders that a build and a release write to on this machine."""
    engines = {entry.engine for entry in workspace.farm.environments.values()}
    here = None in engines and not os.environ.get("DOCKER_HOST", "unix:").startswith("tcp:")
    written = [workspace.runs, workspace.public, default_cache()]
    return written + [ENGINE_FOLDER] * here


def disk(written: Iterable[Path]) -> str:
    """Return the free space in these folders; raise InfrastructureFailed if it may not suffice."""
    free: dict[int, tuple[Path, float]] = {}
    for folder in written:
        there = next(path for path in (folder, *folder.parents) if path.exists())
        space = os.statvfs(there)
        free.setdefault(there.stat().st_dev, (folder, space.f_bavail * space.f_frsize / GIB))
    for folder, gib in free.values():
        if gib < FREE_DISK_GIB:
            raise InfrastructureFailed(
                f"{gib:.1f} GiB free at {folder}, and builds may need {FREE_DISK_GIB}",
                remedy=f"{command_line('clean')}, or make room",
            )
    return ", ".join(f"{gib:.1f} GiB free at {folder}" for folder, gib in free.values())


def release_key(fingerprint: str | None, notify: Notify = lambda _: None) -> str:
    """Make a trial signature; return when the release key expires."""
    if fingerprint is None:
        raise UsageError(
            "none is set, so nothing can be released",
            remedy=f'{command_line("keys --name")} "NAME <ADDRESS>" makes one, '
            "--release FINGERPRINT takes one",
        )
    with openpgp.open_gpg(notify) as gpg:
        listed = openpgp.listing(gpg, fingerprint)
        fault = gpg_failure.key_fault(listed)
        if fault:
            raise SignatureInvalid(f"{fingerprint} {fault.what}", remedy=fault.remedy)
        openpgp.try_to_sign(gpg, fingerprint)
    ends = gpg_failure.expiry(listed)
    until = "does not expire"
    if ends is not None:
        until = f"expires {datetime.fromtimestamp(ends, UTC):%Y-%m-%d}"
    return f"{fingerprint}, {until}; a trial signature is good"


def tags(policy: TagPolicy) -> str:
    """Return which signatures a tag needs to be released."""
    if not policy.signed:
        return "need no signature to be released"
    if not policy.listed:
        raise UsageError(
            "must be signed, and no signer is known, so nothing can be released",
            remedy=f"{command_line('keys')} puts the first one into farm.yaml",
        )
    count = len(policy.listed)
    by = "the 1 known key" if count == 1 else f"one of {count} known keys"
    return f"are released when signed by {by}"


def check_pinned(farm: Farm, where: str) -> None:
    """Raise SignatureInvalid unless `farm` pins a release key, and one for each environment.

    The private keys are not needed; `where` ends the message.
    """
    pinned = farm.keys.environments
    lacking = [f"keys.environments.{name}" for name in farm.environments if name not in pinned]
    lacking += ["keys.release"] * (farm.keys.release is None)
    remedy = f"{command_line('keys')} makes and pins what is missing; commit and push it"
    if lacking:
        raise SignatureInvalid(f"no {', no '.join(lacking)} by {where}", remedy=remedy)
    own = [pinned[name] for name in farm.environments]
    if len(set(own)) != len(own):
        raise SignatureInvalid(f"two environments have one key by {where}", remedy=remedy)


def renewal_key(pinned: str) -> str:
    """Return the path of the renewal key for upgrade descriptions, or that it is not here.

    It may be on another machine. Raise UsageError if the key on this one is not the pinned key.
    """
    path = dsse.renewal_key_path()
    if not path.exists():
        return f"is not on this machine ({path}); whoever runs {command_line('kit.renew')} needs it"
    if dsse.public_hex(dsse.load_key(path)) != pinned:
        raise UsageError(
            f"{path} is not the one that farm.yaml has in keys.renewal",
            remedy="use the key that is pinned there, or pin this one",
        )
    return str(path)


def environment_key(name: str, pinned: str | None, all_pinned: Mapping[str, str]) -> str:
    """Return the path of the key that signs an environment's statements.

    Raise UsageError if it is not pinned, is not the pinned one, or is that of two environments;
    SignatureInvalid if it is not on this machine.
    """
    path = dsse.key_path(name)
    remedy = f"{command_line('keys')} makes and pins what is missing"
    if pinned is None and not path.exists():
        raise UsageError("there is none yet, and a release needs one in farm.yaml", remedy=remedy)
    public = dsse.public_hex(dsse.load_key(path))
    if pinned is None:
        raise UsageError(
            "farm.yaml does not know it, so what it signs cannot be released", remedy=remedy
        )
    if public != pinned:
        raise UsageError(
            f"{path} is not the one that farm.yaml has in keys.environments",
            remedy="use the key that is pinned there, or pin this one",
        )
    if list(all_pinned.values()).count(pinned) > 1:
        raise UsageError(
            "another environment has the same key in farm.yaml", remedy="make one for each"
        )
    return str(path)


def unpublished(public: Path, tag: str) -> str:
    """Return where a release will be published; raise UsageError if that path exists already."""
    folder = public / tag
    if os.path.lexists(folder):
        raise UsageError(
            f"{folder} is there already, and a published release is never replaced",
            remedy="release a new tag, or go on with the run that made it: --run ID",
        )
    return f"{folder} is free"
