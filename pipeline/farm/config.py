# SPDX-License-Identifier: GPL-3.0-or-later
"""`farm.yaml`, `environment.yaml` and `image.yaml` as typed, validated, frozen models."""

import re
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from pipeline.base.errors import UsageError, command_line
from pipeline.base.files import read_plain
from pipeline.base.plain import plain
from pipeline.base.yaml_reader import SIZE_LIMIT, parse_yaml
from pipeline.documents.machine import Factors
from pipeline.documents.statement import DRAWN
from pipeline.farm import ssh_key

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,39}$")]
REMEDY = "Twinbuild's docs/reference/configuration.md lists every key"
FINGERPRINT = re.compile(r"[0-9A-F]{40}([0-9A-F]{24})?")
ED25519_KEY = re.compile(r"[0-9a-f]{64}")


def fingerprint(written: object) -> str:
    """Return an OpenPGP fingerprint in canonical form: upper case, without spaces.

    People copy it as gpg prints it: in groups, or in lower case. Raise ValueError for anything
    else, even a key id.
    """
    plain_form = "".join(written.split()).upper() if isinstance(written, str) else ""
    if not FINGERPRINT.fullmatch(plain_form):
        raise ValueError(
            "not an OpenPGP fingerprint, which has 40 hexadecimal digits (a key id is not enough):"
            " `gpg --list-secret-keys` prints it"
        )
    return plain_form


def _ed25519_key(written: object) -> str:
    plain_form = "".join(written.split()).lower() if isinstance(written, str) else ""
    if not ED25519_KEY.fullmatch(plain_form):
        raise ValueError(
            "not an ed25519 public key, which has 64 hexadecimal digits: "
            f"{command_line('keygen')} prints it"
        )
    return plain_form


def _time_zone(written: str) -> str:
    # A machine would silently use UTC for an unknown zone, and so nothing would be varied.
    try:
        ZoneInfo(written)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(
            "not a time zone of the tz database, whose names are like Pacific/Kiritimati"
        ) from None
    return written


Fingerprint = Annotated[str, BeforeValidator(fingerprint)]
Ed25519Key = Annotated[str, BeforeValidator(_ed25519_key)]
SshKey = Annotated[str, AfterValidator(ssh_key.checked)]
SnapshotTime = Annotated[str, StringConstraints(pattern=r"^[0-9]{8}T[0-9]{6}Z$")]
PinnedImage = Annotated[
    str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9./:_-]*@sha256:[0-9a-f]{64}$")
]
HttpUrl = Annotated[str, StringConstraints(pattern=r"^https?://[^\s?#]+$")]
ReleaseTag = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,79}$")]
VariableName = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]{7,39}$")]
Seed = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
VariableValue = Annotated[str, StringConstraints(pattern=r"^[ -~]{0,200}$")]
Vary = Literal["none", "default", "all"]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


Model = TypeVar("Model", bound=_Model)


class EnvironmentEntry(_Model):
    """Where an environment runs, as `farm.yaml` configures it."""

    engine: str | None = None  # address of a Docker Engine; None means the default one
    host_image: PinnedImage | None = None  # from a registry; None means made by mmdebstrap
    memory_mib: int = Field(ge=1024)
    cpus: int = Field(ge=1)


class Archive(_Model):
    """A Debian archive: its suites, the key that signs them and its addresses."""

    suites: list[str] = Field(min_length=1)
    components: list[str] = Field(min_length=1)
    keyring: Path
    urls: list[HttpUrl] | None = None  # tried in order; None means those of this machine's apt
    at: SnapshotTime | None = None  # the archive as it was at that time
    snapshot_urls: list[HttpUrl] = []  # archives in the URL layout of Debian's snapshot archive


class ImageArchive(Archive):
    """An archive that an image's commit names: its address must not be in a private network."""


class _Policy(_Model):
    """A mapping in which a key without a value counts as missing."""

    @model_validator(mode="before")
    @classmethod
    def _without_empty(cls, written: Any) -> Any:
        if not isinstance(written, dict):
            return written
        return {name: value for name, value in written.items() if value is not None}


class TagPolicy(_Policy):
    """Who must sign a tag for it to be released."""

    signed: bool = True
    signers: list[Fingerprint] = []
    ssh: list[SshKey] = []

    @property
    def listed(self) -> tuple[str, ...]:
        """The fingerprints of all keys, SSH keys as `ssh-keygen -l` prints them."""
        return (*self.signers, *map(ssh_key.fingerprint, self.ssh))


class Keys(_Policy):
    """The public halves of the keys that a release relies on."""

    release: Fingerprint | None = None
    renewal: Ed25519Key | None = None  # may extend the validity of upgrade descriptions
    environments: dict[Name, Ed25519Key] = {}
    tags: TagPolicy = TagPolicy()

    @model_validator(mode="after")
    def _renewal_is_apart(self) -> Self:
        for name, key in self.environments.items():
            if key == self.renewal:
                raise ValueError(f"renewal is the key of {name}: it has to be one of its own")
        return self


class Farm(_Policy):
    """`farm.yaml`."""

    environments: dict[Name, EnvironmentEntry] = Field(min_length=2)
    archives: dict[Name, Archive] = Field(min_length=1)
    keys: Keys = Keys()
    publish: str = "public"
    published: HttpUrl | None = None  # address where `publish` is served, for other machines


