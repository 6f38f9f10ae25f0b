# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may sign a tag: OpenPGP keys and SSH keys that farm.yaml lists, and nobody else."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydantic import ValidationError

from pipeline.base.errors import SignatureInvalid
from pipeline.farm import ssh_key, tag
from pipeline.farm.config import TagPolicy
from tests.debian_archive import SigningKey, make_key

CLEAN = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    **{f"GIT_{who}_NAME": "Tester" for who in ("AUTHOR", "COMMITTER")},
    **{f"GIT_{who}_EMAIL": "tester@example.org" for who in ("AUTHOR", "COMMITTER")},
}
SSH_TYPES = (("ed25519", ()), ("ecdsa", ()), ("rsa", ("-b", "2048")))


@dataclass
class Repository:
    """A git repository, its tags, and the folder of the farm's public keys."""

    path: Path
    keys: Path

    def git(self, *arguments: str, **env: str) -> str:
        argv = ["git", "-C", str(self.path), *arguments]
        done = subprocess.run(argv, env={**CLEAN, **env}, check=True, capture_output=True)
        return done.stdout.decode().strip()

    def verify(self, name: str, **policy: object) -> str | None:
        """Return the signer of a tag, as it is verified."""
        object_id = self.git("rev-parse", f"refs/tags/{name}")
        rules = TagPolicy.model_validate(policy)
        return tag.verify(self.path / ".git", object_id, name, rules, self.keys).signer

    def refused(self, name: str, **policy: object) -> str:
        with pytest.raises(SignatureInvalid) as caught:
            self.verify(name, **policy)
        return str(caught.value)

    def sign(self, name: str, key: SigningKey, *gpg: str) -> None:
        """Make a tag that is signed by OpenPGP; `gpg` are more options for gpg."""
        wrapper = self.path / "gpg-with-options"
        wrapper.write_text(f'#!/bin/sh\nexec gpg {" ".join(gpg)} "$@"\n')
        wrapper.chmod(0o755)
        settings = ("-c", f"gpg.program={wrapper}")
        home = {"GNUPGHOME": str(key.home)}
        self.git(*settings, "tag", "-u", key.fingerprint, "-m", "release", name, **home)

    def sign_by_ssh(self, name: str, key: Path) -> None:
        settings = ("-c", "gpg.format=ssh", "-c", f"user.signingKey={key}")
        self.git(*settings, "tag", "-s", "-m", "release", name)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    made = Repository(tmp_path / "repository", tmp_path / "keys")
    made.path.mkdir()
    made.keys.mkdir()
    made.git("init", "--quiet", "--initial-branch=main")
    made.git("commit", "--quiet", "--allow-empty", "-m", "first")
    return made


@pytest.fixture(scope="module")
def ssh_keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("ssh")
    for kind, options in (*SSH_TYPES, ("ed25519", ())):
        path = folder / (kind if not (folder / kind).exists() else "stranger")
        argv = ["ssh-keygen", "-q", "-t", kind, *options, "-N", "", "-C", "tester", "-f", path]
        subprocess.run(argv, check=True)
    return {path.stem: path.with_suffix("") for path in folder.glob("*.pub")}


def public(key: Path) -> str:
    return key.with_suffix(".pub").read_text().strip()


def fingerprint(key: Path) -> str:
    argv = ["ssh-keygen", "-l", "-f", str(key.with_suffix(".pub"))]
    return subprocess.run(argv, check=True, capture_output=True).stdout.decode().split()[1]


@pytest.fixture(scope="module")
def gpg_keys() -> Iterator[dict[str, SigningKey]]:
    folder = Path(tempfile.mkdtemp(prefix="tb-", dir="/tmp"))
    made = {name: make_key(folder / name) for name in ("signer", "stranger")}
    yield made
    for key in made.values():
        key.stop()
    shutil.rmtree(folder, ignore_errors=True)


# --- SSH ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [kind for kind, _ in SSH_TYPES])
def test_a_tag_that_a_listed_ssh_key_has_signed(
    repository: Repository, ssh_keys: dict[str, Path], kind: str
) -> None:
    repository.sign_by_ssh("3.3", ssh_keys[kind])
    listed = [public(ssh_keys["stranger"]), public(ssh_keys[kind])]
    assert repository.verify("3.3", ssh=listed) == fingerprint(ssh_keys[kind])


