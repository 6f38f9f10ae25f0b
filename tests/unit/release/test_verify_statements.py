# SPDX-License-Identifier: GPL-3.0-or-later
"""verify.py against a release key in wrong hands: it asks of statements what the gate asks."""

import base64
import json
import os
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import pytest
from securesystemslib.signer import CryptoSigner

import verify
from pipeline.base import dsse
from pipeline.documents import statement
from tests.gpg_home import GpgHome
from tests.releases import FakeRun, MakeRun, publish_by_hand

ISO = "mini-amd64-3.3.iso"


class Check(Protocol):
    """Verifies a public tree."""

    def __call__(
        self, public: Path, *more: str | Path, tag: str = ...
    ) -> tuple[int, dict[str, Any], str]: ...


Forged = Callable[[FakeRun], Path]


@pytest.fixture
def check(keyring_file: Path, capsys: pytest.CaptureFixture[str]) -> Check:
    """Verify what is published in a folder; return status, object and errors in one."""

    def run(public: Path, *more: str | Path, tag: str = "3.3") -> tuple[int, dict[str, Any], str]:
        argv = ["--url", public.as_uri(), "--tag", tag, "--keyring", os.fspath(keyring_file)]
        capsys.readouterr()
        status = verify.main([*argv, "--json", *map(str, more)])
        answer = json.loads(capsys.readouterr().out)
        return status, answer, " ".join(answer["errors"])

    return run


@pytest.fixture
def forged(tmp_path: Path, gpg_home: GpgHome, release_key: str) -> Forged:
    """Publish a run by hand, as somebody who has all the keys and no gate."""

    def publish(fake: FakeRun) -> Path:
        publish_by_hand(tmp_path / "by-hand", fake, gpg_home, release_key)
        return tmp_path / "by-hand"

    return publish


def test_what_is_published_by_hand_verifies_as_long_as_it_is_in_order(
    check: Check, make_run: MakeRun, forged: Forged
) -> None:
    status, answer, _ = check(forged(make_run()))
    assert status == 0
    assert answer["repository"] == "file:///srv/mini.git"
    assert answer["image"] == "mini"


def both(**changes: object) -> dict[str, dict[str, object]]:
    return dict.fromkeys(("alpha", "beta"), changes)


def machine(**changes: object) -> dict[str, dict[str, object]]:
    """Return machines that are in order but for some changes."""
    names = {"alpha": "a", "beta": "b"}
    return {
        name: {
            "machine": {"kept_trees": [], "vary": "all", "varied": {"host_name": host}} | changes
        }
        for name, host in names.items()
    }


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (machine(vary="none"), "varied 'none'"),
        (machine(vary="default"), "varied 'default'"),
        (machine(vary=["all"]), "varied"),
        (machine(varied=None), "varied"),
        (machine(kept_trees=["base"]), "kept tree"),
        (machine(kept_trees=None), "kept tree"),
        (machine(varied={"host_name": "same"}), "one build: nothing was varied"),
        (machine(varied={"directory_seed": "x"}), "one build: nothing was varied"),
        (both(artifacts={}), "not good|no good"),
        (both(image="other"), "another image"),
        (both(lock_sha256="0" * 64), "lock is not in the manifest"),
        (both(tag="3.2"), "of the release '3.2'"),
        ({"beta": {"run_id": "20260101-000000-elsewhere"}}, "different runs"),
        (
            {"beta": {"repository": "file:///srv/other.git"}},
            "statements of the environments differ",
        ),
    ],
)
def test_a_statement_that_is_not_of_a_release(
    check: Check, make_run: MakeRun, forged: Forged, changes: dict[str, Any], says: str
) -> None:
    """The attacker has the release key and the environments' keys."""
    fake = make_run()
    for name, fields in changes.items():
        fake.write_statement(name, **fields)
    status, _, errors = check(forged(fake))
    assert status in (1, 6)
    assert any(word in errors for word in says.split("|"))


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("version", "3.2", "version '3.2'"),
        ("version", 3.3, "version"),
        ("epoch", "x", "impossible epoch"),
        ("epoch", True, "impossible epoch"),
        ("epoch", 2**40, "impossible epoch"),
        ("kits", [{"from": "3.1"}], "artifacts are not those of the job"),
        ("kits", [{}], "malformed"),
        ("kits", 5, "malformed"),
        ("architecture", "arm64", "artifacts are not those of the job"),
        ("commit", "d" * 40, "another commit"),
        ("compression", "fast", "another compression"),
    ],
)
def test_a_job_that_is_not_of_a_release(
    check: Check, make_run: MakeRun, forged: Forged, field: str, value: object, says: str
) -> None:
    fake = make_run()
    for name in ("alpha", "beta"):
        fake.write_statement(name, job={**fake.job(), field: value})
    status, _, errors = check(forged(fake))
    assert status == 6
    assert says in errors


