# SPDX-License-Identifier: GPL-3.0-or-later
"""The job: all that every environment of a run is given alike. `job.json`.

The machines are given it, the environments sign it, and the gate makes it again to see that they
have signed this one.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.documents.artifact_names import ArtifactNames, artifact_names, deb_name
from pipeline.documents.disks import EARLIER, SOURCES
from pipeline.documents.fields import Fields
from pipeline.documents.lock import NAME, PACKAGE, SUITE, VERSION
from pipeline.documents.names import RELEASE
from pipeline.documents.source import LATEST, OBJECT

FORMAT = "twinbuild-job/1"
VOLUME_ID = re.compile(r"[A-Z0-9_]{1,32}")
DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
FILE = re.compile(r"(?!\.)[^/]+")
PATH_LIMIT, PARAMETERS_LIMIT = 4096, 256 * 1024  # characters
KITS_LIMIT, EXPECTED_LIMIT, OWN_LIMIT = 1000, 100, 10_000


@dataclass(frozen=True)
class ExpectedDifference:
    """A path of the tree that may differ until a day (year-month-day), and why."""

    path: str
    reason: str
    until: str

    @classmethod
    def of(cls, fields: Fields) -> ExpectedDifference:
        """Read an entry of `expected_differences`; raise Malformed."""
        found = cls(
            fields.line("path", PATH_LIMIT), fields.line("reason"), fields.text("until", DATE)
        )
        fields.end()
        return found


@dataclass(frozen=True)
class KitRequest:
    """A kit to be made: the earlier release that it starts from, and what that takes.

    It is that release's final ledger and the list of its system partition's files, or its USB image
    where it has none of these.
    """

    start: str  # the release's tag; `from` in the document
    ledger_sha256: str | None
    partition_sha256: str | None
    image_sha256: str | None

    @classmethod
    def of(cls, fields: Fields) -> KitRequest:
        """Read an entry of `kits`; raise Malformed."""
        digests = ("ledger_sha256", "partition_sha256", "image_sha256")
        kit = cls(fields.text("from", RELEASE), *map(fields.optional_sha256, digests))
        fields.end()
        return kit

    def document(self) -> dict[str, Any]:
        """Return the entry of `kits`."""
        document = asdict(self)
        return {"from": document.pop("start"), **document}

    @property
    def folder(self) -> str:
        """Where the release's files are on the input disk."""
        return f"{EARLIER}/{self.start}"

    def files(self) -> dict[str, str]:
        """Return the SHA-256 of the files that the kit is made from, by their paths there."""
        stated = {
            "ledger.jsonl.gz": self.ledger_sha256,
            "partition": self.partition_sha256,
            "image.img": self.image_sha256,
        }
        return {f"{self.folder}/{name}": digest for name, digest in stated.items() if digest}


