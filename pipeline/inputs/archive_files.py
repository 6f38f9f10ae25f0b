# SPDX-License-Identifier: GPL-3.0-or-later
"""Fetches files of an archive into the store: signed indices and what they vouch for."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath

from pipeline.base.errors import InfrastructureFailed, InputsUnverified, TwinbuildError
from pipeline.base.store import Store
from pipeline.base.transfer import Client, Missing
from pipeline.documents.lock import Index, Lock, LockedPackage, PackageLocation, Suite
from pipeline.farm.config import Archive
from pipeline.inputs.addresses import (
    SNAPSHOT_TIME,
    all_bases,
    dropped_bases,
    join,
    named_bases,
    read_proxies,
)
from pipeline.inputs.signed_release import INRELEASE_LIMIT, SignedRelease, read_release

Advance = Callable[[int], None]  # bytes received; negative when some are discarded


@dataclass(frozen=True)
class Archives:
    """Archives with their addresses on this machine, and how to reach them."""

    entries: Mapping[str, Archive]
    bases: Mapping[str, tuple[str, ...]]
    client: Client
    store: Store

    def read_suite(self, name: str, suite: str, architecture: str, after: datetime | None) -> Suite:
        """Fetch and verify an archive's current indices of a suite; keep them in the store.

        If an address serves an InRelease that does not verify or is older than `after`, the next
        one is tried. Raise InputsUnverified if no address has a good one.
        """
        archive = self.entries[name]
        problems: list[TwinbuildError] = []
        for base in self.bases[name]:
            try:
                content, release = self._release(base, archive, suite, after)
                indices = tuple(_wanted_indices(release, archive, architecture))
                for index in indices:
                    self._fetch_index(suite, index, (base,))
            except (InputsUnverified, InfrastructureFailed) as error:
                problems.append(error)
                continue
            sha256 = self.store.add_bytes(content)
            return Suite(name, suite, release.date, sha256, indices)
        raise _worst(problems)

    def keep_indices(self, suite: Suite) -> None:
        """Bring the InRelease and the indices that a lock names into the store, verified.

        Raise InfrastructureFailed if the archive has changed since and no longer has them.
        """
        try:
            self._fetch_locked(suite)
        except (Missing, InputsUnverified) as error:
            raise InfrastructureFailed(
                f"the signed indices of {suite.suite} that the lock names are gone",
                remedy="write the lock anew, or set snapshot_urls in farm.yaml",
                detail=error.detail,
            ) from error
        release = self._locked_release(suite)
        for index in suite.indices:
            if release.files.get(index.path) != index:
                raise InputsUnverified(f"the lock's {index.path} is not that of its InRelease")

    def signed_release(self, suite: Suite) -> SignedRelease | None:
        """Return the verified InRelease that a lock names; None if no address still has it."""
        try:
            self._fetch_inrelease(suite)
        except (Missing, InputsUnverified):
            return None
        return self._locked_release(suite)

    def _locked_release(self, suite: Suite) -> SignedRelease:
        content = self.store.path(suite.inrelease_sha256).read_bytes()
        keyring = self.entries[suite.archive].keyring
        return read_release(content, keyring=keyring, suite=suite.suite, now=suite.date)

    def _fetch_inrelease(self, suite: Suite) -> None:
        sha256 = suite.inrelease_sha256
        if not self.store.has(sha256):
            found = self._all_bases(suite.archive, suite.date)
            urls = join(found, f"dists/{suite.suite}/InRelease")
            with self.store.receiving(sha256) as file:
                self.client.download(urls, file, sha256=sha256, limit=INRELEASE_LIMIT)

    def _fetch_locked(self, suite: Suite) -> None:
        self._fetch_inrelease(suite)
        found = self._all_bases(suite.archive, suite.date)
        for index in suite.indices:
            self._fetch_index(suite.suite, index, found)

    def keep_package(self, suite: Suite, locked: LockedPackage, advance: Advance) -> None:
        """Bring a package into the store, from the archive or from its snapshots if dropped."""
        package = locked.package
        with self.store.receiving(package.sha256) as file:
            self.client.download(
                self._package_urls(suite, locked.place),
                file,
                size=package.size,
                sha256=package.sha256,
                limit=package.size,
                advance=advance,
            )

    def offers_package(self, suite: Suite, locked: LockedPackage) -> bool:
        """Tell whether a package is available, without fetching it."""
        return self.client.offers(self._package_urls(suite, locked.place), locked.package.size)

    def _package_urls(self, suite: Suite, place: PackageLocation) -> tuple[str, ...]:
        return join(self._all_bases(place.archive, suite.date), place.filename)

    def _all_bases(self, name: str, date: datetime) -> tuple[str, ...]:
        archive = self.entries[name]
        return (*self.bases[name], *dropped_bases(name, archive, date))

    def _release(
        self, base: str, archive: Archive, suite: str, after: datetime | None
    ) -> tuple[bytes, SignedRelease]:
        content = self.client.get(join([base], f"dists/{suite}/InRelease"), limit=INRELEASE_LIMIT)
        now = datetime.now(UTC)
        if archive.at:
            now = datetime.strptime(archive.at, SNAPSHOT_TIME).replace(tzinfo=UTC)
        release = read_release(content, keyring=archive.keyring, suite=suite, now=now)
        if after and release.date < after:
            raise InputsUnverified(
                f"the InRelease of {suite} is of {release.date:%c}, older than the last lock's",
                remedy="use a mirror that is up to date, or delete the old lock to go back",
            )
        return content, release

    def _fetch_index(self, suite: str, index: Index, found: Sequence[str]) -> None:
        """Fetch an index, first by hash: unlike the usual path, that file is never replaced."""
        if self.store.has(index.sha256, index.size):
            return
        folder = PurePosixPath("dists", suite, index.path).parent
        by_hash = join(found, f"{folder}/by-hash/SHA256/{index.sha256}")
        urls = (*by_hash, *join(found, f"dists/{suite}/{index.path}"))
        with self.store.receiving(index.sha256) as file:
            self.client.download(urls, file, size=index.size, sha256=index.sha256, limit=index.size)


@contextmanager
def open_archives(entries: Mapping[str, Archive], store: Store) -> Iterator[Archives]:
    """Yield the archives, reached at the addresses and through the proxies of this machine.

    Only addresses that the operator has named may be on private networks.
    """
    bases = all_bases(entries)
    with Client(proxies=read_proxies(), named=named_bases(entries, bases)) as client:
        yield Archives(entries, bases, client, store)


def suite_of(lock: Lock, place: PackageLocation) -> Suite:
    """Return the suite that a package of a lock comes from."""
    return next(s for s in lock.suites if (s.archive, s.suite) == place[:2])


def _wanted_indices(release: SignedRelease, archive: Archive, architecture: str) -> Iterator[Index]:
    """Yield the indices that a lock is made from, and those that apt requires of a mirror."""
    for component in archive.components:
        packages = release.index(f"{component}/binary-{architecture}/Packages")
        if not packages:
            raise InputsUnverified(
                f"{release.codename} has no {component} for {architecture}",
                remedy="correct its components in farm.yaml, or in the image's archives/",
            )
        yield packages
        translation = release.index(f"{component}/i18n/Translation-en")
        if translation:
            yield translation


def _worst(problems: Sequence[TwinbuildError]) -> TwinbuildError:
    """Return the most serious error: a failed verification rather than a missing file."""
    unverified = (problem for problem in problems if isinstance(problem, InputsUnverified))
    return next(unverified, problems[0])
