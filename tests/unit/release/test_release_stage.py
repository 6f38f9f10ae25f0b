# SPDX-License-Identifier: GPL-3.0-or-later
"""Stage 5: what is released is what two environments signed, and nothing is half-published."""

import json
import os
import re
import shutil
import stat
import subprocess
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import pytest

from pipeline.base.errors import (
    BuildFailed,
    Differs,
    InfrastructureFailed,
    InputsUnverified,
    SignatureInvalid,
    TwinbuildError,
    UsageError,
)
from pipeline.farm.config import Farm
from pipeline.farm.run import Run
from pipeline.farm.tag import VerifiedTag
from pipeline.kits.make.client import upgrade_client
from pipeline.release import publish as publishing
from pipeline.release import stage
from pipeline.release.checks import CheckedRun, check
from pipeline.release.stage import Release, run_release
from tests.gpg_home import GpgHome
from tests.releases import LOCK, SIGNER, FakeRun, FarmWith, Listing, MakeRun, kit_from, sha256

pytestmark = [pytest.mark.tools, pytest.mark.usefixtures("caller")]


@pytest.fixture
def public(tmp_path: Path) -> Path:
    return tmp_path / "public"


class DoRelease(Protocol):
    """Releases a run."""

    def __call__(self, fake: FakeRun, farm: Farm = ...) -> tuple[Release, list[str]]: ...


class Refused(Protocol):
    """Expects a refusal."""

    def __call__(
        self, fake: FakeRun, error: type[TwinbuildError], match: str, **options: Any
    ) -> None: ...


@pytest.fixture
def release(farm: Farm, public: Path) -> DoRelease:
    """Release a run; returns the result and the messages."""

    def run(fake: FakeRun, farm: Farm = farm) -> tuple[Release, list[str]]:
        messages: list[str] = []
        return run_release(fake.run, farm, public, fake.verified, notify=messages.append), messages

    return run


@pytest.fixture
def refused(release: DoRelease, public: Path, listing: Listing) -> Refused:
    """Expect a refusal that publishes nothing and leaves nothing behind."""

    def run(fake: FakeRun, error: type[TwinbuildError], match: str, **options: Any) -> None:
        before = listing(public) if public.exists() else {}
        with pytest.raises(TwinbuildError, match=match) as caught:
            release(fake, **options)
        assert type(caught.value) is error
        assert "\n" not in str(caught.value)
        assert (listing(public) if public.exists() else {}) == before
        assert not list(fake.run.folder.glob(".release-*"))

    return run


def test_a_matching_run_is_published_complete(
    make_run: MakeRun, release: DoRelease, public: Path, release_key: str
) -> None:
    fake = make_run()
    result, _ = release(fake)
    folder = public / "3.3"
    assert result.folder == folder
    assert result.new
    names = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    per_build = {"console.log", "progress.jsonl", "timings.json", "ledger.jsonl.gz"}
    assert names == {
        "SHA256SUMS",
        "SHA256SUMS.asc",
        "lock",
        "verdict.json",
        "statements/alpha.json",
        "statements/beta.json",
        *fake.artifacts,
        *(f"{name}/{file}" for name in ("alpha", "beta") for file in per_build),
    }
    for path in folder.rglob("*"):
        expected = 0o755 if path.is_dir() else 0o644
        assert stat.S_IMODE(path.stat().st_mode) == expected
    manifest = (folder / "SHA256SUMS").read_text().splitlines()
    assert [line[66:] for line in manifest] == sorted(names - {"SHA256SUMS", "SHA256SUMS.asc"})
    assert (public / "verify.py").read_bytes() == publishing.VERIFIER.read_bytes()
    assert (public / "upgrade.pyz").read_bytes() == upgrade_client()
    assert sorted(p.name for p in public.iterdir()) == [
        "3.3",
        "index.html",
        "index.json",
        "upgrade.pyz",
        "upgrades",
        "verify.py",
    ]


def test_plain_tools_accept_it(
    make_run: MakeRun, release: DoRelease, public: Path, gpg_home: GpgHome
) -> None:
    release(make_run())
    folder = public / "3.3"
    subprocess.run(["sha256sum", "--strict", "-c", "SHA256SUMS"], cwd=folder, check=True)
    gpg_home.gpg("--verify", folder / "SHA256SUMS.asc", folder / "SHA256SUMS")


