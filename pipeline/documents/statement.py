# SPDX-License-Identifier: GPL-3.0-or-later
"""What an environment states about its build: an in-toto Statement v1 with SLSA provenance v1.

The shape is that of `docs/reference/documents.md`; the stage that makes
statements, the gate and `verify.py`, which this is a part of, all use it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from pipeline.documents.fields import SHA256
from pipeline.documents.malformed import Malformed

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "https://twinbuild.invalid/build/v1"
ENVIRONMENT_ID = "https://twinbuild.invalid/environment/"

# What a build says while it runs, with times to fractions of a second: never the same twice.
LOGS = ("console.log", "progress.jsonl", "timings.json")
# Factors that are drawn at random for each run: they do not tell machines apart.
DRAWN = frozenset({"directory_seed", "environment_variables"})
RELEASED = "all"  # the level of variation of a release
BYPRODUCTS = ("console.log", "ledger.jsonl.gz", "progress.jsonl", "timings.json")
FILES_LIMIT = 1000

COMMIT = re.compile(r"[0-9a-f]{40}")
FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~-]{0,199}")
ENVIRONMENT = re.compile(r"[a-z][a-z0-9-]{0,39}")
TIME = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True)
class Statement:
    """One build: who built what, from what, where, with what result.

    `job` is the environment's `job.json`, `machine` what the environment is and varied on purpose;
    `artifacts` and `byproducts` are SHA-256 digests by file name; the times are in UTC.
    """

    environment: str
    run_id: str
    repository: str
    commit: str
    tag: str | None
    image: str
    compression: str
    lock_sha256: str
    job: Mapping[str, Any]
    machine: Mapping[str, Any]
    artifacts: Mapping[str, str]
    byproducts: Mapping[str, str]
    started: datetime
    finished: datetime


def make(statement: Statement) -> dict[str, Any]:
    """Return the document that is signed."""
    return {
        "_type": STATEMENT_TYPE,
        "subject": _digest_list(statement.artifacts),
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "repository": statement.repository,
                    "commit": statement.commit,
                    "tag": statement.tag,
                    "image": statement.image,
                    "compression": statement.compression,
                },
                "internalParameters": {
                    "job": dict(statement.job),
                    "machine": dict(statement.machine),
                },
                "resolvedDependencies": [
                    {
                        "uri": f"git+{statement.repository}@{statement.commit}",
                        "digest": {"gitCommit": statement.commit},
                    },
                    {"name": "lock", "digest": {"sha256": statement.lock_sha256}},
                ],
            },
            "runDetails": {
                "builder": {"id": ENVIRONMENT_ID + statement.environment},
                "metadata": {
                    "invocationId": statement.run_id,
                    "startedOn": statement.started.astimezone(timezone.utc).strftime(TIME),
                    "finishedOn": statement.finished.astimezone(timezone.utc).strftime(TIME),
                },
                "byproducts": _digest_list(statement.byproducts),
            },
        },
    }


def _digest_list(files: Mapping[str, str]) -> list[dict[str, Any]]:
    return [{"name": name, "digest": {"sha256": files[name]}} for name in sorted(files)]


def read_statement(document: Any) -> Statement:
    """Return what a document states; raise ValueError if it is malformed."""
    try:
        return _read(document)
    except (KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        raise ValueError(f"{error!r:.200}") from error


def check(document: Any) -> Statement:
    """Parse the document of an envelope whose signature holds.

    Raise Malformed if it is not in the form that `make` gives it, or contradicts itself.
    """
    try:
        statement = read_statement(document)
        check_whole(statement, document)
    except ValueError as error:
        raise Malformed(f"a statement is malformed: {error}"[:300]) from error
    return statement


def check_whole(statement: Statement, document: Any) -> None:
    """Raise ValueError unless the statement agrees with itself, and the document is all of it."""
    for name in ("commit", "image", "compression", "lock_sha256"):
        if statement.job.get(name) != getattr(statement, name):
            raise ValueError(f"the job has another {name}")
    if not statement.artifacts:
        raise ValueError("it names no artifact")
    if set(statement.byproducts) != set(BYPRODUCTS):
        raise ValueError(f"its by-products are not {', '.join(BYPRODUCTS)}")
    if statement.finished < statement.started:
        raise ValueError("it was finished before it was started")
    if make(statement) != document:
        raise ValueError("it has fields that do not belong to it")


def why_no_release(statement: Statement) -> str | None:
    """Return why a build is not one that a release is made of."""
    machine = statement.machine
    if machine.get("kept_trees") != []:
        return "began with a kept tree, or does not say that it did not"
    level = machine.get("vary")
    if level != RELEASED or not isinstance(machine.get("varied"), dict):
        return f"varied {level!r:.80}, and a release varies {RELEASED!r}"
    return None


def why_one_build(one: Statement, other: Statement) -> str | None:
    """Return what shows that two statements are of one build: its logs, or its factors."""
    for name in LOGS:
        if one.byproducts[name] == other.byproducts[name]:
            return f"their {name} is the same"
    if _factors(one) == _factors(other):
        return "nothing was varied between them"
    return None


def _factors(stated: Statement) -> dict[str, Any]:
    varied = stated.machine["varied"]
    return {name: varied[name] for name in varied.keys() - DRAWN - {"description"}}


def _read(document: Any) -> Statement:
    definition = document["predicate"]["buildDefinition"]
    for found, known in (
        (document["_type"], STATEMENT_TYPE),
        (document["predicateType"], PREDICATE_TYPE),
        (definition["buildType"], BUILD_TYPE),
    ):
        if found != known:
            raise ValueError(
                f"it is of the type {found!r:.100}, not {known}; if a later Twinbuild wrote it,"
                " update this one"
            )
    details = document["predicate"]["runDetails"]
    external = definition["externalParameters"]
    identity = details["builder"]["id"]
    return Statement(
        environment=_well_formed(ENVIRONMENT, identity.removeprefix(ENVIRONMENT_ID)),
        run_id=_text(details["metadata"]["invocationId"]),
        repository=_text(external["repository"]),
        commit=_well_formed(COMMIT, external["commit"]),
        tag=None if external["tag"] is None else _text(external["tag"]),
        image=_well_formed(ENVIRONMENT, external["image"]),
        compression=_text(external["compression"]),
        lock_sha256=_well_formed(SHA256, definition["resolvedDependencies"][1]["digest"]["sha256"]),
        job=dict(definition["internalParameters"]["job"]),
        machine=dict(definition["internalParameters"]["machine"]),
        artifacts=_named_files(document["subject"]),
        byproducts=_named_files(details["byproducts"]),
        started=_time(details["metadata"]["startedOn"]),
        finished=_time(details["metadata"]["finishedOn"]),
    )


def _named_files(entries: Any) -> dict[str, str]:
    if len(entries) > FILES_LIMIT:
        raise ValueError(f"more than {FILES_LIMIT} files")
    files = {
        _well_formed(FILE_NAME, entry["name"]): _well_formed(SHA256, entry["digest"]["sha256"])
        for entry in entries
    }
    if len(files) != len(entries):
        raise ValueError("a file stands in it twice")
    return files


def _well_formed(pattern: re.Pattern[str], value: str) -> str:
    if not pattern.fullmatch(value):
        raise ValueError(f"bad value {value[:100]!r}")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.isprintable() or not 0 < len(value) <= 2000:
        raise ValueError(f"bad text {value!r:.100}")
    return value


def _time(value: str) -> datetime:
    return datetime.strptime(value, TIME).replace(tzinfo=timezone.utc)
