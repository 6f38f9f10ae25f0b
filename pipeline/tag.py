"""Release tags: annotated, under the name that was asked for, and signed by a key of the farm."""

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pipeline import command
from pipeline.config import TagPolicy
from pipeline.errors import SignatureInvalid, UsageError
from pipeline.git import OBJECT_ID, git

TAG_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,79}")
GPG_S = 60.0
KEY_LIMIT = 1024 * 1024
# Only what is imported counts: no key server, no agent, no key of the caller's.
GPG_CONF = "batch\nno-autostart\nno-auto-key-retrieve\ntrust-model always\n"
# Whatever else gpg says, one of these in its status lines is a refusal.
REFUSED = frozenset({"BADSIG", "ERRSIG", "EXPSIG", "EXPKEYSIG", "REVKEYSIG", "NO_PUBKEY"})


@dataclass(frozen=True)
class VerifiedTag:
    """A tag that may be released: its object, the commit that it names and who signed it."""

    name: str
    object_id: str
    commit: str
    signer: str | None  # OpenPGP fingerprint; None where farm.yaml asks for no signature


def check_name(name: str) -> None:
    """Raise UsageError for a name that could not be a release's folder and version."""
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
    is lightweight, names something else, or has no good signature by a key listed in farm.yaml.
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
    """Return the commit of a tag object; raise SignatureInvalid if it is another tag's object."""
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
    """Return the listed fingerprint that made the tag's signature."""
    if not policy.signers:
        raise SignatureInvalid(
            f"nobody may sign the tag {name}: farm.yaml lists no keys.tags.signers",
            remedy="list the fingerprints there and put the public keys into keys/*.asc",
        )
    with tempfile.TemporaryDirectory(prefix="twinbuild-gpg-") as home:
        (Path(home) / "gpg.conf").write_text(GPG_CONF)
        _import(Path(home), keys)
        env = {"GNUPGHOME": home}
        said = git(
            repository,
            "verify-tag",
            "--raw",
            object_id,
            env=env,
            accept=range(256),
            timeout_s=GPG_S,
        )
    signers = good_signers(said.stderr.decode(errors="replace")) if said.status == 0 else set()
    listed = sorted(signers & set(policy.signers))
    if not listed:
        raise SignatureInvalid(
            f"the tag {name} has no good signature by a key that farm.yaml lists",
            remedy="see keys.tags.signers in farm.yaml and keys/*.asc",
            detail=said.tail,
        )
    return listed[0]


def _import(home: Path, keys: Path) -> None:
    """Import the farm's public keys into an empty GnuPG home."""
    files = sorted(keys.glob("*.asc"))
    if not files:
        raise SignatureInvalid(
            f"there are no public keys {keys}/*.asc to check the tag with",
            remedy="gpg --export --armor FINGERPRINT > keys/NAME.asc",
        )
    for file in files:
        if file.stat().st_size > KEY_LIMIT:
            raise SignatureInvalid(f"the key {file} is larger than {KEY_LIMIT} bytes")
        command.run(
            ["gpg", "--quiet", "--import", file.resolve()],
            env={"GNUPGHOME": str(home)},
            timeout_s=GPG_S,
            failure=SignatureInvalid,
        )


def good_signers(status: str) -> set[str]:
    """Return the fingerprints, the primary key's too, of the one good signature of gpg's status.

    Return nothing if there is any other than one good signature, or gpg found anything amiss.
    """
    lines = [
        line.split()[1:]
        for line in status.split("\n")
        if line.startswith("[GNUPG:] ") and len(line.split()) > 1
    ]
    words = [line[0] for line in lines]
    valid = [line for line in lines if line[0] == "VALIDSIG"]
    if REFUSED & set(words) or words.count("GOODSIG") != 1 or len(valid) != 1:
        return set()
    return {valid[0][1], valid[0][-1]} if len(valid[0]) >= 11 else set()
