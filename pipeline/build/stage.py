"""Stage 3: an environment builds the job and gives back artifacts, ledger, logs, statement."""

import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from docker import DockerClient

from pipeline import dsse, statement
from pipeline.build import accelerator, builder, engine, machine, output, repository
from pipeline.build import host as hosts
from pipeline.build.host import AskMirrors, Host
from pipeline.build.machine import Machine, Record
from pipeline.config import Image, parse_image
from pipeline.errors import BuildFailed, InfrastructureFailed, TwinbuildError, UsageError
from pipeline.files import json_bytes, read_json, sha256_bytes, sha256_file, write_json
from pipeline.guest import protocol
from pipeline.lock import Package
from pipeline.run import Run
from pipeline.variation import Choice, choose
from pipeline.workspace import Workspace

FORMAT = "twinbuild-job/1"
COMMITTED_LIMIT = 64 * 1024 * 1024
GUEST = Path(__file__).parent.parent / "guest"


@dataclass(frozen=True)
class _Plan:
    """What one environment will do, decided before anything is started."""

    run: Run
    environment: str
    choice: Choice
    host: Host
    source: Mapping[str, Any]
    inputs: Mapping[str, Any]
    image: Image
    index: bytes
    job: Mapping[str, Any]
    limits: Mapping[str, int]  # what the machine may hand back
    measure: bool

    @property
    def folder(self) -> Path:
        return self.run.environment(self.environment)

    def packages(self, user: str) -> tuple[Package, ...]:
        """Return the packages of the "image" or of the "builder"."""
        return tuple(
            Package(
                p["name"], p["version"], p["architecture"], "", "", "", p["size"], p["sha256"], ()
            )
            for p in self.inputs["packages"]
            if user in p["used_by"]
        )


def run_build(
    run: Run,
    workspace: Workspace,
    environment: str,
    ask_mirrors: AskMirrors,
    *,
    notify: Callable[[Record], None],
    keep: bool = False,
    measure: bool = False,
    silence_s: float = machine.SILENCE_S,
) -> None:
    """Build the run's job in one environment, unless that is complete.

    Writes `<environment>/`; when the build fails, `failure.json` there says how, and the error is
    raised. `keep` leaves the machine's container and volume for inspection; `measure` also runs
    the programs by hand in the machine, before the build, for `invoke bench`.
    """
    plan = _plan(run, workspace, environment, measure=measure)
    reads = _reads(plan, workspace)
    stage = f"build-{environment}"
    reason = run.why_again(stage, reads)
    if reason is None:
        notify({"record": "note", "line": "complete, nothing to do"})
        return
    notify({"record": "note", "line": reason})
    (plan.folder / "failure.json").unlink(missing_ok=True)
    (plan.folder / "statement.json").unlink(missing_ok=True)
    write_json(plan.folder / "job.json", plan.job)
    dsse.load_key(dsse.key_path(environment))  # better no build than one that cannot be signed
    try:
        with _disk_failures(environment), engine.connect(plan.choice.entry.engine) as client:
            written = _build(
                client, plan, workspace, ask_mirrors, notify, keep=keep, silence_s=silence_s
            )
    except TwinbuildError as error:
        failure = {"status": int(error.status), "what": error.what, "detail": error.detail}
        write_json(plan.folder / "failure.json", failure)
        raise
    run.complete(stage, reads, written)


def _reads(plan: _Plan, workspace: Workspace) -> dict[str, str]:
    """Return the digests of all that decides what this build is."""
    choice = plan.choice
    environment = choice.entry.model_dump_json() + choice.variation.model_dump_json()
    scripts = [sha256_file(workspace.builder / name) for name in builder.SCRIPTS]
    return {
        "the job": sha256_bytes(json_bytes(plan.job)),
        "the environment": sha256_bytes(environment.encode()),
        "the container host": plan.host.key,
        "the builder": sha256_bytes("\n".join(scripts).encode()),
    }


@contextmanager
def _disk_failures(environment: str) -> Iterator[None]:
    """Tell a disk of this machine that is full or broken as what it is."""
    try:
        yield
    except OSError as error:
        raise InfrastructureFailed(
            f"the build in {environment} broke off: {error}",
            remedy="make room, `invoke clean` helps",
        ) from error


