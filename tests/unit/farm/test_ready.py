# SPDX-License-Identifier: GPL-3.0-or-later
"""What a release needs is known before the first machine starts, and doctor says the same."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pipeline import flow
from pipeline.base import dsse, openpgp
from pipeline.base.display import Display
from pipeline.base.errors import InfrastructureFailed, SignatureInvalid, TwinbuildError, UsageError
from pipeline.cli import doctor
from pipeline.farm import policy, ready, signers
from pipeline.farm.config import Archive, EnvironmentEntry, Farm, Keys, TagPolicy
from pipeline.farm.workspace import Workspace
from tests.gpg_home import GpgHome, made_home

pytestmark = pytest.mark.tools

PLACEHOLDER = "0123456789ABCDEF0123456789ABCDEF01234567"
ENTRY = EnvironmentEntry(memory_mib=1024, cpus=1)
ARCHIVE = Archive(suites=["trixie"], components=["main"], keyring=Path("/none"))


@pytest.fixture(scope="module")
def home() -> Iterator[GpgHome]:
    with made_home() as made:
        made.make("Release <release@example.org>", expires="20991231T000000")
        made.make("Signer <signer@example.org>")
        made.make("Expired <expired@example.org>", now="20200101T000000")
        yield made


@pytest.fixture
def caller(home: GpgHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GpgHome:
    for name in (*openpgp.ASKING, "TWINBUILD_RELEASE_KEY", "TWINBUILD_RELEASE_PASSPHRASE_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GNUPGHOME", str(home.path))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home/.config"))
    monkeypatch.setenv("DOCKER_HOST", "tcp://192.0.2.1:2376")
    monkeypatch.setattr(ready, "FREE_DISK_GIB", 0)
    return home


@pytest.fixture
def workspace(caller: GpgHome, tmp_path: Path) -> Workspace:
    """A farm that can release: every key made and pinned, a signer, nothing published."""
    checkout = tmp_path / "farm"
    (checkout / "keys").mkdir(parents=True)
    git(checkout, "init", "--quiet")
    signer = caller.fingerprint("Signer <signer@example.org>")
    git(checkout, "config", "user.signingkey", signer)
    (checkout / "keys/signer.asc").write_text(caller.text("--armor", "--export", signer))
    pinned = {name: dsse.make_key(dsse.key_path(name)) for name in ("alpha", "beta")}
    release = caller.fingerprint("Release <release@example.org>")
    keys = Keys(release=release, environments=pinned, tags=TagPolicy(signers=[signer]))
    environments = dict.fromkeys(pinned, ENTRY)
    farm = Farm(environments=environments, archives={"debian": ARCHIVE}, keys=keys)
    return Workspace(checkout, farm)


def git(folder: Path, *arguments: str) -> None:
    argv = ["git", "-C", str(folder), *arguments]
    subprocess.run(argv, check=True, capture_output=True)


def with_keys(workspace: Workspace, **changes: object) -> Workspace:
    keys = workspace.farm.keys.model_copy(update=changes)
    farm = workspace.farm.model_copy(update={"keys": keys})
    return Workspace(workspace.checkout, farm)


def check(workspace: Workspace, tag: str | None = "3.3") -> list[str]:
    messages: list[str] = []
    ready.check_release(workspace, tag=tag, notify=messages.append)
    return messages


def test_a_farm_that_can_release_is_shown_what_was_found(workspace: Workspace) -> None:
    messages = check(workspace)
    assert [line.partition(":")[0] for line in messages] == [
        *("disk", "tags", "key alpha", "key beta", "tag", "release key")
    ]
    assert messages[-1].endswith("expires 2099-12-31; a trial signature is good")


def refused(workspace: Workspace, kind: type[TwinbuildError], what: str) -> None:
    with pytest.raises(kind, match=what) as caught:
        check(workspace)
    assert "nothing is built" in str(caught.value)


def test_a_missing_or_unable_release_key(workspace: Workspace, caller: GpgHome) -> None:
    refused(with_keys(workspace, release=None), UsageError, r"none is set.*\./farm keys --name")
    refused(with_keys(workspace, release="A" * 40), SignatureInvalid, "no secret key")
    expired = caller.fingerprint("Expired <expired@example.org>")
    refused(with_keys(workspace, release=expired), SignatureInvalid, "has expired")


def test_a_key_that_gpg_lists_and_that_cannot_sign(
    workspace: Workspace, caller: GpgHome, tmp_path: Path
) -> None:
    """Its passphrase is needed and nobody can be asked: only a trial signature shows it."""
    with made_home(asks=True) as home, pytest.MonkeyPatch.context() as patch:
        (home.path / "answer").write_text("null")
        fingerprint = home.make("Locked", passphrase="secret")
        patch.setenv("GNUPGHOME", str(home.path))
        locked = with_keys(workspace, release=fingerprint)
        refused(locked, SignatureInvalid, "no terminal or screen")
        passphrase = tmp_path / "passphrase"
        passphrase.touch(mode=0o600)
        passphrase.write_text("secret\n")
        patch.setenv("TWINBUILD_RELEASE_PASSPHRASE_FILE", str(passphrase))
        assert check(locked)


def test_keys_of_environments(workspace: Workspace) -> None:
    pinned = workspace.farm.keys.environments
    only_alpha = with_keys(workspace, environments={"alpha": pinned["alpha"]})
    refused(only_alpha, UsageError, r"key beta: farm\.yaml does not know it.*\./farm keys")
    twice = with_keys(workspace, environments=dict.fromkeys(pinned, pinned["alpha"]))
    refused(twice, UsageError, "another environment has the same key")
    other = with_keys(workspace, environments={**pinned, "beta": "0" * 64})
    refused(other, UsageError, "not the one that farm.yaml has")
    dsse.key_path("beta").chmod(0o644)
    refused(workspace, SignatureInvalid, "mode 0644")
    dsse.key_path("beta").unlink()
    refused(workspace, SignatureInvalid, "cannot read the key")
    refused(only_alpha, UsageError, "there is none yet")


def test_what_is_published_already(workspace: Workspace) -> None:
    (workspace.public / "3.3").mkdir(parents=True)
    refused(workspace, UsageError, "public/3.3 is there already")
    assert check(workspace, tag="3.4")
    assert check(workspace, tag=None)  # a run that is resumed


def test_all_that_is_missing_is_reported_at_once(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ready, "FREE_DISK_GIB", 10**9)
    with pytest.raises(UsageError, match="release key: none is set") as caught:
        check(with_keys(workspace, release=None, tags=TagPolicy()))
    assert "tags: must be signed, and no signer is known" in caught.value.detail
    assert "disk: " in caught.value.detail
    with pytest.raises(InfrastructureFailed, match=r"nothing is built: disk: .* GiB free at"):
        check(workspace)


def let_decide(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the keys of a workspace be the policy, as a runner brings it."""
    folder = workspace.checkout.parent / "policy"
    (folder / "keys").mkdir(parents=True, exist_ok=True)
    for key in (workspace.checkout / "keys").iterdir():
        shutil.copy(key, folder / "keys")
    document = {"keys": workspace.farm.keys.model_dump(mode="json", exclude_none=True)}
    (folder / "farm.yaml").write_text(json.dumps(document))
    monkeypatch.setenv(policy.VARIABLE, str(folder))


