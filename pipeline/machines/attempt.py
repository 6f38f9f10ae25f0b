# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs one machine, from its creation to its results: inputs, kept trees, records, output."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from docker import DockerClient
from docker.errors import DockerException
from docker.models.containers import Container

from pipeline.base.errors import BuildFailed, InfrastructureFailed
from pipeline.base.files import sha256_bytes
from pipeline.documents.disks import (
    BUILD,
    LOCK,
    MAIN,
    REPOSITORY,
    SOURCE_TAR,
)
from pipeline.documents.json_form import json_bytes
from pipeline.documents.machine import Settings, TreePlan
from pipeline.documents.progress import Record
from pipeline.documents.statement import DRAWN
from pipeline.farm.workspace import Workspace
from pipeline.machines import accelerator, builder, engine, machine, output, repository
from pipeline.machines import host as hosts
from pipeline.machines.host import AskMirrors
from pipeline.machines.machine import Machine
from pipeline.machines.plan import BuildPlan, guest_files
from pipeline.machines.trees import KeptLayer, KeptTrees, TreeKeys, TwoValues, read_layers

Notify = Callable[[Record], None]


@dataclass(frozen=True)
class Attempt:
    """The result of a machine; `digests` are those of the files that it returned.

    `begun` are the kept trees that it began from; `two_values` are trees that contradict kept ones.
    """

    machine: Machine
    started: datetime
    done: Record
    digests: dict[str, str]
    begun: tuple[KeptLayer, ...]
    two_values: tuple[TwoValues, ...]


def attempt(
    client: DockerClient,
    plan: BuildPlan,
    workspace: Workspace,
    ask_mirrors: AskMirrors,
    notify: Notify,
    *,
    keep: bool = False,
    silence_s: float = machine.SILENCE_S,
    at: datetime | None = None,
) -> Attempt:
    """Run a machine according to a plan; its logs and files go to the plan's folder.

    Its clock starts from `at`, or from now if that is None. Unless `keep` is true, nothing of it
    stays on the Engine. Raise the error that the machine reports, or InfrastructureFailed.
    """
    if engine.sweep(client, plan.run.id, plan.environment):
        notify(Record.note("removed what a broken attempt had left on the engine"))
    with ExitStack() as stack:
        if not keep:
            stack.callback(engine.sweep, client, plan.run.id, plan.environment)
        ready = _prepare(client, plan, workspace, ask_mirrors, notify)
        started = at or machine.now()
        if keep:
            notify(Record.note(f"container and volume {ready.name} will be kept"))
        container = machine.create(client, ready, ready.argv(started))
        trees = KeptTrees(client, plan.environment, plan.run.id, ready.host_image, workspace.cache)
        keys = tree_keys(plan, ready)
        begun: list[KeptLayer] = []
        with _without_at_worst(notify):
            begun = trees.begin(keys.chain(plan.course.begin), container)
        with tempfile.TemporaryDirectory(prefix="twinbuild-input-") as scratch:
            disk = input_disk(plan, workspace, begun, Path(scratch) / "input.tar")
            engine.put(container, machine.VOLUME, {f"{machine.WORK.name}/input.tar": disk})
        done, two_values = _run(plan, container, trees, keys, begun, notify, silence_s)
        with engine.get(container, machine.OUTPUT) as stream:
            digests = output.receive(stream, plan.limits, plan.folder)
    return Attempt(ready, started, done, digests, tuple(begun), tuple(two_values))


def tree_keys(plan: BuildPlan, ready: Machine) -> TreeKeys:
    """Return the keys under which the trees of this plan are kept.

    Factors that are drawn for each run are left out: if they affect a step, it makes two different
    trees under one key, and that is reported.
    """
    job = plan.job
    dates = [line for line in plan.lock.decode().splitlines() if line.startswith("Date: ")]
    factors = {n: value for n, value in plan.kept_with.factors.items() if n not in DRAWN}
    of_bootstrap = {
        **{n: getattr(job, n) for n in ("image", "suite", "architecture", "guest_sha256")},
        "environment": plan.environment,
        "dates": dates or job.epoch,  # as the machine does
        "packages": sorted(package.sha256 for package in plan.packages("image")),
        **_own_packages(plan),
        "factors": factors,
        "accelerator": ready.accelerator.name,
        "builder": ready.builder.volume,
        "host_image": ready.host_image,
    }
    of_commit = {n: getattr(job, n) for n in ("version", "commit", "epoch", "source_sha256")}
    return TreeKeys(*(sha256_bytes(json_bytes(parts)) for parts in (of_bootstrap, of_commit)))