def test_the_second_time_nothing_is_signed_and_nothing_changes(
    make_run: MakeRun, release: DoRelease, public: Path, listing: Listing
) -> None:
    fake = make_run()
    release(fake)
    before = listing(public)
    result, messages = release(fake)
    assert not result.new
    assert "nothing to sign" in " ".join(messages)
    assert "already" in messages[-1]
    assert listing(public) == before


def test_a_new_signature_over_the_same_manifest_keeps_what_is_published(
    make_run: MakeRun, release: DoRelease, public: Path, listing: Listing
) -> None:
    fake = make_run()
    release(fake)
    before = listing(public)
    shutil.rmtree(fake.run.release)
    result, _ = release(fake)
    assert not result.new
    assert listing(public) == before


def test_another_release_of_the_same_tag_is_refused(
    make_run: MakeRun, release: DoRelease, refused: Refused
) -> None:
    release(make_run())
    other = make_run()
    other.artifacts["mini-amd64-3.3.iso"] += b"!"
    other.write_build("alpha")
    other.write_build("beta")
    other.write_verdict()
    refused(other, Differs, "published already and differs in SHA256SUMS;")


def test_a_published_release_that_was_damaged_is_reported(
    make_run: MakeRun, release: DoRelease, refused: Refused, public: Path
) -> None:
    fake = make_run()
    release(fake)
    iso = public / "3.3/mini-amd64-3.3.iso"
    good = iso.read_bytes()
    iso.write_bytes(b"x" + good[1:])
    refused(fake, Differs, r"differs in mini-amd64-3\.3\.iso")
    iso.write_bytes(good)
    (public / "3.3/extra").write_bytes(b"")
    refused(fake, Differs, "differs in extra")


def test_several_tags_and_images(make_run: MakeRun, release: DoRelease, public: Path) -> None:
    release(make_run("3.3"))
    release(make_run("full-1", image="full", epoch=1766500000))
    release(make_run("3.2", epoch=1700000000))
    index = json.loads((public / "index.json").read_text())
    assert index["format"] == "twinbuild-releases/1"
    assert [(r["tag"], r["image"]) for r in index["releases"]] == [
        ("full-1", "full"),
        ("3.3", "mini"),
        ("3.2", "mini"),
    ]
    fields = {"tag", "image", "commit", "epoch", "manifest_sha256", "kits"}
    assert set(index["releases"][0]) == fields
    page = (public / "index.html").read_text()
    assert 'href="full-1/full-amd64-full-1.iso"' in page
    assert "<script" not in page
    assert "http" not in page


def test_kits_are_published_and_listed(make_run: MakeRun, release: DoRelease, public: Path) -> None:
    kits = {f"mini-amd64-{old}-to-3.3.iuk": b"kit from " + old.encode() for old in ("3.1", "3.2")}
    release(make_run("3.3", artifacts=kits, kits=[kit_from(old) for old in ("3.1", "3.2")]))
    for name, content in kits.items():
        assert (public / "3.3" / name).read_bytes() == content
    (entry,) = json.loads((public / "index.json").read_text())["releases"]
    assert entry["kits"] == sorted(kits)
    page = (public / "index.html").read_text()
    iso, heading = page.index("3.3/mini-amd64-3.3.iso"), page.index("Upgrade kits")
    assert iso < heading < page.index('href="3.3/mini-amd64-3.1-to-3.3.iuk"')
    assert page.count("3.1-to-3.3.iuk") == 2  # as address and as name


# --- what is refused


def test_builds_that_do_not_match(make_run: MakeRun, refused: Refused) -> None:
    fake = make_run()
    fake.write_verdict(verdict="differ")
    refused(fake, Differs, "the builds differ")
    fake.write_verdict(verdict="failed")
    refused(fake, BuildFailed, "a build has failed")
    fake.run.verdict_json.unlink()
    refused(fake, UsageError, "cannot read")


def test_a_verdict_of_one_environment(make_run: MakeRun, refused: Refused) -> None:
    fake = make_run()
    for environments in (["alpha"], ["alpha", "alpha"], []):
        fake.write_verdict(environments=environments)
        refused(fake, SignatureInvalid, "two environments or more")


def test_a_run_without_a_tag(make_run: MakeRun, refused: Refused) -> None:
    fake = make_run()
    fake.write_source(tag=None)
    refused(fake, UsageError, "not one of a tag")


