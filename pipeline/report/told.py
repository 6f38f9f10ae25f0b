# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run folder tells, read with limits: the parts of a report, each safe to show.

Documents may be missing, damaged or hostile, on any run and most of all on one that failed: what
cannot be read is left out. No text leaves here with a character that cannot be seen.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.base import dsse
from pipeline.base.errors import TwinbuildError, UsageError
from pipeline.base.files import open_plain, read_json
from pipeline.base.plain import plain
from pipeline.documents.json_form import parse_json
from pipeline.farm.run import Run

LOG_BYTES = 512 * 1024
LOG_LINES = 2000
PROGRESS_BYTES = 16 * 1024 * 1024
STEPS_LIMIT = 500
SECONDS_LIMIT = 1e7
ITEMS_LIMIT = 1000
FACTS_LIMIT = 100

Told = dict[str, Any]


def document(path: Path) -> Mapping[str, Any]:
    """Return a JSON object, or an empty one if there is none to be read."""
    try:
        read = read_json(path, failure=UsageError)
    except UsageError:
        return {}
    return read if isinstance(read, dict) else {}


def text(value: object) -> str:
    """Return a value as safe text; anything but text and numbers is nothing."""
    return plain(str(value)) if isinstance(value, str | int | float) else ""


def number(value: object) -> int | None:
    """Return a value if it is a sensible whole number."""
    return value if type(value) is int and 0 <= value < 2**63 else None


def items(value: object) -> list[Any]:
    """Return the first entries of a list, or none."""
    return value[:ITEMS_LIMIT] if isinstance(value, list) else []


def mapping(value: object) -> Mapping[str, Any]:
    """Return a mapping, or an empty one."""
    return value if isinstance(value, dict) else {}


def source(run: Run) -> Told | None:
    """Return what was built."""
    said = document(run.source_json)
    if not said:
        return None
    told = {name: text(said.get(name)) for name in ("repository", "commit", "version")}
    epoch = number(said.get("epoch"))
    committed = moment(epoch) if epoch is not None and epoch < 2**33 else ""
    return {**told, "committed": committed, "dirty": said.get("dirty") is True}


def inputs(run: Run) -> Told | None:
    """Return from what was built: how many packages, their size in bytes, the lock."""
    said = document(run.inputs_json)
    if not said:
        return None
    packages = said.get("packages")
    sizes = [
        number(mapping(package).get("size")) or 0
        for package in (packages if isinstance(packages, list) else [])
    ]
    lock = text(said.get("lock_sha256"))
    return {"packages": len(sizes), "size": sum(sizes), "lock_sha256": lock}


def seconds(run: Run, stage: str) -> float | None:
    """Return how long a stage took, when it last did something."""
    said = document(run.folder / "stages" / f"{stage}.json").get("seconds")
    sensible = isinstance(said, int | float) and 0 <= said < SECONDS_LIMIT
    return round(float(said), 3) if isinstance(said, int | float) and sensible else None


def environment(run: Run, name: str) -> Told:
    """Return what one environment was, did and said."""
    folder = run.environment(name)
    failure = document(folder / "failure.json")
    predicate = mapping(_statement(folder).get("predicate"))
    metadata = mapping(mapping(predicate.get("runDetails")).get("metadata"))
    state = "failed" if failure else "built" if metadata else "not built"
    return {
        "name": name,
        "state": state,
        "failure": _failure(failure),
        "started": text(metadata.get("startedOn")),
        "finished": text(metadata.get("finishedOn")),
        "steps": steps(folder),
        "facts": _facts(predicate, failure),
        "logs": [log(folder / "console.log")] if (folder / "console.log").exists() else [],
    }


def _statement(folder: Path) -> Mapping[str, Any]:
    """Return what an environment states, whoever signed it: here it is only shown."""
    with suppress(TwinbuildError):
        return dsse.unverified_payload(document(folder / "statement.json"))
    return {}


def _failure(said: Mapping[str, Any]) -> Told | None:
    if not said:
        return None
    detail = said.get("detail") if isinstance(said.get("detail"), str) else ""
    lines = [plain(line) for line in str(detail)[:LOG_BYTES].splitlines()[-LOG_LINES:]]
    return {
        "status": number(said.get("status")),
        "what": text(said.get("what")),
        "detail": lines,
    }


def _facts(
    predicate: Mapping[str, Any], failure: Mapping[str, Any] | None = None
) -> dict[str, str]:
    """Return what a machine was, or was to be, a line each: nested names are joined."""
    definition = mapping(predicate.get("buildDefinition"))
    machine = mapping(mapping(definition.get("internalParameters")).get("machine"))
    machine = machine or mapping((failure or {}).get("machine"))
    return dict(sorted(_flat(machine))[:FACTS_LIMIT])


def _flat(
    said: Mapping[str, Any], before: str = "", *, deep: bool = True
) -> Iterator[tuple[str, str]]:
    for name, value in list(said.items())[:FACTS_LIMIT]:
        words = text(name).replace("_", " ")
        if isinstance(value, dict) and deep:
            yield from _flat(value, "" if name == "varied" else f"{words}: ", deep=False)
        elif isinstance(value, dict):
            pairs = [f"{key}={word}" for key, word in list(value.items())[:FACTS_LIMIT]]
            yield before + words, text(", ".join(pairs))
        else:
            yield before + words, text(value)


def steps(folder: Path) -> list[Told]:
    """Return the steps of a build and how many seconds each took; None is one that did not end."""
    said = mapping(document(folder / "timings.json").get("steps"))
    if said:
        return [_step(name, seconds) for name, seconds in list(said.items())[:STEPS_LIMIT]]
    found: dict[str, object] = {}
    for record in _progress(folder / "progress.jsonl"):
        if record.get("record") in ("step", "step-done") and len(found) < STEPS_LIMIT:
            found[text(record.get("step"))] = record.get("seconds")
    return [_step(name, seconds) for name, seconds in found.items()]


def _step(name: str, seconds: Any) -> Told:
    sensible = isinstance(seconds, int | float) and 0 <= seconds < SECONDS_LIMIT
    return {"step": text(name), "seconds": round(float(seconds), 3) if sensible else None}


def _progress(path: Path) -> Iterator[Mapping[str, Any]]:
    for line in _read(path, PROGRESS_BYTES).splitlines():
        if b'"step' in line:
            with suppress(ValueError, RecursionError):
                yield mapping(parse_json(line))


def log(path: Path) -> Told:
    """Return the last lines of a log, and whether there were more."""
    content = _read(path, LOG_BYTES)
    lines = content.decode(errors="replace").splitlines()
    size = path.lstat().st_size
    cut = size > len(content) or len(lines) > LOG_LINES
    shown = [plain(line.expandtabs(8)) for line in lines[-LOG_LINES:]]
    return {"name": path.name, "size": size, "lines": shown, "cut": cut}


def _read(path: Path, limit: int) -> bytes:
    """Return the end of a plain file."""
    try:
        with open_plain(path) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - limit))
            return file.read(limit)
    except OSError:
        return b""


def moment(seconds: float) -> str:
    """Return a time in UTC for people."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
