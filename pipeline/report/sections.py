# SPDX-License-Identifier: GPL-3.0-or-later
"""The sections of a report, as `report.json` has them; `report.schema.json` describes them too.

All texts are safe to show, an empty one is none. Sizes are in bytes, times in seconds.
"""

from typing import TypedDict


class AskedSection(TypedDict):
    """What was asked for."""

    image: str
    commit: str
    tag: str
    source: str
    compression: str


class SourceSection(TypedDict):
    """What was built."""

    repository: str
    commit: str
    version: str
    committed: str
    dirty: bool


class InputsSection(TypedDict):
    """From what was built: how many packages, their size, the lock."""

    packages: int
    size: int
    lock_sha256: str


class FailureSection(TypedDict):
    """Why a build failed."""

    status: int | None
    what: str
    detail: list[str]


class StepSection(TypedDict):
    """A step of a build; `seconds` is None if it did not end."""

    step: str
    seconds: float | None


class LogSection(TypedDict):
    """The last lines of a log; `cut` if there were more."""

    name: str
    size: int
    lines: list[str]
    cut: bool


class EnvironmentSection(TypedDict):
    """What an environment was, what it did, and its logs."""

    name: str
    state: str
    failure: FailureSection | None
    started: str
    finished: str
    steps: list[StepSection]
    facts: dict[str, str]
    logs: list[LogSection]


class FactorSection(TypedDict):
    """A fact side by side, for each environment."""

    factor: str
    values: list[str]
    differs: bool


class ArtifactSection(TypedDict):
    """An artifact; `size` and `sha256` are None where the environments do not agree on them."""

    name: str
    size: int | None
    sha256: str | None
    equal: bool


class CauseSection(TypedDict):
    """What usually makes such a difference; a `weak` one is a guess."""

    name: str
    evidence: str
    weak: bool


class RowSection(TypedDict):
    """Sixteen bytes of each side in hexadecimal; `marks` number what differs."""

    offset: int
    left: str
    right: str
    marks: list[int]


class ValuesSection(TypedDict):
    """What a property is on each side."""

    kind: str
    left: str
    right: str


class ShownSection(TypedDict):
    """A difference to look at: lines of a unified diff, or rows of bytes; `cut` if more."""

    lines: list[str]
    rows: list[RowSection]
    cut: bool


class InsideSection(ShownSection):
    """What differs inside of a packed content."""

    where: str
    path: str
    kind: str
    left: str
    right: str
    offset: int | None
    bytes: int | None
    causes: list[CauseSection]


class DifferenceSection(ShownSection):
    """A path that differs; `expected` says until when it may, and why."""

    step: str
    path: str
    kinds: list[str]
    offset: int | None
    bytes: int | None
    values: list[ValuesSection]
    causes: list[CauseSection]
    inside: list[InsideSection]
    diffoscope: list[str]
    note: str
    expected: str


class Report(TypedDict):
    """All that a run's folder has to show."""

    format: str
    run: str
    started: str
    asked: AskedSection
    state: str
    headline: str
    only_expected: bool
    reasons: list[str]
    source: SourceSection | None
    inputs: InputsSection | None
    seconds: dict[str, float | None]
    environments: list[EnvironmentSection]
    factors: list[FactorSection]
    artifacts: list[ArtifactSection]
    differences: list[DifferenceSection]
    left_out: int
    diffoscope: str
    advice: dict[str, dict[str, str]]
    released: bool
