"""The run folder: what stands where, what is complete, and why a stage runs again.

runs/<id>/
  run.json                       what was asked for
  source.json  source.tar        stage 1
  inputs.json                    stage 2
  <environment>/                 stage 3: job.json console.log progress.jsonl timings.json
                                 ledger.jsonl.gz artifacts/ statement.json
  verdict.json                   stage 4
  release/                       stage 5
  stages/<stage>.json            what a stage read and wrote, by hash, written when it is complete
"""

import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from pipeline.errors import TwinbuildError, UsageError
from pipeline.files import read_json, sha256_file, write_json

RUN_ID = re.compile(r"[0-9]{8}T[0-9]{6}Z-[a-z0-9-]{1,40}-[0-9a-f]{4}")


class Request(BaseModel):
    """What a run was asked for: `run.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image: str
    commit: str  # any commit-ish
    source: str | None = None  # another repository; None is this one
    tag: str | None = None  # set for a release, which is built without caches
    compression: str = "fast"
    environments: tuple[str, ...]


@dataclass(frozen=True)
class Run:
    """A run folder that exists."""

    folder: Path

    @property
    def id(self) -> str:
        """The run's name."""
        return self.folder.name

    @property
    def source_json(self) -> Path:
        return self.folder / "source.json"

    @property
    def source_tar(self) -> Path:
        return self.folder / "source.tar"

    @property
    def inputs_json(self) -> Path:
        return self.folder / "inputs.json"

    @property
    def verdict_json(self) -> Path:
        return self.folder / "verdict.json"

    @property
    def release(self) -> Path:
        return self.folder / "release"

    def environment(self, name: str) -> Path:
        """Return the folder of what the environment `name` gave back."""
        return self.folder / name

    def request(self) -> Request:
        """Return what was asked for."""
        return Request.model_validate(read_json(self.folder / "run.json", failure=UsageError))

    def why_again(self, stage: str, reads: Mapping[str, str]) -> str | None:
        """Return why `stage` must run, as words for people, or None if it is complete.

        `reads` are the digests of all that the stage depends on, by name.
        """
        record_path = self.folder / "stages" / f"{stage}.json"
        if not record_path.exists():
            return "it has not run yet"
        try:
            record = read_json(record_path, failure=UsageError)
            before, wrote = dict(record["reads"]), dict(record["writes"])
        except (TwinbuildError, KeyError, TypeError, ValueError):
            return "its record is damaged"
        changed = sorted(n for n in before.keys() | reads.keys() if before.get(n) != reads.get(n))
        if changed:
            return f"changed since: {', '.join(changed)}"
        for name, digest in sorted(wrote.items()):
            path = self.folder / name
            if not path.is_file():
                return f"{name} is missing"
            if sha256_file(path) != digest:
                return f"{name} was changed after it was written"
        return None

    def complete(self, stage: str, reads: Mapping[str, str], writes: Iterable[Path]) -> None:
        """Record that `stage` read and wrote this; called when all of it is on disk."""
        wrote = {str(path.relative_to(self.folder)): sha256_file(path) for path in writes}
        write_json(
            self.folder / "stages" / f"{stage}.json", {"reads": dict(reads), "writes": wrote}
        )


def create(runs: Path, request: Request) -> Run:
    """Make a new run folder below `runs`."""
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    run = Run(runs / f"{now}-{request.image}-{secrets.token_hex(2)}")
    run.folder.mkdir(parents=True)
    write_json(run.folder / "run.json", request.model_dump())
    return run


def open_run(runs: Path, run_id: str) -> Run:
    """Return the run `run_id`; raise UsageError if there is none."""
    if not RUN_ID.fullmatch(run_id) or not (runs / run_id / "run.json").is_file():
        raise UsageError(f"there is no run {run_id!r}", remedy="`invoke runs` lists them")
    return Run(runs / run_id)


def list_runs(runs: Path) -> list[Run]:
    """Return all runs below `runs`, the newest first."""
    if not runs.is_dir():
        return []
    found = [Run(path) for path in runs.iterdir() if RUN_ID.fullmatch(path.name)]
    return sorted(
        (r for r in found if (r.folder / "run.json").is_file()), key=lambda r: r.id, reverse=True
    )
