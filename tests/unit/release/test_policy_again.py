# SPDX-License-Identifier: GPL-3.0-or-later
"""Stage 5 judges the tag again: a real repository, real tags, real keys, by the road of a release.

The attacker can write to the run, or may push tags; or it is the farm that has changed its mind
since the run began.
"""

import io
import json
import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from rich.console import Console
from securesystemslib.signer import CryptoSigner

from pipeline import flow
from pipeline.base.display import Display
from pipeline.base.errors import SignatureInvalid, TwinbuildError, UsageError
from pipeline.base.files import write_json
from pipeline.farm.run import Run
from pipeline.farm.workspace import Workspace, open_workspace
from pipeline.release.stage import Release
from tests.gpg_home import GpgHome
from tests.hostile_repository import ENVIRONMENT
from tests.releases import IMAGE, LOCK, FakeRun, make_farm

pytestmark = [pytest.mark.tools, pytest.mark.usefixtures("caller")]


class Farm:
    """A farm's only home: a repository with its policy, the image and a signed tag."""

    def __init__(
        self, folder: Path, keys: Mapping[str, CryptoSigner], release_key: str, gpg_home: GpgHome
    ) -> None:
        self.folder, self.keys, self.gpg = folder, keys, gpg_home
        self.signer = gpg_home.make(
            f"Tags <tags@{folder.parent.name}.example.org>", expires="never"
        )
        self.document = make_farm(keys, release_key).model_dump(mode="json")
        self.git("init", "--quiet", "--initial-branch=main", "--template=")
        image = folder / "images/live/mini"
        image.mkdir(parents=True)
        (image / "image.yaml").write_bytes(IMAGE)
        (image / "lock").write_bytes(LOCK)
        (folder / ".gitignore").write_text("/runs\n/public\n")
        self.list(self.signer)
        self.tag()

    def git(self, *arguments: str) -> str:
        env = {**ENVIRONMENT, "GNUPGHOME": str(self.gpg.path)}
        argv = ["git", "-C", str(self.folder), *arguments]
        self.folder.mkdir(exist_ok=True)
        done = subprocess.run(argv, env=env, check=True, capture_output=True, text=True)
        return done.stdout

    def list(self, *signers: str) -> None:
        """Commit a policy with these signers and their keys as they are now."""
        self.document["keys"]["tags"] = {"signed": True, "signers": list(signers)}
        (self.folder / "farm.yaml").write_text(json.dumps(self.document))
        (self.folder / "keys").mkdir(exist_ok=True)
        key = self.gpg.export(self.signer, "--armor")
        (self.folder / "keys/signer.asc").write_bytes(key)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", "policy")

    def tag(self, *options: str) -> None:
        sign = f"--local-user={self.signer}"
        self.git("tag", "--sign", sign, "--message=3.3", *options, "3.3")

    @property
    def workspace(self) -> Workspace:
        return open_workspace(self.folder)

    def source(self, run: Run) -> str:
        """Stage 1; return what was shown."""
        shown = io.StringIO()
        flow.take_source(self.workspace, run, Display(Console(file=shown, width=400)))
        return shown.getvalue()

    def release(self, fake: FakeRun) -> Release:
        shown = io.StringIO()
        return flow.release(self.workspace, fake.run, Display(Console(file=shown, width=400)))


Refused = Callable[[type[TwinbuildError], str], None]


@pytest.fixture
def home(
    tmp_path: Path,
    environment_keys: dict[str, CryptoSigner],
    release_key: str,
    gpg_home: GpgHome,
    monkeypatch: pytest.MonkeyPatch,
) -> Farm:
    monkeypatch.setenv("TWINBUILD_CACHE", os.fspath(tmp_path / "cache"))
    for name in ("TWINBUILD_POLICY", "CI_PROJECT_DIR", "CI_REPOSITORY_URL"):
        monkeypatch.delenv(name, raising=False)
    return Farm(tmp_path / "farm", environment_keys, release_key, gpg_home)


