# SPDX-License-Identifier: GPL-3.0-or-later
"""The checks before anything is signed: documents, verdict, statements, every byte of the builds.

The documents of a run are written on several machines and can be changed by whoever transfers them,
so none is trusted alone: they must agree with each other, with the environments' signed statements,
with the farm's policy and with the files. Those that are published are kept in memory exactly as
they were checked.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from pipeline.base.errors import BuildFailed, Differs, SignatureInvalid, UsageError, command_line
from pipeline.documents.inputs import Inputs
from pipeline.documents.job import Local
from pipeline.documents.json_form import json_bytes
from pipeline.documents.source import Source
from pipeline.documents.statement import Statement
from pipeline.documents.verdict import Verdict
from pipeline.farm import tag as tags
from pipeline.farm.config import Farm
from pipeline.farm.run import Request, Run
from pipeline.farm.run_documents import read_inputs, read_source, read_verdict
from pipeline.farm.tag import VerifiedTag
from pipeline.published.published import describe
from pipeline.release.apart import check_apart, check_folders
from pipeline.release.exported import Exported, open_exported
from pipeline.release.statements import Signed, check_files, check_signed, read_signed

# Names that the public tree uses itself, beside the releases.
RESERVED_TAGS = ("index.json", "index.html", "upgrades", "upgrade.pyz", "verify.py")


@dataclass(frozen=True)
class CheckedRun:
    """A run that may be released: all that its statements and its verdict agree on.

    `local` are the packages that the image brings itself. `artifacts` are SHA-256 digests by name.
    `documents` are the lock, the verdict and the statements, by their paths in the release: exactly
    the bytes that were checked.
    """

    tag: str
    statements: Mapping[str, Statement]
    local: Local | None
    artifacts: Mapping[str, str]
    documents: Mapping[str, bytes]

    @property
    def environments(self) -> tuple[str, ...]:
        """The environments that built it."""
        return tuple(self.statements)


def check(run: Run, farm: Farm, verified: VerifiedTag) -> CheckedRun:
    """Check a run, and return what is to be released.

    `verified` is the run's tag, just verified by the policy whose keys `farm` has. Raise UsageError
    if the run is not that of a tag, InfrastructureFailed if a document is damaged, InputsUnverified
    if the exported source is not what was built, Differs or BuildFailed if the builds do not match
    or a file was changed since, SignatureInvalid if a key or a good statement is missing, or if the
    statements are not about separate builds.
    """
    request = run.request()
    source = read_source(run)
    tag = _check_source(source, request, run)
    _check_tag(source, verified, farm)
    inputs = read_inputs(run)
    verdict = read_verdict(run)
    _check_verdict(verdict, request, run)
    exported = open_exported(run, request.image, source, inputs)
    keys = _pinned_keys(verdict.environments, farm)
    check_folders(run, keys)
    signed = {name: read_signed(run, name, key) for name, key in keys.items()}
    expected = _expected(run, request, tag, source, inputs)
    job = exported.job(source, inputs, request.compression)
    for name, by in signed.items():
        check_signed(name, by.statement, expected, job, since=run.started, now=datetime.now(UTC))
    statements = {name: by.statement for name, by in signed.items()}
    check_apart(run, statements)
    artifacts = _common_artifacts(statements, verdict)
    _check_failures(run, statements)
    for name, stated in statements.items():
        check_files(run, name, stated, {a.name: a.size for a in verdict.artifacts})
    local = describe(tag, next(iter(statements.values())).job, artifacts).job.local
    return CheckedRun(tag, statements, local, artifacts, _documents(exported, verdict, signed))


def _check_source(source: Source, request: Request, run: Run) -> str:
    """Return the tag; raise UsageError unless the run is that of a tag that can be published."""
    if source.tag is None or request.tag is None:
        raise UsageError(
            f"the run {run.id} is not one of a tag",
            remedy=f"{command_line('release --tag TAG')} makes one",
        )
    name = source.tag.name
    if name.casefold() in RESERVED_TAGS:
        raise UsageError(
            f"the tag {name!r} cannot be the name of a folder in the public tree",
            remedy="choose another tag",
        )
    tags.check_name(name)
    if not name == source.version == request.tag:
        raise UsageError(
            f"source.json is of the tag {name} and of the version {source.version!r:.80},"
            f" the run {run.id} of the tag {request.tag!r:.80}",
            remedy="start a new run",
        )
    return name


def _check_tag(source: Source, verified: VerifiedTag, farm: Farm) -> None:
    """Raise SignatureInvalid unless the run built the tag with its present object and signer."""
    signer = source.tag and source.tag.signer
    for what, before, now in (
        ("name", source.version, verified.name),
        ("signer", signer, verified.signer),
        ("commit", source.commit, verified.commit),
        ("object", source.tag and source.tag.object, verified.object_id),
    ):
        if before != now:
            raise SignatureInvalid(
                f"source.json has {before or 'nobody'} as the {what} of the tag {source.version},"
                f" and that is {now or 'nobody'}",
                remedy="run the source stage again; a tag that was moved needs a new run",
            )
    if farm.keys.tags.signed and verified.signer not in farm.keys.tags.listed:
        raise SignatureInvalid(
            f"nobody whom the policy lists has signed the tag {source.version}",
            remedy="see keys.tags in farm.yaml",
        )


def _check_verdict(verdict: Verdict, request: Request, run: Run) -> None:
    remedy = f"see {run.verdict_json}"
    if verdict.verdict == "failed":
        raise BuildFailed("a build has failed: there is nothing to release", remedy=remedy)
    noted = verdict.reasons or verdict.differences or verdict.expected or verdict.only_expected
    if verdict.verdict != "match" or noted:
        raise Differs("the builds differ: nothing is released", remedy=remedy)
    names = verdict.environments
    if len(set(names)) < 2 or len(set(names)) != len(names):
        raise SignatureInvalid("a release needs builds of two environments or more", remedy=remedy)
    if sorted(names) != sorted(request.environments):
        raise SignatureInvalid(
            f"the verdict is on {', '.join(names)},"
            f" and the run is of {', '.join(request.environments)}",
            remedy="compare again",
        )


def _pinned_keys(environments: Sequence[str], farm: Farm) -> dict[str, str]:
    """Return the public key of every environment; raise SignatureInvalid if two share one."""
    pinned = farm.keys.environments
    if unknown := sorted(set(environments) - set(farm.environments)):
        raise SignatureInvalid(
            f"farm.yaml has no environment {unknown[0]!r:.80}", remedy="build in those that it has"
        )
    missing = sorted(set(environments) - set(pinned))
    if missing:
        raise SignatureInvalid(
            f"farm.yaml has no key of {', '.join(missing)} in keys.environments",
            remedy=f"{command_line('keys')} makes and pins what is missing",
        )
    keys = {name: pinned[name] for name in environments}
    if len(set(keys.values())) != len(keys):
        raise SignatureInvalid(
            "two environments have the same key in farm.yaml", remedy="make one key for each"
        )
    return keys


def _expected(
    run: Run, request: Request, tag: str, source: Source, inputs: Inputs
) -> Mapping[str, str]:
    """Return the values that every statement must have, by field."""
    return {
        "run_id": run.id,
        "repository": source.repository,
        "commit": source.commit,
        "tag": tag,
        "image": request.image,
        "compression": request.compression,
        "lock_sha256": inputs.lock_sha256,
    }


def _common_artifacts(statements: Mapping[str, Statement], verdict: Verdict) -> Mapping[str, str]:
    """Return the artifacts on which the statements and the verdict agree."""
    judged = {artifact.name: artifact.sha256 for artifact in verdict.artifacts}
    if len(judged) != len(verdict.artifacts):
        raise Differs("the verdict has an artifact twice", remedy="compare again")
    first = next(iter(statements.values()))
    for name, stated in statements.items():
        if stated.job != first.job:  # in the guest alone: the rest was checked
            raise SignatureInvalid(f"{first.environment} and {name} were given different jobs")
        if stated.artifacts != first.artifacts or stated.artifacts != judged:
            raise Differs(
                f"{name} states other artifacts than {first.environment} or the verdict",
                remedy="compare again",
            )
    return first.artifacts


def _check_failures(run: Run, environments: Mapping[str, Statement]) -> None:
    """Raise BuildFailed if a build has failed after the comparison."""
    for name in environments:
        if (run.environment(name) / "failure.json").exists():
            raise BuildFailed(f"the build in {name} has failed since", remedy="build again")


def _documents(
    exported: Exported, verdict: Verdict, signed: Mapping[str, Signed]
) -> Mapping[str, bytes]:
    statements = {f"statements/{name}.json": by.content for name, by in signed.items()}
    return {
        "lock": exported.lock,
        "verdict.json": json_bytes(verdict.document()),
        **statements,
    }
