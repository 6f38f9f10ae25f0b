# SPDX-License-Identifier: GPL-3.0-or-later
"""The runs for people: the state and result of each, where its files are, which can be removed.

All lines are safe for a terminal, whatever a build wrote into its logs and documents.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pipeline.base.errors import UsageError
from pipeline.base.plain import plain
from pipeline.farm.run import Request, Run
from pipeline.farm.run_view import (
    EnvironmentView,
    InputsView,
    RunDocument,
    RunView,
    SourceView,
    VerdictView,
    read_end,
)

LOGS = ("console.log", "progress.jsonl", "ledger.jsonl.gz")
LOG_TAIL = 10
TAIL_BYTES = 16 * 1024


def list_lines(runs: Sequence[Run], *, now: datetime | None = None) -> list[str]:
    """Return a line per run: its name, commit-ish, state, size and age."""
    moment = now or datetime.now(UTC)
    rows = [_row(RunView(run), moment) for run in runs]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        plain(
            "  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip()
        )
        for row in rows
    ]


def _row(seen: RunView, now: datetime) -> tuple[str, ...]:
    run = seen.run
    wanted = _wanted(seen.request.content)
    return run.id, wanted, _state(seen), _bytes(_size(run.folder)), _age(run, now)


def _state(seen: RunView) -> str:
    """Return the state of a run in a few words."""
    if seen.released:
        return "released"
    if seen.verdict.exists:
        return _judged(seen.verdict.content)
    environments = seen.environments.values()
    if any(environment.state != "not built" for environment in environments):
        return ", ".join(f"{one.name} {one.state}" for one in environments)
    if seen.inputs.exists:
        return "inputs complete"
    return "source complete" if seen.source.exists else "started"


def describe(run: Run, *, now: datetime | None = None) -> list[str]:
    """Return everything about a run: its stages, verdict, files and logs."""
    seen = RunView(run)
    sections: list[tuple[str, list[str]]] = [
        ("run", [f"{run.id}, {_age(run, now or datetime.now(UTC))}"]),
        ("asked for", [_asked(seen.request.content)]),
        ("source", list(_source(seen.source))),
        ("inputs", [_inputs(seen.inputs)]),
        *((one.name, list(_environment(one))) for one in seen.environments.values()),
        ("verdict", list(_verdict(seen))),
        ("report", [str(seen.page) if seen.page.exists() else "not written"]),
        ("release", [f"signed in {run.release}" if seen.released else "not made"]),
        ("folder", [f"{run.folder}, {_bytes(_size(run.folder))}"]),
    ]
    return [
        plain(f"{title if number == 0 else '':<11}{line}")
        for title, lines in sections
        for number, line in enumerate(lines)
    ]


def clean(
    runs: Sequence[Run],
    *,
    keep: int,
    older_than: timedelta = timedelta(),
    now: datetime | None = None,
) -> int:
    """Remove all but the `keep` newest runs that are older than `older_than`; return freed bytes.

    `runs` is in the order of `list_runs`. A run that a process is working on stays. Published
    releases are elsewhere and stay, too.
    """
    moment, freed = now or datetime.now(UTC), 0
    for run in sorted(runs, key=lambda run: run.id, reverse=True)[max(keep, 0) :]:
        if moment - run.started < older_than:
            continue
        try:
            with run.held(alone=True):
                size = _size(run.folder)
                shutil.rmtree(run.folder)
        except UsageError:
            continue
        freed += size
    return freed


def _wanted(request: Request | None) -> str:
    if request is None:
        return "damaged"
    return f"{request.tag} (release)" if request.tag else request.commit


def _asked(request: Request | None) -> str:
    if request is None:
        return "run.json is damaged"
    of = f" of {request.source}" if request.source else ""
    environments = " and ".join(request.environments)
    return f"{request.image}, {_wanted(request)}{of}, {request.compression}, in {environments}"


def _source(document: RunDocument[SourceView]) -> Iterator[str]:
    source = document.content
    if source is None:
        yield document.fault or "not exported"
        return
    commit = (source.commit or "?")[:12]
    yield f"{source.version or '?'}, commit {commit} of {source.repository or '?'}"
    if source.epoch is not None:
        yield f"committed {datetime.fromtimestamp(source.epoch, UTC):%Y-%m-%d %H:%M} UTC"
    if source.dirty:
        yield "the working tree had changes, which were not built"
    if source.tagged:
        yield f"tag signed by {source.signer or 'nobody: farm.yaml asks for no signature'}"


def _inputs(document: RunDocument[InputsView]) -> str:
    inputs = document.content
    if inputs is None:
        return document.fault or "not complete"
    lock = (inputs.lock_sha256 or "?")[:12]
    return f"{inputs.packages} packages, {_bytes(inputs.size)}, lock {lock}"


def _environment(seen: EnvironmentView) -> Iterator[str]:
    if seen.state == "failed":
        failure = seen.failure.content
        status, what = (failure.status, failure.what) if failure else (None, seen.failure.fault)
        yield f"failed with status {'?' if status is None else status}: {what or '?'}"
        lines = read_end(seen.console_log, TAIL_BYTES).decode(errors="replace").splitlines()
        yield from (f"  {line}" for line in lines[-LOG_TAIL:])
    else:
        yield seen.state
    for path in sorted((seen.folder / "artifacts").glob("*")):
        yield f"{_bytes(path.lstat().st_size)}  {path}"
    for log in (seen.folder / name for name in LOGS):
        if log.exists():
            yield f"{_bytes(log.lstat().st_size)}  {log}"


def _verdict(seen: RunView) -> Iterator[str]:
    if not seen.verdict.exists:
        yield "none yet"
        return
    verdict = seen.verdict.content
    yield _judged(verdict)
    if verdict:
        yield from verdict.reasons
    if verdict and verdict.differences:
        yield f"{len(verdict.differences)} differences are in {seen.run.verdict_json}"


def _judged(verdict: VerdictView | None) -> str:
    return (verdict and verdict.verdict) or "damaged"


def _size(folder: Path) -> int:
    """Return how many bytes removing `folder` frees; files with hard links elsewhere stay."""
    seen: dict[tuple[int, int], int] = {}
    size = 0
    for where, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):  # a stage at work removes its temporary files
                status = (Path(where) / name).lstat()
                inode = (status.st_dev, status.st_ino)
                seen[inode] = seen.get(inode, 0) + 1
                size += status.st_size * (seen[inode] == status.st_nlink)
    return size


def _bytes(size: int) -> str:
    """Return a size for people; it is empty if there is no file."""
    return f"{-(-size // 2**10)} KiB" if size < 2**20 else f"{size / 2**20:.1f} MiB"


def _age(run: Run, now: datetime) -> str:
    seconds = int((now - run.started).total_seconds())
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit} ago"
    return f"{max(seconds, 0)} seconds ago"
