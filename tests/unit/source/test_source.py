# SPDX-License-Identifier: GPL-3.0-or-later
"""Stage 1 with the real git and gpg: any commit, always the same bytes, only trusted tags."""

import io
import json
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pipeline.base.errors import InfrastructureFailed, SignatureInvalid, UsageError
from pipeline.base.files import read_json
from pipeline.farm.config import Farm
from pipeline.farm.run import Request, Run, create
from pipeline.source.source import run_source

pytestmark = pytest.mark.tools

EPOCH = 1766400000
CLEAN = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_DATE": f"{EPOCH - 5000} +0200",
    "GIT_COMMITTER_DATE": f"{EPOCH} +0200",
    "GIT_AUTHOR_NAME": "Tester",
    "GIT_AUTHOR_EMAIL": "tester@example.org",
    "GIT_COMMITTER_NAME": "Tester",
    "GIT_COMMITTER_EMAIL": "tester@example.org",
}


@dataclass
class Repo:
    """A git repository on disk and what stage 1 makes of it."""

    path: Path
    runs: Path
    env: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def git(self, *arguments: str, **env: str) -> str:
        argv = ["git", "-C", str(self.path), *arguments]
        environment = {**CLEAN, **self.env, **env}
        done = subprocess.run(argv, env=environment, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def write(self, name: str, content: str) -> None:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)

    def commit(self, message: str = "change") -> str:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD")

    def pin(self, farm: Farm) -> None:
        """Commit the farm's policy and its keys, as they are, to the branch."""
        self.write("farm.yaml", json.dumps(farm.model_dump(mode="json")))
        (self.path / "keys").mkdir(exist_ok=True)
        self.git("add", "farm.yaml", "keys")
        self.git("commit", "--quiet", "--allow-empty", "-m", "policy")

    def run(self, farm: Farm, **asked: object) -> Run:
        fields = {"image": "mini", "commit": "HEAD", "environments": ("alpha", "beta"), **asked}
        if "tag" in asked:
            fields["vary"] = "all"
            self.pin(farm)
        run = create(self.runs, Request.of(fields))
        run_source(run, farm, self.path, notify=self.messages.append)
        return run


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with one image and one commit, to be copied."""
    repo = Repo(tmp_path_factory.mktemp("template"), Path("/nonexistent"))
    repo.git("init", "--quiet", "--initial-branch=main", "--template=")
    (repo.path / ".git/info").mkdir()
    repo.write("images/live/mini/image.yaml", "description: small\n")
    repo.write("hooks/run.sh", "#!/bin/sh\n")
    (repo.path / "hooks/run.sh").chmod(0o755)
    (repo.path / "link").symlink_to("hooks/run.sh")
    repo.commit("first")
    return repo.path


def copy(template: Path, path: Path, runs: Path) -> Repo:
    shutil.copytree(template, path, symlinks=True)
    return Repo(path, runs)


@pytest.fixture
def repo(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repo:
    """The farm's own checkout."""
    monkeypatch.setenv("TWINBUILD_CACHE", str(tmp_path / 'it\'s a 50% "cache"'))
    monkeypatch.delenv("TWINBUILD_POLICY", raising=False)
    return copy(template, tmp_path / "repo", tmp_path / "runs")


@pytest.fixture
def theirs(template: Path, repo: Repo, tmp_path: Path) -> Repo:
    """Another repository, with an image of its own."""
    return copy(template, tmp_path / "theirs", repo.runs)


def make_farm(**tags: object) -> Farm:
    environment = {"memory_mib": 1024, "cpus": 1}
    archive = {"suites": ["trixie"], "components": ["main"], "keyring": "/k"}
    return Farm.model_validate(
        {
            "environments": {"alpha": environment, "beta": environment},
            "archives": {"debian": archive},
            "keys": {"tags": tags},
        }
    )


FARM = make_farm()


def source(run: Run) -> dict[str, object]:
    return dict(read_json(run.source_json, failure=UsageError))


# --- which commit -------------------------------------------------------------------------------


