# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of a build in one environment, decided before anything is started."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.base import places
from pipeline.base.errors import UsageError, command_line
from pipeline.base.files import sha256_bytes
from pipeline.documents.digest import sha256_file
from pipeline.documents.inputs import Inputs
from pipeline.documents.job import Job
from pipeline.documents.lock import Package
from pipeline.documents.source import Source
from pipeline.documents.steps import BOOTSTRAP
from pipeline.farm.config import Image, parse_image
from pipeline.farm.job import committed, make_job
from pipeline.farm.run import Run
from pipeline.farm.run_documents import read_inputs, read_source
from pipeline.farm.variation import Choice, choose
from pipeline.farm.workspace import Workspace
from pipeline.machines import output
from pipeline.machines.host import Host

PIPELINE = places.PROGRAM / "pipeline"
# The packages of the pipeline that are copied into the machine.
CARRIED = ("guest", "documents")


@dataclass(frozen=True)
class Course:
    """Where a machine may begin and where it stops, and whether it keeps trees.

    `begin` are the first steps, whose kept trees may be used instead of running them. With `stop`,
    the machine stops after that step and returns only the ledger. A release uses no kept trees and
    keeps none.
    """

    begin: tuple[str, ...] = ()
    keep: bool = False
    stop: str | None = None


RELEASE = Course()
FRESH = Course(keep=True)
USUAL = Course(begin=(BOOTSTRAP,), keep=True)


@dataclass(frozen=True)
class BuildPlan:
    """The plan of a build in one environment; its trees are kept under keys of `kept_with`."""

    run: Run
    environment: str
    choice: Choice
    host: Host
    source: Source
    inputs: Inputs
    image: Image
    index: bytes
    job: Job
    limits: Mapping[str, int]  # what the machine may return: sizes by path
    measure: bool
    course: Course
    kept_with: Choice
    folder: Path  # where the results go

    @property
    def lock(self) -> bytes:
        """The image's lock, as it is in the commit."""
        return committed(self.run.source_tar, f"images/live/{self.job.image}/lock")

    def packages(self, user: str) -> tuple[Package, ...]:
        """Return the packages of the "image", the "builder" or the "build" of local packages."""
        return self.inputs.used_by(user)


def make_plan(
    run: Run,
    workspace: Workspace,
    environment: str,
    *,
    measure: bool = False,
    fresh: bool = False,
) -> BuildPlan:
    """Make the plan of a run's build in one environment.

    `measure` and `fresh` are those of `run_build`. Raise UsageError if the run is not ready or asks
    for something that the farm does not have, InfrastructureFailed if a document is damaged.
    """
    if environment not in workspace.farm.environments:
        known = ", ".join(sorted(workspace.farm.environments))
        raise UsageError(f"farm.yaml has no environment {environment!r}", remedy=f"it has {known}")
    if not run.source_json.exists() or not run.inputs_json.exists():
        remedy = f"{command_line(f'stage.source --run {run.id}')}, then stage.inputs"
        raise UsageError(f"run {run.id} has no source or no inputs yet", remedy=remedy)
    source, inputs = read_source(run), read_inputs(run)
    path = f"images/live/{inputs.image}/image.yaml"
    image = parse_image(committed(run.source_tar, path), path)
    _check_store(run, workspace, inputs)
    index = workspace.store.path(inputs.index_sha256).read_bytes()
    folder = workspace.hosts / environment
    choice = choose(workspace.farm, workspace.hosts, run.id, run.request())[environment]
    pinned = choice.entry.host_image
    host = Host(environment, folder, choice.variation, workspace.farm.archives, pinned)
    compression = run.request().compression
    job = make_job(source, inputs, image, compression=compression, guest_sha256=_guest_sha256())
    limits = output.expected(job.names)
    return BuildPlan(
        run,
        environment,
        choice,
        host,
        source,
        inputs,
        image,
        index,
        job,
        limits,
        measure,
        course=_course(run, measure=measure, fresh=fresh),
        kept_with=choice,
        folder=run.environment(environment),
    )


def _course(run: Run, *, measure: bool, fresh: bool) -> Course:
    if measure or run.request().tag is not None:  # caches are never used for a release
        return RELEASE
    return FRESH if fresh else USUAL


def _check_store(run: Run, workspace: Workspace, inputs: Inputs) -> None:
    """Raise UsageError if the store lacks what the run needs, as it may on another machine."""
    wanted = inputs.digests().items()
    missing = [sha256 for sha256, size in wanted if not workspace.store.has(sha256, size)]
    if missing:
        what = f"the store lacks {len(missing)} of the files that run {run.id} needs"
        raise UsageError(what, remedy=command_line(f"stage.inputs --run {run.id}"))


def guest_files() -> dict[str, Path]:
    """Return the program files that run in the machine, by their paths on the input disk."""
    paths = [path for room in CARRIED for path in sorted((PIPELINE / room).rglob("*.py"))]
    return {f"pipeline/{path.relative_to(PIPELINE)}": path for path in paths}


def _guest_sha256() -> str:
    lines = [f"{sha256_file(path)} {name}" for name, path in guest_files().items()]
    return sha256_bytes("\n".join(lines).encode())
