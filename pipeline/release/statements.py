# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks one environment's statement at the gate: its signature, and that it is about this run."""

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from pipeline.base import dsse
from pipeline.base.errors import Differs, SignatureInvalid, command_line
from pipeline.base.plain import plain
from pipeline.documents import statement
from pipeline.documents.digest import sha256_file
from pipeline.documents.dsse import PAYLOAD_LIMIT
from pipeline.documents.fields import SHA256, time_text
from pipeline.documents.job import Job
from pipeline.documents.json_form import json_bytes, parse_json
from pipeline.documents.malformed import Malformed
from pipeline.documents.statement import Statement
from pipeline.farm.run import Run

SIZE_LIMIT = 2 * PAYLOAD_LIMIT
CLOCKS_APART = timedelta(hours=1)  # the most between two machines of a farm
AGAIN = "build again"


@dataclass(frozen=True)
class Signed:
    """A statement signed by its environment's key, and the bytes of its envelope."""

    statement: Statement
    content: bytes


def read_signed(run: Run, environment: str, key: str) -> Signed:
    """Return the statement of an environment; raise SignatureInvalid unless `key` signed it."""
    path = run.environment(environment) / "statement.json"
    try:
        content = _read(path)
        return Signed(check_statement(dsse.verify(parse_json(content), [key])), content)
    except (ValueError, RecursionError) as error:
        what = f"the statement of {environment} cannot be trusted: {path} is not JSON: {error}"
        raise SignatureInvalid(plain(what)) from error
    except SignatureInvalid as error:
        what = f"the statement of {environment} cannot be trusted: {error.what}"
        raise SignatureInvalid(what, remedy=error.remedy) from error


def check_statement(document: object) -> Statement:
    """Return the statement in a document; raise SignatureInvalid if it is malformed."""
    try:
        return statement.check(document)
    except Malformed as error:
        raise SignatureInvalid(str(error)) from error


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(SIZE_LIMIT + 1)
    except OSError as error:
        raise SignatureInvalid(f"cannot read {path}: {error.strerror}") from error
    if len(content) > SIZE_LIMIT:
        raise SignatureInvalid(f"{path} is larger than {SIZE_LIMIT} bytes")
    return content


def check_signed(
    name: str,
    stated: Statement,
    expected: Mapping[str, str],
    job: Job,
    *,
    since: datetime,
    now: datetime,
) -> None:
    """Raise SignatureInvalid unless `stated` is about a release build of this run by `name`.

    `expected` are values of its fields, `job` is the job except for the guest. The build must have
    been made between `since` and `now`.
    """
    if stated.environment != name:
        raise SignatureInvalid(f"the statement of {name} is by {stated.environment}")
    for field, value in expected.items():
        found = getattr(stated, field)
        if found != value:
            raise SignatureInvalid(
                f"the statement of {name} is of another {field}: {found}, not {value}",
                remedy=AGAIN,
            )
    _check_job(name, stated, job)
    if why := statement.why_no_release(stated):
        raise SignatureInvalid(
            plain(f"the build of {name} {why}"),
            remedy=f"{command_line('release --tag TAG')} builds anew",
        )
    if stated.started < since - CLOCKS_APART or now + CLOCKS_APART < stated.finished:
        raise SignatureInvalid(
            f"the build of {name}, from {time_text(stated.started)} to"
            f" {time_text(stated.finished)}, was not made between the run's beginning and"
            " now",
            remedy="set the clocks of the farm's machines, and build again",
        )


def _check_job(name: str, stated: Statement, job: Job) -> None:
    """Raise SignatureInvalid unless the stated job equals `job`, also in types, with any guest."""
    guest = stated.job.get("guest_sha256")
    if not isinstance(guest, str) or not SHA256.fullmatch(guest):
        raise SignatureInvalid(f"the job of {name} has no valid guest_sha256")
    job = replace(job, guest_sha256=guest)
    expected = job.document()
    for field in sorted(expected.keys() | stated.job.keys()):
        if field not in expected or field not in stated.job:
            what = f"the job of {name} {'lacks' if field in expected else 'has the odd'} {field}"
            raise SignatureInvalid(plain(what), remedy=AGAIN)
        values = [json_bytes({field: document[field]}) for document in (stated.job, expected)]
        if values[0] != values[1]:
            raise SignatureInvalid(
                plain(
                    f"the job of {name} has another {field}: {stated.job[field]!r:.100},"
                    f" not {expected[field]!r:.100}"
                ),
                remedy=AGAIN,
            )
    names = job.names.all()
    if len(set(names)) != len(names) or set(names) != stated.artifacts.keys():
        odd = min(set(names) ^ stated.artifacts.keys(), default="two of one name")
        raise SignatureInvalid(
            plain(f"the artifacts that {name} states are not those of its job: {odd}"), remedy=AGAIN
        )


def check_files(run: Run, name: str, stated: Statement, sizes: Mapping[str, int | None]) -> None:
    """Hash all files that an environment returned; raise Differs if they are not what it signed.

    `sizes` are the artifacts' sizes in bytes, from the verdict.
    """
    folder = run.environment(name)
    artifacts = folder / "artifacts"
    present = {path.name for path in artifacts.iterdir()} if artifacts.is_dir() else set()
    odd = sorted(present ^ set(stated.artifacts))
    if odd:
        which = "was added" if odd[0] in present else "is missing"
        raise Differs(plain(f"{artifacts / odd[0]} {which} after the build"), remedy=AGAIN)
    signed = {artifacts / file: digest for file, digest in stated.artifacts.items()}
    signed |= {folder / file: digest for file, digest in stated.byproducts.items()}
    for path, digest in signed.items():
        if not is_plain_file(path) or sha256_file(path) != digest:
            raise Differs(f"{path} was changed after the build", remedy=AGAIN)
    wrong = [a for a, size in sizes.items() if (artifacts / a).stat().st_size != size]
    if wrong:
        raise Differs(f"the verdict has another size of {wrong[0]}", remedy="compare again")
    job = folder / "job.json"
    if not is_plain_file(job) or job.read_bytes() != json_bytes(stated.job):
        raise Differs(f"{job} was changed after the build", remedy=AGAIN)


def is_plain_file(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is a regular file, and not a link."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except FileNotFoundError:
        return False