def test_a_tag_by_an_ssh_key_that_is_not_listed_names_it(
    repository: Repository, ssh_keys: dict[str, Path], gpg_keys: dict[str, SigningKey]
) -> None:
    """The attacker signs a tag with a key of their own."""
    repository.sign_by_ssh("3.3", ssh_keys["stranger"])
    message = repository.refused("3.3", ssh=[public(ssh_keys["ed25519"])])
    assert fingerprint(ssh_keys["stranger"]) in message
    assert "keys.tags.ssh" in message
    message = repository.refused("3.3", signers=[gpg_keys["signer"].fingerprint])
    assert fingerprint(ssh_keys["stranger"]) in message


def test_what_the_repository_configures_allows_nobody(
    repository: Repository, ssh_keys: dict[str, Path], tmp_path: Path
) -> None:
    """The attacker writes the configuration of the repository that the tag is read from."""
    repository.sign_by_ssh("3.3", ssh_keys["stranger"])
    allowed = tmp_path / "allowed"
    allowed.write_text(f"tester@example.org {public(ssh_keys['stranger'])}\n")
    ran = tmp_path / "ran"
    evil = tmp_path / "evil"
    evil.write_text(f'#!/bin/sh\ntouch {ran}\necho "Good \\"git\\" signature for x with x"\n')
    evil.chmod(0o755)
    repository.git("config", "gpg.ssh.allowedSignersFile", str(allowed))
    repository.git("config", "gpg.ssh.program", str(evil))
    repository.git("config", "gpg.minTrustLevel", "never")
    repository.refused("3.3", ssh=[public(ssh_keys["ed25519"])])
    assert not ran.exists()


def test_a_changed_tag_that_was_signed_by_ssh_is_refused(
    repository: Repository, ssh_keys: dict[str, Path]
) -> None:
    """The attacker puts the signature of one release under another commit."""
    repository.sign_by_ssh("3.3", ssh_keys["ed25519"])
    content = repository.git("cat-file", "tag", "3.3") + "\n"
    commit = repository.git("rev-parse", "HEAD")
    repository.git("commit", "--quiet", "--allow-empty", "-m", "evil")
    changed = content.replace(commit, repository.git("rev-parse", "HEAD"))
    argv = ["git", "-C", str(repository.path), "hash-object", "-t", "tag", "-w", "--stdin"]
    made = subprocess.run(argv, input=changed.encode(), check=True, capture_output=True)
    repository.git("update-ref", "refs/tags/3.3", made.stdout.decode().strip())
    repository.refused("3.3", ssh=[public(ssh_keys["ed25519"])])


def test_a_signature_for_another_use_is_refused(
    repository: Repository, ssh_keys: dict[str, Path], tmp_path: Path
) -> None:
    """The attacker has the signer's signature over the same bytes as a file, not as a tag."""
    repository.git("tag", "-a", "-m", "release", "3.3")
    content = (repository.git("cat-file", "tag", "3.3") + "\n").encode()
    (tmp_path / "content").write_bytes(content)
    argv = ["ssh-keygen", "-Y", "sign", "-q", "-n", "file", "-f", str(ssh_keys["ed25519"])]
    subprocess.run([*argv, str(tmp_path / "content")], check=True, capture_output=True)
    signed = content + (tmp_path / "content.sig").read_bytes()
    argv = ["git", "-C", str(repository.path), "hash-object", "-t", "tag", "-w", "--stdin"]
    made = subprocess.run(argv, input=signed, check=True, capture_output=True)
    repository.git("update-ref", "refs/tags/3.3", made.stdout.decode().strip())
    repository.refused("3.3", ssh=[public(ssh_keys["ed25519"])])


def test_both_kinds_of_keys_may_be_listed(
    repository: Repository, ssh_keys: dict[str, Path], gpg_keys: dict[str, SigningKey]
) -> None:
    signer = gpg_keys["signer"]
    (repository.keys / "signer.asc").write_bytes(signer.gpg("--armor", "--export"))
    policy = {"signers": [signer.fingerprint], "ssh": [public(ssh_keys["ed25519"])]}
    repository.sign_by_ssh("1.0", ssh_keys["ed25519"])
    repository.sign("2.0", signer)
    assert repository.verify("1.0", **policy) == fingerprint(ssh_keys["ed25519"])
    assert repository.verify("2.0", **policy) == signer.fingerprint
    assert "keys.tags.signers lists nobody" in repository.refused("2.0", ssh=policy["ssh"])