def _plan(run: Run, workspace: Workspace, environment: str, *, measure: bool) -> _Plan:
    if environment not in workspace.farm.environments:
        known = ", ".join(sorted(workspace.farm.environments))
        raise UsageError(f"farm.yaml has no environment {environment!r}", remedy=f"it has {known}")
    if not run.source_json.exists() or not run.inputs_json.exists():
        remedy = f"invoke stage.source --run {run.id}, then stage.inputs"
        raise UsageError(f"run {run.id} has no source or no inputs yet", remedy=remedy)
    source = read_json(run.source_json, failure=UsageError)
    inputs = read_json(run.inputs_json, failure=UsageError)
    of_image = f"images/live/{inputs['image']}"
    path = f"{of_image}/image.yaml"
    image = parse_image(_committed(run.source_tar, path), path)
    _check_store(run, workspace, inputs)
    index = workspace.store.path(inputs["index_sha256"]).read_bytes()
    folder = workspace.hosts / environment
    choice = choose(workspace.farm, workspace.hosts, run.id, run.request())[environment]
    pinned = choice.entry.host_image
    host = Host(environment, folder, choice.variation, workspace.farm.archives, pinned)
    job = _job(run, source, inputs, image)
    limits = output.expected(protocol.artifact_names(job))
    return _Plan(run, environment, choice, host, source, inputs, image, index, job, limits, measure)


def _check_store(run: Run, workspace: Workspace, inputs: Mapping[str, Any]) -> None:
    """Raise UsageError if the store, which may be another machine's, lacks what the run needs."""
    wanted = {inputs["index_sha256"]: None} | {p["sha256"]: p["size"] for p in inputs["packages"]}
    earlier = [sha256 for k in inputs["kits"] for sha256 in protocol.earlier_files(k).values()]
    wanted |= dict.fromkeys(earlier)
    missing = [sha256 for sha256, size in wanted.items() if not workspace.store.has(sha256, size)]
    if missing:
        what = f"the store lacks {len(missing)} of the files that run {run.id} needs"
        raise UsageError(what, remedy=f"invoke stage.inputs --run {run.id}")


def _job(
    run: Run, source: Mapping[str, Any], inputs: Mapping[str, Any], image: Image
) -> dict[str, Any]:
    """Return `job.json`: what every environment is given alike."""
    return {
        "format": FORMAT,
        "image": inputs["image"],
        "architecture": image.architecture,
        "suite": image.suite,
        "volume_id": image.volume_id,
        "kernel_parameters": image.kernel_parameters,
        "expected_differences": [e.model_dump(mode="json") for e in image.expected_differences],
        "version": source["version"],
        "commit": source["commit"],
        "epoch": source["epoch"],
        "compression": run.request().compression,
        "lock_sha256": inputs["lock_sha256"],
        "source_sha256": source["tar_sha256"],
        "index_sha256": inputs["index_sha256"],
        "kits": inputs["kits"],
        "upgrade": image.upgrade,
        "guest_sha256": _guest_sha256(),
    }


def _committed(source_tar: Path, path: str) -> bytes:
    """Return a file as it is in the commit; raise UsageError if it is not there."""
    with tarfile.open(source_tar) as tar:
        try:
            file = tar.extractfile(path)
        except KeyError:
            file = None
        if file is None:
            raise UsageError(f"the commit has no file {path}")
        return file.read(COMMITTED_LIMIT)


def _guest_files() -> dict[str, Path]:
    return {f"guest/{path.name}": path for path in sorted(GUEST.glob("*.py"))}


def _guest_sha256() -> str:
    lines = [f"{sha256_file(path)} {name}" for name, path in _guest_files().items()]
    return sha256_bytes("\n".join(lines).encode())


def _build(
    client: DockerClient,
    plan: _Plan,
    workspace: Workspace,
    ask_mirrors: AskMirrors,
    notify: Callable[[Record], None],
    *,
    keep: bool,
    silence_s: float,
) -> list[Path]:
    if engine.sweep(client, plan.run.id, plan.environment):
        notify({"record": "note", "line": "removed what a broken attempt had left on the engine"})
    with ExitStack() as stack:
        if not keep:
            stack.callback(engine.sweep, client, plan.run.id, plan.environment)
        ready = _prepare(client, plan, workspace, ask_mirrors, notify)
        started = machine.now()
        if keep:
            notify({"record": "note", "line": f"container and volume {ready.name} will be kept"})
        container = machine.create(client, ready, ready.argv(started))
        with tempfile.TemporaryDirectory(prefix="twinbuild-input-") as scratch:
            disk = _input_disk(plan, workspace, Path(scratch) / "input.tar")
            engine.put(container, machine.VOLUME, {f"{machine.WORK.name}/input.tar": disk})
        done = _follow(plan, container, notify, silence_s)
        with engine.get(container, machine.OUTPUT) as stream:
            digests = output.receive(stream, plan.limits, plan.folder)
    return _state(plan, ready, digests, done, started)


