# SPDX-License-Identifier: GPL-3.0-or-later
"""Stage 3 on a run that is ready, as far as it goes without an Engine."""

import json
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.base import dsse
from pipeline.base.errors import (
    BuildFailed,
    ExitStatus,
    InfrastructureFailed,
    SignatureInvalid,
    TwinbuildError,
    UsageError,
)
from pipeline.base.files import alone, read_json, write_json
from pipeline.documents.disks import LOCK, REPOSITORY, SOURCE_TAR
from pipeline.documents.machine import Factor, Settings
from pipeline.documents.progress import Record
from pipeline.documents.source import EARLIEST
from pipeline.farm.run import Run
from pipeline.farm.workspace import Workspace
from pipeline.machines import attempt as attempts
from pipeline.machines import engine, machine, stage
from pipeline.machines import plan as plans
from pipeline.machines.accelerator import TCG, Accelerator
from pipeline.machines.builder import Builder
from pipeline.machines.host import Mirrors
from pipeline.machines.machine import Machine
from pipeline.machines.trees import KeptLayer
from tests.machine_settings import SEED, WRITTEN
from tests.prepared_run import SOURCE, make_farm, make_run

NO_CONTAINER: Any = None


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setenv("TWINBUILD_CACHE", str(tmp_path / 'it\'s a 50% "cache"'))
    monkeypatch.setenv("TWINBUILD_KEY_ALPHA", str(tmp_path / "alpha.pem"))
    dsse.make_key(tmp_path / "alpha.pem")
    made = make_farm(tmp_path / "farm")
    entry = made.farm.environments["alpha"]
    nowhere = entry.model_copy(update={"engine": "nowhere://here"})
    environments = {**made.farm.environments, "alpha": nowhere}
    return replace(made, farm=made.farm.model_copy(update={"environments": environments}))


@pytest.fixture
def run(workspace: Workspace) -> Run:
    return make_run(workspace)


def build(run: Run, workspace: Workspace, environment: str = "alpha") -> list[Record]:
    records: list[Record] = []

    def no_mirrors() -> Mirrors:
        pytest.fail("it asked for mirrors")

    stage.run_build(run, workspace, environment, no_mirrors, notify=records.append)
    return records


def plan(run: Run, workspace: Workspace, environment: str = "alpha") -> Any:
    return plans.make_plan(run, workspace, environment)


def reads(run: Run, workspace: Workspace, environment: str = "alpha") -> dict[str, str]:
    return stage._reads(plan(run, workspace, environment), workspace)


def edit(path: Path, **changes: Any) -> None:
    write_json(path, {**read_json(path, failure=UsageError), **changes})


def append(path: Path) -> None:
    path.write_text(path.read_text() + "# changed\n")


def kit(workspace: Workspace, version: str, ledger: bytes, partition: bytes) -> dict[str, object]:
    """Return a kit from an earlier release whose files are in the store."""
    add = workspace.store.add_bytes
    made = {"from": version, "ledger_sha256": add(ledger), "partition_sha256": add(partition)}
    return {**made, "image_sha256": None}


CHANGES: dict[str, tuple[str, Callable[[Run, Workspace], object]]] = {
    "commit": ("the job", lambda r, w: edit(r.source_json, commit="f" * 40)),
    "epoch": ("the job", lambda r, w: edit(r.source_json, epoch=EARLIEST)),
    "version": ("the job", lambda r, w: edit(r.source_json, version="3.4")),
    "source": ("the job", lambda r, w: edit(r.source_json, tar_sha256="1" * 64)),
    "lock": ("the job", lambda r, w: edit(r.inputs_json, lock_sha256="1" * 64)),
    "index": (
        "the job",
        lambda r, w: edit(r.inputs_json, index_sha256=w.store.add_bytes(b"Package: x\n")),
    ),
    "kits": (
        "the job",
        lambda r, w: edit(r.inputs_json, kits=[kit(w, "3.1", b"a ledger", b"a partition")]),
    ),
    "compression": ("the job", lambda r, w: edit(r.folder / "run.json", compression="strong")),
    "make-builder": ("the builder", lambda r, w: append(w.builder / "make-builder")),
    "init": ("the builder", lambda r, w: append(w.builder / "init")),
    "host packages": (
        "the container host",
        lambda r, w: (w.hosts / "alpha/package-lists/host.list").write_text("kmod\n"),
    ),
}