def test_head_is_exported_with_its_committer_date(repo: Repo) -> None:
    run = repo.run(FARM)
    recorded = source(run)
    commit = repo.git("rev-parse", "HEAD")
    assert recorded["commit"] == commit
    assert recorded["tree"] == repo.git("rev-parse", "HEAD^{tree}")
    assert recorded["epoch"] == EPOCH
    assert recorded["version"] == f"0~{commit[:12]}"
    assert recorded["tag"] is None
    assert recorded["dirty"] is False
    assert recorded["repository"] == repo.path.as_uri()
    with tarfile.open(run.source_tar) as archive:
        members = {m.name: m for m in archive}
    assert members["hooks/run.sh"].mode == 0o755
    assert members["images/live/mini/image.yaml"].mode == 0o644
    assert members["link"].linkname == "hooks/run.sh"
    assert {m.mtime for m in members.values()} == {EPOCH}
    assert {(m.uid, m.gid) for m in members.values()} == {(0, 0)}


def test_branches_tags_hashes_and_ancestors_are_found(repo: Repo) -> None:
    first = repo.git("rev-parse", "HEAD")
    repo.git("tag", "1.0")
    repo.git("branch", "feature/x#1")
    second = repo.commit("second")
    expected = {
        "main": second,
        "1.0": first,
        "tags/1.0": first,
        "refs/heads/main": second,
        "feature/x#1": first,
        first: first,
        first[:10]: first,
        "HEAD~1": first,
        "@^": first,
        "main~1^0": first,
    }
    assert {ref: source(repo.run(FARM, commit=ref))["commit"] for ref in expected} == expected


def test_a_build_from_a_tag_has_its_name_as_version(repo: Repo) -> None:
    repo.git("tag", "1.0")
    assert source(repo.run(FARM, commit="1.0"))["version"] == "1.0"
    assert source(repo.run(FARM, commit="tags/1.0"))["version"] == "1.0"
    assert str(source(repo.run(FARM, commit="1.0~0"))["version"]).startswith("0~")


ODD = ("-h", "--output=/tmp/x", "", "a b", "main..HEAD", "HEAD:link", "@{u}", ":/first", "x\n")


@pytest.mark.parametrize("ref", [*ODD, "a*", "HEAD^{tree}", "--", "ma\x1bin", "x" * 300])
def test_odd_commit_names_are_refused(repo: Repo, ref: str) -> None:
    with pytest.raises(UsageError, match="cannot name a commit"):
        repo.run(FARM, commit=ref)


def test_an_unknown_commit_is_reported_with_the_nearest_names(repo: Repo) -> None:
    repo.git("branch", "feature/sound")
    with pytest.raises(UsageError, match="did you mean feature/sound"):
        repo.run(FARM, commit="feature/soud")
    with pytest.raises(UsageError, match="has no commit"):
        repo.run(FARM, commit="0" * 40)


def test_a_name_that_is_a_tag_and_a_branch_is_refused(repo: Repo) -> None:
    repo.git("tag", "twice")
    repo.commit("second")
    repo.git("branch", "twice")
    with pytest.raises(UsageError, match="tags/twice or heads/twice"):
        repo.run(FARM, commit="twice")


def test_a_commit_without_the_image_is_refused(repo: Repo) -> None:
    with pytest.raises(UsageError, match="no image 'other'; it has 'mini'"):
        repo.run(FARM, image="other")


def test_a_commit_without_any_image_names_the_task_that_makes_one(repo: Repo) -> None:
    repo.git("rm", "--quiet", "-r", "images")
    repo.commit()
    with pytest.raises(UsageError, match=r"no image 'mini'; .* new-image NAME makes one"):
        repo.run(FARM)


def test_a_repository_without_a_commit(repo: Repo) -> None:
    shutil.rmtree(repo.path / ".git")
    repo.git("init", "--quiet")
    with pytest.raises(UsageError, match="no commit 'HEAD'; nothing is committed there yet"):
        repo.run(FARM)


def test_submodules_are_refused(repo: Repo) -> None:
    commit = repo.git("rev-parse", "HEAD")
    repo.git("update-index", "--add", "--cacheinfo", f"160000,{commit},vendor/thing")
    repo.git("commit", "--quiet", "-m", "submodule")
    with pytest.raises(UsageError, match="submodule 'vendor/thing'"):
        repo.run(FARM)


