# SPDX-License-Identifier: GPL-3.0-or-later
"""A view of a run folder, for everything that shows or explains a run.

Its documents may be missing, damaged or hostile, in any run, and especially in one that failed. So
nothing is raised here: a document is present, missing, or unreadable for a stated reason, and
malformed fields become None. Texts are as a build wrote them: callers make them safe before they
show them. A malformed explanation is unreadable as a whole: the farm wrote it and can do so again.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Generic, Literal, TypeVar

from pipeline.base import dsse
from pipeline.base.errors import SignatureInvalid, TwinbuildError, UsageError
from pipeline.base.files import open_plain, read_json
from pipeline.documents.explanation import Explanation
from pipeline.documents.json_form import parse_json
from pipeline.documents.malformed import Malformed
from pipeline.farm.run import Request, Run

PROGRESS_BYTES = 16 * 1024 * 1024
STEPS_LIMIT = 500
SECONDS_LIMIT = 1e7
EPOCH_LIMIT = 2**32

T = TypeVar("T")


@dataclass(frozen=True)
class RunDocument(Generic[T]):
    """A document of a run: its `content`, or None if the file is missing or unreadable.

    `fault` says why a file that is there cannot be read.
    """

    content: T | None
    fault: str = ""

    @property
    def exists(self) -> bool:
        """Whether the file exists, readable or not."""
        return self.content is not None or bool(self.fault)


@dataclass(frozen=True)
class SourceView:
    """`source.json`: what is built. `epoch` is the commit's time in seconds since 1970, UTC."""

    repository: str | None
    commit: str | None
    version: str | None
    epoch: int | None
    dirty: bool  # the working tree had changes that were not committed
    tagged: bool
    signer: str | None  # who signed the tag; None if no signature was required


@dataclass(frozen=True)
class InputsView:
    """`inputs.json`: the number of packages, the sum of their sizes in bytes, the lock's digest."""

    packages: int
    size: int
    lock_sha256: str | None


@dataclass(frozen=True)
class DifferenceView:
    """A path that differs in one property, and the step since which it does."""

    step: str | None
    path: str | None
    kind: str | None


@dataclass(frozen=True)
class ArtifactView:
    """An artifact; `size` and `sha256` are None if the environments do not agree on them."""

    name: str | None
    size: int | None
    sha256: str | None


@dataclass(frozen=True)
class ExpectedView:
    """A path that the image allows to differ."""

    path: str | None
    until: str | None
    reason: str | None


@dataclass(frozen=True)
class VerdictView:
    """`verdict.json`: `match`, `differ` or `failed`, the reasons, and the differences."""

    verdict: str | None
    only_expected: bool
    reasons: tuple[str, ...]
    differences: tuple[DifferenceView, ...]
    artifacts: tuple[ArtifactView, ...]
    expected: tuple[ExpectedView, ...]


@dataclass(frozen=True)
class FailureView:
    """`failure.json`: the exit status of a failed build, the reason, and its machine's factors."""

    status: int | None
    what: str | None
    detail: str | None
    machine: Mapping[str, object]


@dataclass(frozen=True)
class StatementView:
    """The payload of `statement.json`, with its signature not verified: for display only."""

    subject: object
    predicate: Mapping[str, object]

    @property
    def machine(self) -> Mapping[str, object]:
        """The factors of the build's machine."""
        definition = mapping(self.predicate.get("buildDefinition"))
        return mapping(mapping(definition.get("internalParameters")).get("machine"))

    @property
    def started(self) -> str | None:
        """When the build began."""
        return _text(self._metadata.get("startedOn"))

    @property
    def finished(self) -> str | None:
        """When the build ended."""
        return _text(self._metadata.get("finishedOn"))

    @property
    def _metadata(self) -> Mapping[str, object]:
        return mapping(mapping(self.predicate.get("runDetails")).get("metadata"))


@dataclass(frozen=True)
class TimedStep:
    """A step of a build; `seconds` is None if it did not finish."""

    name: str
    seconds: float | None


