# SPDX-License-Identifier: GPL-3.0-or-later
"""What the stages before write by themselves passes the gate: nobody writes documents here."""

import shutil
from pathlib import Path

import pytest
from securesystemslib.signer import CryptoSigner

from pipeline.base import dsse
from pipeline.base.files import write_json
from pipeline.compare.verdict import run_compare
from pipeline.documents.digest import sha256_file
from pipeline.documents.disks import LEDGER
from pipeline.documents.progress import Record
from pipeline.documents.statement import BYPRODUCTS
from pipeline.farm.config import Farm
from pipeline.farm.run import Run
from pipeline.farm.workspace import Workspace
from pipeline.machines import stage
from pipeline.machines.accelerator import TCG
from pipeline.machines.attempt import Attempt
from pipeline.machines.builder import Builder
from pipeline.machines.machine import Machine, now
from pipeline.machines.plan import make_plan
from pipeline.release.checks import check
from tests.releases import ENVIRONMENTS, FakeRun, artifacts_of, kit_from

ROOT = Path(__file__).parents[3]


@pytest.fixture
def workspace(
    tmp_path: Path,
    farm: Farm,
    environment_keys: dict[str, CryptoSigner],
    monkeypatch: pytest.MonkeyPatch,
) -> Workspace:
    """A farm with the hosts and the builder of this one."""
    monkeypatch.setenv("TWINBUILD_CACHE", str(tmp_path / "cache"))
    for name in ENVIRONMENTS:
        key = tmp_path / f"{name}.pem"
        key.write_bytes(environment_keys[name].private_bytes)
        key.chmod(0o600)
        monkeypatch.setenv(f"TWINBUILD_KEY_{name.upper()}", str(key))
    shutil.copytree(ROOT / "images/hosts", tmp_path / "images/hosts")
    return Workspace(tmp_path, farm)


def build(run: Run, workspace: Workspace, name: str) -> None:
    """Do what stage 3 does, with a machine that hands back something at once."""
    plan = make_plan(run, workspace, name)
    write_json(plan.folder / "job.json", plan.job.document())
    began = now()
    contents = {
        f"artifacts/{n}": content for n, content in artifacts_of(plan.job.document()).items()
    }
    contents |= {log: f"{log} of {name}".encode() for log in BYPRODUCTS}
    for path, content in contents.items():
        (plan.folder / path).parent.mkdir(exist_ok=True)
        (plan.folder / path).write_bytes(content)
    handed = [p for p in contents if p.startswith("artifacts/")] + [LEDGER]
    digests = {path: sha256_file(plan.folder / path) for path in handed}
    parts = (Builder("volume", {"kernel": "6"}), TCG, plan.choice.entry, plan.choice.variation)
    machine = Machine(run.id, name, "sha256:host", *parts, run.request().vary)
    done = Record.of({"record": "done", "facts": {"kernel": "6"}})
    stage._state(plan, Attempt(machine, began, done, digests, (), ()))


def test_the_gate_takes_what_the_stages_write(
    tmp_path: Path, workspace: Workspace, environment_keys: dict[str, CryptoSigner]
) -> None:
    kit = kit_from("3.1")
    for key, content in (("ledger_sha256", b"ledger"), ("partition_sha256", b"partition")):
        kit[key] = workspace.store.add_bytes(content)
    fake = FakeRun(tmp_path / "runs", environment_keys, "3.3", kits=[kit])
    fake.write_inputs(index_sha256=workspace.store.add_bytes(b""))
    for name in ENVIRONMENTS:
        shutil.rmtree(fake.run.environment(name))
        build(fake.run, workspace, name)
    assert run_compare(fake.run, notify=lambda _: None).verdict == "match"
    checked = check(fake.run, workspace.farm, fake.verified)
    assert "mini-amd64-3.1-to-3.3.iuk" in checked.artifacts
    assert dsse.public_hex(environment_keys["alpha"]) == workspace.farm.keys.environments["alpha"]
