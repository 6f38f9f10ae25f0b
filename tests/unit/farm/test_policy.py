# SPDX-License-Identifier: GPL-3.0-or-later
"""A tag does not judge itself: the default branch, as the server has it, decides."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from pipeline.base.errors import InfrastructureFailed, SignatureInvalid, UsageError
from pipeline.farm import policy
from pipeline.farm.config import Rules, load_farm
from pipeline.farm.policy import judged, tighten
from pipeline.farm.tag import VerifiedTag
from tests.hostile_repository import git

pytestmark = pytest.mark.tools

A, B, C = "A" * 40, "B" * 40, "C" * 40
STRICT = {"signed": True, "signers": [A]}
LAX = {"signed": False}


def write_farm(folder: Path, tags: Mapping[str, object], **more: object) -> None:
    environment = {"memory_mib": 1024, "cpus": 1}
    archive = {"suites": ["trixie"], "components": ["main"], "keyring": "/k"}
    document = {
        "environments": {"alpha": environment, "beta": environment},
        "archives": {"debian": archive},
        "keys": {"tags": tags, "release": C},
        **more,
    }
    (folder / "farm.yaml").write_text(json.dumps(document))
    (folder / "keys").mkdir(exist_ok=True)
    (folder / "keys/signer.asc").write_text("a public key\n")


def commit(folder: Path, message: str) -> str:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "-m", message)
    return git(folder, "rev-parse", "HEAD")


def tag(folder: Path, name: str = "3.3") -> None:
    git(folder, "tag", "--annotate", "--message", name, name)


def judge(folder: Path, name: str = "3.3", **more: str) -> VerifiedTag:
    """Judge a tag as a job does, whose checkout is what was tagged."""
    with judged(load_farm(folder / "farm.yaml"), folder, name, **more) as (verified, _):
        return verified


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A server whose default branch needs signed tags, after one commit that did not."""
    server = tmp_path_factory.mktemp("policy") / "server"
    server.mkdir()
    git(server, "init", "--quiet", "--initial-branch=trunk", "--template=")
    write_farm(server, LAX)
    commit(server, "lax")
    write_farm(server, STRICT)
    commit(server, "strict")
    return server


