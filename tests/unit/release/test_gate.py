# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate: every document of a run is held against the others, the policy and the files.

Each test says what the attacker holds: the run folder alone, as whoever carries a run between
machines does, or the environments' keys, too. None holds the release key, which is not asked here.
"""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import pytest
from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner

from pipeline.base import dsse
from pipeline.base.errors import (
    BuildFailed,
    Differs,
    InputsUnverified,
    SignatureInvalid,
    TwinbuildError,
    UsageError,
)
from pipeline.base.files import write_json
from pipeline.documents.dsse import IN_TOTO
from pipeline.farm.config import Farm
from pipeline.release.checks import check
from tests.releases import SIGNER, FakeRun, MakeRun, kit_from

pytestmark = pytest.mark.tools

HOUR = timedelta(hours=1)
LOGS = ("console.log", "progress.jsonl", "timings.json", "ledger.jsonl.gz")


class Refused(Protocol):
    """Expects that the gate refuses a run."""

    def __call__(
        self, fake: FakeRun, error: type[TwinbuildError], match: str, farm: Farm = ...
    ) -> None: ...


@pytest.fixture
def refused(farm: Farm) -> Refused:
    def run(fake: FakeRun, error: type[TwinbuildError], match: str, farm: Farm = farm) -> None:
        with pytest.raises(TwinbuildError, match=match) as caught:
            check(fake.run, farm, fake.verified)
        assert type(caught.value) is error
        assert "\n" not in str(caught.value)

    return run


def test_a_run_as_its_stages_leave_it(make_run: MakeRun, farm: Farm) -> None:
    fake = make_run(kits=[kit_from("3.1")])
    checked = check(fake.run, farm, fake.verified)
    assert checked.artifacts.keys() == fake.artifacts.keys()
    assert sorted(checked.documents) == [
        "lock",
        "statements/alpha.json",
        "statements/beta.json",
        "verdict.json",
    ]


# --- one build under two names


def copy_logs(fake: FakeRun) -> None:
    for name in LOGS:
        alpha = fake.run.environment("alpha") / name
        shutil.copy(alpha, fake.run.environment("beta") / name)


def test_a_copied_build(make_run: MakeRun, refused: Refused) -> None:
    """The attacker has beta's key and one build, alpha's, whose folder he copies."""
    fake = make_run()
    copy_logs(fake)
    fake.write_statement("beta")
    refused(fake, SignatureInvalid, r"alpha and beta state one build: their console\.log")


@pytest.mark.parametrize("name", ["console.log", "progress.jsonl", "timings.json"])
def test_a_copied_build_with_some_logs_touched_up(
    make_run: MakeRun, refused: Refused, name: str
) -> None:
    """As above, and he changes all logs but one."""
    fake = make_run()
    shutil.copy(fake.run.environment("alpha") / name, fake.run.environment("beta") / name)
    fake.write_statement("beta")
    refused(fake, SignatureInvalid, f"state one build: their {name} is the same")


def test_two_builds_may_have_the_same_ledger(make_run: MakeRun, farm: Farm) -> None:
    fake = make_run()
    name = "ledger.jsonl.gz"
    shutil.copy(fake.run.environment("alpha") / name, fake.run.environment("beta") / name)
    fake.write_statement("beta")
    check(fake.run, farm, fake.verified)


def test_a_machine_that_varied_nothing(make_run: MakeRun, refused: Refused) -> None:
    """The attacker has beta's key and says of its machine what alpha says, but what is drawn."""
    fake = make_run()
    varied = {**fake.machine("alpha")["varied"], "directory_seed": "x"}
    fake.write_statement("beta", machine={**fake.machine("beta"), "varied": varied})
    refused(fake, SignatureInvalid, "state one build: nothing was varied between them")


@pytest.mark.parametrize("below", ["", "artifacts"])
def test_a_symbolic_link_to_the_other_build(
    make_run: MakeRun, refused: Refused, below: str
) -> None:
    """The attacker has the run folder alone."""
    fake = make_run()
    link, target = (fake.run.environment(name) / below for name in ("beta", "alpha"))
    shutil.rmtree(link)
    link.symlink_to(target)
    refused(fake, SignatureInvalid, "beta.* is a symbolic link: beta has no build of its own")