@pytest.mark.parametrize("seconds", ["0", "99", "5000000000"])
def test_a_commit_with_an_impossible_date_is_refused(repo: Repo, seconds: str) -> None:
    repo.git(
        "commit", "--quiet", "--allow-empty", "-m", "x", GIT_COMMITTER_DATE=f"@{seconds} +0000"
    )
    with pytest.raises(UsageError, match="impossible date"):
        repo.run(FARM)


def test_a_folder_that_is_no_repository_is_refused(repo: Repo, tmp_path: Path) -> None:
    run = create(repo.runs, Request(image="mini", commit="HEAD", environments=("alpha",)))
    for folder in (tmp_path, repo.path / "hooks"):
        with pytest.raises(UsageError, match="not the top of a git repository"):
            run_source(run, FARM, folder, notify=repo.messages.append)


# --- what does not matter -----------------------------------------------------------------------


def test_umask_times_and_configuration_of_a_clone_do_not_matter(repo: Repo, tmp_path: Path) -> None:
    repo.write("text", "one\ntwo\n")
    repo.write(
        ".gitattributes",
        "text text eol=crlf\nhooks export-ignore\nsub export-subst\n* filter=evil\n",
    )
    repo.write("sub", "$Format:%H %ar %d$ $Id$\n")
    repo.commit()
    other = Repo(tmp_path / "other", repo.runs, env={"HOME": str(tmp_path / "home")})
    (tmp_path / "home/.config/git").mkdir(parents=True)
    (tmp_path / "home/.config/git/attributes").write_text("* text eol=crlf export-ignore\n")
    old = os.umask(0o000)
    try:
        other.path.mkdir()
        other.git("clone", "--quiet", str(repo.path), ".")
    finally:
        os.umask(old)
    mark = tmp_path / "executed"
    for name, value in {
        "tar.umask": "0077",
        "core.autocrlf": "true",
        "core.eol": "crlf",
        "core.abbrev": "7",
        "filter.evil.smudge": f"touch {mark}; cat",
        "filter.evil.clean": f"touch {mark}; cat",
        "core.fsmonitor": f"touch {mark}",
    }.items():
        other.git("config", name, value)
    (other.path / ".git/info/attributes").write_text("text export-ignore\n")
    (other.path / ".git/hooks").mkdir(exist_ok=True)
    for path in other.path.rglob("*"):
        os.utime(path, (1, 1), follow_symlinks=False)
    argv = ("archive", "--format=tar", "HEAD", "sub")
    plain = [clone.git(*argv, HOME="/nonexistent") for clone in (repo, other)]
    refs = [re.search(r"\(HEAD[^)]*\)", text) for text in plain]
    assert refs[0]
    assert refs[1]
    assert refs[0][0] != refs[1][0]  # what git alone writes there
    mark.unlink(missing_ok=True)
    here, there = repo.run(FARM), other.run(FARM)
    assert here.source_tar.read_bytes() == there.source_tar.read_bytes()
    assert not mark.exists()
    with tarfile.open(here.source_tar) as archive:
        text, substituted = archive.extractfile("text"), archive.extractfile("sub")
        assert text is not None
        assert text.read() == b"one\ntwo\n"
        assert substituted is not None
        assert substituted.read() == b"$Format:%H %ar %d$ $Id$\n"
        assert "hooks/run.sh" in archive.getnames()


def test_the_callers_environment_and_replaced_objects_do_not_matter(
    repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = repo.run(FARM)
    repo.write("hooks/run.sh", "evil\n")
    evil = repo.commit("evil")
    good = repo.git("rev-parse", "HEAD~1")
    repo.git("replace", good, evil)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "tar.umask")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "0077")
    after = repo.run(FARM, commit=good)
    assert before.source_tar.read_bytes() == after.source_tar.read_bytes()


@pytest.mark.parametrize("change", ["modified", "deleted", "staged", "untracked"])
def test_a_dirty_tree_is_reported_not_built(repo: Repo, change: str) -> None:
    clean = repo.run(FARM)
    match change:
        case "modified":
            repo.write("hooks/run.sh", "changed\n")
        case "deleted":
            (repo.path / "link").unlink()
        case "staged":
            repo.write("new", "x")
            repo.git("add", "new")
        case "untracked":
            repo.write("new", "x")
    repo.messages.clear()
    run = repo.run(FARM)
    assert source(run)["dirty"] is True
    assert source(clean)["dirty"] is False
    assert any("not committed" in line for line in repo.messages)
    assert run.source_tar.read_bytes() == clean.source_tar.read_bytes()