def test_builds_that_ended_before_they_began_or_in_the_future(
    check: Check, make_run: MakeRun, forged: Forged, tmp_path: Path
) -> None:
    fake = make_run()
    fake.write_statement("beta", finished=fake.run.started - timedelta(seconds=1))
    status, _, errors = check(forged(fake))
    assert (status, "finished before" in errors) == (6, True)
    shutil.rmtree(tmp_path / "by-hand")
    fake.write_statement("beta", finished=fake.run.started + timedelta(days=1))
    status, _, errors = check(forged(fake))
    assert (status, "future" in errors) == (6, True)


@pytest.mark.parametrize("log", statement.BYPRODUCTS)
def test_one_build_that_is_stated_twice(
    check: Check, make_run: MakeRun, forged: Forged, log: str
) -> None:
    """The attacker built once and copied the folder; each log has times of its own."""
    fake = make_run()
    shutil.copy(fake.run.environment("alpha") / log, fake.run.environment("beta") / log)
    fake.write_statement("beta")
    status, _, errors = check(forged(fake))
    if log == "ledger.jsonl.gz":
        assert status == 0  # what is in it has no times
    else:
        assert (status, f"{log} is the same" in errors) == (6, True)


def retype(fake: FakeRun, change: Callable[[dict[str, Any]], object]) -> None:
    for name in ("alpha", "beta"):
        path = fake.run.environment(name) / "statement.json"
        document = json.loads(base64.b64decode(json.loads(path.read_text())["payload"]))
        change(document)
        path.write_text(json.dumps(dsse.sign(document, fake.keys[name])))


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(_type="https://in-toto.io/Statement/v0.1"),
        lambda d: d.update(predicateType="https://slsa.dev/provenance/v0.2"),
        lambda d: d["predicate"]["buildDefinition"].update(buildType="x"),
        lambda d: d["predicate"].update(more="x"),
        lambda d: d.update(subject=[]),
        lambda d: d["subject"].append(d["subject"][0]),
        lambda d: d["predicate"]["runDetails"]["metadata"].update(startedOn="yesterday"),
        lambda d: d["predicate"]["runDetails"]["metadata"].update(invocationId="\x1b[2J"),
        lambda d: d["predicate"]["buildDefinition"]["externalParameters"].update(repository=5),
        lambda d: d["predicate"]["runDetails"].update(byproducts=[]),
        lambda d: d.pop("_type"),
    ],
)
def test_a_statement_of_another_shape(
    check: Check, make_run: MakeRun, forged: Forged, change: Callable[[dict[str, Any]], object]
) -> None:
    fake = make_run()
    retype(fake, change)
    status, _, errors = check(forged(fake))
    assert status in (1, 6)
    assert errors
    assert "\x1b" not in errors


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"verdict": "differ"}, 1),
        ({"reasons": ["x"]}, 1),
        ({"expected": [{"path": "x", "reason": "a", "until": "2027-03-31"}]}, 1),
        ({"expected": [{"path": "x"}]}, 6),
        ({"format": "twinbuild-verdict/2"}, 6),
        ({"environments": ["alpha", "gamma"]}, 1),
        ({"artifacts": []}, 1),
        ({"artifacts": None}, 6),
    ],
)
def test_a_verdict_that_is_not_a_match(
    check: Check, make_run: MakeRun, forged: Forged, change: dict[str, Any], status: int
) -> None:
    fake = make_run()
    fake.write_verdict(**change)
    assert check(forged(fake))[0] == status


def test_a_document_that_two_readers_understand_differently(
    check: Check, make_run: MakeRun, forged: Forged
) -> None:
    fake = make_run()
    verdict = fake.run.verdict_json.read_text().replace("{", '{"verdict": "differ", ', 1)
    fake.run.verdict_json.write_text(verdict)
    status, _, errors = check(forged(fake))
    assert (status, "twice" in errors) == (6, True)


