# SPDX-License-Identifier: GPL-3.0-or-later
"""Stage 3: an environment builds the job and returns artifacts, ledger, logs and statement."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from pipeline.base import dsse
from pipeline.base.disk_room import cannot_write, no_room
from pipeline.base.errors import InfrastructureFailed, SignatureInvalid, TwinbuildError, UsageError
from pipeline.base.files import read_json, sha256_bytes, write_json
from pipeline.documents import statement
from pipeline.documents.digest import sha256_file
from pipeline.documents.disks import ARTIFACTS
from pipeline.documents.json_form import json_bytes
from pipeline.documents.progress import Record
from pipeline.farm.run import Run
from pipeline.farm.workspace import Workspace
from pipeline.machines import builder, engine, machine
from pipeline.machines.attempt import Attempt, attempt
from pipeline.machines.host import AskMirrors
from pipeline.machines.plan import BuildPlan, make_plan
from pipeline.machines.trees import FORMAT

TREES_JSON = "trees.json"


def run_build(
    run: Run,
    workspace: Workspace,
    environment: str,
    ask_mirrors: AskMirrors,
    *,
    notify: Callable[[Record], None],
    keep: bool = False,
    measure: bool = False,
    fresh: bool = False,
    silence_s: float = machine.SILENCE_S,
) -> None:
    """Build the run's job in one environment, unless that build is complete.

    This writes the folder `<environment>/`; if the build fails, the error is recorded there in
    `failure.json` and raised. `keep` leaves the machine's container and volume for inspection.
    `measure` also times the same programs run by hand in the machine, before the build, for
    `./farm bench`. `fresh` begins without kept trees, and compares the new trees with them.
    """
    stage = f"build-{environment}"
    with run.at(stage, _refuse):  # waiting here would outlast Ctrl-C
        plan = make_plan(run, workspace, environment, measure=measure, fresh=fresh)
        reads = _reads(plan, workspace)
        pinned = _pinned_key(plan, workspace)
        reason = run.why_again(stage, reads) or _why_not_signed(plan, pinned)
        if reason is None:
            notify(Record.note("complete, nothing to do"))
            return
        notify(Record.note(reason))
        (plan.folder / "failure.json").unlink(missing_ok=True)
        (plan.folder / "statement.json").unlink(missing_ok=True)
        write_json(plan.folder / "job.json", plan.job.document())
        _check_key(environment, pinned)
        with (
            _failure_kept(plan),
            disk_failures(environment),
            engine.connect(plan.choice.entry.engine) as client,
        ):
            result = attempt(
                client, plan, workspace, ask_mirrors, notify, keep=keep, silence_s=silence_s
            )
        for contradiction in result.two_values:
            notify(Record.note(str(contradiction)))
        run.complete(stage, reads, _state(plan, result))


def _refuse(what: str) -> None:
    raise UsageError(what, remedy="wait until it has ended")


@contextmanager
def _failure_kept(plan: BuildPlan) -> Iterator[None]:
    """Record the failure of a build in `failure.json`; a failed build has no statement."""
    try:
        yield
    except TwinbuildError as error:
        failure = {"status": int(error.status), "what": error.what, "detail": error.detail}
        failure["machine"] = plan.choice.factors
        write_json(plan.folder / "failure.json", failure)
        raise


def _pinned_key(plan: BuildPlan, workspace: Workspace) -> str | None:
    """Return the key that must sign this build; None if there is no tag, and any key may sign."""
    if plan.run.request().tag is None:
        return None
    return workspace.farm.keys.environments.get(plan.environment)


def _why_not_signed(plan: BuildPlan, pinned: str | None) -> str | None:
    """Return why a complete build must run again: its statement is not signed by the pinned key."""
    if pinned is None:
        return None
    try:
        path = plan.folder / "statement.json"
        dsse.verify(read_json(path, failure=SignatureInvalid), [pinned])
    except SignatureInvalid:
        return "its statement is not by the key that farm.yaml pins"
    return None


def _check_key(environment: str, pinned: str | None) -> None:
    """Raise SignatureInvalid if the key that must sign is missing, before the build starts."""
    path = dsse.key_path(environment)
    public = dsse.public_hex(dsse.load_key(path))
    if pinned not in (None, public):
        raise SignatureInvalid(
            f"{path} is not the key that farm.yaml pins for {environment}",
            remedy=f"bring that key here, or pin this one: {environment}: {public}",
        )


def _reads(plan: BuildPlan, workspace: Workspace) -> dict[str, str]:
    """Return the digests of everything that determines this build."""
    choice = plan.choice
    environment = choice.entry.model_dump_json() + choice.variation.model_dump_json()
    scripts = [sha256_file(workspace.builder / name) for name in builder.SCRIPTS]
    return {
        "the job": sha256_bytes(json_bytes(plan.job.document())),
        "the environment": sha256_bytes(environment.encode()),
        "the container host": plan.host.key,
        "the builder": sha256_bytes("\n".join(scripts).encode()),
    }


@contextmanager
def disk_failures(environment: str) -> Iterator[None]:
    """Turn a full or broken disk of this machine into an InfrastructureFailed."""
    try:
        yield
    except OSError as error:
        what, remedy = str(error), "look at that disk"
        if no_room(error):
            failure = cannot_write(error)
            what, remedy = failure.what, failure.remedy
        what = f"the build in {environment} broke off: {what}"
        raise InfrastructureFailed(what, remedy=remedy) from error


def _state(plan: BuildPlan, result: Attempt) -> list[Path]:
    """Write `trees.json` and the signed statement of a build; return all of its files."""
    begun = [{"step": layer.step, "digest": layer.digest} for layer in result.begun]
    two_values = [asdict(found) for found in result.two_values]
    document = {"format": FORMAT, "begun": begun, "two_values": two_values}
    write_json(plan.folder / TREES_JSON, document)
    artifacts = {
        name.removeprefix(f"{ARTIFACTS}/"): digest
        for name, digest in result.digests.items()
        if name.startswith(f"{ARTIFACTS}/")
    }
    byproducts = {name: sha256_file(plan.folder / name) for name in statement.BYPRODUCTS}
    source = plan.source
    document = statement.make(
        statement.Statement(
            environment=plan.environment,
            run_id=plan.run.id,
            repository=source.repository,
            commit=source.commit,
            tag=source.tag.name if source.tag else None,
            image=plan.job.image,
            compression=plan.job.compression,
            lock_sha256=plan.job.lock_sha256,
            job=plan.job.document(),
            machine=result.machine.describe(result.started, result.done, begun).document(),
            artifacts=artifacts,
            byproducts=byproducts,
            started=result.started,
            finished=machine.now(),
        )
    )
    key = dsse.load_key(dsse.key_path(plan.environment))
    write_json(plan.folder / "statement.json", dsse.sign(document, key))
    written = [plan.folder / name for name in (*result.digests, *statement.BYPRODUCTS)]
    return [
        *dict.fromkeys(written),
        *(plan.folder / name for name in ("job.json", TREES_JSON, "statement.json")),
    ]
