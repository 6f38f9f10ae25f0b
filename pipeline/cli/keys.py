# SPDX-License-Identifier: GPL-3.0-or-later
"""`./farm keys`: makes or registers the keys that a release needs; it may be run again.

No key, no file with another key in it and no value of `farm.yaml` is replaced.
A new release key gets the passphrase in `TWINBUILD_RELEASE_PASSPHRASE_FILE`, or none.
"""

import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from pipeline.base import dsse, git, gpg_failure, neutral, openpgp
from pipeline.base.errors import SignatureInvalid, UsageError
from pipeline.base.files import write_bytes
from pipeline.base.openpgp import Gpg
from pipeline.farm import config, farm_edit, signers
from pipeline.farm.config import Farm
from pipeline.farm.workspace import Workspace, open_workspace

PUBLIC = Path("keys", "release.asc")
YEARS = "2y"
Notify = Callable[[str], None]


@dataclass(frozen=True)
class ToBackUp:
    """What has to be backed up: the release key's fingerprint, and the environments' key files."""

    release: str
    environments: Mapping[str, Path]


def set_up(workspace: Workspace, name: str | None, release: str | None, notify: Notify) -> ToBackUp:
    """Make or register the keys of a farm, and prove that they sign.

    `name` is the user id of a release key to be made, `release` the fingerprint of one that gpg
    has, on a card too; without both it is the one in `farm.yaml`. Raise UsageError if something
    else is in the way, SignatureInvalid if a key cannot be used.
    """
    wanted = _wanted(workspace.farm, name, release)
    with openpgp.open_gpg(notify) as gpg:
        fingerprint = wanted or _find_or_make(gpg, name or "", notify)
        fault = gpg_failure.key_fault(openpgp.listing(gpg, fingerprint))
        if fault:
            raise SignatureInvalid(f"the key {fingerprint} {fault.what}", remedy=fault.remedy)
        files = {env: dsse.key_path(env) for env in workspace.farm.environments}
        public = _environment_keys(workspace.farm, notify)
        _write_public(gpg, fingerprint, workspace.checkout / PUBLIC, notify)
        farm = _write_farm(workspace, fingerprint, public, notify)
        openpgp.try_to_sign(gpg, fingerprint)
        notify(f"release key {fingerprint}: a trial signature is good")
    _let_git_sign(workspace.checkout, farm, fingerprint, notify)
    return ToBackUp(fingerprint, {env: path for env, path in files.items() if path.exists()})


def what_to_back_up(kept: ToBackUp) -> list[str]:
    """Return lines for people: what to back up where neither this machine nor a thief reaches."""
    home = Path(os.environ.get("GNUPGHOME") or Path.home() / ".gnupg")
    revocation = home / "openpgp-revocs.d" / f"{kept.release}.rev"
    lines = ["Back up, away from this machine:"]
    lines.append(f"  gpg --armor --export-secret-keys {kept.release}   (unless it is on a card)")
    lines += [f"  {revocation}   (declares the key void)"] if revocation.exists() else []
    return lines + [f"  {path}" for path in kept.environments.values()]


def make_environment_key(farm: Farm, environment: str) -> tuple[Path, str]:
    """Make the key of one of the farm's environments; return its file and its public half."""
    if environment not in farm.environments:
        raise UsageError(
            f"farm.yaml has no environment {environment!r}",
            remedy=f"it has {', '.join(farm.environments)}",
        )
    path = dsse.key_path(environment)
    return path, dsse.make_key(path)


def make_renewal_key() -> tuple[Path, str]:
    """Make the key that renews upgrade descriptions; return its file and its public half."""
    path = dsse.renewal_key_path()
    return path, dsse.make_key(path)


def _wanted(farm: Farm, name: str | None, release: str | None) -> str | None:
    """Return the fingerprint of the key to register; None if one is to be made."""
    if name and release:
        raise UsageError("--name makes a release key and --release takes one: give one of them")
    asked = _normal(release) if release else None
    pinned = farm.keys.release
    if pinned and asked and asked != pinned:
        raise UsageError(
            f"farm.yaml names another release key, {pinned}, which stays",
            remedy=f"to replace it, write `release: null` there and move {PUBLIC} away first",
        )
    if not (pinned or asked or name):
        raise UsageError(
            "farm.yaml names no release key",
            remedy='--name "NAME <ADDRESS>" makes one, --release FINGERPRINT takes one of gpg\'s',
        )
    return pinned or asked


def _normal(fingerprint: str) -> str:
    try:
        return config.fingerprint(fingerprint)
    except ValueError as error:
        raise UsageError(f"--release {fingerprint!r} is {error}") from error


def _find_or_make(gpg: Gpg, name: str, notify: Notify) -> str:
    """Return the one key of a user id that can sign; make it if there is none."""
    if os.environ.get("TWINBUILD_RELEASE_KEY"):
        raise UsageError(
            "TWINBUILD_RELEASE_KEY names a release key, so none is made",
            remedy="give --release with its fingerprint, or unset the variable",
        )
    if not name.isprintable() or name.strip() != name:
        raise UsageError(f"--name {name!r} cannot be the user id of a key")
    listed = gpg.run("--with-colons", "--list-secret-keys", f"={name}").text
    rows = [line.split(":") for line in listed.split("\n")]
    primary = [
        following[9]
        for row, following in pairwise(rows)
        if (row[0], following[0]) == ("sec", "fpr")
    ]
    able = [key for key in primary if not gpg_failure.key_fault(openpgp.listing(gpg, key))]
    if len(able) > 1:
        raise UsageError(
            f"gpg has {len(able)} keys of {name}: {', '.join(able)}", remedy="choose by --release"
        )
    if able:
        notify(f"{able[0]}: gpg has this key of {name} already")
        return able[0]
    return _make(gpg, name, notify)


