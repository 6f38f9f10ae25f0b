# SPDX-License-Identifier: GPL-3.0-or-later
"""What an environment states about its build: an in-toto Statement v1 with SLSA provenance v1.

The shape is that of `docs/reference/documents.md`; the stage that makes
statements, the gate and `verify.py`, which this is a part of, all use it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pipeline.documents.fields import Fields, time_text
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
BUILDER_ID = re.compile(re.escape(ENVIRONMENT_ID) + ENVIRONMENT.pattern)


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

    @classmethod
    def read(cls, fields: Fields) -> Statement:
        """Read its fields; raise Malformed."""
        fields.format(STATEMENT_TYPE, name="_type")
        fields.format(PREDICATE_TYPE, name="predicateType")
        predicate = fields.object("predicate")
        definition, details = predicate.object("buildDefinition"), predicate.object("runDetails")
        definition.format(BUILD_TYPE, name="buildType")
        external = definition.object("externalParameters")
        internal = definition.object("internalParameters")
        builder, metadata = details.object("builder"), details.object("metadata")
        statement = cls(
            environment=builder.text("id", BUILDER_ID)[len(ENVIRONMENT_ID) :],
            run_id=metadata.text("invocationId"),
            repository=external.text("repository"),
            commit=external.text("commit", COMMIT),
            tag=external.optional_text("tag"),
            image=external.text("image", ENVIRONMENT),
            compression=external.text("compression"),
            lock_sha256=_dependencies(definition),
            job=internal.whatever("job"),
            machine=internal.whatever("machine"),
            artifacts=_named_files(fields, "subject"),
            byproducts=_named_files(details, "byproducts"),
            started=metadata.time("startedOn"),
            finished=metadata.time("finishedOn"),
        )
        for each in (external, internal, builder, metadata, definition, details, predicate, fields):
            each.end()
        return statement


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
                    "startedOn": time_text(statement.started),
                    "finishedOn": time_text(statement.finished),
                },
                "byproducts": _digest_list(statement.byproducts),
            },
        },
    }


def _digest_list(files: Mapping[str, str]) -> list[dict[str, Any]]:
    return [{"name": name, "digest": {"sha256": files[name]}} for name in sorted(files)]


def read_statement(document: Any) -> Statement:
    """Return what a document states; raise Malformed, which names the field."""
    return Statement.read(Fields(document))


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


def _dependencies(fields: Fields) -> str:
    """Read what was built from: the commit, and the lock, whose SHA-256 this returns."""
    source, lock = fields.pair("resolvedDependencies")
    source.text("uri")
    digests = source.object("digest")
    digests.text("gitCommit", COMMIT)
    lock.one_of("name", "lock")
    digest = lock.object("digest")
    lock_sha256 = digest.sha256("sha256")
    for each in (digests, source, digest, lock):
        each.end()
    return lock_sha256


def _named_files(fields: Fields, name: str) -> dict[str, str]:
    files: dict[str, str] = {}
    for entry in fields.objects(name, FILES_LIMIT):
        file, digest = entry.text("name", FILE_NAME), entry.object("digest")
        if file in files:
            raise Malformed(f"{entry.path('name')}: a file stands in it twice")
        files[file] = digest.sha256("sha256")
        digest.end()
        entry.end()
    return files
