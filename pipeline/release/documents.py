# SPDX-License-Identifier: GPL-3.0-or-later
"""What the gate reads of a run's documents, in the one form that their stages write.

A field that is missing, of another type or outside its range is a damaged document; nothing is
converted. What the gate does not rely on is not read.
"""

import os
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from pipeline.base.errors import InfrastructureFailed, UsageError
from pipeline.base.files import read_json
from pipeline.base.plain import plain

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Document(BaseModel):
    """A document, or a part of one."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class Artifact(Document):
    """An entry of `artifacts` in `verdict.json`; size and digest are None where builds differ."""

    name: str
    size: int | None
    sha256: Sha256 | None


class Verdict(Document):
    """`verdict.json`."""

    format: Literal["twinbuild-verdict/1"]
    verdict: Literal["match", "differ", "failed"]
    environments: list[str]
    artifacts: list[Artifact]
    reasons: list[str]
    differences: list[dict[str, Any]]
    expected: list[dict[str, Any]] = []
    only_expected: bool = False


AnyDocument = TypeVar("AnyDocument", bound=Document)


def read(model: type[AnyDocument], path: Path) -> tuple[AnyDocument, dict[str, Any]]:
    """Return a document of a run, as far as it is relied upon, and whole.

    Raise UsageError if there is none, InfrastructureFailed that names the field if it is damaged.
    """
    document: Any = read_json(path, failure=UsageError)
    try:
        return model.model_validate(document), document
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(map(str, fault["loc"]))
        raise InfrastructureFailed(
            plain(f"{os.fspath(path)} is damaged: {where}: {fault['msg']}"),
            remedy="run its stage again",
        ) from error