@pytest.mark.parametrize(
    "tag", ["../3.3", ".3", "a/b", "index.json", "Index.HTML", "upgrades", "3 3", "", "3~1"]
)
def test_a_tag_that_is_no_folder_name(make_run: MakeRun, refused: Refused, tag: str) -> None:
    fake = make_run()
    fake.write_source(tag={"name": tag, "object": "8" * 40, "signer": SIGNER}, version=tag)
    refused(fake, UsageError, "cannot be (a release|the name of a folder)")


@pytest.mark.parametrize("name", ["alpha", "beta"])
def test_an_artifact_changed_after_its_build(
    make_run: MakeRun, refused: Refused, name: str
) -> None:
    fake = make_run()
    iso = fake.run.environment(name) / "artifacts/mini-amd64-3.3.iso"
    content = bytearray(iso.read_bytes())
    content[1000] ^= 1
    iso.write_bytes(content)
    refused(fake, Differs, "was changed after the build")


def test_an_artifact_changed_in_both_after_the_builds(make_run: MakeRun, refused: Refused) -> None:
    fake = make_run()
    for name in ("alpha", "beta"):
        (fake.run.environment(name) / "artifacts/mini-amd64-3.3.iso").write_bytes(b"trojan")
    refused(fake, Differs, "was changed after the build")


def test_an_artifact_changed_between_a_release_and_its_repetition(
    make_run: MakeRun, release: DoRelease, refused: Refused
) -> None:
    fake = make_run()
    release(fake)
    path = fake.run.environment("beta") / "artifacts/mini-amd64-3.3.iso"
    path.write_bytes(b"trojan")
    refused(fake, Differs, "was changed after the build")


def test_files_dropped_added_swapped_or_linked(make_run: MakeRun, refused: Refused) -> None:
    folder = (fake := make_run()).run.environment("beta") / "artifacts"
    (folder / "mini-amd64-3.3.packages").unlink()
    refused(fake, Differs, "is missing after the build")
    folder = (fake := make_run()).run.environment("beta") / "artifacts"
    (folder / "extra").write_bytes(b"")
    refused(fake, Differs, "was added after the build")
    folder = (fake := make_run()).run.environment("beta") / "artifacts"
    iso, packages = folder / "mini-amd64-3.3.iso", folder / "mini-amd64-3.3.packages"
    one, other = iso.read_bytes(), packages.read_bytes()
    iso.write_bytes(other)
    packages.write_bytes(one)
    refused(fake, Differs, "was changed after the build")
    fake = make_run()
    iso = fake.run.environment("alpha") / "artifacts/mini-amd64-3.3.iso"
    iso.rename(fake.run.folder / "elsewhere")
    iso.symlink_to(fake.run.folder / "elsewhere")
    refused(fake, Differs, "was changed after the build")


def test_a_log_changed_after_the_build(make_run: MakeRun, refused: Refused) -> None:
    fake = make_run()
    (fake.run.environment("beta") / "console.log").write_bytes(b"all is well")
    refused(fake, Differs, "console.log was changed")


def test_a_statement_by_an_unknown_key(make_run: MakeRun, refused: Refused) -> None:
    fake = make_run()
    fake.write_statement("beta", key="stranger")
    refused(fake, SignatureInvalid, "the statement of beta cannot be trusted: no trusted key")


def test_a_statement_by_the_other_environment(make_run: MakeRun, refused: Refused) -> None:
    fake = make_run()
    fake.write_statement("beta", key="alpha")
    refused(fake, SignatureInvalid, "cannot be trusted")
    shutil.copy(
        fake.run.environment("alpha") / "statement.json",
        fake.run.environment("beta") / "statement.json",
    )
    refused(fake, SignatureInvalid, "cannot be trusted")
    fake.write_statement("beta", environment="alpha")
    refused(fake, SignatureInvalid, "the statement of beta is by alpha")


def test_a_missing_statement(make_run: MakeRun, refused: Refused) -> None:
    fake = make_run()
    (fake.run.environment("beta") / "statement.json").unlink()
    refused(fake, SignatureInvalid, "cannot be trusted: cannot read")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"tag": "3.2"}, "of another tag"),
        ({"repository": "file:///srv/other.git"}, "of another repository"),
        ({"commit": "d" * 40}, "of another commit"),
        ({"lock_sha256": "d" * 64}, "of another lock_sha256"),
        ({"job": {"guest_sha256": "d" * 64}}, "given different jobs"),
    ],
)
def test_statements_that_disagree(
    make_run: MakeRun, refused: Refused, changes: dict[str, Any], match: str
) -> None:
    fake = make_run()
    job = {k: v for k, v in changes.items() if k in ("commit", "lock_sha256")}
    changes["job"] = fake.job() | changes.get("job", {}) | job
    fake.write_statement("beta", **changes)
    refused(fake, SignatureInvalid, match)