def test_hard_links_to_the_other_build(make_run: MakeRun, refused: Refused) -> None:
    """The attacker has the run folder: both names of a file change together, after any check."""
    fake = make_run()
    one, other = (fake.run.environment(n) / "artifacts" for n in ("alpha", "beta"))
    for path in one.iterdir():
        (other / path.name).unlink()
        os.link(path, other / path.name)
    refused(fake, SignatureInvalid, r"state one build: .*beta/artifacts/.* is .*alpha/artifacts/")


def test_a_log_that_is_a_link_to_the_other_build(make_run: MakeRun, refused: Refused) -> None:
    fake = make_run()
    log = fake.run.environment("beta") / "ledger.jsonl.gz"
    log.unlink()
    log.symlink_to(fake.run.environment("alpha") / log.name)
    refused(fake, SignatureInvalid, r"state one build: .*beta/ledger.* is .*alpha/ledger")


# --- statements, by keys that may sign them


@pytest.mark.parametrize("names", [["beta"], ["alpha", "beta"]])
@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"run_id": "20261122T180000Z-mini-0000"}, SignatureInvalid, "of another run_id"),
        ({"tag": None}, SignatureInvalid, "of another tag"),
        ({"tag": "3.2"}, SignatureInvalid, "of another tag"),
        ({"repository": "file:///srv/other.git"}, SignatureInvalid, "of another repository"),
        ({"artifacts": {}}, SignatureInvalid, "names no artifact"),
        ({"byproducts": {}}, SignatureInvalid, "its by-products are not"),
    ],
)
def test_a_statement_of_something_else(
    make_run: MakeRun,
    refused: Refused,
    names: list[str],
    changes: dict[str, Any],
    error: type[TwinbuildError],
    match: str,
) -> None:
    """The attacker has the keys of one environment, or of both."""
    fake = make_run()
    for name in names:
        fake.write_statement(name, **changes)
    refused(fake, error, match)


@pytest.mark.parametrize("names", [["beta"], ["alpha", "beta"]])
@pytest.mark.parametrize(
    "machine",
    [
        {"vary": "none"},
        {"vary": "default"},
        {"vary": None},
        {"vary": ["all"]},
        {"varied": None},
        {"varied": []},
        {"kept_trees": None},
        {"kept_trees": [{"step": "20-bootstrap"}]},
        {"kept_trees": {}},
    ],
)
def test_a_machine_that_is_no_releases(
    make_run: MakeRun, refused: Refused, names: list[str], machine: dict[str, Any]
) -> None:
    fake = make_run()
    for name in names:
        fake.write_statement(name, machine={**fake.machine(name), **machine})
    refused(fake, SignatureInvalid, "(varied|began with a kept tree)")


def test_times_that_cannot_be(make_run: MakeRun, refused: Refused) -> None:
    fake = make_run()
    began, now = fake.run.started, datetime.now(UTC).replace(microsecond=0)
    for started, finished, match in [
        (began + HOUR, began, "finished before it was started"),
        (began - 2 * HOUR, began, "not made between the run's beginning and now"),
        (datetime(1969, 1, 1, tzinfo=UTC), began, "not made between"),
        (began, now + 2 * HOUR, "not made between"),
        (datetime(9999, 1, 1, tzinfo=UTC), datetime(9999, 1, 2, tzinfo=UTC), "not made between"),
    ]:
        fake.write_statement("beta", started=started, finished=finished)
        refused(fake, SignatureInvalid, match)


@pytest.mark.parametrize("names", [["beta"], ["alpha", "beta"]])
@pytest.mark.parametrize(
    "change",
    [
        {"version": "3.2"},
        {"version": 3.3},
        {"epoch": "x"},
        {"epoch": "1766400000"},
        {"epoch": 1766400000.0},
        {"epoch": -1},
        {"epoch": True},
        {"epoch": 2**70},
        {"format": "twinbuild-job/2"},
        {"architecture": "../../x"},
        {"suite": "sid"},
        {"kernel_parameters": "init=/bin/sh"},
        {"source_sha256": "d" * 64},
        {"index_sha256": "d" * 64},
        {"guest_sha256": None},
        {"guest_sha256": "D" * 64},
        {"kits": [{"from": "../3.1"}]},
        {"kits": None},
        {"local": {"packages": [{}]}},
        {"upgrade": 1},
        {"upgrade": "yes"},
        {"expected_differences": [{"path": "etc/x", "reason": "r", "until": "2030-01-01"}]},
        {"more": 1},
    ],
)
def test_a_job_that_the_run_does_not_have(
    make_run: MakeRun, refused: Refused, names: list[str], change: Any
) -> None:
    """The attacker has the keys; each of these was published, and some of it opened no more."""
    fake = make_run()
    for name in names:
        fake.write_statement(name, job={**fake.job(), **change})
    refused(fake, SignatureInvalid, f"the job of {names[0]} .*{min(change)}")


