# SPDX-License-Identifier: GPL-3.0-or-later
"""Resolves dependencies: apt decides, in a private folder, from verified indices alone.

Of this machine's apt only the program is used: no configuration, sources, pins, keys, lists or
installed packages. Each suite is laid out as a site of its own, so that a package's address tells
which signed index names it.
"""

import difflib
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

from pipeline.base import command
from pipeline.base.errors import InfrastructureFailed, UsageError
from pipeline.base.store import Store
from pipeline.documents.lock import PackageLocation, Suite
from pipeline.inputs.debian_source import names_in
from pipeline.inputs.local_packages import LocalPackages
from pipeline.inputs.packages_index import Catalogue
from pipeline.inputs.request import Asked, PackageRequest
from pipeline.inputs.signed_release import verified_text

APT_TIMEOUT_S = 300
URI_LINE = re.compile(r"'file:([^']+)' (\S+) (\d+) ?\S*")
NEAREST = 3
PROVIDERS_SHOWN = 8
# No quoting works in every file that apt reads, and the paths of the cache and TMPDIR may contain
# anything: so apt gets the private folder through a link with a plain name.
PLAIN_FOLDER = "/tmp"  # noqa: S108
LOCAL, LOCAL_PARTS = "local", "local-parts"  # in the private folder
# The sources that apt reads by default, and those that also have the image's own archives.
FARMS_SOURCES, ALL_SOURCES = "sources.list", "all.list"
# apt reads this first, and it keeps apt from reading anything else of this machine.
APT_CONF = """
Dir "{root}";
Dir::Etc "{root}/etc";
Dir::Etc::main "{root}/none";
Dir::Etc::parts "{root}/none";
Dir::Etc::sourceparts "{root}/none";
Dir::Etc::preferences "{root}/none";
Dir::Etc::preferencesparts "{root}/none";
Dir::Etc::trusted "{root}/none";
Dir::Etc::trustedparts "{root}/none";
Dir::State "{root}/state";
Dir::State::status "{root}/status";
Dir::Cache "{root}/cache";
APT::Architecture "{architecture}";
APT::Architectures {{ "{architecture}"; }};
APT::Install-Recommends "false";
APT::Install-Suggests "false";
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::Check-Valid-Until "false";
Debug::NoLocking "true";
"""


@dataclass(frozen=True)
class ChosenPackages:
    """The packages that apt chose: the places of those in archives, the names of local ones."""

    places: tuple[PackageLocation, ...]
    local: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Resolver:
    """apt in a private folder that knows the indices of `suites` and nothing else."""

    root: Path

    def packages_for(
        self,
        names: Collection[str],
        preferences: Sequence[tuple[str, str]] = (),
        *,
        for_image: bool = False,
    ) -> ChosenPackages:
        """Return the packages needed to install `names` on an empty system.

        `preferences` are apt's pins; the image's own archives and local packages are available only
        `for_image`. Raise UsageError, with apt's output, if they cannot be installed together.
        """
        with tempfile.TemporaryDirectory(dir=self.root) as pins:
            for name, text in preferences:
                Path(pins, name).write_text(text, encoding="utf-8")
            options = ["-o", f"Dir::Etc::preferencesparts={pins}"]
            if for_image:
                options += [*self._all_archives, *self._local]
            return self._chosen(options, ["install", "--", *sorted(names)])

    def packages_to_build(
        self, names: Collection[str], relations: Collection[str]
    ) -> ChosenPackages:
        """Return the packages needed to satisfy `relations` and install `names` on an empty system.

        The image's own archives are available, local packages are not. Raise UsageError, with
        apt's output, if they cannot be installed together.
        """
        return self._chosen(
            self._all_archives, ["satisfy", "--", *sorted(names), *sorted(relations)]
        )

    def _chosen(self, options: Sequence[str], action: Sequence[str]) -> ChosenPackages:
        completed = self._apt("-qq", *options, "--yes", "--print-uris", *action)
        if completed.status:
            # With -qq apt does not print which packages conflict.
            loud = self._apt("--simulate", *options, "--yes", *action)
            output = f"{loud.text}\n{loud.tail}".replace(f"{self.root}/", "")
            raise UsageError("apt cannot install these packages together", detail=output)
        site = f"'file:{quote(os.fspath(self.root))}/{LOCAL}/./"
        lines = completed.text.splitlines()
        local = {
            line.removeprefix(site).partition("'")[0] for line in lines if line.startswith(site)
        }
        places = (self._place(line) for line in lines if not line.startswith(site))
        return ChosenPackages(tuple(places), frozenset(map(unquote, local)))

    def update(self) -> None:
        """Run `apt-get update`, which reads the indices."""
        # Without generating pkgcache.bin, which the next call does anyway.
        options = ["-o", "pkgCacheFile::Generate=false", *self._all_archives, *self._local]
        completed = self._apt("-qq", *options, "update")
        if completed.status:
            raise InfrastructureFailed("apt cannot read the indices", detail=completed.tail)

    @property
    def _all_archives(self) -> list[str]:
        return ["-o", f"Dir::Etc::sourcelist={self.root}/etc/{ALL_SOURCES}"]

    @property
    def _local(self) -> list[str]:
        return ["-o", f"Dir::Etc::sourceparts={self.root}/{LOCAL_PARTS}"]

    def _apt(self, *arguments: str) -> command.Completed:
        return command.run(
            ["apt-get", *arguments],
            timeout_s=APT_TIMEOUT_S,
            env={"APT_CONFIG": os.fspath(self.root / "apt.conf")},
            accept=(0, 100),
        )

    def _place(self, line: str) -> PackageLocation:
        match = URI_LINE.fullmatch(line.strip())
        sites = f"{self.root}/sites/"
        path = unquote(match[1]) if match else ""
        if not path.startswith(sites):
            raise InfrastructureFailed(f"apt answered {line!r}, which is not understood")
        archive, suite, filename = path.removeprefix(sites).split("/", 2)
        return PackageLocation(archive, suite, filename)