# --- what is asked for ----------------------------------------------------------------------------


def test_repository_and_image_can_be_pinned(check: Check, published: Path) -> None:
    """One key signs the releases of two projects: the attacker serves the other one's."""
    here = ("--repository", "file:///srv/mini.git", "--image", "mini")
    status, answer, _ = check(published, *here)
    assert status == 0
    assert "project that you mean" not in " ".join(answer["not_proven"])
    assert "--repository, --image" in " ".join(check(published)[1]["not_proven"])
    for pin in (("--repository", "file:///srv/other.git"), ("--image", "other")):
        status, _, errors = check(published, *pin)
        assert status == 6
        assert f"not {pin[1]}" in errors


def test_the_report_names_repository_and_image(
    published: Path, keyring_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--url", published.as_uri(), "--tag", "3.3", "--keyring", os.fspath(keyring_file)]
    assert verify.main(argv) == 0
    assert "built mini of file:///srv/mini.git, commit c0ffee" in capsys.readouterr().out


def test_one_key_cannot_stand_for_two_environments(
    check: Check, make_run: MakeRun, forged: Forged, environment_keys: dict[str, CryptoSigner]
) -> None:
    """The attacker holds one environment's key and states both builds."""
    fake = make_run()
    fake.write_statement("beta", key="alpha")
    public = forged(fake)
    key = dsse.public_hex(environment_keys["alpha"])
    pairs = [f"--environment-key={name}={key}" for name in ("alpha", "beta")]
    status, answer, errors = check(public, *pairs)
    assert status == 6
    assert "same key" in errors
    assert answer["verified"] == []


@pytest.mark.parametrize("given", [(), ("alpha",)])
@pytest.mark.parametrize("named", ["as it is", "as another", "not"])
def test_one_key_that_signed_for_two_is_noticed(
    check: Check,
    make_run: MakeRun,
    forged: Forged,
    environment_keys: dict[str, CryptoSigner],
    given: tuple[str, ...],
    named: str,
) -> None:
    """The attacker holds one environment's key, and the user has no key for the other."""
    fake = make_run()
    fake.write_statement("beta", key="alpha")
    path = fake.run.environment("beta") / "statement.json"
    envelope = json.loads(path.read_text())
    if named != "as it is":
        envelope["signatures"][0]["keyid"] = "0" * 64 if named == "as another" else ""
        path.write_text(json.dumps(envelope))
    key = dsse.public_hex(environment_keys["alpha"])
    status, answer, errors = check(forged(fake), *(f"--environment-key={n}={key}" for n in given))
    if named != "as it is" and not given:  # nothing shows it, and nothing is claimed
        assert status == 0
        assert "that alpha, beta signed it" in " ".join(answer["not_proven"])
        return
    assert status == 6
    assert "alpha and beta are signed by the same key" in errors


def test_an_environment_named_twice_is_wrong_usage(
    check: Check, published: Path, environment_keys: dict[str, CryptoSigner]
) -> None:
    keys = [dsse.public_hex(environment_keys[name]) for name in ("stranger", "alpha")]
    status, _, errors = check(published, *(f"--environment-key=alpha={key}" for key in keys))
    assert (status, "twice" in errors) == (2, True)


@pytest.mark.parametrize("name", ["mini-amd64-3.3 (1).iso", "download", "ISO.part"])
def test_a_renamed_file_is_known_by_its_content(
    check: Check,
    published: Path,
    tmp_path: Path,
    keyring_file: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    shutil.copy(published / "3.3" / ISO, tmp_path / name)
    status, answer, _ = check(published, "--file", tmp_path / name)
    assert status == 0
    assert ISO in answer["verified"]
    argv = ["--url", published.as_uri(), "--tag", "3.3", "--keyring", os.fspath(keyring_file)]
    assert verify.main([*argv, "--file", os.fspath(tmp_path / name)]) == 0
    assert f"{name} has the content of {ISO}" in capsys.readouterr().out


def test_a_renamed_file_with_other_bytes_differs(
    check: Check, published: Path, tmp_path: Path
) -> None:
    (tmp_path / "other.iso").write_bytes((published / "3.3" / ISO).read_bytes() + b"!")
    status, answer, errors = check(published, "--file", tmp_path / "other.iso")
    assert (status, "not in the manifest" in errors) == (1, True)
    assert ISO not in answer["verified"]