def test_a_job_that_lacks_something(make_run: MakeRun, refused: Refused) -> None:
    fake = make_run()
    for field in fake.job():
        job = fake.job()
        del job[field]
        for name in ("alpha", "beta"):
            write_json(fake.run.environment(name) / "job.json", job)
            fake.write_statement(name, job=job)
        refused(fake, SignatureInvalid, f"alpha.*{field}")


@pytest.mark.parametrize(
    "name",
    ["extra.txt", "MINI-amd64-3.3.iso", "lock", "verdict.json", "SHA256SUMS"],
)
def test_an_artifact_that_the_job_does_not_have(
    make_run: MakeRun, refused: Refused, name: str
) -> None:
    """The attacker has both keys and the machines hand back more, or another case's twin."""
    fake = make_run()
    fake.artifacts[name] = b"x"
    for environment in ("alpha", "beta"):
        fake.write_build(environment)
    fake.write_verdict()
    refused(fake, SignatureInvalid, f"artifacts that alpha states are not those of its job: {name}")


@pytest.mark.parametrize("name", ["../mini.iso", "statements/beta.json", "a/b", ".x", "a\nb", ""])
def test_an_artifact_outside_of_its_folder(make_run: MakeRun, refused: Refused, name: str) -> None:
    fake = make_run()
    fake.write_statement("beta", artifacts={name: "d" * 64})
    refused(fake, SignatureInvalid, "the statement of beta cannot be trusted: .* malformed")


def test_an_artifact_that_is_missing_everywhere(make_run: MakeRun, refused: Refused) -> None:
    fake = make_run()
    del fake.artifacts["mini-amd64-3.3.img"]
    for environment in ("alpha", "beta"):
        (fake.run.environment(environment) / "artifacts/mini-amd64-3.3.img").unlink()
        fake.write_build(environment)
    fake.write_verdict()
    refused(fake, SignatureInvalid, r"not those of its job: mini-amd64-3\.3\.img")


