# SPDX-License-Identifier: GPL-3.0-or-later
"""Stage 4: whether the builds of a run match, and if not, how they differ."""

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pipeline.base.errors import (
    BuildFailed,
    Differs,
    ExitStatus,
    InfrastructureFailed,
    InputsUnverified,
    TwinbuildError,
    UsageError,
    command_line,
)
from pipeline.base.files import read_json, write_json
from pipeline.base.plain import plain
from pipeline.compare.artifacts import ComparedFiles, compare_files
from pipeline.compare.expected import expect
from pipeline.compare.following import differs_only_in
from pipeline.compare.ledgers import ComparedLedgers, compare_ledgers
from pipeline.documents.digest import sha256_file
from pipeline.documents.verdict import Judged, Verdict
from pipeline.farm.artifacts import list_artifacts
from pipeline.farm.run import Run

FAILURE_LIMIT = 1024 * 1024


@dataclass(frozen=True)
class Outcome(Verdict):
    """A verdict, and the exit status of a command that compares."""

    status: ExitStatus = ExitStatus.DONE

    def error(self, run_id: str) -> TwinbuildError | None:
        """Return the error that a comparing command raises; None for status 0."""
        if self.status is ExitStatus.DONE:
            return None
        kinds = (Differs, BuildFailed, InputsUnverified, InfrastructureFailed)
        kind = next(kind for kind in kinds if kind.status is self.status)
        what = "the builds differ" if self.verdict == "differ" else "there is nothing to compare"
        return kind(f"{what}: {self.reasons[0]}", remedy=f"see {command_line(f'show {run_id}')}")


def run_compare(run: Run, *, notify: Callable[[str], None]) -> Outcome:
    """Compare every artifact of every environment of `run`; write and return the verdict.

    Nothing is raised for builds that differ or have failed: the verdict says so. The comparison is
    repeated each time, as finding out whether its inputs have changed takes as long.

    Raise UsageError if the run has a single environment, or one that has not been built yet; then
    there is no verdict, not even an earlier one.
    """
    names = run.request().environments
    run.verdict_json.unlink(missing_ok=True)
    if len(names) < 2:
        raise UsageError(
            f"the run {run.id} has only the environment {names[0]}: nothing to compare it with",
            remedy="build in all environments for a verdict",
        )
    _check_built(run, names)
    try:
        verdict = _failed(run, names) or _compared(run, names)
    except InfrastructureFailed as error:
        verdict = Outcome("failed", names, reasons=(plain(str(error)),), status=error.status)
    write_json(run.verdict_json, verdict.document())
    notify(f"compare: {verdict.verdict}, {len(verdict.artifacts)} artifacts")
    for reason in verdict.reasons:
        notify(f"compare: {reason}")
    return verdict


def _check_built(run: Run, names: Sequence[str]) -> None:
    for name in names:
        folder = run.environment(name)
        if not any((folder / file).is_file() for file in ("statement.json", "failure.json")):
            raise UsageError(
                f"{name} has not been built in the run {run.id}",
                remedy=command_line(f"stage.build --run {run.id} --environment {name}"),
            )


def _failed(run: Run, names: tuple[str, ...]) -> Outcome | None:
    """Return the verdict if a build failed, or had another job than the others."""
    reasons, statuses = [], []
    for name in names:
        path = run.environment(name) / "failure.json"
        if path.exists():
            status, what = _failure(
                read_json(path, failure=InfrastructureFailed, limit=FAILURE_LIMIT)
            )
            statuses.append(status)
            reasons.append(plain(f"{name}: {what}"))
    if not reasons and len({_job(run, name) for name in names}) > 1:
        statuses.append(ExitStatus.INFRASTRUCTURE)
        reasons.append(f"{' and '.join(names)} were not given the same job.json")
    if not reasons:
        return None
    order = (ExitStatus.BUILD_FAILED, ExitStatus.INPUTS_UNVERIFIED, ExitStatus.INFRASTRUCTURE)
    status = next(status for status in order if status in statuses)
    return Outcome("failed", names, reasons=tuple(reasons), status=status)


def _failure(document: object) -> tuple[ExitStatus, str]:
    """Return status and description of a `failure.json`; a malformed one is of infrastructure."""
    match document:
        case {"status": 3 | 5 as status, "what": str(what)}:
            return ExitStatus(status), what
        case {"what": str(what)}:
            return ExitStatus.INFRASTRUCTURE, what
    return ExitStatus.INFRASTRUCTURE, "the build failed without saying why"