def _prepare(
    client: DockerClient,
    plan: _Plan,
    workspace: Workspace,
    ask_mirrors: AskMirrors,
    notify: Callable[[Record], None],
) -> Machine:
    """Make what the machine runs on: container host, builder, accelerator."""
    notify({"record": "step", "step": "container host"})
    image, made = hosts.ensure(client, plan.host, ask_mirrors)
    notify({"record": "note", "line": f"container host {'made' if made else 'is there'}"})
    notify({"record": "step", "step": "builder"})
    packages = plan.packages("builder")
    recipe = builder.Recipe(
        plan.environment,
        plan.run.id,
        image,
        plan.image.suite,
        workspace.builder,
        packages,
        repository.select(plan.index, packages),
        fresh=plan.run.request().tag is not None,  # caches are never used for a release
    )
    ready, made = builder.ensure(client, recipe, workspace.store, workspace.cache)
    notify({"record": "note", "line": f"builder {'made' if made else 'is there'}"})
    chosen = accelerator.choose(client, image, ready.volume, workspace.cache)
    notify({"record": "step", "step": f"machine ({chosen.name})"})
    entry, variation = plan.choice.entry, plan.choice.variation
    vary = plan.run.request().vary
    return Machine(plan.run.id, plan.environment, image, ready, chosen, entry, variation, vary)


def _input_disk(plan: _Plan, workspace: Workspace, path: Path) -> Path:
    """Write the input disk: a tar archive that the machine reads straight from the device."""
    packages = plan.packages("image")
    lock = _committed(plan.run.source_tar, f"images/live/{plan.job['image']}/lock")
    files: dict[str, Path | bytes] = {
        **_guest_files(),
        "machine.json": json_bytes(
            plan.choice.variation.model_dump() | {"measure_by_hand": plan.measure}
        ),
        "job.json": json_bytes(plan.job),
        protocol.LOCK: lock,
        protocol.SOURCE_TAR: plan.run.source_tar,
    }
    for kit in plan.job["kits"]:
        for name, sha256 in protocol.earlier_files(kit).items():
            files[name] = workspace.store.path(sha256)
    index = repository.select(plan.index, packages)
    for name, content in repository.files(
        plan.image.suite, index, packages, workspace.store
    ).items():
        files[f"{protocol.REPOSITORY}/{name}"] = content
    with path.open("wb") as out:
        for piece in engine.archive(files):
            out.write(piece)
    return path


def _follow(
    plan: _Plan, container: Any, notify: Callable[[Record], None], silence_s: float
) -> Record:
    console_log = plan.folder / "console.log"
    with (
        console_log.open("wb", buffering=0) as console,
        (plan.folder / "progress.jsonl").open("wb", buffering=0) as records,
    ):
        try:
            return machine.follow(container, console, records, notify, silence_s=silence_s)
        except (InfrastructureFailed, BuildFailed) as error:
            meaning, words = machine.last_words(console_log)
            if isinstance(error, BuildFailed) and meaning != machine.OUT_OF_MEMORY:
                raise
            what = f"the machine of {plan.environment} {meaning}" if meaning else error.what
            detail = error.detail or words
            raise InfrastructureFailed(what, remedy=f"see {console_log}", detail=detail) from error


def _state(
    plan: _Plan, ready: Machine, digests: dict[str, str], done: Record, started: datetime
) -> list[Path]:
    """Sign what was built, from where, on what and with what result; return what was written."""
    artifacts = {
        name.removeprefix(f"{protocol.ARTIFACTS}/"): digest
        for name, digest in digests.items()
        if name.startswith(f"{protocol.ARTIFACTS}/")
    }
    byproducts = {name: sha256_file(plan.folder / name) for name in statement.BYPRODUCTS}
    source = plan.source
    document = statement.make(
        statement.Statement(
            environment=plan.environment,
            run_id=plan.run.id,
            repository=source["repository"],
            commit=source["commit"],
            tag=source["tag"]["name"] if source["tag"] else None,
            image=plan.job["image"],
            compression=plan.job["compression"],
            lock_sha256=plan.job["lock_sha256"],
            job=plan.job,
            machine={**ready.describe(started), "facts": machine.facts(done)},
            artifacts=artifacts,
            byproducts=byproducts,
            started=started,
            finished=machine.now(),
        )
    )
    key = dsse.load_key(dsse.key_path(plan.environment))
    write_json(plan.folder / "statement.json", dsse.sign(document, key))
    written = [plan.folder / name for name in (*digests, *statement.BYPRODUCTS)]
    return [*dict.fromkeys(written), plan.folder / "job.json", plan.folder / "statement.json"]