@dataclass(frozen=True)
class EnvironmentView:
    """The folder of one environment of a run."""

    name: str
    folder: Path

    @property
    def console_log(self) -> Path:
        """Everything that the machine wrote to its console."""
        return self.folder / "console.log"

    @property
    def state(self) -> Literal["failed", "built", "not built"]:
        """The state of its build."""
        if self.failure.exists:
            return "failed"
        return "built" if self.statement.exists else "not built"

    @cached_property
    def failure(self) -> RunDocument[FailureView]:
        """The failure of its build, if it failed."""
        fields = _read(self.folder / "failure.json")
        if fields.content is None:
            return RunDocument(None, fields.fault)
        status, what, detail, machine = map(
            fields.content.get, ("status", "what", "detail", "machine")
        )
        return RunDocument(
            FailureView(
                whole_number(status),
                _text(what),
                detail if isinstance(detail, str) else None,
                mapping(machine),
            )
        )

    @cached_property
    def statement(self) -> RunDocument[StatementView]:
        """The environment's statement about its build."""
        path = self.folder / "statement.json"
        envelope = _read(path)
        if envelope.content is None:
            return RunDocument(None, envelope.fault)
        try:
            payload = dsse.unverified_payload(envelope.content)
        except SignatureInvalid as error:
            return RunDocument(None, f"{path}: {error}")
        return RunDocument(StatementView(payload.get("subject"), mapping(payload.get("predicate"))))

    @cached_property
    def steps(self) -> tuple[TimedStep, ...]:
        """The steps of its build in order: from timings.json, or else from progress.jsonl."""
        timed = mapping((_read(self.folder / "timings.json").content or {}).get("steps"))
        if timed:
            steps = list(timed.items())[:STEPS_LIMIT]
            return tuple(TimedStep(name, _seconds(seconds)) for name, seconds in steps)
        found: dict[str, float | None] = {}
        for record in _records(self.folder / "progress.jsonl"):
            if record.get("record") in ("step", "step-done") and len(found) < STEPS_LIMIT:
                found[_text(record.get("step")) or ""] = _seconds(record.get("seconds"))
        return tuple(TimedStep(name, seconds) for name, seconds in found.items())


@dataclass(frozen=True)
class RunView:
    """A run as it is now: each document is read when it is first asked for, and only once."""

    run: Run

    @cached_property
    def request(self) -> RunDocument[Request]:
        """The request of the run."""
        try:
            return RunDocument(self.run.request())
        except TwinbuildError as error:
            return RunDocument(None, str(error))

    @cached_property
    def source(self) -> RunDocument[SourceView]:
        """What is built."""
        document = _read(self.run.source_json)
        if document.content is None:
            return RunDocument(None, document.fault)
        fields = document.content
        epoch = whole_number(fields.get("epoch"))
        tag = fields.get("tag")
        return RunDocument(
            SourceView(
                _text(fields.get("repository")),
                _text(fields.get("commit")),
                _text(fields.get("version")),
                epoch if epoch is not None and epoch < EPOCH_LIMIT else None,
                fields.get("dirty") is True,
                isinstance(tag, dict),
                _text(mapping(tag).get("signer")),
            )
        )

    @cached_property
    def inputs(self) -> RunDocument[InputsView]:
        """The inputs of the builds."""
        document = _read(self.run.inputs_json)
        if document.content is None:
            return RunDocument(None, document.fault)
        packages = _list(document.content.get("packages"))
        sizes = [whole_number(mapping(package).get("size")) or 0 for package in packages]
        lock = _text(document.content.get("lock_sha256"))
        return RunDocument(InputsView(len(sizes), sum(sizes), lock))

    @cached_property
    def environments(self) -> Mapping[str, EnvironmentView]:
        """The requested environments, by name; none if the request cannot be read."""
        names = self.request.content.environments if self.request.content else ()
        return {name: EnvironmentView(name, self.run.environment(name)) for name in names}

    @cached_property
    def verdict(self) -> RunDocument[VerdictView]:
        """The result of the comparison."""
        document = _read(self.run.verdict_json)
        if document.content is None:
            return RunDocument(None, document.fault)
        return RunDocument(_verdict(document.content))

    @cached_property
    def explanation(self) -> RunDocument[Explanation]:
        """The differences, down to the bytes; unreadable if any field is malformed."""
        path = self.run.folder / "explanation.json"
        document = _read(path)
        if document.content is None:
            return RunDocument(None, document.fault)
        try:
            return RunDocument(Explanation.of(document.content))
        except Malformed as error:
            return RunDocument(None, f"{path}: {error}")

    @property
    def page(self) -> Path:
        """The HTML page of the report, which may not exist."""
        return self.run.folder / "report" / "index.html"

    @property
    def released(self) -> bool:
        """Whether the run has a signed release."""
        return (self.run.release / "SHA256SUMS.asc").exists()

    def seconds(self, stage: str) -> float | None:
        """Return how long a stage took when it last ran."""
        record = _read(self.run.folder / "stages" / f"{stage}.json").content or {}
        return _seconds(record.get("seconds"))


