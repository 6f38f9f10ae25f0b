"""What an environment states about its build: an in-toto Statement v1 with SLSA provenance v1.

The shape is that of `docs/reference/documents.md`; it stands here once, for the stage that makes
statements and for the stage that checks them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pipeline.errors import SignatureInvalid

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "https://twinbuild.invalid/build/v1"
ENVIRONMENT_ID = "https://twinbuild.invalid/environment/"

BYPRODUCTS = ("console.log", "ledger.jsonl.gz", "progress.jsonl", "timings.json")
FILES_LIMIT = 1000

SHA256 = re.compile(r"[0-9a-f]{64}")
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
        "subject": _digests(statement.artifacts),
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
                    "startedOn": statement.started.astimezone(UTC).strftime(TIME),
                    "finishedOn": statement.finished.astimezone(UTC).strftime(TIME),
                },
                "byproducts": _digests(statement.byproducts),
            },
        },
    }


def check(document: Any) -> Statement:
    """Parse the document of an envelope whose signature holds.

    Raise SignatureInvalid if it is not in the form that `make` gives it, or contradicts itself.
    """
    try:
        statement = _parse(document)
        _check(statement)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise SignatureInvalid(f"a statement is malformed: {error!r}"[:300]) from error
    if make(statement) != document:
        raise SignatureInvalid("a statement has fields that do not belong to it")
    return statement


def _digests(files: Mapping[str, str]) -> list[dict[str, Any]]:
    return [{"name": name, "digest": {"sha256": files[name]}} for name in sorted(files)]


def _parse(document: Any) -> Statement:
    definition = document["predicate"]["buildDefinition"]
    details = document["predicate"]["runDetails"]
    external = definition["externalParameters"]
    identity = details["builder"]["id"]
    return Statement(
        environment=_matching(ENVIRONMENT, identity.removeprefix(ENVIRONMENT_ID)),
        run_id=_text(details["metadata"]["invocationId"]),
        repository=_text(external["repository"]),
        commit=_matching(COMMIT, external["commit"]),
        tag=None if external["tag"] is None else _text(external["tag"]),
        image=_matching(ENVIRONMENT, external["image"]),
        compression=_text(external["compression"]),
        lock_sha256=_matching(SHA256, definition["resolvedDependencies"][1]["digest"]["sha256"]),
        job=dict(definition["internalParameters"]["job"]),
        machine=dict(definition["internalParameters"]["machine"]),
        artifacts=_files(document["subject"]),
        byproducts=_files(details["byproducts"]),
        started=_time(details["metadata"]["startedOn"]),
        finished=_time(details["metadata"]["finishedOn"]),
    )


def _check(statement: Statement) -> None:
    """Raise ValueError if the job is not the one that the rest of the statement speaks of."""
    for name in ("commit", "image", "compression", "lock_sha256"):
        if statement.job[name] != getattr(statement, name):
            raise ValueError(f"the job has another {name}")
    if not statement.artifacts:
        raise ValueError("it names no artifact")
    if set(statement.byproducts) != set(BYPRODUCTS):
        raise ValueError(f"its by-products are not {', '.join(BYPRODUCTS)}")
    if statement.finished < statement.started:
        raise ValueError("it was finished before it was started")


def _files(entries: Any) -> dict[str, str]:
    if len(entries) > FILES_LIMIT:
        raise ValueError(f"more than {FILES_LIMIT} files")
    files = {
        _matching(FILE_NAME, entry["name"]): _matching(SHA256, entry["digest"]["sha256"])
        for entry in entries
    }
    if len(files) != len(entries):
        raise ValueError("a file stands in it twice")
    return files


def _matching(pattern: re.Pattern[str], value: str) -> str:
    if not pattern.fullmatch(value):
        raise ValueError(f"bad value {value[:100]!r}")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.isprintable() or not 0 < len(value) <= 2000:
        raise ValueError(f"bad text {value!r:.100}")
    return value


def _time(value: str) -> datetime:
    return datetime.strptime(value, TIME).replace(tzinfo=UTC)