def test_ignored_files_and_another_commit_make_no_dirty_tree(repo: Repo) -> None:
    repo.write(".gitignore", "/runs/\n")
    repo.commit()
    repo.write("runs/x", "x")
    assert source(repo.run(FARM, commit="HEAD~1"))["dirty"] is False


# --- again --------------------------------------------------------------------------------------


def test_a_complete_stage_does_nothing_and_stays_with_its_commit(repo: Repo) -> None:
    run = repo.run(FARM)
    before = run.source_json.stat().st_mtime_ns, source(run)
    repo.commit("later")
    run_source(run, FARM, repo.path, notify=repo.messages.append)
    assert repo.messages[-1] == "source: complete, nothing to do"
    assert (run.source_json.stat().st_mtime_ns, source(run)) == before


def test_a_damaged_result_is_made_again_and_says_why(repo: Repo) -> None:
    run = repo.run(FARM)
    whole = run.source_tar.read_bytes()
    run.source_tar.write_bytes(whole[:-1])
    repo.messages.clear()
    run_source(run, FARM, repo.path, notify=repo.messages.append)
    assert repo.messages[0] == "source: source.tar was changed after it was written"
    assert run.source_tar.read_bytes() == whole


def test_a_policy_about_tags_is_nothing_to_a_branch(repo: Repo) -> None:
    """It would move on to the branch's newest commit: a run stays with what it resolved first."""
    run = repo.run(FARM)
    before = source(run)
    repo.commit("more")
    repo.messages.clear()
    run_source(run, make_farm(signers=["A" * 40]), repo.path, notify=repo.messages.append)
    assert repo.messages[0] == "source: complete, nothing to do"
    assert source(run) == before


# --- another repository -------------------------------------------------------------------------


def test_another_repository_by_path_is_fetched_and_fetched_again(repo: Repo, theirs: Repo) -> None:
    theirs.git("branch", "gone")
    first = repo.run(FARM, source=str(theirs.path))
    assert source(first)["commit"] == theirs.git("rev-parse", "HEAD")
    assert source(first)["repository"] == theirs.path.as_uri()
    theirs.write("more", "x")
    second = theirs.commit()
    theirs.git("branch", "-D", "gone")
    theirs.git("tag", "2.0")
    theirs.write("uncommitted", "x")
    assert source(repo.run(FARM, source=str(theirs.path), commit="2.0"))["commit"] == second
    again = source(repo.run(FARM, source=theirs.path.as_uri()))
    assert again["commit"] == second
    with pytest.raises(UsageError, match="has no commit 'gone'"):
        repo.run(FARM, source=str(theirs.path), commit="gone")


def test_changes_in_another_working_tree_are_reported(repo: Repo, theirs: Repo) -> None:
    theirs.write("uncommitted", "x")
    assert source(repo.run(FARM, source=str(theirs.path)))["dirty"] is True


def test_head_of_another_repository_may_be_detached(repo: Repo, theirs: Repo) -> None:
    theirs.git("checkout", "--quiet", "--detach")
    detached = theirs.commit("off any branch")
    assert source(repo.run(FARM, source=str(theirs.path)))["commit"] == detached
    assert source(repo.run(FARM, source=str(theirs.path), commit=detached))["commit"] == detached


def test_nothing_of_another_repository_is_executed(
    repo: Repo, theirs: Repo, tmp_path: Path
) -> None:
    mark = tmp_path / "executed"
    script = f"#!/bin/sh\ntouch {mark}\n"
    for hook in ("post-checkout", "reference-transaction", "pre-auto-gc", "post-merge"):
        path = theirs.path / ".git/hooks" / hook
        path.parent.mkdir(exist_ok=True)
        path.write_text(script)
        path.chmod(0o755)
    theirs.write(".gitattributes", "* filter=evil diff=evil\n")
    theirs.commit()
    mark.unlink(missing_ok=True)
    for name in (
        "core.fsmonitor",
        "core.pager",
        "core.sshCommand",
        "diff.evil.textconv",
        "filter.evil.clean",
        "filter.evil.smudge",
        "uploadpack.packObjectsHook",
    ):
        theirs.git("config", name, f"touch {mark}")
    repo.run(FARM, source=str(theirs.path))
    assert not mark.exists()


