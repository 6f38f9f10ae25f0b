"""What must hold before anything is signed: verdict, statements, every byte of the builds."""

import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline import dsse, statement
from pipeline.config import Farm
from pipeline.errors import BuildFailed, Differs, InfrastructureFailed, SignatureInvalid, UsageError
from pipeline.files import read_json, sha256_file
from pipeline.run import Run
from pipeline.statement import FILE_NAME, Statement

# The public tree has files of its own beside the releases.
RESERVED_TAGS = ("index.json", "index.html", "upgrades", "verify.py")


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class _Tag(_Document):
    name: str


class _Source(_Document):
    format: Literal["twinbuild-source/1"]
    repository: str
    commit: str
    tag: _Tag | None


class _Inputs(_Document):
    format: Literal["twinbuild-inputs/1"]
    image: str
    lock_sha256: str


class _Artifact(_Document):
    name: str
    size: int
    sha256: str | None


class _Verdict(_Document):
    format: Literal["twinbuild-verdict/1"]
    verdict: Literal["match", "differ", "failed"]
    environments: list[str]
    artifacts: list[_Artifact]


Document = TypeVar("Document", bound=_Document)


@dataclass(frozen=True)
class Checked:
    """A run that may be released: all that its statements and its verdict agree on."""

    tag: str
    image: str
    lock_sha256: str
    environments: tuple[str, ...]
    statements: Mapping[str, Statement]
    artifacts: Mapping[str, str]

    @property
    def local(self) -> Mapping[str, Any] | None:
        """What the job says of the packages that the image brings itself."""
        local: Mapping[str, Any] | None = next(iter(self.statements.values())).job.get("local")
        return local

    @property
    def has_kits(self) -> bool:
        """Whether it has upgrade kits from earlier releases."""
        return any(stated.job.get("kits") for stated in self.statements.values())


def check(run: Run, farm: Farm) -> Checked:
    """Return what is to be released.

    Raise UsageError if the run is not one of a tag, Differs or BuildFailed if the builds do not
    match or a file was changed since, SignatureInvalid if a key or a good statement is missing.
    """
    source = _read(_Source, run.source_json)
    inputs = _read(_Inputs, run.inputs_json)
    verdict = _read(_Verdict, run.verdict_json)
    tag = _tag(source, run)
    _check_verdict(verdict, run)
    keys = _pinned_keys(verdict.environments, farm)
    statements = {name: _statement(run, name, key) for name, key in keys.items()}
    expected = {
        "repository": source.repository,
        "commit": source.commit,
        "tag": tag,
        "image": inputs.image,
        "lock_sha256": inputs.lock_sha256,
    }
    for name, stated in statements.items():
        _check_statement(name, stated, expected)
    artifacts = _common_artifacts(statements, verdict)
    for name, stated in statements.items():
        _check_files(run.environment(name), stated)
    return Checked(tag, inputs.image, inputs.lock_sha256, tuple(statements), statements, artifacts)


def _read(model: type[Document], path: Path) -> Document:
    document: Any = read_json(path, failure=UsageError)
    try:
        return model.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InfrastructureFailed(
            f"{path} is damaged: {where}: {first['msg']}", remedy="run its stage again"
        ) from error


def _tag(source: _Source, run: Run) -> str:
    if source.tag is None:
        raise UsageError(
            f"the run {run.id} is not one of a tag", remedy="invoke release --tag TAG makes one"
        )
    name = source.tag.name
    if not FILE_NAME.fullmatch(name) or name in RESERVED_TAGS:
        raise UsageError(
            f"the tag {name!r} cannot be the name of a folder in the public tree",
            remedy="choose a tag of letters, digits and . _ + ~ -",
        )
    return name


def _check_verdict(verdict: _Verdict, run: Run) -> None:
    remedy = f"see {run.verdict_json}"
    if verdict.verdict == "failed":
        raise BuildFailed("a build has failed: there is nothing to release", remedy=remedy)
    if verdict.verdict != "match":
        raise Differs("the builds differ: nothing is released", remedy=remedy)
    names = verdict.environments
    if len(set(names)) < 2 or len(set(names)) != len(names):
        raise SignatureInvalid("a release needs builds of two environments or more", remedy=remedy)


def _pinned_keys(environments: list[str], farm: Farm) -> dict[str, str]:
    """Return the public key of every environment; one key may not stand for two of them."""
    pinned = farm.keys.environments
    missing = sorted(set(environments) - set(pinned))
    if missing:
        raise SignatureInvalid(
            f"farm.yaml has no key of {', '.join(missing)} in keys.environments",
            remedy=f"invoke keygen --environment {missing[0]} prints the line to add",
        )
    keys = {name: pinned[name] for name in environments}
    if len(set(keys.values())) != len(keys):
        raise SignatureInvalid(
            "two environments have the same key in farm.yaml", remedy="make one key for each"
        )
    return keys


def _statement(run: Run, environment: str, key: str) -> Statement:
    path = run.environment(environment) / "statement.json"
    try:
        envelope = read_json(path, failure=SignatureInvalid, limit=2 * dsse.PAYLOAD_LIMIT)
        return statement.check(dsse.verify(envelope, [key]))
    except SignatureInvalid as error:
        what = f"the statement of {environment} cannot be trusted: {error.what}"
        raise SignatureInvalid(what, remedy=error.remedy) from error


def _check_statement(name: str, stated: Statement, expected: Mapping[str, str]) -> None:
    if stated.environment != name:
        raise SignatureInvalid(f"the statement of {name} is by {stated.environment}")
    for field, value in expected.items():
        found = getattr(stated, field)
        if found != value:
            raise SignatureInvalid(
                f"the statement of {name} is of another {field}: {found}, not {value}",
                remedy="build again",
            )
    if stated.machine.get("kept_trees") != []:
        raise SignatureInvalid(
            f"the build of {name} began with a kept tree, or does not say that it did not",
            remedy="invoke release --tag TAG builds without",
        )


def _common_artifacts(statements: Mapping[str, Statement], verdict: _Verdict) -> Mapping[str, str]:
    """Return the artifacts on which the statements and the verdict agree."""
    judged = {artifact.name: artifact.sha256 for artifact in verdict.artifacts}
    first = next(iter(statements.values()))
    for name, stated in statements.items():
        if stated.job != first.job:
            raise SignatureInvalid(f"{first.environment} and {name} were given different jobs")
        if stated.artifacts != first.artifacts or stated.artifacts != judged:
            raise Differs(
                f"{name} states other artifacts than {first.environment} or the verdict",
                remedy="compare again",
            )
    return first.artifacts


def _check_files(folder: Path, stated: Statement) -> None:
    """Hash all that an environment gave back; raise Differs if it is not what was signed."""
    artifacts = folder / "artifacts"
    present = {path.name for path in artifacts.iterdir()} if artifacts.is_dir() else set()
    odd = sorted(present ^ set(stated.artifacts))
    if odd:
        which = "was added" if odd[0] in present else "is missing"
        raise Differs(f"{artifacts / odd[0]} {which} after the build", remedy="build again")
    signed = {artifacts / name: digest for name, digest in stated.artifacts.items()}
    signed |= {folder / name: digest for name, digest in stated.byproducts.items()}
    for path, digest in signed.items():
        if not _is_plain_file(path) or sha256_file(path) != digest:
            raise Differs(f"{path} was changed after the build", remedy="build again")


def _is_plain_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except FileNotFoundError:
        return False
