# SPDX-License-Identifier: GPL-3.0-or-later
"""The manifest, and whether what the environments state makes a release."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from itertools import combinations, permutations
from typing import Any

from pipeline.documents.artifact_names import artifact_names
from pipeline.documents.dsse import IN_TOTO, Envelope, read_envelope, signed_bytes
from pipeline.documents.ed25519 import ed25519_holds
from pipeline.documents.json_form import parse_json
from pipeline.documents.malformed import Malformed
from pipeline.documents.manifest import Manifest
from pipeline.documents.statement import (
    Statement,
    check_whole,
    read_statement,
    why_no_release,
    why_one_build,
)
from pipeline.documents.verdict import Verdict
from pipeline.verify.report import DIFFERS, SIGNATURE, Refused

STATEMENT_LIMIT = 8 * 1024 * 1024
CLOCKS_APART = timedelta(hours=1)  # between the machines of a farm and this one, at most
EARLIEST, LATEST = 315532800, 2**32 - 1  # what an image can be dated: the years 1980 to 2105

STATEMENT_NAME = re.compile(r"statements/([a-z][a-z0-9-]{0,39})\.json")

Read = Callable[[str, int], bytes]  # gives a file of the release by its name, of so many bytes


def parse_manifest(content: bytes) -> Mapping[str, str]:
    """Return the digests in a SHA256SUMS by name; refuse it all if one line is not as expected."""
    try:
        return Manifest.of(content).digests
    except Malformed as error:
        raise Refused(SIGNATURE, str(error)) from error


@dataclass(frozen=True)
class Stated:
    """A statement and the document that it was read from."""

    statement: Statement
    document: Any

    @property
    def common(self) -> str:
        """All that the environments must state alike, as JSON: what was built from what."""
        stated = self.statement
        asked = self.document["predicate"]["buildDefinition"]["externalParameters"]
        job = [stated.lock_sha256, stated.job]
        return json.dumps([self.document["subject"], asked, job], sort_keys=True)


def _read_document(read: Read, manifest: Mapping[str, str], name: str) -> Any:
    """Return a JSON document of the release; refuse it if it is not the one in the manifest."""
    content = read(name, STATEMENT_LIMIT)
    if hashlib.sha256(content).hexdigest() != manifest[name]:
        raise Refused(DIFFERS, f"{name} differs from the manifest")
    try:
        return parse_json(content)
    except (ValueError, RecursionError) as error:
        raise Refused(SIGNATURE, f"{name} is not JSON: {error}") from error


def read_statements(
    read: Read, manifest: Mapping[str, str], keys: Mapping[str, str]
) -> dict[str, Stated]:
    """Return the statements that the manifest names, by environment.

    `keys` are ed25519 public keys (hex) by environment; who has signed the others is not checked,
    but it must not be seen to be one key.
    """
    statements, envelopes = {}, {}
    for file in sorted(manifest):
        match = STATEMENT_NAME.fullmatch(file)
        if match:
            name, document = match[1], _read_document(read, manifest, file)
            envelopes[name], statements[name] = parse_statement(document, name, keys.get(name))
    missing = sorted(keys.keys() - statements.keys())
    if missing:
        raise Refused(SIGNATURE, f"there is no statement of {', '.join(missing)}")
    _check_signers(envelopes, keys)
    return statements


def _check_signers(envelopes: Mapping[str, Envelope], keys: Mapping[str, str]) -> None:
    """Raise Refused where one key has signed for two environments, as far as that shows.

    A key that was given for one is tried on the others; beyond that, the envelopes' key ids tell,
    which are only what their signers say.
    """
    for one, other in permutations(sorted(envelopes), 2):
        named = _key_ids(envelopes[one]) & _key_ids(envelopes[other])
        if named or (one in keys and _signed_by(envelopes[other], keys[one])):
            names = " and ".join(sorted((one, other)))
            raise Refused(
                SIGNATURE, f"{names} are signed by the same key: they are not two parties"
            )


def _key_ids(envelope: Envelope) -> set[str]:
    """Return the key ids that an envelope names."""
    return {each.keyid for each in envelope.signatures if each.keyid}


def _signed_by(envelope: Envelope, public: str) -> bool:
    """Tell whether a key (hex) has signed an envelope."""
    signed, key = signed_bytes(IN_TOTO, envelope.payload), bytes.fromhex(public)
    return any(ed25519_holds(key, signed, each.signature) for each in envelope.signatures)


def parse_statement(document: Any, environment: str, public: str | None) -> tuple[Envelope, Stated]:
    """Read the statement of `environment`, signed by the ed25519 key `public` (hex) if given."""
    try:
        envelope = read_envelope(document, IN_TOTO)
        if public is not None and not _signed_by(envelope, public):
            raise ValueError("it is not signed by the key that you gave")  # noqa: TRY301
        payload = parse_json(envelope.payload)
        statement = read_statement(payload)
        if statement.environment != environment:
            raise ValueError("it is of another environment")  # noqa: TRY301
    except ValueError as error:
        raise Refused(SIGNATURE, f"the statement of {environment} is no good: {error}") from error
    return envelope, Stated(statement, payload)


def check_statements(
    statements: Mapping[str, Stated], manifest: Mapping[str, str], tag: str
) -> Statement:
    """Return what all environments state alike, their builds being those of the release `tag`.

    It asks of them what the farm's own gate asks (pipeline/release/), as far as it is published:
    that they agree, are of the manifest's files, whole, of a release's kind, and of two builds.
    Raise Refused if not.
    """
    if len(statements) < 2:
        raise Refused(SIGNATURE, f"{len(statements)} environments have stated a result, not two")
    first = next(iter(statements.values()))
    _check_agreement(statements, manifest, tag)
    try:
        for name, stated in statements.items():
            _check_statement(name, stated, first.statement)
    except ValueError as error:
        raise Refused(SIGNATURE, str(error)) from error
    for one, other in combinations(statements.values(), 2):
        if why := why_one_build(one.statement, other.statement):
            names = f"{one.statement.environment} and {other.statement.environment}"
            raise Refused(SIGNATURE, f"{names} state one build: {why}")
    return first.statement


def _check_agreement(
    statements: Mapping[str, Stated], manifest: Mapping[str, str], tag: str
) -> None:
    first = next(iter(statements.values()))
    for name, stated in statements.items():
        if stated.statement.tag != tag:
            raise Refused(SIGNATURE, f"the manifest is of the release {stated.statement.tag!r:.80}")
        if stated.common != first.common:
            raise Refused(DIFFERS, f"the statements of the environments differ: {name}")
        for file, digest in _vouched_for(stated.statement).items():
            if manifest.get(file) != digest:
                raise Refused(DIFFERS, f"{file} is not in the manifest as {name} states it")


def _vouched_for(stated: Statement) -> dict[str, str]:
    """Return the files of the manifest that a statement names, with their digests."""
    others = {f"{stated.environment}/{file}": it for file, it in stated.byproducts.items()}
    return {**stated.artifacts, "lock": stated.lock_sha256, **others}


def _check_statement(name: str, stated: Stated, first: Statement) -> None:
    """Raise ValueError unless it is whole, of a release's kind, and of the run of the first."""
    statement = stated.statement
    try:
        check_whole(statement, stated.document)
    except ValueError as error:
        raise ValueError(f"the statement of {name} is no good: {error}") from error
    if why := why_no_release(statement):
        raise ValueError(f"the build of {name} {why}")
    if statement.run_id != first.run_id:
        raise ValueError(f"{first.environment} and {name} have built in different runs")
    if statement.finished > datetime.now(timezone.utc) + CLOCKS_APART:
        raise ValueError(f"the build of {name} ends in the future: check this machine's clock")