@contextmanager
def private_apt(
    cache: Path, store: Store, suites: Sequence[Suite], request: PackageRequest
) -> Iterator[Resolver]:
    """Yield an apt that has read the indices of `suites`; its folder is removed afterwards."""
    cache.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="apt-", dir=cache) as folder,
        tempfile.TemporaryDirectory(prefix="twinbuild-", dir=PLAIN_FOLDER) as plain,
    ):
        root = Path(plain) / "apt"
        root.symlink_to(Path(folder).resolve())
        folders = ("etc", "none", LOCAL, LOCAL_PARTS)
        for made in (*folders, "state/lists/partial", "cache/archives/partial"):
            (root / made).mkdir(parents=True)
        (root / "status").touch()
        conf = APT_CONF.format(root=root, architecture=request.architecture)
        (root / "apt.conf").write_text(conf, encoding="utf-8")
        lines = {suite: _lay_out(root, store, suite, request) for suite in suites}
        of_farm = [line for suite, line in lines.items() if suite.archive not in request.own_keys]
        (root / "etc" / FARMS_SOURCES).write_text("".join(of_farm), encoding="utf-8")
        (root / "etc" / ALL_SOURCES).write_text("".join(lines.values()), encoding="utf-8")
        if request.local.binaries:
            _lay_out_local(root, request.local)
        resolver = Resolver(root)
        resolver.update()
        yield resolver


def check_names(asked: Sequence[Asked], catalogue: Catalogue) -> None:
    """Raise UsageError, listing all faults, if a name is unknown or has several providers.

    apt takes the only provider of a virtual package, and refuses to choose among several.
    """
    faults = [fault for word in asked for fault in _faults(word, catalogue)]
    if len(faults) == 1:
        raise UsageError(faults[0][0], remedy=faults[0][1])
    if faults:
        detail = "\n".join(f"{what}; {remedy}" for what, remedy in faults)
        what = f"{len(faults)} names in package lists are not names of packages"
        raise UsageError(what, detail=detail, remedy="correct them: each is named above")


def _faults(word: Asked, catalogue: Catalogue) -> Iterator[tuple[str, str]]:
    """Yield the fault of a name, if any, and its remedy."""
    where = f"{word.file}:{word.line}"
    providers = sorted(catalogue.provided.get(word.name, ()))
    if word.name in catalogue.names or len(providers) == 1:
        return
    if providers:
        shown = ", ".join(providers[:PROVIDERS_SHOWN])
        more = len(providers) - PROVIDERS_SHOWN
        shown += f" and {more} more" if more > 0 else ""
        yield f"{where}: {word.name} is a virtual package", f"name one that provides it: {shown}"
    else:
        near = difflib.get_close_matches(word.name, catalogue.names, NEAREST)
        remedy = f"did you mean {', '.join(near)}?" if near else "correct the name"
        yield f"{where}: there is no package {word.name}", remedy


def check_needs(local: LocalPackages, catalogue: Catalogue) -> None:
    """Raise UsageError for the first build dependency that no index has."""
    own = {binary.name for binary in local.binaries}
    for source in local.sources:
        for need in source.needs:
            names = names_in(need.relation)
            if catalogue.names.isdisjoint(names) and catalogue.provided.keys().isdisjoint(names):
                where = f"{source.file}:{need.line}"
                if not own.isdisjoint(names):
                    remedy = "build it from what archives have, or make one source of both"
                    what = f"{where}: {names[0]} is built here itself, so no source may need it"
                    raise UsageError(what, remedy=remedy)
                check_names([Asked(names[0], source.file, need.line)], catalogue)


def _lay_out_local(root: Path, local: LocalPackages) -> None:
    """Write an archive for apt with the image's own packages: an index alone, without files."""
    index = "\n".join(binary.stanza for binary in local.binaries)
    (root / LOCAL / "Packages").write_text(index, encoding="utf-8")
    source = f"deb [trusted=yes] file:{quote(os.fspath(root / LOCAL))} ./\n"
    (root / LOCAL_PARTS / "local.list").write_text(source, encoding="utf-8")


def _lay_out(root: Path, store: Store, suite: Suite, request: PackageRequest) -> str:
    """Put the indices of a suite where apt looks for them; return its line for sources.list."""
    site = root / "sites" / suite.archive / suite.suite
    dists = site / "dists" / suite.suite
    dists.mkdir(parents=True)
    signed = store.path(suite.inrelease_sha256).read_bytes()
    text = verified_text(signed, request.archives[suite.archive].keyring)
    (dists / "Release").write_bytes(text)
    for index in suite.indices:
        path = dists / index.path
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(store.path(index.sha256), path)
    # "trusted": the signature was verified just above, and only the text it covers is laid out.
    options = f"[trusted=yes arch={request.architecture}]"
    components = " ".join(request.archives[suite.archive].components)
    return f"deb {options} file:{quote(os.fspath(site))} {suite.suite} {components}\n"