def _own_packages(plan: BuildPlan) -> dict[str, object]:
    """Return what determines the image's own packages, for the key; most images have none."""
    local = plan.job.local
    if not local:
        return {}
    built_by = sorted(package.sha256 for package in plan.packages("build"))
    return {"local": local.document(), "built_by": built_by}


@contextmanager
def _without_at_worst(notify: Notify) -> Iterator[None]:
    """Continue without kept trees if they are unavailable: a build does not need them."""
    try:
        yield
    except (InfrastructureFailed, DockerException) as error:
        notify(Record.note(f"kept trees are of no use now: {error}"))


def _run(
    plan: BuildPlan,
    container: Container,
    trees: KeptTrees,
    keys: TreeKeys,
    begun: Sequence[KeptLayer],
    notify: Notify,
    silence_s: float,
) -> tuple[Record, list[TwoValues]]:
    """Follow a machine to its end; keep the trees it reports, even if a later step fails."""
    records: list[Record] = []

    def take(record: Record) -> None:
        if record.kind in ("layer", "damaged"):
            records.append(record)
        else:
            notify(record)

    def keep_trees() -> list[TwoValues]:
        reported = read_layers(record.fields for record in records if record.kind == "layer")
        if not plan.course.keep or not reported:
            return []
        steps = [*(layer.step for layer in begun), *(layer.step for layer in reported)]
        with _without_at_worst(notify):
            return trees.take(keys.chain(steps), reported, container)
        return []

    try:
        done = _follow(plan, container, take, silence_s)
    except BuildFailed:
        keep_trees()
        raise
    except InfrastructureFailed:
        if begun and any(record.kind == "damaged" for record in records):
            trees.drop(begun[0].key, container)
        raise
    return done, keep_trees()


def _prepare(
    client: DockerClient,
    plan: BuildPlan,
    workspace: Workspace,
    ask_mirrors: AskMirrors,
    notify: Notify,
) -> Machine:
    """Prepare what the machine runs on: container host, builder, accelerator."""
    notify(Record("step", "container host"))
    image, made = hosts.ensure(client, plan.host, ask_mirrors)
    notify(Record.note(f"container host {'made' if made else 'is there'}"))
    notify(Record("step", "builder"))
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
    notify(Record.note(f"builder {'made' if made else 'is there'}"))
    chosen = accelerator.choose(client, image, ready.volume, workspace.cache)
    notify(Record("step", f"machine ({chosen.name})"))
    entry, variation = plan.choice.entry, plan.choice.variation
    vary = plan.run.request().vary
    return Machine(plan.run.id, plan.environment, image, ready, chosen, entry, variation, vary)


def input_disk(
    plan: BuildPlan, workspace: Workspace, begun: Sequence[KeptLayer], path: Path
) -> Path:
    """Write the input disk: a tar archive that the machine reads directly from the device."""
    files: dict[str, Path | bytes] = {
        **guest_files(),
        "machine.json": json_bytes(settings(plan, begun).document()),
        "job.json": json_bytes(plan.job.document()),
        LOCK: plan.lock,
        SOURCE_TAR: plan.run.source_tar,
    }
    stored = [kit.files() for kit in plan.job.kits] + [plan.job.own.source_files()]
    for name, sha256 in (item for some in stored for item in some.items()):
        files[name] = workspace.store.path(sha256)
    users = {MAIN: "image", BUILD: "build"}
    if begun:  # the kept tree has the image's packages installed
        del users[MAIN]
    packages = {component: plan.packages(user) for component, user in users.items()}
    indices = {c: repository.select(plan.index, some) for c, some in packages.items() if some}
    if indices:
        every = [package for some in packages.values() for package in some]
        archive = repository.files(plan.image.suite, indices, every, workspace.store)
        files |= {f"{REPOSITORY}/{name}": content for name, content in archive.items()}
    with path.open("wb") as out:
        for piece in engine.archive(files):
            out.write(piece)
    return path


def settings(plan: BuildPlan, begun: Sequence[KeptLayer]) -> Settings:
    """Return the content of `machine.json`; the trees disk has the kept layers without gaps."""
    begin, offset = [], 0
    for layer in begun:
        begin.append(layer.at(offset))
        offset += layer.size
    trees = TreePlan(tuple(begin), plan.course.keep, plan.course.stop)
    return Settings(plan.choice.variation.factors(), plan.measure, trees)


def _follow(plan: BuildPlan, container: Container, notify: Notify, silence_s: float) -> Record:
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
