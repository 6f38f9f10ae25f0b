# SPDX-License-Identifier: GPL-3.0-or-later
"""The run folder: its files, which stages are complete, and why a stage runs again.

runs/<id>/
  run.json                       the request
  source.json  source.tar        stage 1
  inputs.json                    stage 2
  <environment>/                 stage 3: job.json console.log progress.jsonl timings.json
                                 ledger.jsonl.gz artifacts/ trees.json statement.json
                                 or, if the build failed, failure.json
  verdict.json                   stage 4
  explanation.json               what differs, down to the bytes, and why
  report/                        a report of all this: index.html, Markdown, JSON and JUnit
  bisect.json  bisect/           which factor makes the difference, and the logs of the trials
  release/                       stage 5
  .lock                          held while a stage works on the run
  stages/.<stage>.lock           held by the process that works on this stage
  stages/<stage>.json            hashes of what a stage read and wrote, written once it is complete
"""

import fcntl
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from pipeline.base.errors import TwinbuildError, UsageError, command_line
from pipeline.base.files import alone, read_json, write_json
from pipeline.base.git import without_password
from pipeline.documents.digest import sha256_file
from pipeline.documents.formats import check_format
from pipeline.documents.malformed import Malformed
from pipeline.farm.config import Name, Vary

# Names used in a run or a release, which no environment may have.
TAKEN = frozenset({"bisect", "lock", "release", "report", "stages", "statements"})
TIME_FORMAT = "%Y%m%dT%H%M%SZ"
FORMAT = "twinbuild-run/1"  # of run.json; version 0.1 wrote no format
RUN_ID = re.compile(r"[0-9]{8}T[0-9]{6}Z-[a-z0-9-]{1,40}-[0-9a-f]{4}")


