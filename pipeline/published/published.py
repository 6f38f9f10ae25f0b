# SPDX-License-Identifier: GPL-3.0-or-later
"""The releases published at a location; each is verified before any of it is used.

A location is a folder, such as `public/`, or the address where it is served. Its list of releases
is not signed: whoever serves it can leave a release out, but cannot add one. A release is defined
by its manifest, signed by the release key, and by the equal statements of its environments.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import verify
from pipeline.base import transfer
from pipeline.base.errors import (
    InfrastructureFailed,
    InputsUnverified,
    SignatureInvalid,
    TwinbuildError,
    UsageError,
    command_line,
)
from pipeline.base.gpgv import public_keys
from pipeline.base.plain import plain
from pipeline.base.store import Store
from pipeline.documents.artifact_names import ArtifactNames
from pipeline.documents.formats import LaterFormat
from pipeline.documents.job import Job
from pipeline.documents.json_form import parse_json
from pipeline.documents.malformed import Malformed
from pipeline.documents.release_index import ReleaseIndex
from pipeline.documents.statement import FILE_NAME
from pipeline.farm.workspace import Workspace

INDEX_LIMIT = 16 * 1024 * 1024
PIECE = 1024 * 1024
FAILURES: Mapping[int, type[TwinbuildError]] = {
    verify.DIFFERS: InputsUnverified,
    verify.USAGE: UsageError,
    verify.INFRASTRUCTURE: InfrastructureFailed,
    verify.SIGNATURE: SignatureInvalid,
}

Advance = Callable[[int], None]


@dataclass(frozen=True)
class Listed:
    """A release that a location lists, not verified yet."""

    tag: str
    image: str | None  # None if the list does not say


@dataclass(frozen=True)
class Published:
    """A verified release: the job in its statements, and the SHA-256 of its files by name.

    `job.upgrade` is false if later releases must not have kits from this one.
    """

    job: Job  # the job of its builds
    files: Mapping[str, str]

    @property
    def image(self) -> str:
        """The name of its image."""
        return self.job.image

    @property
    def architecture(self) -> str:
        """Its architecture."""
        return self.job.architecture

    @property
    def version(self) -> str:
        """Its tag."""
        return self.job.version

    @property
    def names(self) -> ArtifactNames:
        """The names that its artifacts may have; `files` has those that exist."""
        return self.job.names


@dataclass(frozen=True)
class Location:
    """Where releases are published, and the release key that signs them.

    `address` is an http(s) address or a folder. `keyring` has public keys in binary form: any of
    them may sign a release, or, if `fingerprint` is given, only that one.
    """

    address: str
    keyring: bytes
    fingerprint: str | None = None

    def releases(self) -> tuple[Listed, ...]:
        """Return the releases that the location lists; a folder that does not exist has none.

        Raise InputsUnverified if an address has no list of releases.
        """
        return _listed_there(self) if self._is_remote else _folders(Path(self.address))

    def open(self, tag: str) -> Published:
        """Return a release after verifying its manifest and that its statements agree.

        Raise InputsUnverified if it is missing or contradicts itself, SignatureInvalid if its
        manifest has no good signature by the release key.
        """
        if not self.keyring:
            raise SignatureInvalid(
                f"no key is known to check the release {tag} with",
                remedy=f"{command_line('keys')} sets keys.release in farm.yaml; "
                "its public half goes into keys/*.asc",
            )
        try:
            manifest = self.read(tag, "SHA256SUMS", verify.MANIFEST_LIMIT)
            signature = self.read(
                tag, "SHA256SUMS.asc", verify.SIGNATURE_LIMIT, absent=SignatureInvalid
            )
            verify.check_signature(manifest, signature, self.keyring, self.fingerprint)
            digests = verify.parse_manifest(manifest)
            statements = verify.read_statements(lambda n, s: self.read(tag, n, s), digests, {})
            stated = verify.check_statements(statements, digests, tag)
        except verify.Refused as error:
            failure = FAILURES.get(error.status, InputsUnverified)
            raise failure(plain(f"the release {tag} at {self.address}: {error}")) from error
        return describe(tag, stated.job, digests)

    def keep(
        self,
        release: Published,
        name: str,
        store: Store,
        limit: int,
        advance: Advance = lambda _: None,
    ) -> None:
        """Bring a file of a release into the store; raise InputsUnverified if its hash differs."""
        sha256 = release.files[name]
        if store.has(sha256) and not store.damaged(sha256):
            return
        if self._is_remote:
            with store.receiving(sha256) as file, transfer.Client() as client:
                url = self._url(release.version, name)
                client.download([url], file, sha256=sha256, limit=limit, advance=advance)
            return
        path = Path(self.address) / release.version / name
        try:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                store.add(sha256, size, iter(lambda: file.read(PIECE), b""))
        except FileNotFoundError as error:
            raise InputsUnverified(f"the release {release.version} lacks {name}") from error
        except InputsUnverified as error:
            raise InputsUnverified(f"{path} is not what its manifest says") from error

    def read(
        self,
        tag: str,
        name: str,
        limit: int,
        *,
        absent: type[TwinbuildError] = InputsUnverified,
    ) -> bytes:
        """Return a small file of a release, with only its size checked.

        Raise `absent` if there is none, InputsUnverified if it is larger than `limit` bytes.
        """
        where = f"{name} of the release {tag} at {self.address}"
        try:
            if self._is_remote:
                with transfer.Client() as client:
                    return client.get([self._url(tag, name)], limit=limit)
            with (Path(self.address) / tag / name).open("rb") as file:
                content = file.read(limit + 1)
        except (transfer.Missing, FileNotFoundError, NotADirectoryError) as error:
            remedy = f"see that {tag} was released there: index.json lists what was"
            raise absent(f"there is no {where}", remedy=remedy) from error
        except OSError as error:
            raise InfrastructureFailed(f"cannot read {where}: {error.strerror}") from error
        if len(content) > limit:
            raise InputsUnverified(f"{where} is larger than {limit} bytes")
        return content

    @property
    def _is_remote(self) -> bool:
        return self.address.startswith(("http://", "https://"))

    def _url(self, tag: str, name: str) -> str:
        return f"{self.address.rstrip('/')}/{quote(tag)}/{quote(name)}"


def of_farm(workspace: Workspace, keys: Path | None = None) -> Location:
    """Return where the farm's releases are published, with its own release key to verify them.

    `keys` is the folder of public keys, by default that of the checkout. Without `keys.release` in
    farm.yaml, or without its public half in `keys/*.asc`, no release can be opened.
    """
    farm = workspace.farm
    address = farm.published or os.fspath(workspace.public.absolute())
    fingerprint = farm.keys.release
    folder = keys or workspace.checkout / "keys"
    return Location(address, public_keys(folder) if fingerprint else b"", fingerprint)


def _listed_there(location: Location) -> tuple[Listed, ...]:
    url = f"{location.address.rstrip('/')}/index.json"
    try:
        with transfer.Client() as client:
            content = client.get([url], limit=INDEX_LIMIT)
    except transfer.Missing as error:
        raise InputsUnverified(
            f"{url} does not exist",
            remedy="correct `published` in farm.yaml; before the first release leave it out",
            detail=error.detail,
        ) from error
    return read_index(content, url)


def read_index(content: bytes, url: str) -> tuple[Listed, ...]:
    """Return the releases that an `index.json` lists; raise InputsUnverified if it is malformed."""
    try:
        index = ReleaseIndex.of(parse_json(content))
    except LaterFormat as error:
        raise InputsUnverified(f"cannot read {url}: {error}") from error
    except Malformed as error:
        raise InputsUnverified(plain(f"{url} is no list of releases: {error}"[:300])) from error
    return tuple(Listed(entry.tag, entry.image) for entry in index.releases)


def _folders(public: Path) -> tuple[Listed, ...]:
    """Return the folders that look like releases: the index beside them may be out of date."""
    found = public.glob("*/SHA256SUMS") if public.is_dir() else ()
    names = sorted(path.parent.name for path in found)
    return tuple(Listed(name, None) for name in names if FILE_NAME.fullmatch(name))


def describe(tag: str, stated: Mapping[str, object], files: Mapping[str, str]) -> Published:
    """Return a release as the job in its statements describes it; `files` are digests by name.

    Raise InputsUnverified if the job is malformed or that of another release.
    """
    try:
        job = Job.of(stated)
    except LaterFormat as error:
        raise InputsUnverified(f"cannot read the job of the release {tag}: {error}") from error
    except Malformed as error:
        what = f"the job of the release {tag} is malformed: {error}"
        raise InputsUnverified(plain(what)) from error
    if job.version != tag:
        raise InputsUnverified(plain(f"the release {tag} says that it is {job.version!r}"))
    return Published(job, dict(files))
