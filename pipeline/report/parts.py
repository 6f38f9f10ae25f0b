# SPDX-License-Identifier: GPL-3.0-or-later
"""The parts of a report that are made from a run's documents and logs, each safe to show.

Missing or unreadable ones are left out. No text leaves here with an invisible character.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from pipeline.base.plain import plain
from pipeline.farm.run_view import (
    EnvironmentView,
    FailureView,
    RunDocument,
    RunView,
    StatementView,
    read_end,
)
from pipeline.report.sections import (
    EnvironmentSection,
    FailureSection,
    InputsSection,
    LogSection,
    SourceSection,
)

LOG_BYTES = 512 * 1024
LOG_LINES = 2000
ITEMS_LIMIT = 1000
FACTS_LIMIT = 100


def text(value: object) -> str:
    """Return a value as safe text; anything but text and numbers becomes empty."""
    return plain(str(value)) if isinstance(value, str | int | float) else ""


def source(run: RunView) -> SourceSection | None:
    """Return what was built."""
    seen = run.source.content
    if seen is None:
        return None
    return {
        "repository": text(seen.repository),
        "commit": text(seen.commit),
        "version": text(seen.version),
        "committed": "" if seen.epoch is None else moment(seen.epoch),
        "dirty": seen.dirty,
    }


def inputs(run: RunView) -> InputsSection | None:
    """Return the inputs: how many packages, their size in bytes, the lock."""
    seen = run.inputs.content
    if seen is None:
        return None
    return {
        "packages": seen.packages,
        "size": seen.size,
        "lock_sha256": text(seen.lock_sha256),
    }


def environment(seen: EnvironmentView) -> EnvironmentSection:
    """Return the factors of one environment, its steps and its log."""
    statement = seen.statement.content
    return {
        "name": seen.name,
        "state": seen.state,
        "failure": _failure(seen.failure),
        "started": text(statement and statement.started),
        "finished": text(statement and statement.finished),
        "steps": [{"step": text(step.name), "seconds": step.seconds} for step in seen.steps],
        "facts": _facts(statement, seen.failure.content),
        "logs": [log(seen.console_log)] if seen.console_log.exists() else [],
    }


def _failure(document: RunDocument[FailureView]) -> FailureSection | None:
    if not document.exists:
        return None
    failure = document.content
    if failure is None:
        return {"status": None, "what": text(document.fault), "detail": []}
    lines = (failure.detail or "")[:LOG_BYTES].splitlines()[-LOG_LINES:]
    return {
        "status": failure.status,
        "what": text(failure.what),
        "detail": [plain(line) for line in lines],
    }


def _facts(statement: StatementView | None, failure: FailureView | None) -> dict[str, str]:
    """Return the factors that a machine had, or was to have; nested names are joined."""
    machine = (statement.machine if statement else {}) or (failure.machine if failure else {})
    return dict(sorted(_flat(machine))[:FACTS_LIMIT])


def _flat(
    facts: Mapping[str, object], before: str = "", *, deep: bool = True
) -> Iterator[tuple[str, str]]:
    for name, value in list(facts.items())[:FACTS_LIMIT]:
        words = text(name).replace("_", " ")
        if isinstance(value, dict) and deep:
            yield from _flat(value, "" if name == "varied" else f"{words}: ", deep=False)
        elif isinstance(value, dict):
            pairs = [f"{key}={word}" for key, word in list(value.items())[:FACTS_LIMIT]]
            yield before + words, text(", ".join(pairs))
        else:
            yield before + words, text(value)


def log(path: Path) -> LogSection:
    """Return the last lines of a log, and whether there were more."""
    content = read_end(path, LOG_BYTES)
    lines = content.decode(errors="replace").splitlines()
    size = path.lstat().st_size
    cut = size > len(content) or len(lines) > LOG_LINES
    shown = [plain(line.expandtabs(8)) for line in lines[-LOG_LINES:]]
    return {"name": path.name, "size": size, "lines": shown, "cut": cut}


def moment(seconds: float) -> str:
    """Return a time in UTC for people."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