@pytest.fixture
def built(home: Farm, environment_keys: dict[str, CryptoSigner]) -> FakeRun:
    """A run of the tag, its source by the real stage, whose builds match."""

    class Built(FakeRun):
        def write_source(self, **_: object) -> None:
            home.source(self.run)

    return Built(home.workspace.runs, environment_keys, "3.3")


@pytest.fixture
def refused(home: Farm, built: FakeRun) -> Refused:
    def run(error: type[TwinbuildError], match: str) -> None:
        with pytest.raises(TwinbuildError, match=match) as caught:
            home.release(built)
        assert type(caught.value) is error
        assert not home.workspace.public.exists()

    return run


def test_a_tag_that_still_holds_is_released(home: Farm, built: FakeRun) -> None:
    assert home.release(built).new
    assert json.loads(built.run.source_json.read_bytes())["tag"]["signer"] == home.signer


def test_a_source_that_says_that_nobody_signed(
    home: Farm, built: FakeRun, refused: Refused
) -> None:
    """The attacker can write to the run, and has the environments' keys."""
    document = json.loads(built.run.source_json.read_bytes())
    document["tag"]["signer"] = None
    write_json(built.run.source_json, document)
    refused(SignatureInvalid, f"has nobody as the signer of the tag 3.3, and that is {home.signer}")


def test_a_signer_whose_key_was_revoked_since(home: Farm, built: FakeRun, refused: Refused) -> None:
    home.gpg.revoke(home.signer)
    home.list(home.signer)
    with pytest.raises(SignatureInvalid, match="no good signature"):  # the run is resumed
        home.source(built.run)
    refused(SignatureInvalid, "no good signature")


def test_a_signer_who_is_listed_no_more(
    home: Farm, built: FakeRun, refused: Refused, other_key: str
) -> None:
    home.list(other_key)
    refused(SignatureInvalid, r"farm\.yaml of the tag lists nobody who may sign it by the policy")
    with pytest.raises(SignatureInvalid, match="lists nobody who may sign"):
        home.source(built.run)


def test_an_unchanged_policy_has_nothing_judged_again_in_stage_1(
    home: Farm, built: FakeRun
) -> None:
    assert "source: complete, nothing to do" in home.source(built.run)
    home.list(home.signer)  # the same, in another commit
    assert "source: complete, nothing to do" in home.source(built.run)


def test_a_tag_that_was_moved(home: Farm, built: FakeRun, refused: Refused) -> None:
    """By a signer, even: what was built is another commit."""
    home.list(home.signer)
    home.tag("--force")
    refused(SignatureInvalid, "as the commit of the tag 3.3")


def test_a_tag_that_was_made_again_of_the_same_commit(
    home: Farm, built: FakeRun, refused: Refused
) -> None:
    home.git("tag", "--force", "--annotate", "--message=x", "3.3", "3.3^{commit}")
    refused(SignatureInvalid, "no good signature")


def test_a_tag_that_was_taken_back(home: Farm, built: FakeRun, refused: Refused) -> None:
    home.git("tag", "--delete", "3.3")
    refused(UsageError, "has no tag '3.3'")


def test_a_commit_that_the_default_branch_does_not_have_any_more(
    home: Farm, built: FakeRun, refused: Refused
) -> None:
    home.git("checkout", "--quiet", "--orphan", "new")
    home.list(home.signer)
    home.git("commit", "--quiet", "--amend", "--message=another beginning")
    home.git("branch", "--force", "main", "new")
    refused(SignatureInvalid, "which is not on the default branch")


def test_a_tag_is_not_verified_in_another_repository(home: Farm, built: FakeRun) -> None:
    with pytest.raises(UsageError, match="is of this repository, not of https"):
        flow.release(
            home.workspace,
            built.run,
            Display(Console(file=io.StringIO())),
            source="https://user:secret@example.org/x.git",
        )