def before_release(workspace: Workspace) -> None:
    flow.check_release(workspace, "3.3", Display(Console(quiet=True)), resumed=False)


def test_nothing_is_made_when_a_release_cannot_be(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_decide(with_keys(workspace, release=None), monkeypatch)
    with pytest.raises(UsageError, match="none is set"):
        before_release(workspace)
    assert not workspace.runs.exists()
    assert not workspace.public.exists()


def test_a_release_is_judged_by_the_policy_before_it_begins_too(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What farm.yaml says here, and nobody has pushed, does not count when it is released."""
    let_decide(workspace, monkeypatch)
    before_release(with_keys(workspace, release=None, environments={}))
    alpha = {"alpha": workspace.farm.keys.environments["alpha"]}
    let_decide(with_keys(workspace, environments=alpha), monkeypatch)
    with pytest.raises(UsageError, match=r"key beta: farm\.yaml does not know it"):
        before_release(workspace)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"environments": {}}, "no keys.environments.alpha, no keys.environments.beta by"),
        ({"release": None}, "no keys.release by"),
        ({"environments": {"alpha": "0" * 64, "beta": "0" * 64}}, "two environments have one key"),
    ],
)
def test_the_first_stage_alone_finds_keys_that_are_not_pinned(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], what: str
) -> None:
    """As a job of a pipeline that has none of the keys."""
    for name in workspace.farm.environments:
        dsse.key_path(name).unlink()
    let_decide(workspace, monkeypatch)
    flow.check_pinned(workspace, "3.3")
    let_decide(with_keys(workspace, **change), monkeypatch)
    with pytest.raises(SignatureInvalid, match=f"{what}.*3.3 could not be released"):
        flow.check_pinned(workspace, "3.3")


def test_descriptions_are_signed_again_by_the_policy(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The renewal key that they name is the one on the default branch."""
    let_decide(with_keys(workspace, renewal="0" * 64), monkeypatch)
    farms: list[Farm] = []
    monkeypatch.setattr(flow, "describe_again", lambda _tag, farm, *_, **__: farms.append(farm))
    flow.describe(workspace, "3.3", Display(Console(quiet=True)))
    assert [farm.keys.renewal for farm in farms] == ["0" * 64]


def test_the_renewal_key_is_the_one_that_is_pinned_or_elsewhere(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TWINBUILD_RENEWAL_KEY", str(tmp_path / "renewal.pem"))
    assert "is not on this machine" in ready.renewal_key("0" * 64)
    public = dsse.make_key(tmp_path / "renewal.pem")
    assert ready.renewal_key(public) == str(tmp_path / "renewal.pem")
    with pytest.raises(UsageError, match=r"not the one that farm\.yaml has in keys\.renewal"):
        ready.renewal_key("0" * 64)
    (tmp_path / "renewal.pem").chmod(0o644)
    with pytest.raises(SignatureInvalid, match="mode 0644"):
        ready.renewal_key(public)


def test_disk_counts_each_file_system_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ready, "FREE_DISK_GIB", 0)
    found = ready.disk([tmp_path / "not" / "yet", tmp_path])
    assert found.count("GiB free") == 1
    monkeypatch.setattr(ready, "FREE_DISK_GIB", 10**9)
    with pytest.raises(InfrastructureFailed, match=r"\./farm clean"):
        ready.disk([tmp_path])


def test_disk_looks_at_the_engine_only_where_it_is(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ready.ENGINE_FOLDER not in ready.folders(workspace)
    monkeypatch.delenv("DOCKER_HOST")
    assert ready.ENGINE_FOLDER in ready.folders(workspace)


def test_tags_need_signers() -> None:
    assert "no signature" in ready.tags(TagPolicy(signed=False))
    assert "1 known" in ready.tags(TagPolicy(signers=["A" * 40]))
    assert ready.tags(TagPolicy(signers=["A" * 40, "B" * 40])).endswith("one of 2 known keys")
    with pytest.raises(UsageError, match="no signer"):
        ready.tags(TagPolicy())


# --- who signs tags


def test_a_signer_needs_a_public_key_that_holds(workspace: Workspace, caller: GpgHome) -> None:
    keys, policy = workspace.checkout / "keys", workspace.farm.keys.tags
    assert "1 OpenPGP keys" in signers.usable(policy, keys)
    with pytest.raises(
        UsageError, match=f"no keys/.*has the public key of the signer {PLACEHOLDER}"
    ):
        signers.usable(TagPolicy(signers=[PLACEHOLDER]), keys)
    expired = caller.fingerprint("Expired <expired@example.org>")
    (keys / "expired.asc").write_text(caller.text("--armor", "--export", expired))
    with pytest.raises(UsageError, match=f"the signer {expired} has expired"):
        signers.usable(TagPolicy(signers=[*policy.signers, expired]), keys)
    secret = caller.text("--armor", "--export-secret-keys", policy.signers[0])
    (keys / "mistake.asc").write_text(secret)
    with pytest.raises(UsageError, match="holds a secret key"):
        signers.usable(policy, keys)


def test_git_signs_as_one_of_the_signers(workspace: Workspace, caller: GpgHome) -> None:
    policy = workspace.farm.keys.tags
    before = sorted(workspace.checkout.rglob("*"))
    assert policy.signers[0] in signers.try_to_tag(
        workspace.checkout, policy, workspace.checkout / "keys"
    )
    assert sorted(workspace.checkout.rglob("*")) == before
    other = TagPolicy(signers=[caller.fingerprint("Release <release@example.org>")])
    with pytest.raises(SignatureInvalid, match="no good signature by a key"):
        signers.try_to_tag(workspace.checkout, other, workspace.checkout / "keys")
    git(workspace.checkout, "config", "user.signingkey", PLACEHOLDER)
    with pytest.raises(SignatureInvalid, match=f"git cannot sign tags as {PLACEHOLDER}"):
        signers.try_to_tag(workspace.checkout, policy, workspace.checkout / "keys")
    git(workspace.checkout, "config", "--unset", "user.signingkey")
    with pytest.raises(UsageError, match="git knows no key to sign with"):
        signers.try_to_tag(workspace.checkout, policy, workspace.checkout / "keys")


def test_git_signs_with_an_ssh_key_that_is_listed(workspace: Workspace, tmp_path: Path) -> None:
    path = tmp_path / "id_ed25519"
    make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "me", "-f", str(path)]
    subprocess.run(make, check=True)
    git(workspace.checkout, "config", "gpg.format", "ssh")
    git(workspace.checkout, "config", "user.signingkey", f"{path}.pub")
    policy = TagPolicy(ssh=[path.with_suffix(".pub").read_text().strip()])
    assert f"git signs tags as {policy.listed[0]}" in (
        signers.try_to_tag(workspace.checkout, policy, workspace.checkout / "keys")
    )
    assert signers.usable(policy, workspace.checkout / "keys").endswith("and 1 SSH keys")
    with pytest.raises(SignatureInvalid, match="no good signature by a key"):
        signers.try_to_tag(
            workspace.checkout, workspace.farm.keys.tags, workspace.checkout / "keys"
        )


def test_a_clone_chooses_the_key_and_the_user_the_program(
    workspace: Workspace, tmp_path: Path
) -> None:
    """The attacker wrote the clone's configuration, which must start no program of theirs."""
    git(workspace.checkout, "config", "gpg.program", str(tmp_path / "evil"))
    configuration = tmp_path / "home/.gitconfig"
    configuration.parent.mkdir(exist_ok=True)
    configuration.write_text("[gpg]\nprogram = /usr/bin/gpg\n[user]\nsigningKey = mine\n")
    found = signers.settings(workspace.checkout)
    assert found["gpg.program"] == "/usr/bin/gpg"
    assert found["user.signingkey"] == workspace.farm.keys.tags.signers[0]


def test_doctor_finds_the_placeholder_and_makes_trial_signatures(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    farm = (
        "environments: {alpha: {memory_mib: 1024, cpus: 1}, beta: {memory_mib: 1024, cpus: 1}}\n"
        "archives: {}\n"
    )
    (workspace.checkout / "farm.yaml").write_text(farm)
    placeholder = TagPolicy(signers=[PLACEHOLDER])
    unkeyed = with_keys(workspace, tags=placeholder)
    monkeypatch.setattr(doctor, "open_workspace", lambda _: unkeyed)
    monkeypatch.setattr(doctor, "engine_version", lambda _: "fine")
    monkeypatch.setattr(doctor, "reach", lambda *_: "fine")
    found = {finding.name: finding for finding in doctor.examine(workspace.checkout)}
    assert not found["policy"].ok  # nothing is committed yet
    assert "is judged by farm.yaml here" in found["policy"].text
    assert found["release key"].ok
    assert "trial signature is good" in found["release key"].text
    assert not found["signers"].ok
    assert PLACEHOLDER in found["signers"].text
    assert not found["git signing"].ok

    let_decide(with_keys(workspace, renewal="0" * 64), monkeypatch)
    monkeypatch.setattr(doctor, "open_workspace", lambda _: workspace)
    found = {finding.name: finding for finding in doctor.examine(workspace.checkout)}
    assert "farm.yaml here differs" in found["policy"].text
    assert all(found[name].ok for name in ("policy", "signers", "git signing", "renewal key"))