@pytest.mark.parametrize(
    "machine", [{}, {"kept_trees": [{"step": "20-bootstrap"}]}, {"kept_trees": None}]
)
def test_a_build_that_began_with_a_kept_tree(
    make_run: MakeRun, refused: Refused, machine: dict[str, Any]
) -> None:
    run = make_run()
    run.write_statement("beta", machine=machine)
    refused(run, SignatureInvalid, "the build of beta began with a kept tree")


def test_statements_with_other_artifacts(make_run: MakeRun, refused: Refused) -> None:
    fake = make_run()
    artifact = fake.run.environment("beta") / "artifacts/mini-amd64-3.3.iso"
    artifact.write_bytes(b"other")
    good = dict(fake.artifacts)
    fake.artifacts["mini-amd64-3.3.iso"] = b"other"
    fake.write_statement("beta")
    fake.artifacts = good
    refused(fake, Differs, "beta states other artifacts")


def test_a_verdict_about_other_artifacts(make_run: MakeRun, refused: Refused) -> None:
    fake = make_run()
    fake.artifacts["mini-amd64-3.3.iso"] = b"other"
    fake.write_verdict()
    refused(fake, Differs, "alpha states other artifacts than alpha or the verdict")


def test_a_lock_that_is_not_the_one_built_from(make_run: MakeRun, refused: Refused) -> None:
    fake = make_run()
    content = fake.run.source_tar.read_bytes()
    fake.run.source_tar.write_bytes(content.replace(b"Format", b"format"))
    refused(fake, InputsUnverified, r"source\.tar was changed")
    fake.write_source()
    fake.write_inputs(lock_sha256="d" * 64)
    refused(fake, InputsUnverified, "is not the lock that was built from")


def test_missing_policy_is_a_refusal(
    make_run: MakeRun, refused: Refused, farm_with: FarmWith, farm: Farm
) -> None:
    fake = make_run()
    refused(fake, SignatureInvalid, "names no release key", farm=farm_with(None))
    document = farm.model_dump()
    beta = document["keys"]["environments"].pop("beta")
    refused(fake, SignatureInvalid, "no key of beta", farm=Farm.model_validate(document))
    document["keys"]["environments"] = {"alpha": beta, "beta": beta}
    refused(fake, SignatureInvalid, "the same key", farm=Farm.model_validate(document))


def test_a_release_key_that_is_missing_expired_or_revoked(
    make_run: MakeRun,
    refused: Refused,
    farm_with: FarmWith,
    expired_key: str,
    revoked_key: str,
    gpg_home: GpgHome,
) -> None:
    fake = make_run()
    refused(fake, SignatureInvalid, "no public key", farm=farm_with("0" * 40))
    refused(fake, SignatureInvalid, "has expired", farm=farm_with(expired_key))
    gpg_home.revoke(revoked_key)
    refused(fake, SignatureInvalid, "was revoked", farm=farm_with(revoked_key))


def test_a_key_revoked_after_signing_stops_publication(
    make_run: MakeRun,
    release: DoRelease,
    refused: Refused,
    farm_with: FarmWith,
    gpg_home: GpgHome,
    public: Path,
) -> None:
    key = gpg_home.make("Soon <soon@example.org>", expires="never")
    fake = make_run()
    release(fake, farm=farm_with(key))
    shutil.rmtree(public)
    gpg_home.revoke(key)
    refused(fake, SignatureInvalid, "was revoked", farm=farm_with(key))


def test_a_signature_over_something_else_is_not_published(
    make_run: MakeRun, release: DoRelease, refused: Refused, public: Path
) -> None:
    fake = make_run()
    release(fake)
    shutil.rmtree(public)
    manifest = fake.run.release / "SHA256SUMS"
    record = fake.run.folder / "stages/release.json"
    old = subprocess.run(["sha256sum", manifest], capture_output=True, check=True).stdout[:64]
    manifest.write_bytes(manifest.read_bytes() + f"{sha256(b'')}  lock2\n".encode())
    (fake.run.release / "lock2").write_bytes(b"")
    new = subprocess.run(["sha256sum", manifest], capture_output=True, check=True).stdout[:64]
    record.write_bytes(record.read_bytes().replace(old, new))
    refused(fake, SignatureInvalid, "the signature is bad")