@dataclass(frozen=True)
class SourceFile:
    """A file of a source package that is named by its hash."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class LocalSource:
    """A source package that the image builds; `epoch` is the SOURCE_DATE_EPOCH of its build.

    `dsc` is the name of the file that names its `files` by hash, if it does not lie in the commit.
    """

    name: str
    version: str
    epoch: int
    sha256: str
    dsc: str | None
    files: tuple[SourceFile, ...]

    @classmethod
    def of(cls, fields: Fields) -> LocalSource:
        """Read an entry of `local.sources`; raise Malformed."""
        source = cls(
            name=fields.text("name", PACKAGE),
            version=fields.text("version", VERSION),
            epoch=fields.number("epoch"),
            sha256=fields.sha256("sha256"),
            dsc=fields.optional_text("dsc", FILE),
            files=tuple(map(_source_file, fields.objects("files", OWN_LIMIT))),
        )
        fields.end()
        return source


@dataclass(frozen=True)
class LocalPackage:
    """A package that the image brings itself: built from `source`, or the ready-made `file`.

    It is `wanted` if it must be installed, whatever depends on it.
    """

    name: str
    version: str
    architecture: str
    source: str | None
    sha256: str | None  # of the ready-made file
    file: str | None
    wanted: bool

    @classmethod
    def of(cls, fields: Fields) -> LocalPackage:
        """Read an entry of `local.packages`; raise Malformed."""
        package = cls(
            name=fields.text("name", PACKAGE),
            version=fields.text("version", VERSION),
            architecture=fields.text("architecture", NAME),
            source=fields.optional_text("source", PACKAGE),
            sha256=fields.optional_sha256("sha256"),
            file=fields.optional_text("file", FILE),
            wanted=fields.flag("wanted"),
        )
        fields.end()
        return package

    @property
    def file_name(self) -> str:
        """The name of its file in the repository, and among the artifacts if it is built."""
        return deb_name(self.name, self.version, self.architecture)


@dataclass(frozen=True)
class Local:
    """The packages that an image brings itself."""

    sources: tuple[LocalSource, ...] = ()
    packages: tuple[LocalPackage, ...] = ()

    @classmethod
    def of(cls, fields: Fields) -> Local:
        """Read `local`; raise Malformed."""
        local = cls(
            tuple(map(LocalSource.of, fields.objects("sources", OWN_LIMIT))),
            tuple(map(LocalPackage.of, fields.objects("packages", OWN_LIMIT))),
        )
        fields.end()
        return local

    def document(self) -> dict[str, Any]:
        """Return what stands under `local`."""
        return {
            "sources": [
                {**asdict(source), "files": [asdict(file) for file in source.files]}
                for source in self.sources
            ],
            "packages": [asdict(package) for package in self.packages],
        }

    def source_files(self) -> dict[str, str]:
        """Return the SHA-256 of the files that sources name by hash, by their paths on the disk.

        They are named by their hash: two sources may call different files the same.
        """
        found = [file.sha256 for source in self.sources for file in source.files]
        return {f"{SOURCES}/{sha256}": sha256 for sha256 in found}


NO_PACKAGES = Local()


@dataclass(frozen=True)
class Job:
    """What is built, from what; `epoch` is SOURCE_DATE_EPOCH, in seconds.

    `upgrade` is false where no later release has a kit from this one. `guest_sha256` is that of the
    programs in the machine.
    """

    image: str
    architecture: str
    suite: str
    volume_id: str
    kernel_parameters: str
    expected_differences: tuple[ExpectedDifference, ...]
    version: str
    commit: str
    epoch: int
    compression: str
    lock_sha256: str
    source_sha256: str
    index_sha256: str
    kits: tuple[KitRequest, ...]
    local: Local | None
    upgrade: bool
    guest_sha256: str

    @classmethod
    def of(cls, document: Any) -> Job:
        """Read `job.json`; raise Malformed, which names the field."""
        return cls.read(Fields(document))

    @classmethod
    def read(cls, fields: Fields) -> Job:
        """Read its fields; raise Malformed."""
        fields.format(FORMAT)
        expected = fields.objects("expected_differences", EXPECTED_LIMIT)
        job = cls(
            image=fields.text("image", NAME),
            architecture=fields.text("architecture", NAME),
            suite=fields.text("suite", SUITE),
            volume_id=fields.text("volume_id", VOLUME_ID),
            kernel_parameters=fields.line("kernel_parameters", PARAMETERS_LIMIT),
            expected_differences=tuple(map(ExpectedDifference.of, expected)),
            version=fields.text("version"),
            commit=fields.text("commit", OBJECT),
            epoch=fields.number("epoch", 0, LATEST),
            compression=fields.one_of("compression", "fast", "strong"),
            lock_sha256=fields.sha256("lock_sha256"),
            source_sha256=fields.sha256("source_sha256"),
            index_sha256=fields.sha256("index_sha256"),
            kits=tuple(map(KitRequest.of, fields.objects("kits", KITS_LIMIT))),
            local=None if fields.is_null("local") else Local.of(fields.object("local")),
            upgrade=fields.flag("upgrade"),
            guest_sha256=fields.sha256("guest_sha256"),
        )
        fields.end()
        return job

    def document(self) -> dict[str, Any]:
        """Return what is written to `job.json`, and what the environments sign."""
        return {
            "format": FORMAT,
            **{name: getattr(self, name) for name in self.__dataclass_fields__},
            "expected_differences": [asdict(found) for found in self.expected_differences],
            "kits": [kit.document() for kit in self.kits],
            "local": self.local and self.local.document(),
        }

    @property
    def own(self) -> Local:
        """The packages that the image brings itself; most images have none."""
        return self.local or NO_PACKAGES

    @property
    def names(self) -> ArtifactNames:
        """The names of the artifacts."""
        return artifact_names(self.document())


def _source_file(fields: Fields) -> SourceFile:
    file = SourceFile(fields.text("name", FILE), fields.number("size"), fields.sha256("sha256"))
    fields.end()
    return file
