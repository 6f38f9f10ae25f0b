# SPDX-License-Identifier: GPL-3.0-or-later
"""The runs for people: what each came to, where its files are, and which may go.

All lines are safe for a terminal, whatever a build wrote into its logs and documents.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pipeline.base.errors import TwinbuildError, UsageError
from pipeline.base.files import read_json
from pipeline.base.plain import plain
from pipeline.farm.run import Request, Run

LOGS = ("console.log", "progress.jsonl", "ledger.jsonl.gz")
LOG_TAIL = 10
TAIL_BYTES = 16 * 1024


def list_lines(runs: Sequence[Run], *, now: datetime | None = None) -> list[str]:
    """Return a line a run: its name, commit-ish, state, size and age."""
    moment = now or datetime.now(UTC)
    rows = [
        (run.id, _wanted(_request(run)), state(run), _bytes(_size(run.folder)), _age(run, moment))
        for run in runs
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        plain(
            "  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip()
        )
        for row in rows
    ]


def state(run: Run) -> str:
    """Return in a few words how far a run came."""
    if (run.release / "SHA256SUMS.asc").exists():
        return "released"
    if run.verdict_json.exists():
        return str(_read(run.verdict_json).get("verdict", "damaged"))
    request = _request(run)
    built = [f"{name} {_built(run, name)}" for name in request.environments] if request else []
    if any(not words.endswith("not built") for words in built):
        return ", ".join(built)
    if run.inputs_json.exists():
        return "inputs complete"
    return "source complete" if run.source_json.exists() else "started"


def describe(run: Run, *, now: datetime | None = None) -> list[str]:
    """Return what there is to know of a run: its stages, verdict, files and logs."""
    request = _request(run)
    sections: list[tuple[str, list[str]]] = [
        ("run", [f"{run.id}, {_age(run, now or datetime.now(UTC))}"]),
        ("asked for", [_asked(request)]),
        ("source", list(_source(run))),
        ("inputs", list(_inputs(run))),
    ]
    if request:
        sections += [(name, list(_environment(run, name))) for name in request.environments]
    sections += [
        ("verdict", list(_verdict(run))),
        ("report", [_report(run)]),
        ("release", [f"signed in {run.release}" if state(run) == "released" else "not made"]),
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

    `runs` is as `list_runs` gives them. A run that a process is at work on stays. What is
    published lies elsewhere and stays too.
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


def _request(run: Run) -> Request | None:
    try:
        return run.request()
    except TwinbuildError:
        return None


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


def _source(run: Run) -> Iterator[str]:
    if not run.source_json.exists():
        yield "not exported"
        return
    said = _read(run.source_json)
    commit = str(said.get("commit", "?"))[:12]
    yield f"{said.get('version', '?')}, commit {commit} of {said.get('repository', '?')}"
    epoch = said.get("epoch")
    if isinstance(epoch, int) and 0 <= epoch < 2**32:
        yield f"committed {datetime.fromtimestamp(epoch, UTC):%Y-%m-%d %H:%M} UTC"
    if said.get("dirty"):
        yield "the working tree had changes, which were not built"
    tag = said.get("tag")
    if isinstance(tag, dict):
        yield f"tag signed by {tag.get('signer') or 'nobody: farm.yaml asks for no signature'}"


def _inputs(run: Run) -> Iterator[str]:
    if not run.inputs_json.exists():
        yield "not complete"
        return
    said = _read(run.inputs_json)
    packages = said.get("packages")
    if not isinstance(packages, list):
        packages = []
    sizes = [package.get("size") for package in packages if isinstance(package, dict)]
    size = _bytes(sum(size for size in sizes if isinstance(size, int)))
    yield f"{len(sizes)} packages, {size}, lock {str(said.get('lock_sha256', '?'))[:12]}"


def _built(run: Run, name: str) -> str:
    folder = run.environment(name)
    if (folder / "failure.json").exists():
        return "failed"
    return "built" if (folder / "statement.json").exists() else "not built"


def _environment(run: Run, name: str) -> Iterator[str]:
    folder, built = run.environment(name), _built(run, name)
    if built == "failed":
        said = _read(folder / "failure.json")
        yield f"failed with status {said.get('status', '?')}: {said.get('what', '?')}"
        yield from (f"  {line}" for line in _last_lines(folder / "console.log"))
    else:
        yield built
    for path in sorted((folder / "artifacts").glob("*")):
        yield f"{_bytes(path.lstat().st_size)}  {path}"
    for log in LOGS:
        if (folder / log).exists():
            yield f"{_bytes((folder / log).lstat().st_size)}  {folder / log}"


def _verdict(run: Run) -> Iterator[str]:
    if not run.verdict_json.exists():
        yield "none yet"
        return
    said = _read(run.verdict_json)
    yield str(said.get("verdict", "damaged"))
    reasons, differences = said.get("reasons"), said.get("differences")
    if isinstance(reasons, list):
        yield from map(str, reasons)
    if isinstance(differences, list) and differences:
        yield f"{len(differences)} differences are in {run.verdict_json}"


def _report(run: Run) -> str:
    page = run.folder / "report" / "index.html"
    return str(page) if page.exists() else "not written"


def _last_lines(path: Path) -> list[str]:
    """Return the last lines of a log of any size."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
            return file.read(TAIL_BYTES).decode(errors="replace").splitlines()[-LOG_TAIL:]
    except OSError:
        return []


def _read(path: Path) -> dict[str, Any]:
    """Return a document, or nothing if it is damaged."""
    try:
        document = read_json(path, failure=UsageError)
    except UsageError:
        return {}
    return document if isinstance(document, dict) else {}


def _size(folder: Path) -> int:
    """Return how many bytes go when `folder` does: links into it that stay keep theirs."""
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
    """Return a size for people, no file being nothing."""
    return f"{-(-size // 2**10)} KiB" if size < 2**20 else f"{size / 2**20:.1f} MiB"


def _age(run: Run, now: datetime) -> str:
    seconds = int((now - run.started).total_seconds())
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit} ago"
    return f"{max(seconds, 0)} seconds ago"