@pytest.mark.parametrize("name", ["mini-amd64-3.3.iso", "console.log"])
@pytest.mark.parametrize("trick", ["write", "link"])
def test_a_file_changed_between_the_check_and_publication(
    make_run: MakeRun, refused: Refused, monkeypatch: pytest.MonkeyPatch, name: str, trick: Any
) -> None:
    """The attacker can write to the run folder while it is released."""
    fake = make_run()
    folder = fake.run.environment("alpha")
    path = next(p for p in (folder / name, folder / "artifacts" / name) if p.exists())

    def changing(run: Run, farm: Farm, verified: VerifiedTag) -> CheckedRun:
        checked = check(run, farm, verified)
        path.unlink()
        (path.with_name("trojan") if trick == "link" else path).write_bytes(b"trojan")
        if trick == "link":
            path.symlink_to("trojan")
        return checked

    monkeypatch.setattr(stage, "check", changing)
    refused(fake, Differs, f"{name} was changed after")


@pytest.mark.parametrize("name", ["verdict.json", "alpha/statement.json", "source.tar"])
def test_a_document_changed_between_the_check_and_publication(
    make_run: MakeRun, release: DoRelease, monkeypatch: pytest.MonkeyPatch, name: str, public: Path
) -> None:
    """What is published is what was checked."""
    fake = make_run()
    path = fake.run.folder / name
    good = path.read_bytes()

    def changing(run: Run, farm: Farm, verified: VerifiedTag) -> CheckedRun:
        checked = check(run, farm, verified)
        path.write_bytes(b"{}")
        return checked

    monkeypatch.setattr(stage, "check", changing)
    release(fake)
    if name == "source.tar":
        assert (public / "3.3/lock").read_bytes() == LOCK
    else:
        there = {"verdict.json": "verdict.json", "alpha/statement.json": "statements/alpha.json"}
        assert json.loads((public / "3.3" / there[name]).read_bytes()) == json.loads(good)


def test_a_release_that_no_index_could_list_stops_the_next_one(
    make_run: MakeRun, release: DoRelease, refused: Refused, public: Path
) -> None:
    """Without this it was published first, and ended with status 4 then."""
    release(make_run("3.2"))
    (public / "3.2/statements/alpha.json").write_bytes(b"{}")
    refused(make_run("3.3"), InfrastructureFailed, r"3\.2 is damaged")


def test_a_disk_that_fails_is_reported(make_run: MakeRun, refused: Refused) -> None:
    fake = make_run()
    fake.run.release.write_bytes(b"in the way")
    refused(fake, InfrastructureFailed, r"broke off: .*/release")


def test_a_tag_that_differs_in_case_alone(
    make_run: MakeRun, release: DoRelease, refused: Refused, public: Path
) -> None:
    """Where upper and lower case are one, it would be the same folder."""
    release(make_run("3.3-rc"))
    refused(make_run("3.3-RC"), UsageError, "upper and lower case alone")


# --- the key from a file


@pytest.fixture
def key_file(
    tmp_path: Path, caller: GpgHome, release_key: str, monkeypatch: pytest.MonkeyPatch
) -> Path:
    path = tmp_path / "release.key"
    path.touch(mode=0o600)
    path.write_bytes(caller.gpg("--armor", "--export-secret-keys", release_key))
    monkeypatch.delenv("GNUPGHOME")
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
    monkeypatch.setenv("TWINBUILD_RELEASE_KEY", str(path))
    return path


@pytest.mark.usefixtures("key_file")
def test_a_key_file_is_used_without_touching_any_home(
    make_run: MakeRun, release: DoRelease, tmp_path: Path
) -> None:
    result, _ = release(make_run())
    assert result.new
    assert not (tmp_path / "nobody").exists()