@pytest.mark.parametrize(
    "address",
    ["ext::sh -c touch% /tmp/x", "-u/bin/sh", "--upload-pack=x", "fd::3", "ftp://example.org/x",
     "/nowhere/at/all", "a\x1bb", "::"],
)  # fmt: skip
def test_odd_addresses_are_refused(repo: Repo, address: str) -> None:
    with pytest.raises(UsageError):
        repo.run(FARM, source=address)


def test_what_cannot_be_fetched_is_an_infrastructure_failure(repo: Repo, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InfrastructureFailed, match="cannot fetch"):
        repo.run(FARM, source=str(tmp_path / "empty"))


def test_broken_objects_are_not_fetched(repo: Repo, theirs: Repo) -> None:
    blob = theirs.git("rev-parse", "HEAD:hooks/run.sh")
    listing = f"100644 blob {blob}\t.git\n".replace(".git", ".GIT")
    argv = ["git", "-C", str(theirs.path), "mktree"]
    tree = subprocess.run(
        argv, input=listing, env=CLEAN, check=True, capture_output=True, text=True
    )
    commit = theirs.git("commit-tree", tree.stdout.strip(), "-m", "evil")
    theirs.git("update-ref", "refs/heads/main", commit)
    with pytest.raises(InfrastructureFailed, match="cannot fetch") as caught:
        repo.run(FARM, source=str(theirs.path))
    assert "hasDotgit" in caught.value.detail


def test_no_password_is_recorded_or_shown(repo: Repo) -> None:
    address = "http://user:geheim@127.0.0.1:9/x.git?token=geheim"
    fields = {"image": "mini", "commit": "HEAD", "source": address, "environments": ("alpha",)}
    run = create(repo.runs, Request.of(fields))
    with pytest.raises(InfrastructureFailed) as caught:
        run_source(run, FARM, repo.path, notify=repo.messages.append, source=address)
    output = " ".join([str(caught.value), caught.value.detail, *repo.messages])
    assert "127.0.0.1:9/x.git" in output
    assert "geheim" not in output
    kept = [run.folder, Path(os.environ["TWINBUILD_CACHE"])]
    files = [path for folder in kept for path in folder.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if b"geheim" in path.read_bytes()]


def test_the_origins_password_is_not_recorded(repo: Repo) -> None:
    repo.git("remote", "add", "origin", "https://token:geheim@example.org/group/mini.git")
    assert source(repo.run(FARM))["repository"] == "https://example.org/group/mini.git"
    repo.git("remote", "set-url", "origin", "git@example.org:group/mini.git")
    assert source(repo.run(FARM))["repository"] == "ssh://example.org/group/mini.git"


# --- release tags -------------------------------------------------------------------------------


@dataclass
class Keys:
    """Throw-away OpenPGP keys in a home of their own."""

    home: Path
    of: dict[str, str]

    def gpg(self, *arguments: str) -> bytes:
        argv = [
            "gpg",
            "--batch",
            "--quiet",
            "--pinentry-mode=loopback",
            "--passphrase=",
            *arguments,
        ]
        env = {"PATH": os.environ["PATH"], "GNUPGHOME": str(self.home)}
        return subprocess.run(argv, env=env, check=True, capture_output=True).stdout

    def make(self, name: str, *arguments: str) -> None:
        user = f"{name} <{name}@example.org>"
        self.gpg(*arguments, "--quick-gen-key", user, "ed25519", "sign", "never")
        listed = self.gpg("--with-colons", "--list-keys", user).decode()
        self.of[name] = next(x.split(":")[9] for x in listed.splitlines() if x.startswith("fpr"))

    def export(self, repo: Repo, *names: str) -> None:
        (repo.path / "keys").mkdir(exist_ok=True)
        for name in names:
            key = self.gpg("--armor", "--export", self.of[name])
            (repo.path / f"keys/{name}.asc").write_bytes(key)

    def sign(self, repo: Repo, name: str, tag_name: str, *arguments: str, **env: str) -> None:
        repo.git(
            "tag", "--local-user", self.of[name], "-m", "release", *arguments, tag_name,
            GNUPGHOME=str(self.home), **env,
        )  # fmt: skip


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keys]:
    home = tmp_path_factory.mktemp("gpg")
    home.chmod(0o700)
    made = Keys(home, {})
    for name in ("signer", "stranger"):
        made.make(name)
    yield made
    env = {"PATH": os.environ["PATH"], "GNUPGHOME": str(home)}
    subprocess.run(["gpgconf", "--kill", "all"], env=env, check=True)