def _make(gpg: Gpg, name: str, notify: Notify) -> str:
    passphrase = openpgp.passphrase()
    protection = ["--pinentry-mode", "loopback", "--passphrase-fd", "0"]
    made = gpg.run(
        *("--status-fd", "1", *protection, "--quick-generate-key", "--"),
        *(name, "ed25519", "sign", YEARS),
        stdin=passphrase or b"\n",
    )
    created = [line.split() for line in made.text.split("\n") if " KEY_CREATED " in line]
    if made.status != 0 or not created:
        output = made.stderr.decode(errors="replace").strip()
        raise SignatureInvalid(f"gpg made no key of {name}", detail=output)
    fingerprint = created[0][3]
    notify(f"{fingerprint}: made the release key of {name}, which expires in two years")
    if passphrase is None:
        notify(f"it has no passphrase; `gpg --change-passphrase {fingerprint}` gives it one")
    return fingerprint


def _environment_keys(farm: Farm, notify: Notify) -> dict[str, str]:
    """Return the public halves of the keys that are here; make those that are not pinned yet."""
    public: dict[str, str] = {}
    for environment in farm.environments:
        path, pinned = dsse.key_path(environment), farm.keys.environments.get(environment)
        if path.exists():
            public[environment] = dsse.public_hex(dsse.load_key(path))
        elif pinned is None:
            public[environment] = dsse.make_key(path)
            notify(f"{path}: made the key of {environment}")
        else:
            notify(f"{environment}: its key is not here; who has it signs for it")
            continue
        if pinned not in (None, public[environment]):
            raise UsageError(
                f"{path} is not the key that farm.yaml has for {environment}",
                remedy="use that one, or take its line out of keys.environments",
            )
    return public


def _write_public(gpg: Gpg, fingerprint: str, path: Path, notify: Notify) -> None:
    """Write the release key's public half, or bring an existing one up to date."""
    key = openpgp.public_key(gpg, fingerprint)
    with tempfile.TemporaryDirectory(prefix="twinbuild-gpg-") as home:
        merging = Gpg({"GNUPGHOME": home}, ("--no-autostart",))
        if path.exists():
            merging.run("--import", path)
        merging.run("--import", stdin=key)
        listed = merging.run("--with-colons", "--list-keys").text
        if listed.count("\npub:") + listed.startswith("pub:") != 1:
            raise UsageError(
                f"{path} has another key, which stays", remedy="move it to another name first"
            )
        options = ("--armor", "--export-options", "export-minimal")
        content = merging.run(*options, "--export", fingerprint).stdout
    if path.exists() and path.read_bytes() == content:
        return
    notify(f"{path}: {'brought up to date' if path.exists() else 'written'}")
    write_bytes(path, content)


def _write_farm(
    workspace: Workspace, fingerprint: str, public: Mapping[str, str], notify: Notify
) -> Farm:
    """Put missing keys into farm.yaml; return the farm as it is then."""
    path, policy = workspace.checkout / "farm.yaml", workspace.farm.keys.tags
    keys = workspace.checkout / "keys"
    # An SSH key is in farm.yaml itself; an OpenPGP fingerprint needs its public key, too.
    usable = bool(policy.ssh) or not all(signers.fault_of(s, keys) for s in policy.signers)
    needs_signer = policy.signed and not usable
    text = path.read_bytes().decode()
    edited = farm_edit.pin(
        text,
        str(path),
        release=fingerprint,
        environments=public,
        signers=[fingerprint] if needs_signer else [],
    )
    if edited != text:
        write_bytes(path, edited.encode(), mode=path.stat().st_mode & 0o777)
        notify(f"{path}: keys written")
    return open_workspace(workspace.checkout).farm


def _let_git_sign(checkout: Path, farm: Farm, fingerprint: str, notify: Notify) -> None:
    """Set this clone's signing key if it has none, and sign a tag on trial."""
    policy, layout = farm.keys.tags, neutral.find(checkout.resolve())
    if not policy.signed or layout is None:
        return
    if fingerprint in policy.signers and not _has_signing_key(checkout, policy.signers):
        if gpg_failure.key_fault(openpgp.listing(openpgp.own_gpg(), fingerprint)):
            notify("git signs with keys of gpg's own home, and the release key is not there")
            return
        chosen = {"user.signingKey": fingerprint}
        if signers.settings(checkout).get("gpg.format", "openpgp") != "openpgp":
            chosen["gpg.format"] = "openpgp"
        for name, value in chosen.items():
            git.git(layout.common, "config", "--file", layout.common / "config", name, value)
        notify(f"git: signs in this clone as {fingerprint}")
    try:
        notify(signers.try_to_tag(checkout, policy, checkout / "keys"))
    except (SignatureInvalid, UsageError) as error:
        if fingerprint in policy.signers:
            raise
        notify(f"tags are signed elsewhere, by one of keys.tags.signers: here, {error.what}")


def _has_signing_key(checkout: Path, listed: list[str]) -> bool:
    """Tell whether this clone has its own signing key, or its user signs as a listed signer."""
    if "user.signingkey" in signers.clone_settings(checkout):
        return True
    found = signers.settings(checkout)
    key = "".join(found.get("user.signingkey", "").split()).upper().removeprefix("0X")
    return found.get("gpg.format", "openpgp") == "openpgp" and key in listed