def test_statements_that_are_swapped_or_twice_the_same(make_run: MakeRun, refused: Refused) -> None:
    fake = make_run()
    alpha, beta = (fake.run.environment(n) / "statement.json" for n in ("alpha", "beta"))
    one, other = alpha.read_bytes(), beta.read_bytes()
    alpha.write_bytes(other)
    beta.write_bytes(one)
    refused(fake, SignatureInvalid, "the statement of alpha cannot be trusted: no trusted key")
    alpha.write_bytes(one)
    refused(fake, SignatureInvalid, "the statement of beta cannot be trusted: no trusted key")


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff", b"[" * 100_000, b'{"payload": 1}'])
def test_a_statement_that_is_none(make_run: MakeRun, refused: Refused, content: bytes) -> None:
    fake = make_run()
    (fake.run.environment("beta") / "statement.json").write_bytes(content)
    refused(fake, SignatureInvalid, "the statement of beta cannot be trusted")


@pytest.mark.parametrize(
    ("old", "new"),
    [(b'"image": "mini"', b'"image": "evil", "image": "mini"'), (b'"cpus": 4', b'"cpus": NaN')],
)
def test_a_statement_that_readers_may_understand_differently(
    make_run: MakeRun,
    refused: Refused,
    environment_keys: dict[str, CryptoSigner],
    old: bytes,
    new: bytes,
) -> None:
    """The attacker has beta's key and signs JSON with a key twice, or what is no JSON number."""
    fake = make_run()
    path = fake.run.environment("beta") / "statement.json"
    document = dsse.unverified_payload(json.loads(path.read_bytes()))
    content = json.dumps(document).encode()
    assert old in content
    envelope = Envelope(content.replace(old, new), IN_TOTO, {})
    envelope.sign(environment_keys["beta"])
    write_json(path, dict(envelope.to_dict()))
    refused(fake, SignatureInvalid, "the statement of beta cannot be trusted: .*(twice|NaN)")


# --- the policy and the other documents


@pytest.mark.parametrize("signer", [None, "6" * 40, "", SIGNER + "x"])
def test_a_source_without_a_listed_signer(make_run: MakeRun, refused: Refused, signer: str) -> None:
    """The attacker has the run folder: a run of a farm that asked for no signature, say."""
    fake = make_run()
    fake.write_source(tag={"name": "3.3", "object": "8" * 40, "signer": signer})
    for name in ("alpha", "beta"):
        fake.write_build(name)
    refused(fake, SignatureInvalid, f"has {signer or 'nobody'} as the signer .* is {SIGNER}")


@pytest.mark.parametrize(
    ("change", "what"), [({"object_id": "b" * 40}, "object"), ({"commit": "b" * 40}, "commit")]
)
def test_a_tag_that_was_moved_since(make_run: MakeRun, farm: Farm, change: Any, what: str) -> None:
    """The attacker may push tags."""
    fake = make_run()
    with pytest.raises(SignatureInvalid, match=f"as the {what} of the tag .* that is bbbb"):
        check(fake.run, farm, replace(fake.verified, **change))


def test_a_farm_that_asks_for_no_signature(make_run: MakeRun, farm: Farm) -> None:
    fake = make_run()
    fake.write_source(tag={"name": "3.3", "object": "8" * 40, "signer": None})
    unsigned = replace(fake.verified, signer=None)
    with pytest.raises(SignatureInvalid, match="nobody whom the policy lists has signed"):
        check(fake.run, farm, unsigned)
    tags = farm.keys.tags.model_copy(update={"signed": False, "signers": []})
    keys = farm.keys.model_copy(update={"tags": tags})
    check(fake.run, farm.model_copy(update={"keys": keys}), unsigned)


def test_an_environment_that_the_farm_does_not_have(
    make_run: MakeRun, refused: Refused, farm: Farm
) -> None:
    """Its key is still pinned."""
    document = farm.model_dump()
    document["environments"]["gamma"] = document["environments"].pop("beta")
    refused(
        make_run(), SignatureInvalid, "no environment 'beta'", farm=Farm.model_validate(document)
    )


def test_a_verdict_on_other_environments_than_the_runs(make_run: MakeRun, refused: Refused) -> None:
    fake = make_run()
    fake.write_verdict(environments=["alpha", "stranger"])
    refused(fake, SignatureInvalid, "the verdict is on alpha, stranger, and the run is of alpha, b")


def test_a_run_of_an_environment_alone(make_run: MakeRun, refused: Refused) -> None:
    """The attacker has the run folder, and adds himself a verdict."""
    fake = make_run(environments=("alpha",))
    refused(fake, SignatureInvalid, "two environments or more")


@pytest.mark.parametrize("name", ["lock", "statements", "release", "stages"])
def test_an_environment_that_is_named_like_a_part_of_a_release(
    make_run: MakeRun, refused: Refused, name: str
) -> None:
    fake = make_run()
    path = fake.run.folder / "run.json"
    document = json.loads(path.read_bytes()) | {"environments": ["alpha", name]}
    write_json(path, document)
    refused(fake, UsageError, "environments: .* a name of its own")


def test_a_run_that_was_asked_for_something_else(make_run: MakeRun, refused: Refused) -> None:
    for change, error, match in [
        ({"tag": "3.2", "commit": "3.2"}, UsageError, "of the tag 3.3 .* of the tag '3.2'"),
        ({"tag": None}, UsageError, "not one of a tag"),
        ({"image": "kiosk"}, InputsUnverified, "of the image mini, not of kiosk"),
        ({"vary": "none"}, UsageError, "vary: .* all that can be varied"),
        ({"compression": "fast"}, SignatureInvalid, "of another compression"),
    ]:
        fake = make_run()
        path = fake.run.folder / "run.json"
        write_json(path, json.loads(path.read_bytes()) | change)
        refused(fake, error, match)


def test_a_verdict_that_contradicts_itself(make_run: MakeRun, refused: Refused) -> None:
    fake = make_run()
    judged = json.loads(fake.run.verdict_json.read_bytes())["artifacts"]
    changes: list[tuple[dict[str, object], str]] = [
        ({"reasons": ["beta is late"]}, "the builds differ"),
        ({"differences": [{"step": "40-x", "path": "etc/x", "kind": "mode"}]}, "the builds differ"),
        ({"only_expected": True}, "the builds differ"),
        ({"artifacts": [*judged, judged[0]]}, "has an artifact twice"),
        ({"artifacts": [{**judged[0], "size": 1}, *judged[1:]]}, "another size of mini-amd64"),
        ({"artifacts": [{**judged[0], "sha256": None}, *judged[1:]]}, "alpha states other art"),
    ]
    for change, match in changes:
        fake.write_verdict(**change)
        refused(fake, Differs, match)


def test_a_build_that_failed_after_the_comparison(make_run: MakeRun, refused: Refused) -> None:
    fake = make_run()
    write_json(fake.run.environment("beta") / "failure.json", {"status": 3, "what": "a hook"})
    refused(fake, BuildFailed, "the build in beta has failed since")


@pytest.mark.parametrize("name", ["alpha", "beta"])
def test_a_job_that_was_changed_after_the_build(
    make_run: MakeRun, refused: Refused, name: str
) -> None:
    fake = make_run()
    job = {**fake.job(), "expected_differences": []}
    write_json(fake.run.environment(name) / "job.json", {**job, "epoch": 1})
    refused(fake, Differs, rf"{name}/job\.json was changed after the build")


# --- every field of every document

ODD: tuple[object, ...] = (None, True, -1, 1.5, "x", "../x", [], {"x": 1})
# What the gate does not rely on, and nothing that is published repeats.
UNUSED = {
    "source.json": {("ref",), ("dirty",), ("tree",)},
    "inputs.json": {("snapshot",), ("packages",)},
    "verdict.json": set(),
    "statement.json": {
        ("predicate", "buildDefinition", "internalParameters", "machine", *path)
        for path in (("cpus",), ("varied", "host_name"), ("varied", "directory_seed"))
    },
}


def leaves(document: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Give the path of every value in a document, the containers too; of a list, the first."""
    if path:
        yield path
    inside = document.items() if isinstance(document, dict) else enumerate(document[:1])
    for name, value in inside:
        if isinstance(value, dict | list):
            yield from leaves(value, (*path, name))
        else:
            yield (*path, name)


# The first farms did not write them; without them a verdict says what it says with them empty.
MAY_BE_MISSING = (("expected",), ("only_expected",))


def changed(document: Any, path: Sequence[str | int], value: object) -> Any:
    """Return a copy with another value at `path`, or without it if `value` is ODD itself."""
    found = made = deepcopy(document)
    for name in path[:-1]:
        found = found[name]
    if value is ODD:
        del found[path[-1]]
    else:
        found[path[-1]] = value
    return made


def refusal(fake: FakeRun, farm: Farm) -> str:
    """Return what the gate says against a run, or nothing."""
    try:
        check(fake.run, farm, fake.verified)
    except TwinbuildError as error:
        return str(error)
    return ""


def is_same(document: Any, path: Sequence[str | int], value: object) -> bool:
    for name in path:
        document = document[name]
    return value is not ODD and json.dumps(document) == json.dumps(value)


@pytest.mark.parametrize("name", ["source.json", "inputs.json", "verdict.json"])
def test_no_field_of_a_document_can_be_odd(make_run: MakeRun, farm: Farm, name: str) -> None:
    """The attacker has the run folder; whatever he writes into a document is refused by name."""
    fake = make_run(kits=[kit_from("3.1")])
    path = fake.run.folder / name
    document = json.loads(path.read_bytes())
    accepted = []
    for where in leaves(document):
        for value in (ODD, *ODD):
            if is_same(document, where, value) or where in UNUSED[name]:
                continue
            if value is ODD and where in MAY_BE_MISSING:
                continue
            write_json(path, changed(document, where, value))
            if not refusal(fake, farm):
                accepted.append((where, value))
    assert accepted == []


def test_no_field_of_a_statement_can_be_odd(
    make_run: MakeRun, farm: Farm, environment_keys: dict[str, CryptoSigner]
) -> None:
    """The attacker has the keys of both environments, which lie alike."""
    fake = make_run(kits=[kit_from("3.1")])
    paths = {name: fake.run.environment(name) / "statement.json" for name in ("alpha", "beta")}
    documents = {n: dsse.unverified_payload(json.loads(p.read_bytes())) for n, p in paths.items()}
    accepted = []
    for where in leaves(documents["alpha"]):
        if any(where[: len(unused)] == unused for unused in UNUSED["statement.json"]):
            continue
        for value in (ODD, None, "x"):
            if is_same(documents["alpha"], where, value):
                continue
            for name, path in paths.items():
                made = changed(documents[name], where, value)
                write_json(path, dsse.sign(made, environment_keys[name]))
            if "alpha" not in refusal(fake, farm):
                accepted.append((where, value))
    assert accepted == []