@pytest.mark.parametrize("which", ["KEY", "PASSPHRASE_FILE"])
def test_a_key_or_passphrase_that_others_can_read_is_refused(
    which: str, make_run: MakeRun, refused: Refused, key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The attacker has another account on the machine that signs."""
    monkeypatch.setenv("TWINBUILD_RELEASE_PASSPHRASE_FILE", str(key_file.with_name("passphrase")))
    key_file.with_name("passphrase").touch(mode=0o600)
    Path(os.environ[f"TWINBUILD_RELEASE_{which}"]).chmod(0o644)
    refused(make_run(), SignatureInvalid, "mode 0644")


def test_a_key_file_that_is_none(make_run: MakeRun, refused: Refused, key_file: Path) -> None:
    key_file.write_text("no key")
    refused(make_run(), SignatureInvalid, "cannot import")


@pytest.mark.usefixtures("key_file")
def test_a_key_file_of_another_key(
    make_run: MakeRun, refused: Refused, farm_with: FarmWith, other_key: str
) -> None:
    refused(make_run(), SignatureInvalid, "no public key", farm=farm_with(other_key))


def test_a_key_file_with_a_passphrase(
    make_run: MakeRun,
    release: DoRelease,
    refused: Refused,
    key_file: Path,
    farm_with: FarmWith,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    passphrase = tmp_path / "passphrase"
    passphrase.touch(mode=0o600)
    passphrase.write_text("correct horse\n")
    monkeypatch.setenv("TWINBUILD_RELEASE_PASSPHRASE_FILE", str(passphrase))
    with tempfile.TemporaryDirectory(prefix="tw-", dir="/tmp") as home:
        Path(home, "gpg-agent.conf").write_text("s2k-count 65536\n")  # the default takes seconds
        options = ["--pinentry-mode", "loopback", "--passphrase-file", str(passphrase)]
        argv = ["gpg", "--homedir", home, "--batch", "--quiet", *options]
        subprocess.run([*argv, "--quick-gen-key", "P <p@example.org>", "ed25519"], check=True)
        listed = subprocess.run([*argv, "--with-colons", "-K"], check=True, capture_output=True)
        key = subprocess.run([*argv, "--export-secret-keys"], check=True, capture_output=True)
        subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=True)
    found = re.search(rb"fpr:+([0-9A-F]{40})", listed.stdout)
    assert found
    fingerprint = found[1].decode()
    key_file.write_bytes(key.stdout)
    result, _ = release(make_run("3.3"), farm=farm_with(fingerprint))
    assert result.new
    passphrase.write_text("wrong\n")
    refused(
        make_run("3.4"), SignatureInvalid, "the passphrase is wrong", farm=farm_with(fingerprint)
    )


# --- crashes


def crashes_at(call: int, action: Callable[[], object]) -> bool:
    """Do `action` in a process of its own that dies at its nth sync; tell whether it died."""
    child = os.fork()
    if child == 0:
        calls = 0

        def dying(fd: object) -> None:
            nonlocal calls
            calls += 1
            if calls == call:
                os._exit(9)

        try:
            os.fsync = dying
            action()
            os._exit(0)
        finally:  # nothing of the child may reach the test runner
            traceback.print_exc()
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, 9)
    return status == 9


def test_a_crash_at_any_moment_leaves_the_old_state_or_the_new(
    make_run: MakeRun,
    release: DoRelease,
    farm: Farm,
    public: Path,
    listing: Listing,
    gpg_home: GpgHome,
) -> None:
    release(make_run("3.2"))
    old, kept = listing(public), listing(public / "3.2")
    fake = make_run()
    release(fake)
    complete, index = listing(public / "3.3"), (public / "index.json").read_bytes()
    assert farm.keys.release
    trust = publishing.ReleaseTrust(
        farm.keys.release, gpg_home.export(farm.keys.release), farm.keys.environments
    )
    seen, call, died = set(), 0, True
    while died:
        shutil.rmtree(public)
        for name, content in old.items():
            (public / name).parent.mkdir(parents=True, exist_ok=True)
            if content is not None:
                (public / name).write_bytes(content)
        call += 1
        died = crashes_at(
            call, lambda: publishing.publish(fake.run.release, "3.3", public, trust, print)
        )
        new = (public / "3.3").exists()
        seen.add(new)
        assert listing(public / "3.3") == (complete if new else {})
        assert listing(public / "3.2") == kept
        assert (public / "index.json").read_bytes() in (old["index.json"], index)
    assert seen == {False, True}
    assert call > len(complete)
    assert not list(public.glob(".*"))


def test_what_a_crash_has_left_is_gone_after_the_next_time(
    make_run: MakeRun, release: DoRelease, public: Path, farm: Farm
) -> None:
    fake = make_run()
    release(fake)
    shutil.rmtree(public)
    assert crashes_at(3, lambda: release(fake))
    assert [path.name[:12] for path in public.iterdir()] == [".publishing-"]
    release(fake)
    assert not list(public.glob(".*"))
    assert (public / "3.3").is_dir()