def release(
    repo: Repo, keys: Keys, name: str = "3.3", *, signers: tuple[str, ...] = ("signer",)
) -> Run:
    return repo.run(make_farm(signers=[keys.of[s] for s in signers]), tag=name)


def test_a_signed_tag_is_released(repo: Repo, keys: Keys) -> None:
    keys.export(repo, "signer", "stranger")
    keys.sign(repo, "signer", "3.3")
    tagged = repo.git("rev-parse", "HEAD")
    repo.commit("later")
    recorded = source(release(repo, keys))
    assert recorded["commit"] == tagged
    assert recorded["version"] == "3.3"
    assert recorded["ref"] == "3.3"
    assert recorded["tag"] == {
        "name": "3.3",
        "object": repo.git("rev-parse", "refs/tags/3.3"),
        "signer": keys.of["signer"],
    }


def test_a_branch_of_the_tags_name_does_not_matter(repo: Repo, keys: Keys) -> None:
    keys.export(repo, "signer")
    keys.sign(repo, "signer", "3.3")
    tagged = repo.git("rev-parse", "HEAD")
    repo.commit("later")
    repo.git("branch", "3.3")
    assert source(release(repo, keys))["commit"] == tagged


def test_lightweight_and_unsigned_tags_are_refused(repo: Repo, keys: Keys) -> None:
    keys.export(repo, "signer")
    repo.git("tag", "1.0")
    repo.git("tag", "-a", "-m", "x", "2.0")
    with pytest.raises(SignatureInvalid, match="lightweight"):
        release(repo, keys, "1.0")
    with pytest.raises(SignatureInvalid, match="no good signature"):
        release(repo, keys, "2.0")


def test_without_the_need_of_a_signature_a_tag_must_still_be_annotated(repo: Repo) -> None:
    farm = make_farm(signed=False)
    repo.git("tag", "1.0")
    repo.git("tag", "-a", "-m", "x", "2.0")
    with pytest.raises(SignatureInvalid, match="lightweight"):
        repo.run(farm, tag="1.0")
    recorded = source(repo.run(farm, tag="2.0"))["tag"]
    assert isinstance(recorded, dict)
    assert recorded["signer"] is None


def test_only_listed_signers_count(repo: Repo, keys: Keys) -> None:
    keys.export(repo, "signer", "stranger")
    keys.sign(repo, "stranger", "3.3")
    with pytest.raises(SignatureInvalid, match="no good signature"):
        release(repo, keys)
    with pytest.raises(SignatureInvalid, match=r"lists no keys.tags.signers"):
        release(repo, keys, signers=())


def test_a_listed_signer_whose_key_is_not_there_is_refused(repo: Repo, keys: Keys) -> None:
    keys.sign(repo, "signer", "3.3")
    with pytest.raises(SignatureInvalid, match="no public keys"):
        release(repo, keys)
    keys.export(repo, "stranger")
    with pytest.raises(SignatureInvalid, match="no good signature"):
        release(repo, keys)


def test_an_unknown_tag_is_wrong_usage(repo: Repo, keys: Keys) -> None:
    repo.git("tag", "3.30")
    with pytest.raises(UsageError, match=r"no tag '3\.3'; did you mean 3\.30"):
        release(repo, keys)


@pytest.mark.parametrize("name", ["../x", "a/b", "-d", "", ".x", "a..b", "x.lock", "3.3\n", "3.3 "])
def test_tags_that_could_not_be_a_folder_are_refused(repo: Repo, keys: Keys, name: str) -> None:
    with pytest.raises(UsageError, match="cannot be a release"):
        release(repo, keys, name)