def check_job(stated: Statement) -> None:
    """Raise Refused unless the job is of this release and its artifacts are the job's."""
    try:
        _check_job(stated)
    except ValueError as error:
        raise Refused(SIGNATURE, str(error)) from error


def _check_job(stated: Statement) -> None:
    job = stated.job
    epoch, version = job.get("epoch"), job.get("version")
    if version != stated.tag:
        raise ValueError(f"the job is of the version {version!r:.80}, not {stated.tag!r:.80}")
    if type(epoch) is not int or not EARLIEST <= epoch <= LATEST:
        raise ValueError(f"the job has the impossible epoch {epoch!r:.80}")
    try:
        names = artifact_names(job).all()
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"the job is malformed: {error!r:.200}") from error
    if len(set(names)) != len(names) or set(names) != stated.artifacts.keys():
        odd = min(set(names) ^ stated.artifacts.keys(), default="two of one name")
        raise ValueError(f"the artifacts are not those of the job: {odd:.200}")


def check_verdict(
    read: Read, manifest: Mapping[str, str], environments: Sequence[str], stated: Statement
) -> None:
    """Raise Refused unless the farm's own verdict is that these builds match, without a but."""
    if "verdict.json" not in manifest:
        raise Refused(SIGNATURE, "the manifest has no verdict.json")
    try:
        verdict = Verdict.of(_read_document(read, manifest, "verdict.json"))
    except ValueError as error:
        raise Refused(SIGNATURE, f"verdict.json is malformed: {error}") from error
    buts = (verdict.reasons, verdict.differences, verdict.expected, verdict.only_expected)
    if verdict.verdict != "match" or any(buts):
        raise Refused(DIFFERS, "verdict.json does not say that the builds match")
    judged = {artifact.name: artifact.sha256 for artifact in verdict.artifacts}
    same = sorted(verdict.environments) == sorted(environments)
    if not same or judged != stated.artifacts:
        raise Refused(DIFFERS, "verdict.json is on other builds than the statements")