def mapping(value: object) -> Mapping[str, object]:
    """Return a value if it is a JSON object, or else an empty one."""
    return value if isinstance(value, dict) else {}


def whole_number(value: object) -> int | None:
    """Return a value if it is an integer from 0 to 2**63 - 1, or else None."""
    return value if type(value) is int and 0 <= value < 2**63 else None


def read_end(path: Path, limit: int) -> bytes:
    """Return the last `limit` bytes of a regular file; nothing if it cannot be read."""
    try:
        with open_plain(path) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - limit))
            return file.read(limit)
    except OSError:
        return b""


def _read(path: Path) -> RunDocument[Mapping[str, object]]:
    """Read a JSON object that is not empty."""
    with suppress(OSError):  # a path that cannot be examined is unreadable, not missing
        if not path.exists():
            return RunDocument(None)
    try:
        fields = read_json(path, failure=UsageError)
    except UsageError as error:
        return RunDocument(None, str(error))
    if not isinstance(fields, dict) or not fields:
        return RunDocument(None, f"{path} is not a JSON object with fields")
    return RunDocument(fields)


def _records(path: Path) -> Iterator[Mapping[str, object]]:
    """Yield the records of steps at the end of `progress.jsonl`."""
    for line in read_end(path, PROGRESS_BYTES).splitlines():
        if b'"step' in line:
            with suppress(ValueError, RecursionError):
                yield mapping(parse_json(line))


def _verdict(fields: Mapping[str, object]) -> VerdictView:
    reasons = (_text(reason) for reason in _list(fields.get("reasons")))
    differences, artifacts, expected = (
        [mapping(entry) for entry in _list(fields.get(name))]
        for name in ("differences", "artifacts", "expected")
    )
    return VerdictView(
        _text(fields.get("verdict")),
        fields.get("only_expected") is True,
        tuple(reason for reason in reasons if reason is not None),
        tuple(DifferenceView(*_texts(one, "step", "path", "kind")) for one in differences),
        tuple(_artifact(one) for one in artifacts),
        tuple(ExpectedView(*_texts(one, "path", "until", "reason")) for one in expected),
    )


def _artifact(fields: Mapping[str, object]) -> ArtifactView:
    digest = fields.get("sha256")
    size = whole_number(fields.get("size"))
    return ArtifactView(
        _text(fields.get("name")), size, digest if isinstance(digest, str) else None
    )


def _texts(fields: Mapping[str, object], *names: str) -> Iterator[str | None]:
    return (_text(fields.get(name)) for name in names)


def _text(value: object) -> str | None:
    """Return a value if it is text, or a number as text, or else None."""
    return str(value) if isinstance(value, str | int | float) else None


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _seconds(value: object) -> float | None:
    """Return a duration, rounded to milliseconds; None if it is not a plausible one."""
    if not isinstance(value, int | float) or not 0 <= value < SECONDS_LIMIT:
        return None
    return round(float(value), 3)
