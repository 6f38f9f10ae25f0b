# SPDX-License-Identifier: GPL-3.0-or-later
"""The signers of tags: checks that their keys are usable, and that git signs as one of them."""

import os
import tempfile
from pathlib import Path

from pipeline.base import git, gpg_failure, neutral, openpgp
from pipeline.base.errors import SignatureInvalid, TwinbuildError, UsageError, command_line
from pipeline.base.openpgp import Gpg
from pipeline.farm import tag
from pipeline.farm.config import TagPolicy

TRIAL = "trial"
SIGNING_S = openpgp.TIMEOUT_S
# The settings that decide how git signs. Programs are taken only from the operator's own settings.
CHOICES = ("user.signingkey", "user.name", "user.email", "gpg.format")
PROGRAMS = ("gpg.program", "gpg.openpgp.program", "gpg.ssh.program")
DEFAULTS = {"gpg.program": "gpg", "gpg.ssh.program": "ssh-keygen"}


def usable(policy: TagPolicy, keys: Path) -> str:
    """Return how many signers can sign tags; `keys` has OpenPGP public keys as `*.asc`.

    Raise UsageError, which names the first signer whose public key is missing or unusable, or a
    file that has a secret key.
    """
    for signer in policy.signers:
        fault = fault_of(signer, keys)
        if fault:
            raise UsageError(fault.what, remedy=fault.remedy)
    openpgp_keys = f"{len(policy.signers)} OpenPGP keys in keys/*.asc can be used"
    return f"{openpgp_keys}, and {len(policy.ssh)} SSH keys" if policy.ssh else openpgp_keys


def fault_of(signer: str, keys: Path) -> gpg_failure.Reason | None:
    """Return why a signer's tags cannot be verified with the keys in a folder, or None."""
    with tempfile.TemporaryDirectory(prefix="twinbuild-gpg-") as home:
        gpg = Gpg({"GNUPGHOME": home}, ("--no-autostart",))
        for file in sorted(keys.glob("*.asc")):
            shown = gpg.run("--with-colons", "--show-keys", file.resolve())
            if any(line.startswith("sec:") for line in shown.text.split("\n")):
                return gpg_failure.Reason(
                    f"keys/{file.name} holds a secret key", "remove it, and make another key"
                )
            gpg.run("--import", file.resolve())
        listing = gpg.run("--with-colons", "--list-keys", signer).text
    if "pub:" not in listing:
        return gpg_failure.Reason(
            f"no keys/*.asc has the public key of the signer {signer}",
            f"mkdir -p keys && gpg --armor --export {signer} > keys/NAME.asc,"
            " or take it out of keys.tags.signers in farm.yaml",
        )
    fault = gpg_failure.key_fault(listing)
    return fault and gpg_failure.Reason(f"the signer {signer} {fault.what}", fault.remedy)


def try_to_tag(checkout: Path, policy: TagPolicy, keys: Path) -> str:
    """Sign a tag as `git tag --sign` would in this clone, and verify it as a release does.

    This is done in a temporary repository. `keys` has the signers' public keys. Raise
    SignatureInvalid, with git's message, if git cannot sign, or if the policy does not accept the
    signature; UsageError if git has no key to sign with.
    """
    if not policy.signed:
        return "tags need no signature"
    chosen = {**DEFAULTS, **settings(checkout)}
    if "user.signingkey" not in chosen and "user.email" not in chosen:
        raise UsageError(
            "git knows no key to sign with",
            remedy=f"{command_line('keys')}, or git config user.signingkey FINGERPRINT",
        )
    words = tuple(f"{name}={value}" for name, value in chosen.items())
    identity = ("user.name=Twinbuild", "user.email=trial@twinbuild.invalid")
    with tempfile.TemporaryDirectory(prefix="twinbuild-git-") as name:
        folder = Path(name)
        git.git(folder, "init", "--quiet", "--bare", "--template=")
        tree = git.git(folder, "mktree", stdin=b"").text
        commit = git.git(folder, "commit-tree", "-m", TRIAL, tree, settings=identity).text
        signed = git.git(
            folder,
            *("tag", "--sign", "--message", "A trial of Twinbuild, worth nothing", TRIAL, commit),
            settings=(*identity, *words),
            env=openpgp.asking(),
            timeout_s=SIGNING_S,
            accept=range(256),
        )
        if signed.status:
            signer = chosen.get("user.signingkey") or chosen["user.email"]
            raise SignatureInvalid(
                f"git cannot sign tags as {signer}",
                remedy="git config user.signingkey FINGERPRINT, of a key that gpg has here",
                detail=signed.tail,
            )
        made = git.git(folder, "rev-parse", f"refs/tags/{TRIAL}").text
        verified = tag.verify(folder, made, TRIAL, policy, keys)
    return f"git signs tags as {verified.signer}; a trial signature is good"


def settings(checkout: Path) -> dict[str, str]:
    """Return git's settings for signing in a clone: the clone's, or else the user's."""
    home = Path.home()
    configuration = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    found: dict[str, str] = {}
    for file in (configuration / "git/config", home / ".gitconfig"):
        if file.is_file():
            listed = git.git(
                home,
                *("config", "--file", file, "--includes", "--null", "--list"),
                failure=UsageError,
            )
            pairs = (entry.partition("\n") for entry in listed.text.split("\0") if entry)
            found |= {name.lower(): value for name, _, value in pairs}
    own = {name: found[name] for name in (*CHOICES, *PROGRAMS) if name in found}
    return own | {n: v for n, v in clone_settings(checkout).items() if n in CHOICES}


def clone_settings(checkout: Path) -> dict[str, str]:
    """Return the clone's own configuration; empty if it is not a git repository."""
    layout = neutral.find(checkout.resolve())
    try:
        return git.read_settings(layout) if layout else {}
    except TwinbuildError:
        return {}