@pytest.mark.parametrize(("part", "change"), CHANGES.values(), ids=CHANGES.keys())
def test_whatever_goes_in_makes_it_build_again(
    part: str, change: Callable[[Run, Workspace], object], run: Run, workspace: Workspace
) -> None:
    before = reads(run, workspace)
    assert reads(run, workspace) == before
    change(run, workspace)
    after = reads(run, workspace)
    assert [name for name in before if before[name] != after[name]] == [part]


def test_what_is_varied_makes_it_build_again(run: Run, workspace: Workspace) -> None:
    before = reads(run, workspace)
    path = workspace.hosts / "alpha" / "environment.yaml"
    path.write_text(path.read_text().replace("Pacific/Kiritimati", "UTC"))
    assert reads(run, workspace)["the environment"] != before["the environment"]


def test_the_guests_own_code_goes_into_the_job(
    run: Run, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = plan(run, workspace).job.guest_sha256
    (tmp_path / "guest").mkdir()
    (tmp_path / "guest/main.py").touch()
    monkeypatch.setattr(plans, "PIPELINE", tmp_path)
    assert plan(run, workspace).job.guest_sha256 != before


def test_a_release_begins_with_nothing_and_keeps_nothing(workspace: Workspace) -> None:
    tagged = make_run(workspace, tag="3.3")
    for fresh in (False, True):
        course = plans.make_plan(tagged, workspace, "alpha", fresh=fresh).course
        assert (course.begin, course.keep) == ((), False)


def test_what_is_measured_begins_with_nothing(run: Run, workspace: Workspace) -> None:
    assert plans.make_plan(run, workspace, "alpha", measure=True).course == plans.Course()


def test_a_fresh_build_is_compared_with_what_is_kept(run: Run, workspace: Workspace) -> None:
    course = plans.make_plan(run, workspace, "alpha", fresh=True).course
    assert (course.begin, course.keep) == ((), True)


def machine_of(made: Any, **changes: Any) -> Machine:
    parts = {
        "run_id": made.run.id,
        "environment": made.environment,
        "host_image": "sha256:1",
        "builder": Builder("twinbuild-builder-alpha-1", {}),
        "accelerator": TCG,
        "entry": made.choice.entry,
        "variation": made.choice.variation,
    }
    return Machine(**{**parts, **changes})


def keys(run: Run, workspace: Workspace, **changes: Any) -> list[str]:
    made = plan(run, workspace)
    of_run = attempts.tree_keys(made, machine_of(made, **changes))
    return of_run.chain(["20-bootstrap", "30-includes"])


OF_COMMIT: dict[str, Callable[[Run, Workspace], object]] = {
    "commit": lambda r, w: edit(r.source_json, commit="f" * 40),
    "version": lambda r, w: edit(r.source_json, version="3.4"),
    "source": lambda r, w: edit(r.source_json, tar_sha256="1" * 64),
}


def replace_in(path: Path, before: str, after: str) -> None:
    assert before in path.read_text()
    path.write_text(path.read_text().replace(before, after))


def use_package(run: Run, workspace: Workspace, user: str = "image") -> None:
    sha256 = workspace.store.add_bytes(b"a package")
    package = {"name": "xz", "version": "1", "architecture": "all", "size": 9, "sha256": sha256}
    edit(run.inputs_json, packages=[{**package, "file": "xz_1_all.deb", "used_by": [user]}])


OF_BOOTSTRAP: dict[str, Callable[[Run, Workspace], object]] = {
    "a package": use_package,
    "a factor": lambda r, w: replace_in(
        w.hosts / "alpha/environment.yaml", "host_name: alpha-host", "host_name: another"
    ),
}
LOCAL: dict[str, Any] = {
    "sources": [
        {"name": "xz", "version": "1", "epoch": 1, "sha256": "a" * 64, "dsc": None, "files": []}
    ],
    "packages": [
        {"name": "xz", "version": "1", "architecture": "all", "source": "xz"}
        | {"sha256": None, "file": None, "wanted": True}
    ],
}


def test_an_images_own_packages_go_through_the_build(
    run: Run, workspace: Workspace, tmp_path: Path
) -> None:
    seen = set(keys(run, workspace))
    edit(run.inputs_json, local=LOCAL)
    made = plan(run, workspace)
    assert made.job.document()["local"] == LOCAL
    assert "artifacts/xz_1_all.deb" in made.limits
    changed = [{**LOCAL["sources"][0], "sha256": "b" * 64}]
    use_package(run, workspace, "build")
    for local in (LOCAL, {**LOCAL, "sources": changed}):  # and what builds them: none before
        edit(run.inputs_json, local=local)
        assert not seen & set(keys(run, workspace))
        seen |= set(keys(run, workspace))
    file = {"name": "x.tar.gz", "size": 9, "sha256": workspace.store.add_bytes(b"a package")}
    fetched = {**LOCAL["sources"][0], "files": [file]}
    edit(run.inputs_json, local={**LOCAL, "sources": [fetched]})
    begun = [*made_layers()]
    disk = attempts.input_disk(plan(run, workspace), workspace, begun, tmp_path / "input.tar")
    with tarfile.open(disk) as tar:
        assert f"sources/{file['sha256']}" in tar.getnames()
        names = [name for name in tar.getnames() if name.startswith(f"{REPOSITORY}/")]
    assert {name for name in names if name.endswith(("Packages", ".deb"))} == {
        "repository/dists/trixie/build/binary-amd64/Packages",
        "repository/pool/xz_1_all.deb",
    }


PARTS: dict[str, dict[str, Any]] = {
    "the container host": {"host_image": "sha256:2"},
    "the builder": {"builder": Builder("twinbuild-builder-alpha-2", {})},
    "the accelerator": {"accelerator": Accelerator("kvm", 107)},
}


@pytest.mark.parametrize("change", OF_COMMIT.values(), ids=OF_COMMIT)
def test_a_commit_with_the_same_lock_begins_after_the_bootstrap(
    change: Callable[[Run, Workspace], object], run: Run, workspace: Workspace
) -> None:
    before = keys(run, workspace)
    assert keys(run, workspace) == before
    change(run, workspace)
    after = keys(run, workspace)
    assert after[0] == before[0]
    assert after[1] != before[1]


@pytest.mark.parametrize("change", OF_BOOTSTRAP.values(), ids=OF_BOOTSTRAP)
def test_what_goes_into_the_bootstrap_goes_into_its_key(
    change: Callable[[Run, Workspace], object], run: Run, workspace: Workspace
) -> None:
    before = keys(run, workspace)
    change(run, workspace)
    assert not set(keys(run, workspace)) & set(before)


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_what_it_runs_on_goes_into_the_key(
    part: dict[str, Any], run: Run, workspace: Workspace
) -> None:
    assert not set(keys(run, workspace, **part)) & set(keys(run, workspace))


def test_the_machines_own_programs_go_into_the_key(
    run: Run, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = keys(run, workspace)
    (tmp_path / "guest").mkdir()
    (tmp_path / "guest/main.py").touch()
    monkeypatch.setattr(plans, "PIPELINE", tmp_path)
    assert not set(keys(run, workspace)) & set(before)


def test_the_other_environment_has_other_keys(run: Run, workspace: Workspace) -> None:
    made = plan(run, workspace, "beta")
    of_beta = attempts.tree_keys(made, machine_of(made)).chain(["20-bootstrap"])
    assert not set(of_beta) & set(keys(run, workspace))


def test_the_date_of_the_lock_goes_into_the_key(workspace: Workspace) -> None:
    """It is the bootstrap's epoch; without one the commit's is."""

    def key(lock: bytes, epoch: int) -> str:
        source = {**SOURCE, "images/live/mini/lock": lock}
        made = make_run(workspace, source=source)
        edit(made.source_json, epoch=epoch)
        return keys(made, workspace)[0]

    one = b"Format: x\nDate: Sat, 12 Sep 2026 07:55:41 GMT\n"
    assert key(one, EARLIEST) == key(one, EARLIEST + 1)
    assert key(one, EARLIEST) != key(one.replace(b"12", b"13"), EARLIEST)
    assert key(b"Format: x\n", EARLIEST) != key(b"Format: x\n", EARLIEST + 1)


def made_layers() -> list[KeptLayer]:
    """Return the kept trees after the bootstrap and the step after it."""
    made = {"key": "a" * 64, "digest": "b" * 64, "parent": None, "head": 7}
    times = {"started": 1, "ended": 2, "used": 3}
    return [
        KeptLayer.model_validate({**made, **times, "step": step, "size": size})
        for step, size in (("20-bootstrap", 1000), ("30-includes", 50))
    ]


def machine_json(made: Any, workspace: Workspace, begun: list[KeptLayer], folder: Path) -> bytes:
    """Return `machine.json` of an input disk."""
    with tarfile.open(attempts.input_disk(made, workspace, begun, folder / "input.tar")) as tar:
        file = tar.extractfile("machine.json")
        assert file
        return file.read()


def test_the_form_of_machine_json_stays(run: Run, workspace: Workspace, tmp_path: Path) -> None:
    """The machine, which another version may have carried in, is given these bytes."""
    made = plans.make_plan(run, workspace, "alpha", measure=True)
    varied: dict[str, Factor] = {
        "environment_variables": {"ABCDEFGH": " ~"},
        "directory_seed": SEED,
    }
    course = plans.Course(keep=True, stop="30-includes")
    made = replace(made, choice=made.choice.with_factors(varied), course=course)
    assert machine_json(made, workspace, made_layers(), tmp_path) == WRITTEN


def test_a_machine_that_begins_with_a_kept_tree_gets_no_packages(
    run: Run, workspace: Workspace, tmp_path: Path
) -> None:
    use_package(run, workspace)
    layers = made_layers()
    made = attempts.input_disk(plan(run, workspace), workspace, layers, tmp_path / "input.tar")
    with tarfile.open(made) as tar:
        assert not [name for name in tar.getnames() if name.startswith(REPOSITORY)]
        file = tar.extractfile("machine.json")
        assert file
        trees = Settings.of(json.loads(file.read())).trees  # as the machine reads it
    assert [(layer.step, layer.offset) for layer in trees.begin] == [
        ("20-bootstrap", 0),
        ("30-includes", 1000),
    ]
    assert trees.keep is True
    assert trees.stop is None
    assert trees.begin[1].head == 7


def test_both_environments_get_the_same_job(run: Run, workspace: Workspace) -> None:
    assert plan(run, workspace, "alpha").job == plan(run, workspace, "beta").job


def test_a_complete_build_does_nothing_and_says_so(run: Run, workspace: Workspace) -> None:
    statement = run.environment("alpha") / "statement.json"
    write_json(statement, {})
    run.complete("build-alpha", reads(run, workspace), [statement])
    assert build(run, workspace) == [Record.note("complete, nothing to do")]
    statement.write_text("{}")
    with pytest.raises(InfrastructureFailed):
        build(run, workspace)


def test_no_engine_is_written_down(run: Run, workspace: Workspace) -> None:
    write_json(run.environment("alpha") / "statement.json", {})
    with pytest.raises(InfrastructureFailed, match="no Docker Engine answers"):
        build(run, workspace)
    failure = read_json(run.environment("alpha") / "failure.json", failure=UsageError)
    assert failure["status"] == ExitStatus.INFRASTRUCTURE
    assert "no Docker Engine answers" in failure["what"]
    assert not (run.environment("alpha") / "statement.json").exists()  # of an earlier build
    assert run.why_again("build-alpha", reads(run, workspace)) == "it has not run yet"


def test_no_build_without_a_key(
    run: Run, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TWINBUILD_KEY_ALPHA", str(tmp_path / "none.pem"))
    with pytest.raises(TwinbuildError, match="key"):
        build(run, workspace)


def pinning(workspace: Workspace, public: str) -> Workspace:
    keys = workspace.farm.keys.model_copy(update={"environments": {"alpha": public}})
    return replace(workspace, farm=workspace.farm.model_copy(update={"keys": keys}))


def complete(run: Run, workspace: Workspace, key: Path) -> None:
    """Write down that alpha has built, with a statement by a key."""
    folder = run.environment("alpha")
    folder.mkdir(exist_ok=True)
    write_json(folder / "statement.json", dsse.sign({"a": 1}, dsse.load_key(key)))
    run.complete("build-alpha", reads(run, workspace), [folder / "statement.json"])


def test_a_tag_is_built_again_when_farm_yaml_pins_another_key(
    workspace: Workspace, tmp_path: Path
) -> None:
    """Who had the old key may have made the build; and no release would take it."""
    run = make_run(workspace, tag="3.3")
    old, new = tmp_path / "old.pem", tmp_path / "alpha.pem"
    public = dsse.make_key(old)
    complete(run, workspace, old)
    assert build(run, workspace) == [Record.note("complete, nothing to do")]
    pinned = pinning(workspace, public)  # by the machine that has built, or by this one
    assert build(run, pinned) == [Record.note("complete, nothing to do")]
    records: list[Record] = []
    rotated = pinning(workspace, dsse.public_hex(dsse.load_key(new)))
    with pytest.raises(InfrastructureFailed):  # there is no Engine here
        stage.run_build(
            run, rotated, "alpha", lambda: pytest.fail("mirrors"), notify=records.append
        )
    assert records == [Record.note("its statement is not by the key that farm.yaml pins")]


def test_a_tag_is_not_built_where_the_pinned_key_is_not(
    workspace: Workspace, tmp_path: Path
) -> None:
    run = make_run(workspace, tag="3.3")
    pinned = pinning(workspace, dsse.make_key(tmp_path / "elsewhere.pem"))
    with pytest.raises(SignatureInvalid, match=r"alpha\.pem is not the key that farm\.yaml pins"):
        build(run, pinned)


def test_two_processes_do_not_build_one_environment_at_once(run: Run, workspace: Workspace) -> None:
    stage_lock = run.folder / "stages/.build-alpha.lock"
    with alone(stage_lock), pytest.raises(UsageError, match=r"another process .* build-alpha"):
        build(run, workspace)


def test_a_full_disk_here_is_reported(
    run: Run, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        with Path("/dev/full").open("wb", buffering=0) as file:
            file.write(b"x")

    monkeypatch.setattr(engine, "connect", full)
    with pytest.raises(InfrastructureFailed, match="No space left on device") as caught:
        build(run, workspace)
    assert "\n" not in str(caught.value)
    assert caught.value.remedy
    assert (run.environment("alpha") / "failure.json").exists()


def test_an_unknown_environment(run: Run, workspace: Workspace) -> None:
    with pytest.raises(UsageError, match=r"no environment 'gamma'.*alpha, beta"):
        build(run, workspace, "gamma")


@pytest.mark.parametrize("missing", ["source.json", "inputs.json"])
def test_a_run_that_is_not_ready(missing: str, run: Run, workspace: Workspace) -> None:
    (run.folder / missing).unlink()
    with pytest.raises(UsageError, match="no source or no inputs"):
        build(run, workspace)


def test_a_store_that_lacks_something(run: Run, workspace: Workspace) -> None:
    package = {"name": "xz", "version": "1", "architecture": "all", "size": 9, "sha256": "2" * 64}
    edit(run.inputs_json, packages=[{**package, "file": "xz_1_all.deb", "used_by": ["image"]}])
    with pytest.raises(UsageError, match="lacks 1 of the files") as caught:
        build(run, workspace)
    assert caught.value.remedy == f"./farm stage.inputs --run {run.id}"


def test_a_store_that_lacks_an_earlier_release(run: Run, workspace: Workspace) -> None:
    made = kit(workspace, "3.1", b"a ledger", b"a partition")
    edit(run.inputs_json, kits=[made])
    plan(run, workspace)
    workspace.store.discard(str(made["partition_sha256"]))
    with pytest.raises(UsageError, match="lacks 1 of the files"):
        build(run, workspace)


def test_kits_go_through_the_build(run: Run, workspace: Workspace, tmp_path: Path) -> None:
    image = workspace.store.add_bytes(b"an image")
    of_image = {"from": "3.2", "ledger_sha256": None, "partition_sha256": None}
    kits = [kit(workspace, "3.1", b"a ledger", b"a partition"), {**of_image, "image_sha256": image}]
    edit(run.inputs_json, kits=kits)
    edit(run.source_json, version="3.3")
    made = plan(run, workspace)
    assert made.job.document()["kits"] == kits
    assert {n for n in made.limits if n.endswith(".iuk")} == {
        "artifacts/mini-amd64-3.1-to-3.3.iuk",
        "artifacts/mini-amd64-3.2-to-3.3.iuk",
    }
    disk = attempts.input_disk(made, workspace, [], tmp_path / "input.tar")
    with tarfile.open(disk) as tar:
        files = {m.name: tar.extractfile(m).read() for m in tar if m.isfile()}  # type: ignore[union-attr]
    assert {n: c for n, c in files.items() if n.startswith("earlier/")} == {
        "earlier/3.1/ledger.jsonl.gz": b"a ledger",
        "earlier/3.1/partition": b"a partition",
        "earlier/3.2/image.img": b"an image",
    }


def test_a_release_can_ask_not_to_be_upgraded(workspace: Workspace) -> None:
    path = "images/live/mini/image.yaml"
    assert plan(make_run(workspace), workspace).job.upgrade is True
    source = {**SOURCE, path: SOURCE[path] + b"upgrade: false\n"}
    assert plan(make_run(workspace, source=source), workspace).job.upgrade is False


def test_a_commit_without_the_image(workspace: Workspace) -> None:
    with pytest.raises(UsageError, match=r"no file images/live/mini/image.yaml"):
        build(make_run(workspace, source={"README": b""}), workspace)


def test_a_name_that_is_too_long_is_refused_before_the_build(
    run: Run, workspace: Workspace
) -> None:
    edit(run.source_json, version="9" * 80)
    with pytest.raises(UsageError, match="too long"):
        build(run, workspace)


def test_the_input_disk_holds_what_the_machine_takes(
    run: Run, workspace: Workspace, tmp_path: Path
) -> None:
    made = attempts.input_disk(plan(run, workspace), workspace, [], tmp_path / "input.tar")
    with tarfile.open(made) as tar:
        files = {m.name: tar.extractfile(m).read() for m in tar if m.isfile()}  # type: ignore[union-attr]
    names = list(files)
    assert files[LOCK] == SOURCE["images/live/mini/lock"]
    assert files[SOURCE_TAR] == run.source_tar.read_bytes()
    assert "pipeline/guest/main.py" in names
    # The machine's first program unpacks these without reading on.
    first = [n for n in names if not n.startswith("pipeline/")][:2]
    assert sorted(first) == ["job.json", "machine.json"]
    assert names.index("pipeline/guest/main.py") < names.index(SOURCE_TAR)


@pytest.mark.parametrize(
    ("error", "console", "kind", "what"),
    [
        (InfrastructureFailed("silent"), b"", InfrastructureFailed, "silent"),
        (InfrastructureFailed("x"), b"Kernel panic - x", InfrastructureFailed, "alpha panicked"),
        (
            BuildFailed("step 70: mksquashfs failed"),
            b"Out of memory: Killed process 1 (mksquashfs)",
            InfrastructureFailed,
            "ran out of memory",
        ),
        (BuildFailed("step 40: hook x failed"), b"Kernel panic in a manual", BuildFailed, "hook x"),
        (BuildFailed("step 40: hook x failed"), b"", BuildFailed, "hook x"),
    ],
)
def test_the_console_tells_what_an_error_means(
    error: TwinbuildError,
    console: bytes,
    kind: type[TwinbuildError],
    what: str,
    run: Run,
    workspace: Workspace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def follow(_: object, log: Any, *__: object, **___: object) -> None:
        log.write(console)
        raise error

    monkeypatch.setattr(machine, "follow", follow)
    (run.environment("alpha")).mkdir()
    with pytest.raises(kind, match=what) as caught:
        attempts._follow(plan(run, workspace), NO_CONTAINER, lambda _: None, 1.0)
    assert type(caught.value) is kind
    assert console.decode()[:20] in caught.value.detail or kind is BuildFailed
