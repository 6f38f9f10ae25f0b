# SPDX-License-Identifier: GPL-3.0-or-later
"""Release tags: annotated, with the requested name, and signed by a key of the farm."""

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pipeline.base import command, gpgv
from pipeline.base.errors import SignatureInvalid, UsageError, command_line
from pipeline.base.git import OBJECT_ID, git
from pipeline.documents.signatures import Untrusted
from pipeline.farm import ssh_key
from pipeline.farm.config import TagPolicy

TAG_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,79}")
VERIFY_S = 60.0
SSH_MARK = b"-----BEGIN SSH SIGNATURE-----"
SIGNATURE_MARK = re.compile(
    rb"^-----BEGIN (?:PGP SIGNATURE|PGP MESSAGE|SIGNED MESSAGE|SSH SIGNATURE)-----", re.MULTILINE
)


@dataclass(frozen=True)
class VerifiedTag:
    """A tag that may be released: its object, its commit and its signer."""

    name: str
    object_id: str
    commit: str
    # Fingerprint of an OpenPGP or SSH key; None if the policy requires no signature.
    signer: str | None


def check_name(name: str) -> None:
    """Raise UsageError for a name that cannot be the folder and version of a release."""
    if not TAG_NAME.fullmatch(name) or ".." in name or name.endswith((".lock", ".")):
        raise UsageError(
            f"{name!r} cannot be a release",
            remedy="letters, digits and . _ + - are allowed, the first a letter or digit",
        )


def verify(
    repository: Path, object_id: str, name: str, policy: TagPolicy, keys: Path
) -> VerifiedTag:
    """Check the tag object `object_id` of a neutral repository against the farm's policy.

    `keys` is the folder whose `*.asc` are the public keys. Raise SignatureInvalid for a tag that
    is lightweight, is the object of another tag, or has no good signature by a listed key.
    """
    kind = git(repository, "cat-file", "-t", object_id).text
    if kind != "tag":
        raise SignatureInvalid(
            f"the tag {name} is lightweight, it names a {kind} and nobody vouches for it",
            remedy=f"git tag --sign {name}",
        )
    commit = _commit_of(git(repository, "cat-file", "tag", object_id).stdout, name)
    signer = _signer(repository, object_id, name, policy, keys) if policy.signed else None
    return VerifiedTag(name, object_id, commit, signer)


def _commit_of(content: bytes, name: str) -> str:
    """Return the commit of a tag object; raise SignatureInvalid if it is that of another tag."""
    header = content.split(b"\n\n", 1)[0].decode(errors="replace").split("\n")
    kinds = [line.split(" ", 1)[0] for line in header]
    if kinds != ["object", "type", "tag", "tagger"]:
        raise SignatureInvalid(f"the tag {name} is malformed")
    commit, kind, tagged = (line.split(" ", 1)[1] for line in header[:3])
    if tagged != name:
        raise SignatureInvalid(f"the tag {name} was made under the name {tagged[:80]!r}")
    if kind != "commit" or not OBJECT_ID.fullmatch(commit):
        raise SignatureInvalid(f"the tag {name} does not name a commit")
    return commit


def _signer(repository: Path, object_id: str, name: str, policy: TagPolicy, keys: Path) -> str:
    """Return the OpenPGP or SSH fingerprint of the listed key that signed the tag."""
    if not policy.signers and not policy.ssh:
        raise SignatureInvalid(
            f"nobody may sign the tag {name}: farm.yaml lists no keys.tags.signers and no ssh",
            remedy=f"{command_line('keys')} puts the first one there; docs/how-to/keys.md",
        )
    content = git(repository, "cat-file", "tag", object_id).stdout
    signed, signature = _split(content)
    try:
        if signature.startswith(SSH_MARK):
            return _ssh_signer(repository, object_id, signature, policy)
        return _openpgp_signer(signed, signature, policy, keys)
    except Untrusted as error:
        raise SignatureInvalid(
            f"the tag {name} has no good signature by a key that farm.yaml lists: {error}",
            remedy="see keys.tags in farm.yaml and keys/*.asc",
            detail=error.detail,
        ) from error


def _split(content: bytes) -> tuple[bytes, bytes]:
    """Return the signed part of a tag object and its signature, split as git itself does.

    The signature begins at the last line that looks like the first line of one
    (`parse_signed_buffer` in git's gpg-interface.c).
    """
    marks = list(SIGNATURE_MARK.finditer(content))
    start = marks[-1].start() if marks else len(content)
    return content[:start], content[start:]


def _openpgp_signer(signed: bytes, signature: bytes, policy: TagPolicy, keys: Path) -> str:
    if not signature:
        raise Untrusted("it is not signed")
    if not policy.signers:
        raise Untrusted("it has an OpenPGP signature, and keys.tags.signers lists nobody")
    keyring = gpgv.public_keys(keys)
    if not keyring:
        raise SignatureInvalid(
            f"there are no public keys {keys}/*.asc to check the tag with",
            remedy="mkdir -p keys && gpg --armor --export FINGERPRINT > keys/NAME.asc",
        )
    made = gpgv.check_detached(signed, signature, keyring)
    if len(made) != 1:
        raise Untrusted(f"it has {len(made)} signatures, not one")
    for fingerprint in policy.signers:
        if made[0].is_by(fingerprint):
            return fingerprint
    raise Untrusted(f"it is signed by {made[0].primary}")


def _ssh_signer(repository: Path, object_id: str, signature: bytes, policy: TagPolicy) -> str:
    """Return the fingerprint of the listed SSH key that signed the tag.

    git's own verifier is run for one key after the other, so that only its exit status matters and
    none of its output.
    """
    settings = (
        f"gpg.ssh.program={command.find('ssh-keygen')}",
        "gpg.minTrustLevel=fully",
        "gpg.program=/bin/false",
    )
    with tempfile.TemporaryDirectory(prefix="twinbuild-ssh-") as folder:
        allowed = Path(folder, "allowed")
        for key in policy.ssh:
            ssh_key.allow(key, allowed)
            done = git(
                repository,
                *("verify-tag", object_id),
                settings=(*settings, f"gpg.ssh.allowedSignersFile={allowed}"),
                accept=range(256),
                timeout_s=VERIFY_S,
            )
            if done.status == 0:
                return ssh_key.fingerprint(key)
    claimed = ssh_key.signer_of(signature)
    raise Untrusted(f"no key of keys.tags.ssh has signed it, it says it is by the key {claimed}")