def test_a_good_tag_under_another_name_is_refused(repo: Repo, keys: Keys) -> None:
    keys.export(repo, "signer")
    keys.sign(repo, "signer", "3.2")
    repo.git("update-ref", "refs/tags/3.3", "refs/tags/3.2")
    with pytest.raises(SignatureInvalid, match=r"made under the name '3\.2'"):
        release(repo, keys)


def replace_tag(repo: Repo, name: str, content: bytes) -> None:
    argv = ["git", "-C", str(repo.path), "hash-object", "-t", "tag", "-w", "--literally", "--stdin"]
    made = subprocess.run(argv, input=content, env=CLEAN, check=True, capture_output=True)
    repo.git("update-ref", f"refs/tags/{name}", made.stdout.decode().strip())


def test_a_signed_tag_that_was_changed_is_refused(repo: Repo, keys: Keys) -> None:
    keys.export(repo, "signer")
    keys.sign(repo, "signer", "3.3")
    signed = repo.git("rev-parse", "HEAD")
    evil = repo.commit("evil")
    content = (repo.git("cat-file", "tag", "3.3") + "\n").encode()
    replace_tag(repo, "3.3", content)
    assert source(release(repo, keys))["commit"] == signed  # the same bytes still verify
    replace_tag(repo, "3.3", content.replace(signed.encode(), evil.encode()))
    with pytest.raises(SignatureInvalid, match="no good signature"):
        release(repo, keys)


def test_a_tag_of_a_tag_or_of_a_tree_is_refused(repo: Repo, keys: Keys) -> None:
    keys.export(repo, "signer")
    keys.sign(repo, "signer", "3.2")
    repo.git("config", "advice.nestedTag", "false")
    keys.sign(repo, "signer", "3.3", "-f")
    argv = ("-f", "3.3", "refs/tags/3.2")
    repo.git("tag", "--local-user", keys.of["signer"], "-m", "x", *argv, GNUPGHOME=str(keys.home))
    with pytest.raises(SignatureInvalid, match="does not name a commit"):
        release(repo, keys)


def test_an_expired_key_is_refused(repo: Repo, keys: Keys, tmp_path: Path) -> None:
    then = "20200101T000000"
    keys.gpg("--faked-system-time", f"{then}!", "--quick-gen-key", "old", "ed25519", "sign", "1d")
    listed = keys.gpg("--with-colons", "--list-keys", "old").decode().splitlines()
    keys.of["old"] = next(x.split(":")[9] for x in listed if x.startswith("fpr"))
    wrapper = tmp_path / "gpg-then"
    wrapper.write_text(f'#!/bin/sh\nexec gpg --faked-system-time {then}! "$@"\n')
    wrapper.chmod(0o755)
    keys.export(repo, "old")
    repo.git("config", "gpg.program", str(wrapper))
    keys.sign(repo, "old", "3.3")
    with pytest.raises(SignatureInvalid, match="no good signature") as caught:
        release(repo, keys, signers=("old",))
    assert "EXPKEYSIG" in caught.value.detail


def test_a_revoked_key_is_refused(repo: Repo, keys: Keys) -> None:
    keys.make("lost")
    keys.export(repo, "lost")
    keys.sign(repo, "lost", "3.3")
    assert source(release(repo, keys, signers=("lost",)))["version"] == "3.3"
    certificate = keys.home / "openpgp-revocs.d" / f"{keys.of['lost']}.rev"
    with (repo.path / "keys/lost.asc").open("ab") as file:
        file.write(certificate.read_bytes().replace(b":-----BEGIN", b"-----BEGIN"))
    with pytest.raises(SignatureInvalid, match="no good signature") as caught:
        release(repo, keys, signers=("lost",))
    assert "REVKEYSIG" in caught.value.detail


def test_the_callers_keys_and_agents_are_not_asked(
    repo: Repo, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GNUPGHOME", str(keys.home))
    keys.export(repo, "stranger")
    keys.sign(repo, "signer", "3.3")
    with pytest.raises(SignatureInvalid, match="no good signature"):
        release(repo, keys)


def test_source_tar_is_a_plain_tar(repo: Repo) -> None:
    content = repo.run(FARM).source_tar.read_bytes()
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
        assert archive.pax_headers["comment"] == repo.git("rev-parse", "HEAD")
