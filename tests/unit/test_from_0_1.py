# SPDX-License-Identifier: GPL-3.0-or-later
"""What 0.1 has written is read by this version: `tests/data/0.1`, made by 0.1 itself and shortened.

`runs/` holds a run that matched (its artifacts left out) and the verdict of one that differed;
`public/` a release with a kit, small contents in place of images; `renewed.json` is an upgrade
description with a renewal, by the key in `renewed.asc`. All keys were made for these.
"""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import verify
from pipeline.base import dsse
from pipeline.base.errors import InputsUnverified, UsageError
from pipeline.base.files import read_json, sha256_bytes
from pipeline.base.gpgv import public_keys
from pipeline.cli import overview
from pipeline.compare import ledger
from pipeline.documents import ledger_line
from pipeline.documents.digest import sha256_file
from pipeline.documents.explanation import Explanation
from pipeline.documents.json_form import json_bytes, parse_json
from pipeline.documents.kit_control import control_bytes, read_control
from pipeline.documents.manifest import Manifest
from pipeline.documents.release_index import ReleaseIndex
from pipeline.documents.statement import BYPRODUCTS
from pipeline.documents.upgrade_description import description_bytes, read_description
from pipeline.documents.upgrade_file import UpgradeFile
from pipeline.documents.upgrade_renewal import read_renewal, renewal_bytes
from pipeline.farm.config import load_environment, load_farm, load_image
from pipeline.farm.run import Run, list_runs
from pipeline.farm.run_documents import read_inputs, read_source, read_verdict
from pipeline.inputs import lock_file
from pipeline.kits.install import description
from pipeline.kits.install.format import open_kit
from pipeline.published.published import Listed, Location, read_index
from pipeline.release.statements import check_statement, read_signed
from pipeline.report.content import collect

DATA = Path(__file__).parents[1] / "data" / "0.1"
MATCHED = Run(DATA / "runs" / "20261129T030235Z-mini-d790")
DIFFERED = Run(DATA / "runs" / "20261129T003735Z-mini-0141")
PUBLIC = DATA / "public"
KIT = "mini-amd64-3.1-to-3.2.iuk"
NOW = datetime(2026, 11, 30, tzinfo=UTC)


def test_the_configuration_is_read() -> None:
    farm = load_farm(DATA / "farm.yaml")
    assert set(farm.environments) == set(farm.keys.environments) == {"alpha", "beta"}
    assert load_image(DATA / "image.yaml").volume_id == "MINI"
    assert load_environment(DATA / "environment.yaml").all


def test_the_lock_is_read() -> None:
    lock, _ = lock_file.read(DATA / "lock")
    assert [package.name for package in lock.packages] == ["apt", "bash", "debconf"]
    assert len(lock.suites) == 3


@pytest.mark.parametrize(
    ("old", "new"), [("lock/1", "lock/0"), ("Image: mini\n", ""), ("Size: ", "Length: ")]
)
def test_a_lock_of_no_version_names_the_command_that_writes_one(
    tmp_path: Path, old: str, new: str
) -> None:
    path = tmp_path / "mini" / "lock"
    path.parent.mkdir()
    path.write_text((DATA / "lock").read_text().replace(old, new, 1))
    with pytest.raises(InputsUnverified, match=r"lock --image mini writes a new one$"):
        lock_file.read(path)


@pytest.mark.parametrize("change", [{"commit": None}, {"of a later version": 1}, {"vary": "most"}])
def test_a_request_of_no_version_names_the_command_that_starts_another_run(
    tmp_path: Path, change: dict[str, object]
) -> None:
    written = read_json(MATCHED.folder / "run.json", failure=UsageError)
    (tmp_path / "run.json").write_bytes(json_bytes(written | change))
    with pytest.raises(UsageError, match=r"build starts another run$"):
        Run(tmp_path).request()


def test_runs_are_listed_and_shown() -> None:
    listed = list_runs(DATA / "runs")
    assert [run.id for run in listed] == [MATCHED.id, DIFFERED.id]
    assert all("damaged" not in line for line in overview.list_lines(listed, now=NOW))
    shown = "\n".join(overview.describe(MATCHED, now=NOW))
    assert "https://git.example.org/farm.git" in shown
    assert "match" in shown


def test_a_run_is_as_it_was_asked_for_and_its_stages_stay_complete() -> None:
    """Only what was left out here is missing: the digests of what stages read are the same."""
    request = MATCHED.request()
    assert (request.image, request.environments) == ("mini", ("alpha", "beta"))
    reads = {"the request": sha256_bytes(json_bytes(request.model_dump()))}
    assert MATCHED.why_again("source", reads) == "source.tar is missing"
    reads = {name: sha256_file(MATCHED.folder / name) for name in ("source.json",)}
    inputs = read_json(MATCHED.inputs_json, failure=UsageError)
    reads |= {"lock": inputs["lock_sha256"], "snapshot": "none"}
    assert MATCHED.why_again("inputs", reads) is None


def test_the_documents_of_a_run_are_read_as_the_gate_does() -> None:
    source, inputs = read_source(MATCHED), read_inputs(MATCHED)
    matched, differed = read_verdict(MATCHED), read_verdict(DIFFERED)
    assert source.commit == "71cb83c963e62734b50387884692e223b80fa7b9"
    assert inputs.image == "mini"
    assert (matched.verdict, differed.verdict) == ("match", "differ")


