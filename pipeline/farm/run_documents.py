# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads the documents of a run, and turns their faults into errors for the user."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pipeline.base.errors import InfrastructureFailed, UsageError
from pipeline.base.files import read_json
from pipeline.base.plain import plain
from pipeline.documents.formats import LaterFormat
from pipeline.documents.inputs import Inputs
from pipeline.documents.malformed import Malformed
from pipeline.documents.source import Source
from pipeline.documents.verdict import Verdict
from pipeline.farm.run import Run

Read = TypeVar("Read")


def read_source(run: Run) -> Source:
    """Return `source.json`.

    Raise UsageError if there is none, InfrastructureFailed, which names the field, if it is
    damaged.
    """
    return _read(Source.of, run.source_json)


def read_inputs(run: Run) -> Inputs:
    """Return `inputs.json`; raise as `read_source` does."""
    return _read(Inputs.of, run.inputs_json)


def read_verdict(run: Run) -> Verdict:
    """Return `verdict.json`; raise as `read_source` does."""
    return _read(Verdict.of, run.verdict_json)


def _read(read: Callable[[Any], Read], path: Path) -> Read:
    document = read_json(path, failure=UsageError)
    try:
        return read(document)
    except LaterFormat as error:
        raise UsageError(f"cannot read {path}: {error}") from error
    except Malformed as error:
        raise InfrastructureFailed(
            plain(f"{path} is damaged: {error}"), remedy="run its stage again"
        ) from error