def _job(run: Run, name: str) -> bytes:
    path = run.environment(name) / "job.json"
    try:
        return path.read_bytes()
    except OSError as error:
        raise InfrastructureFailed(f"cannot read {path}: {error.strerror}") from error


def _compared(run: Run, names: tuple[str, ...]) -> Outcome:
    """Return the verdict on builds that are all complete: each is compared with the first."""
    first, *others = names
    listed = {name: list_artifacts(run.environment(name) / "artifacts") for name in names}
    everywhere = sorted(set.intersection(*map(set, listed.values())))
    compared = {
        (artifact, other): compare_files(
            *(_artifact(run, name, artifact) for name in (first, other))
        )
        for artifact in everywhere
        for other in others
    }
    reasons = _say_missing(run, listed, everywhere) + [
        _say_differing(artifact, (first, other), result)
        for (artifact, other), result in compared.items()
        if not result.equal
    ]
    artifacts = tuple(
        _judge(artifact, [r for (name, _), r in compared.items() if name == artifact])
        for artifact in sorted({artifact for found in listed.values() for artifact in found})
    )
    if not reasons:
        return Outcome("match", names, artifacts)
    apart = [other for (_, other), result in compared.items() if not result.equal]
    other = apart[0] if apart else others[0]
    differing = {
        name for (name, at), result in compared.items() if at == other and not result.equal
    }
    ledgers = _compare_ledgers(run, (first, other), differing)
    job = run.environment(first) / "job.json"
    expectation = expect(job, ledgers.differences, datetime.now(UTC).date())
    only = expectation.all_met and all(
        differs_only_in(
            {e.path for e in expectation.met},
            artifact,
            *(_artifact(run, name, artifact) for name in (first, other)),
        )
        for (artifact, other), result in compared.items()
        if not result.equal
    )
    only = only and len(compared) == len(others) * len(artifacts)  # none is missing
    releases = run.request().tag is not None
    return Outcome(
        "differ",
        names,
        artifacts,
        (*_say_expected(only=only, releases=releases), *expectation.reasons, *ledgers.reasons)
        + tuple(map(plain, reasons)),
        ledgers.differences,
        expectation.met,
        only,
        ExitStatus.DONE if only and not releases else ExitStatus.DIFFERS,
    )


def _say_expected(*, only: bool, releases: bool) -> Iterator[str]:
    if only:
        allowed = "; a release may not" if releases else "; that is no error until it is released"
        yield f"the builds differ only as expected{allowed}"


def _artifact(run: Run, name: str, artifact: str) -> Path:
    return run.environment(name) / "artifacts" / artifact


def _judge(artifact: str, results: Sequence[ComparedFiles]) -> Judged:
    """Return an artifact's size and digest if all agree; `results` is empty if one lacks it."""
    sizes = {size for result in results for size in result.sizes}
    digests = {digest for result in results for digest in result.sha256}
    return Judged(
        plain(artifact),
        sizes.pop() if len(sizes) == 1 else None,
        digests.pop() if len(digests) == 1 else None,
    )


def _say_missing(
    run: Run, listed: Mapping[str, Sequence[str]], everywhere: Sequence[str]
) -> list[str]:
    """Return which artifacts some environments lack, and which have only another name."""
    names_of: dict[str, list[str]] = {}
    missing = []
    for name, artifacts in listed.items():
        for artifact in sorted(set(artifacts).difference(everywhere)):
            digest = sha256_file(_artifact(run, name, artifact))
            names_of.setdefault(digest, []).append(f"{artifact} of {name}")
            without = [other for other, found in listed.items() if artifact not in found]
            missing.append(f"{artifact} of {name} is missing in {' and '.join(without)}")
    renamed = [same for same in names_of.values() if len(same) > 1]
    return [*missing, *(f"{' and '.join(same)} are the same file, renamed" for same in renamed)]


def _say_differing(artifact: str, names: tuple[str, str], result: ComparedFiles) -> str:
    """Return where an artifact first differs, with each environment's size and digest."""
    sides = [
        f"{name} {size} bytes {digest[:16]}…"
        for name, size, digest in zip(names, result.sizes, result.sha256, strict=True)
    ]
    return f"{artifact} differs from byte {result.offset} on: {', '.join(sides)}"


def _compare_ledgers(run: Run, names: tuple[str, str], differing: Set[str]) -> ComparedLedgers:
    """Find the step and the paths; a ledger that cannot be read leaves only the reason for that."""
    left, right = (run.environment(name) / "ledger.jsonl.gz" for name in names)
    try:
        return compare_ledgers(names, (left, right), differing)
    except BuildFailed as error:
        return ComparedLedgers((), (plain(f"the step is not known: {error}"),))