class Request(BaseModel):
    """The request of a run: `run.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image: Name
    commit: str  # any commit-ish
    source: str | None = None  # another repository, without a password; None means this one
    tag: str | None = None  # set for a release, which is built without caches
    compression: Literal["fast", "strong"] = "fast"
    # which factors the environments vary
    vary: Vary = Field(default="default", validate_default=True)
    environments: Annotated[tuple[Name, ...], Field(min_length=1)]

    @classmethod
    def of(cls, document: object, *, where: str = "what was asked for", remedy: str = "") -> Self:
        """Return `document` as a request; raise UsageError, which names the fault, if invalid."""
        try:
            if isinstance(document, dict) and "format" in document:
                check_format(document["format"], FORMAT)
                document = {name: document[name] for name in document.keys() - {"format"}}
            return cls.model_validate(document)
        except Malformed as error:
            raise UsageError(f"{where} cannot be read: {error}") from error
        except ValidationError as error:
            fault = error.errors(include_url=False)[0]
            name = ".".join(map(str, fault["loc"]))
            what = f"{where} is not possible: {name}: {fault['msg']}"
            raise UsageError(what, remedy=remedy) from error

    @field_validator("environments")
    @classmethod
    def _folders_of_their_own(cls, environments: tuple[Name, ...]) -> tuple[Name, ...]:
        if TAKEN & set(environments) or len(set(environments)) != len(environments):
            raise ValueError(f"each needs a name of its own, and none of {sorted(TAKEN)}")
        return environments

    @field_validator("vary")
    @classmethod
    def _all_for_a_release(cls, vary: Vary, info: ValidationInfo) -> Vary:
        if info.data.get("tag") and vary != "all":
            raise ValueError("a release is built with all that can be varied")
        return vary

    @field_validator("source")
    @classmethod
    def _no_password(cls, source: str | None) -> str | None:
        return source and without_password(source)


@dataclass(frozen=True)
class Run:
    """An existing run folder."""

    folder: Path

    @property
    def id(self) -> str:
        """The run's name."""
        return self.folder.name

    @property
    def started(self) -> datetime:
        """The time when it was started, from its name."""
        return datetime.strptime(self.id[:16], TIME_FORMAT).replace(tzinfo=UTC)

    @property
    def source_json(self) -> Path:
        """What is built: repository, commit, version, date."""
        return self.folder / "source.json"

    @property
    def source_tar(self) -> Path:
        """The exported commit."""
        return self.folder / "source.tar"

    @property
    def inputs_json(self) -> Path:
        """The locked packages, all of which are in the store."""
        return self.folder / "inputs.json"

    @property
    def verdict_json(self) -> Path:
        """The result of the comparison of the builds."""
        return self.folder / "verdict.json"

    @property
    def release(self) -> Path:
        """The folder of the files to be published."""
        return self.folder / "release"

    def environment(self, name: str) -> Path:
        """Return the folder of the build in the environment `name`."""
        return self.folder / name

    def request(self) -> Request:
        """Return the run's request; raise UsageError if `run.json` is missing or malformed."""
        path = self.folder / "run.json"
        document = read_json(path, failure=UsageError)
        remedy = f"{command_line('build')} starts another run"
        return Request.of(document, where=os.fspath(path), remedy=remedy)

    @contextmanager
    def held(self, *, alone: bool = False) -> Iterator[None]:
        """Keep other processes from removing the run during the block; with `alone`, from using it.

        Raise UsageError at once if another process holds a conflicting lock.
        """
        with (self.folder / ".lock").open("wb") as file:
            try:
                fcntl.flock(file, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UsageError(f"another process is at work on the run {self.id}") from None
            yield

    @contextmanager
    def at(self, stage: str, busy: Callable[[str], None]) -> Iterator[None]:
        """Keep other processes out of a stage of this run during the block.

        If one works on it, `busy` is called with a message before this waits; it may raise instead.
        """
        what = f"another process is at work on the stage {stage} of the run {self.id}"
        with alone(self.folder / "stages" / f".{stage}.lock", lambda: busy(what)):
            yield

    @contextmanager
    def kept_if_possible(self, notify: Callable[[str], None]) -> Iterator[None]:
        """Remove a run that starts in the block if that raises UsageError: an invalid request."""
        began = self.source_json.exists()
        try:
            yield
        except UsageError:
            if not began and self.folder.exists():
                shutil.rmtree(self.folder)
                notify(f"the run {self.id} is removed: nothing was built")
            raise

    def why_again(self, stage: str, reads: Mapping[str, str]) -> str | None:
        """Return the reason why `stage` must run, as text, or None if it is complete.

        `reads` are the digests of everything that the stage depends on, by name.
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

    def complete(
        self,
        stage: str,
        reads: Mapping[str, str],
        writes: Iterable[Path],
        *,
        since: float | None = None,
    ) -> None:
        """Record what `stage` read and wrote; call this once everything is on disk.

        `since` is when it began, by the monotonic clock; the report shows how long it took.
        """
        wrote = {str(path.relative_to(self.folder)): sha256_file(path) for path in writes}
        record: dict[str, object] = {"reads": dict(reads), "writes": wrote}
        if since is not None:
            record["seconds"] = round(time.monotonic() - since, 3)
        write_json(self.folder / "stages" / f"{stage}.json", record)


def create(runs: Path, request: Request) -> Run:
    """Make a new run folder below `runs`."""
    now = datetime.now(UTC).strftime(TIME_FORMAT)
    run = Run(runs / f"{now}-{request.image}-{secrets.token_hex(2)}")
    run.folder.mkdir(parents=True)
    write_json(run.folder / "run.json", {"format": FORMAT, **request.model_dump()})
    return run


def open_run(runs: Path, run_id: str) -> Run:
    """Return the run `run_id`; raise UsageError if there is none."""
    if "/" in run_id or not _is_run(runs / run_id):
        raise UsageError(f"there is no run {run_id!r}", remedy=f"{command_line('runs')} lists them")
    return Run(runs / run_id)


def list_runs(runs: Path) -> list[Run]:
    """Return all runs below `runs`, the newest first."""
    if not runs.is_dir():
        return []
    found = [Run(path) for path in runs.iterdir() if _is_run(path)]
    return sorted(found, key=lambda run: run.id, reverse=True)


def _is_run(folder: Path) -> bool:
    """Tell whether a folder is a run: its name has a valid start time, and it has a `run.json`."""
    if not RUN_ID.fullmatch(folder.name) or not (folder / "run.json").is_file():
        return False
    try:
        return Run(folder).started.year > 0
    except ValueError:
        return False