class Rules(_Policy):
    """The part of a `farm.yaml` that governs releases; other keys are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    keys: Keys = Keys()
    publish: str = "public"
    published: HttpUrl | None = None


class Variation(_Model):
    """How one environment differs on purpose, factor by factor.

    No factor may affect an artifact; all are recorded in the environment's statement. Factors with
    a default here are varied only by `all`; those in DRAWN are drawn at random for each run.
    """

    description: str
    suite: str  # of the container host, with its QEMU and kernel
    machine_type: Literal["q35", "pc"]
    cpu_model_tcg: str
    cpu_model_kvm: str
    clock_offset_days: int = Field(ge=-3650, le=3650)
    clock_offset_minutes: int = Field(default=0, ge=-1439, le=1439)  # for another time of day
    time_zone: Annotated[
        str,
        StringConstraints(pattern=r"^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+){0,2}$"),
        AfterValidator(_time_zone),
    ]
    locale: Annotated[
        str, StringConstraints(pattern=r"^(C|POSIX|C\.UTF-8|[a-z]{2,3}_[A-Z]{2}\.UTF-8)$")
    ]
    host_name: Name
    user: Name
    build_path: Annotated[str, StringConstraints(pattern=r"^/[a-z0-9/_-]{1,100}$")]
    umask: Annotated[str, StringConstraints(pattern=r"^0[0-7]{3}$")]
    scratch_filesystem: Literal["ext4", "xfs", "btrfs", "tmpfs"]
    directory_seed: Seed = "00000000-0000-4000-8000-000000000000"  # of ext4's directory hashes
    open_files: int = Field(default=1024, ge=256, le=65536)  # limit of a process
    processes: int = Field(default=4096, ge=256, le=65536)  # limit of a user
    randomized_addresses: bool = True
    environment_variables: dict[VariableName, VariableValue] = {}  # for every program

    def factors(self) -> Factors:
        """Return the factors in the form of `machine.json` and the statement."""
        return Factors(**self.model_dump(exclude={"all"}))


class Environment(Variation):
    """`images/hosts/<name>/environment.yaml`: the factors, and under `all` other values of some."""

    all: dict[str, object] = {}

    @model_validator(mode="after")
    def _all_is_possible(self) -> Self:
        fixed = {"all", "description", "suite"} & self.all.keys()
        drawn = DRAWN & (self.all.keys() | self.model_fields_set)
        if fixed or drawn:
            raise ValueError(f"{min(fixed | drawn)} cannot be set {'in all' if fixed else 'here'}")
        self.varied(self.all)
        return self

    def varied(self, changes: Mapping[str, object]) -> Variation:
        """Return the factors with some other values; raise ValidationError if they do not fit."""
        return Variation.model_validate(self.model_dump(exclude={"all"}) | dict(changes))


class ExpectedDifference(_Model):
    """A path of the tree that may differ until a date, with the reason; never in a release."""

    path: Annotated[str, StringConstraints(pattern=r"^[^/\x00-\x1f][^\x00-\x1f]{0,4094}$")]
    reason: Annotated[str, StringConstraints(pattern=r"^\S[^\x00-\x1f]{0,400}$")]
    until: date


class Upgrades(_Model):
    """From which earlier releases a release has upgrade kits."""

    from_: Literal["none", "same-major"] | Annotated[list[ReleaseTag], Field(max_length=100)] = (
        Field(default="none", alias="from")
    )


class Image(_Model):
    """`image.yaml`: the settings of an image that have no file in its configuration tree."""

    description: str
    architecture: Literal["amd64"] = "amd64"
    suite: str = "trixie"
    volume_id: Annotated[str, StringConstraints(pattern=r"^[A-Z0-9_]{1,32}$")]
    kernel_parameters: str = ""
    expected_differences: list[ExpectedDifference] = Field(default=[], max_length=100)
    upgrades: Upgrades = Upgrades()
    upgrade: bool = True  # whether later releases have kits from this one

    @model_validator(mode="after")
    def _one_line(self) -> Self:
        if re.search(r"[\n\"'`$\\]", self.kernel_parameters):
            raise ValueError("kernel_parameters must be one plain line without quotes")
        return self


def load_farm(path: Path) -> Farm:
    """Read `farm.yaml`; raise UsageError, which names the key at fault."""
    return _load(Farm, path)


def parse_rules(content: bytes, path: str) -> Rules:
    """Parse the rules for releases in a `farm.yaml`; raise UsageError, which names a bad key."""
    return _parse(Rules, content, path)


def parse_farm(content: bytes, path: str) -> Farm:
    """Parse the content of a `farm.yaml`; raise UsageError, which names the key at fault."""
    return _parse(Farm, content, path)


def load_environment(path: Path) -> Environment:
    """Read an `environment.yaml`; raise UsageError, which names the key at fault."""
    return _load(Environment, path)


def load_image(path: Path) -> Image:
    """Read an `image.yaml`; raise UsageError, which names the key at fault."""
    return _load(Image, path)


def parse_image(content: bytes, path: str) -> Image:
    """Parse an `image.yaml` from a commit; raise UsageError, which names the key at fault."""
    return _parse(Image, content, path)


def _load(model: type[Model], path: Path) -> Model:
    try:
        return _parse(model, read_plain(path, SIZE_LIMIT, follow=True), str(path))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error


def _parse(model: type[Model], content: bytes, path: str) -> Model:
    document = parse_yaml(content, path)
    try:
        return model.model_validate(document)
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        what = plain(f"{path}: {'; '.join(faults)}")
        raise UsageError(what, remedy=REMEDY) from error