@pytest.mark.parametrize("name", ["alpha", "beta"])
def test_the_statement_of_an_environment_is_read(name: str) -> None:
    key = load_farm(DATA / "farm.yaml").keys.environments[name]
    stated = read_signed(MATCHED, name, key).statement
    folder = MATCHED.environment(name)
    assert stated.run_id == MATCHED.id
    assert json_bytes(stated.job) == (folder / "job.json").read_bytes()
    assert stated.byproducts == {file: sha256_file(folder / file) for file in BYPRODUCTS}


@pytest.mark.parametrize("name", ["alpha", "beta"])
def test_the_ledger_of_an_environment_is_read(name: str) -> None:
    path = MATCHED.environment(name) / "ledger.jsonl.gz"
    records = [ledger.parse(line) for block in ledger.read_blocks(path) for line in block]
    steps = [record.name for record in records if isinstance(record, ledger_line.Step)]
    assert steps[0] == "20-bootstrap"
    assert any(isinstance(record, ledger_line.Artifact) for record in records)
    assert any(isinstance(record, ledger_line.LedgerEntry) for record in records)


def test_the_report_has_all_of_it() -> None:
    report = collect(MATCHED)
    assert report["state"] == "match"
    assert [len(environment["steps"]) for environment in report["environments"]] == [10, 10]
    report = collect(DIFFERED)
    assert [file["path"] for file in report["differences"]] == ["x.bin"]
    assert report["differences"][0]["offset"] == 2


def test_the_explanation_is_read_and_written_alike() -> None:
    content = (DIFFERED.folder / "explanation.json").read_bytes()
    assert json_bytes(Explanation.of(parse_json(content)).document()) == content


def location() -> Location:
    fingerprint = load_farm(DATA / "farm.yaml").keys.release
    return Location(str(PUBLIC), public_keys(DATA), fingerprint)


def test_the_list_of_releases_is_read() -> None:
    content = (PUBLIC / "index.json").read_bytes()
    assert read_index(content, "x") == (Listed("3.2", "mini"), Listed("3.1", "mini"))
    assert json_bytes(ReleaseIndex.of(parse_json(content)).document()) == content


def test_the_manifest_is_read_and_written_alike() -> None:
    content = (PUBLIC / "3.2" / "SHA256SUMS").read_bytes()
    assert Manifest.of(content).content() == content


@pytest.mark.tools
def test_a_release_is_opened() -> None:
    release = location().open("3.2")
    assert (release.image, release.job.epoch) == ("mini", 1766400000)
    assert release.files[KIT] == sha256_file(PUBLIC / "3.2" / KIT)


@pytest.mark.tools
def test_a_release_is_verified(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--url", PUBLIC.as_uri(), "--tag", "3.2", "--keyring", str(DATA / "release.asc")]
    argv += ["--all", "--directory", str(tmp_path)]
    for name, key in load_farm(DATA / "farm.yaml").keys.environments.items():
        argv += ["--environment-key", f"{name}={key}"]
    status = verify.main(argv)
    assert status == 0, capsys.readouterr()


def test_a_published_statement_is_read() -> None:
    envelope = json.loads((PUBLIC / "3.2/statements/alpha.json").read_bytes())
    assert check_statement(dsse.unverified_payload(envelope)).tag == "3.2"


@pytest.mark.tools
@pytest.mark.parametrize(
    ("file", "offered"),
    [("public/upgrades/3.1.json", True), ("public/upgrades/3.2.json", False)]
    + [("upgrade-1.json", True)],
)
def test_an_upgrade_description_is_read(file: str, *, offered: bool) -> None:
    """An installed system of 0.1 asks a server of 1.0, and the other way round."""
    trust = description.load_trust(DATA / "release.asc", None)
    found = description.check((DATA / file).read_bytes(), trust, NOW)
    assert found.newest == "3.2"
    assert (found.offer is not None) == offered
    if found.offer:
        assert found.offer.sha256 == sha256_file(PUBLIC / "3.2" / KIT)
    with pytest.raises(Exception, match="has expired"):
        description.check((DATA / file).read_bytes(), trust, NOW + timedelta(days=200))


@pytest.mark.parametrize(
    "file", ["public/upgrades/3.1.json", "public/upgrades/3.2.json", "renewed.json"]
)
def test_an_upgrade_description_is_read_and_written_alike(file: str) -> None:
    payload = UpgradeFile.of((DATA / file).read_bytes()).description.payload
    assert description_bytes(read_description(payload)) == payload


@pytest.mark.tools
def test_a_renewal_is_read() -> None:
    trust = description.load_trust(DATA / "renewed.asc", None)
    content = (DATA / "renewed.json").read_bytes()
    found = description.check(content, trust, datetime(2027, 1, 1, tzinfo=UTC))
    assert (found.newest, found.offer) == ("3.2", None)
    assert found.as_of == datetime(2026, 12, 12, 12, tzinfo=UTC)
    assert found.expires == datetime(2027, 1, 11, 12, tzinfo=UTC)
    renewal = UpgradeFile.of(content).renewal()
    assert renewal is not None
    assert renewal_bytes(read_renewal(renewal.payload)) == renewal.payload


def test_a_kit_is_read() -> None:
    with (PUBLIC / "3.2" / KIT).open("rb") as stream:
        kit = open_kit(stream, KIT)
        assert (kit.control.from_, kit.control.to, kit.control.name) == ("3.1", "3.2", "mini")
        assert read_control(control_bytes(kit.control)) == kit.control
        assert {file.path for file in kit.files()} >= {"live/3.2.squashfs", "live/3.2.module"}