@pytest.fixture
def server(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TWINBUILD_CACHE", str(tmp_path / 'it\'s a 50% "cache"'))
    for name in ("TWINBUILD_POLICY", "CI_PROJECT_DIR", "CI_REPOSITORY_URL"):
        monkeypatch.delenv(name, raising=False)
    shutil.copytree(template, tmp_path / "server", symlinks=True)
    return tmp_path / "server"


@pytest.fixture
def clone(server: Path, tmp_path: Path) -> Path:
    git(tmp_path, "clone", "--quiet", str(server), "clone")
    return tmp_path / "clone"


def relax(server: Path, clone: Path) -> None:
    """Let the default branch need no signature, and let the clone know."""
    write_farm(server, LAX)
    commit(server, "lax again")
    git(clone, "pull", "--quiet")


# --- what the attacker may push: tags and branches, not the default branch ------------------------


def test_an_unmerged_branch_does_not_bring_its_own_policy(clone: Path) -> None:
    """The attacker pushes a branch whose farm.yaml needs no signature, and a tag of it."""
    git(clone, "checkout", "--quiet", "-b", "evil")
    write_farm(clone, LAX)
    commit(clone, "nobody signs")
    tag(clone)
    with pytest.raises(SignatureInvalid):
        judge(clone)


def test_an_unmerged_commit_is_refused_even_where_no_signature_is_needed(
    server: Path, clone: Path
) -> None:
    """The attacker pushes a branch, and a tag of it, to a farm that takes unsigned tags."""
    relax(server, clone)
    git(clone, "checkout", "--quiet", "-b", "evil")
    commit(clone, "not merged")
    tag(clone)
    with pytest.raises(SignatureInvalid, match="not on the default branch"):
        judge(clone)


def test_an_old_commit_does_not_bring_back_an_old_policy(clone: Path) -> None:
    """The attacker tags a merged commit of a time when nobody had to sign."""
    git(clone, "checkout", "--quiet", "--detach", "HEAD~1")
    tag(clone)
    with pytest.raises(SignatureInvalid, match="by the policy of"):
        judge(clone)


@pytest.mark.parametrize(
    "ref", ["refs/remotes/origin/trunk", "refs/remotes/origin/HEAD", "refs/heads/trunk",
            "refs/heads/main", "refs/twinbuild/HEAD"],
)  # fmt: skip
def test_what_a_checkouts_refs_claim_does_not_count(server: Path, clone: Path, ref: str) -> None:
    """The attacker has written to the checkout's refs, as code of an earlier job on the runner."""
    relax(server, clone)
    git(clone, "checkout", "--quiet", "--detach")
    evil = commit(clone, "not merged")
    tag(clone)
    git(clone, "update-ref", ref, evil)
    with pytest.raises(SignatureInvalid, match="not on the default branch"):
        judge(clone)


# --- what is released ----------------------------------------------------------------------------


def test_a_merged_commit_is_released(server: Path, clone: Path) -> None:
    relax(server, clone)
    tag(clone)
    commit(server, "later")
    assert judge(clone).commit == git(clone, "rev-parse", "HEAD")


def test_depth_one_is_enough_of_a_checkout(server: Path, clone: Path, tmp_path: Path) -> None:
    """As GitLab clones for a tag: the history is fetched where it is whole."""
    relax(server, clone)
    tag(server)
    commit(server, "later")
    argv = ("clone", "--quiet", "--depth=1", "--branch=3.3", server.as_uri(), "shallow")
    git(tmp_path, *argv)
    assert judge(tmp_path / "shallow").name == "3.3"


def test_a_repository_without_a_remote_is_its_own_server(server: Path) -> None:
    write_farm(server, LAX)
    commit(server, "lax again")
    git(server, "branch", "--move", "main")
    tag(server)
    git(server, "checkout", "--quiet", "-b", "feature")
    commit(server, "not merged")
    tag(server, "3.4")
    assert judge(server).name == "3.3"
    with pytest.raises(SignatureInvalid, match="not on the default branch"):
        judge(server, "3.4")


def test_another_repository_is_judged_by_its_own_server_and_the_farms_policy(
    server: Path, clone: Path, tmp_path: Path
) -> None:
    relax(server, clone)
    git(tmp_path, "init", "--quiet", "--initial-branch=main", "kiosk")
    kiosk = tmp_path / "kiosk"
    write_farm(kiosk, STRICT)  # is no farm here: nothing of it counts
    commit(kiosk, "first")
    tag(kiosk, "1.0")
    assert judge(clone, "1.0", source=str(kiosk)).name == "1.0"
    git(tmp_path, "clone", "--quiet", str(kiosk), "theirs")
    commit(tmp_path / "theirs", "not pushed")
    tag(tmp_path / "theirs", "1.1")
    with pytest.raises(SignatureInvalid, match="not on the default branch"):
        judge(clone, "1.1", source=str(tmp_path / "theirs"))


# --- what cannot be judged -----------------------------------------------------------------------


def test_a_server_whose_history_is_cut_cannot_be_judged_by(
    server: Path, clone: Path, tmp_path: Path
) -> None:
    relax(server, clone)
    tag(clone)
    commit(server, "later")
    git(tmp_path, "clone", "--quiet", "--depth=1", server.as_uri(), "cut")
    git(clone, "remote", "set-url", "origin", str(tmp_path / "cut"))
    with pytest.raises(SignatureInvalid, match="is cut, so nobody can tell"):
        judge(clone)


def test_a_server_that_cannot_be_reached_is_no_answer(server: Path, clone: Path) -> None:
    relax(server, clone)
    tag(clone)
    git(clone, "remote", "set-url", "origin", "http://127.0.0.1:9/farm.git")
    with pytest.raises(InfrastructureFailed, match="decides what may be released"):
        judge(clone)


def test_a_default_branch_without_a_policy_releases_nothing(server: Path, clone: Path) -> None:
    relax(server, clone)
    git(server, "rm", "--quiet", "farm.yaml")
    commit(server, "gone")
    tag(clone)
    with pytest.raises(SignatureInvalid, match="nobody knows who may release"):
        judge(clone)


def test_a_server_without_a_default_branch_releases_nothing(clone: Path, tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet", "--bare", "empty")
    git(clone, "remote", "set-url", "origin", str(tmp_path / "empty"))
    tag(clone)
    with pytest.raises(SignatureInvalid, match="no default branch"):
        judge(clone)


# --- where the policy and the server are named ---------------------------------------------------


def test_a_policy_from_outside_replaces_that_of_the_branch(
    server: Path, clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    relax(server, clone)
    tag(clone)
    outside = tmp_path / "outside"
    outside.mkdir()
    write_farm(outside, STRICT)
    for given in (outside, outside / "farm.yaml"):
        monkeypatch.setenv("TWINBUILD_POLICY", str(given))
        with pytest.raises(SignatureInvalid, match="by the policy of"):
            judge(clone)
    write_farm(outside, LAX)
    assert judge(clone).name == "3.3"
    monkeypatch.setenv("TWINBUILD_POLICY", str(tmp_path / "missing"))
    with pytest.raises(UsageError, match="cannot read"):
        judge(clone)


def test_a_policy_from_outside_does_not_make_an_unmerged_commit_good(
    clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_farm(clone, LAX)
    commit(clone, "not pushed")
    tag(clone)
    write_farm(tmp_path, LAX)
    monkeypatch.setenv("TWINBUILD_POLICY", str(tmp_path))
    with pytest.raises(SignatureInvalid, match="not on the default branch"):
        judge(clone)


def test_the_address_of_a_gitlab_job_counts_not_the_checkouts(
    server: Path, clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The attacker has changed the remote of the checkout, as code of an earlier job."""
    git(tmp_path, "clone", "--quiet", str(server), "evil")
    write_farm(tmp_path / "evil", LAX)
    commit(tmp_path / "evil", "nobody signs")
    git(clone, "remote", "set-url", "origin", str(tmp_path / "evil"))
    git(clone, "pull", "--quiet")
    tag(clone)
    assert judge(clone).name == "3.3"
    monkeypatch.setenv("CI_REPOSITORY_URL", server.as_uri())
    monkeypatch.setenv("CI_PROJECT_DIR", str(clone))
    with pytest.raises(SignatureInvalid):
        judge(clone)


def test_the_policy_says_with_which_keys_and_where_to_publish(clone: Path) -> None:
    """The attacker's tag names a release key, keys of environments and a folder of its own."""
    write_farm(clone, STRICT, publish="/srv/evil", published="https://evil.example.org")
    document = json.loads((clone / "farm.yaml").read_text())
    document["keys"] |= {"release": B, "environments": {"alpha": "b" * 64}}
    (clone / "farm.yaml").write_text(json.dumps(document))
    (clone / "keys/evil.asc").write_text("another key\n")
    with policy.opened(load_farm(clone / "farm.yaml"), clone) as found:
        assert found.farm.publish == "public"
        assert found.farm.published is None
        assert found.farm.keys.release == C
        assert found.farm.keys.environments == {}
        assert [path.name for path in found.keys.iterdir()] == ["signer.asc"]


def test_the_digest_changes_with_a_key(server: Path, clone: Path) -> None:
    farm = load_farm(clone / "farm.yaml")
    digests = set()
    for content in ("a key\n", "a key, and that it was revoked\n"):
        (server / "keys/signer.asc").write_text(content)
        commit(server, "key")
        with policy.opened(farm, clone) as found:
            digests.add(found.digest)
    assert len(digests) == 2


# --- stricter, key by key ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("default", "stated", "signed", "signers"),
    [
        ({"signed": True, "signers": [A, B]}, {"signed": False}, True, [A, B]),
        ({"signed": True, "signers": [A, B]}, {"signed": False, "signers": [C]}, True, [A, B]),
        ({"signed": True, "signers": [A, B]}, {"signed": True, "signers": []}, True, [A, B]),
        ({"signed": True, "signers": [A, B]}, {"signed": True, "signers": [B, C]}, True, [B]),
        ({"signed": False}, {"signed": True, "signers": [C]}, True, [C]),
        ({"signed": False}, {"signed": False}, False, []),
        ({"signed": True, "signers": []}, {"signed": True, "signers": [C]}, True, []),
    ],
)
def test_what_is_stated_makes_it_stricter_and_never_laxer(
    default: dict[str, object], stated: dict[str, object], signed: bool, signers: list[str]
) -> None:
    rules, other = (Rules.model_validate({"keys": {"tags": tags}}) for tags in (default, stated))
    tags = tighten(rules, other).keys.tags
    assert (tags.signed, tags.signers) == (signed, signers)


def test_two_lists_with_nobody_in_common_are_refused() -> None:
    rules, other = (Rules.model_validate({"keys": {"tags": {"signers": [s]}}}) for s in (A, B))
    with pytest.raises(SignatureInvalid, match="lists nobody who may sign"):
        tighten(rules, other)


def test_a_tagged_tree_may_ask_for_a_signature(server: Path, clone: Path) -> None:
    relax(server, clone)
    git(clone, "checkout", "--quiet", "HEAD~1")
    tag(clone)
    git(clone, "checkout", "--quiet", "trunk")
    with pytest.raises(SignatureInvalid, match="by the policy of"):
        judge(clone)