@pytest.mark.parametrize(
    "change",
    [
        lambda line: line.replace("ssh-ed25519", "ssh-rsa", 1),
        lambda line: line.replace("ssh-ed25519", "ssh-dss", 1),
        lambda line: f'namespaces="file" {line}',
        lambda line: f"cert-authority {line}",
        lambda line: f"{line}\nssh-ed25519 AAAA",
        lambda line: f"* {line}",
        lambda line: line[:40],
        lambda line: line.split()[1],
        lambda _: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI!!!",
        lambda _: "",
    ],
)
def test_what_is_no_ssh_key_is_refused_when_farm_yaml_is_read(
    ssh_keys: dict[str, Path], change: Callable[[str], str]
) -> None:
    line = public(ssh_keys["ed25519"])
    bare = line.rpartition(" ")[0]
    assert ssh_key.checked(line) == ssh_key.checked(bare) == bare
    with pytest.raises(ValidationError):
        TagPolicy(ssh=[change(line)])


@pytest.mark.parametrize("armoured", [b"", b"-----BEGIN SSH SIGNATURE-----\nAAAA", b"\xff" * 99])
def test_a_malformed_ssh_signature_names_nobody(armoured: bytes) -> None:
    assert ssh_key.signer_of(armoured) == "which is malformed"


# --- OpenPGP --------------------------------------------------------------------------------------


def test_a_tag_signed_with_sha1_is_refused(
    repository: Repository, gpg_keys: dict[str, SigningKey]
) -> None:
    """The attacker can make two tag objects with one SHA-1."""
    signer = gpg_keys["signer"]
    (repository.keys / "signer.asc").write_bytes(signer.gpg("--armor", "--export"))
    repository.sign("3.3", signer, "--digest-algo", "SHA1")
    assert "weak digest SHA-1" in repository.refused("3.3", signers=[signer.fingerprint])


def test_a_tag_from_the_future_is_refused(
    repository: Repository, gpg_keys: dict[str, SigningKey]
) -> None:
    signer = gpg_keys["signer"]
    (repository.keys / "signer.asc").write_bytes(signer.gpg("--armor", "--export"))
    repository.sign("3.3", signer, f"--faked-system-time={int(time.time()) + 86400}!")
    assert "from the future" in repository.refused("3.3", signers=[signer.fingerprint])


def test_a_tag_by_a_revoked_key_is_refused_whatever_the_files_are_called(
    repository: Repository, gpg_keys: dict[str, SigningKey]
) -> None:
    """The attacker stole a key; an old copy of it lies in keys/ beside the revoked one."""
    with tempfile.TemporaryDirectory(prefix="tb-", dir="/tmp") as folder:
        key = make_key(Path(folder, "lost"))
        old = key.gpg("--armor", "--export")
        repository.sign("3.3", key)
        certificate = key.home / "openpgp-revocs.d" / f"{key.fingerprint}.rev"
        key.gpg("--import", stdin=certificate.read_bytes().replace(b":-----BEGIN", b"-----BEGIN"))
        new = key.gpg("--armor", "--export")
        key.stop()
    policy = {"signers": [key.fingerprint]}
    (repository.keys / "m.asc").write_bytes(old)
    assert repository.verify("3.3", **policy) == key.fingerprint
    for name in ("a.asc", "z.asc"):
        (repository.keys / name).write_bytes(new)
        assert "was revoked" in repository.refused("3.3", **policy)
        (repository.keys / name).unlink()


def test_a_tag_with_two_signatures_is_refused(repository: Repository) -> None:
    with tempfile.TemporaryDirectory(prefix="tb-", dir="/tmp") as folder:
        key = make_key(Path(folder, "both"))
        key.gpg("--quick-gen-key", "Second <second@example.org>", "ed25519", "sign", "never")
        (repository.keys / "both.asc").write_bytes(key.gpg("--armor", "--export"))
        repository.sign("3.3", key, "--local-user", "second@example.org")
        key.stop()
    assert "2 signatures" in repository.refused("3.3", signers=[key.fingerprint])
