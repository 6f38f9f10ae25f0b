# SPDX-License-Identifier: GPL-3.0-or-later
"""What this machine has and lacks for builds and releases: a line each, with the remedy.

No build is started and nothing is changed, except that secret keys left by a killed release are
removed. Trial signatures are made, so gpg may ask for a passphrase. Each check returns
what it found, in words, or raises the TwinbuildError that says what to do.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from pipeline.base import git
from pipeline.base.errors import ExitStatus, InfrastructureFailed, TwinbuildError, UsageError
from pipeline.base.transfer import Client, Patience
from pipeline.documents.version import in_order
from pipeline.farm import policy as policies
from pipeline.farm import ready, signers
from pipeline.farm.config import Archive, Farm
from pipeline.farm.workspace import Workspace, open_workspace
from pipeline.inputs import addresses
from pipeline.look import diffoscope
from pipeline.machines import engine
from pipeline.published import published

IN_RELEASE_LIMIT = 16 * 1024**2
QUICK = Patience(connect_s=5, silence_s=10, attempts=1)


@dataclass(frozen=True)
class Finding:
    """What one check found; if it is not `ok`, a build or a release would fail with `status`."""

    name: str
    ok: bool
    text: str
    remedy: str = ""
    status: ExitStatus = ExitStatus.DONE

    def __str__(self) -> str:
        """One line for people."""
        line = f"{self.name:<24} {'OK' if self.ok else 'NOT OK':<7} {self.text}"
        return f"{line}; {self.remedy}" if self.remedy else line


def examine(checkout: Path) -> Iterator[Finding]:
    """Yield the findings about this machine and the farm in `checkout` as the checks end."""
    try:
        workspace = open_workspace(checkout)
    except TwinbuildError as error:
        yield _broken("farm.yaml", error)
        return
    farm = workspace.farm
    engines = sorted({entry.engine or "" for entry in farm.environments.values()})
    for address in engines:
        yield _look(f"engine {address}".strip(), partial(engine_version, address or None))
    if "" in engines:
        yield _look("accelerator", accelerator)
    yield _look("diffoscope", comparison_by_diffoscope)
    yield _look("memory", partial(memory, farm))
    yield _look("git", partial(repository, checkout))
    yield from _release(workspace)
    try:
        proxies = addresses.read_proxies()
    except TwinbuildError as error:
        yield _broken("apt", error)
        return
    for name, archive in farm.archives.items():
        yield _look(f"archive {name}", partial(reach, name, archive, proxies))


def _release(workspace: Workspace) -> Iterator[Finding]:
    """Yield the findings about releases, by the policy that will decide about them."""
    with ExitStack() as stack:
        keys = workspace.checkout / "keys"
        try:
            policy = stack.enter_context(policies.opened(workspace.farm, workspace.checkout))
        except TwinbuildError as error:
            yield replace(
                _broken("policy", error),
                text=f"{error.what}; what follows is judged by farm.yaml here",
            )
        else:
            yield Finding("policy", ok=True, text=policy.in_force(workspace.farm))
            workspace, keys = replace(workspace, farm=policy.farm), policy.keys
        pinned, left = workspace.farm.keys, list[str]()
        for name, check in ready.checks(workspace, notify=left.append).items():
            yield _look(name, check)
        yield from (Finding("left behind", ok=True, text=line) for line in left)
        if pinned.renewal:
            yield _look("renewal key", partial(ready.renewal_key, pinned.renewal))
        yield _look("signers", partial(signers.usable, pinned.tags, keys))
        tried = partial(signers.try_to_tag, workspace.checkout, pinned.tags, keys)
        yield _look("git signing", tried)
        yield _look("earlier releases", partial(earlier_releases, workspace, keys))


def exit_status(findings: Iterable[Finding]) -> ExitStatus:
    """Return 0 if all is well, 2 if something has to be configured, 4 if only a retry is needed."""
    statuses = {finding.status for finding in findings if not finding.ok}
    if not statuses:
        return ExitStatus.DONE
    only_infrastructure = statuses == {ExitStatus.INFRASTRUCTURE}
    return ExitStatus.INFRASTRUCTURE if only_infrastructure else ExitStatus.USAGE


def engine_version(address: str | None) -> str:
    """Return the version of the Docker Engine at `address`."""
    with engine.connect(address) as client:
        return f"Docker Engine {client.version()['Version']}"


def accelerator(device: Path = Path("/dev/kvm")) -> str:
    """Return what machines will run on; without KVM they are slow, which is no error."""
    try:
        os.close(os.open(device, os.O_RDWR))
    except OSError:
        return "none: machines run under TCG, about ten times slower"
    return "KVM present, proven at the first build"


def comparison_by_diffoscope() -> str:
    """Tell whether diffoscope will help to explain differences; its absence is no error."""
    return diffoscope.unusable() or "runs in a sandbox, on what nothing else explains"


def memory(farm: Farm, meminfo: Path = Path("/proc/meminfo")) -> str:
    """Return the memory that is free for the machines that run here."""
    fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    available = int(fields["MemAvailable"].split()[0]) // 1024
    needed = sum(e.memory_mib for e in farm.environments.values() if e.engine is None)
    if available < needed:
        raise InfrastructureFailed(
            f"{available} MiB available, and the environments here take {needed}",
            remedy="lower memory_mib in farm.yaml, or build one with --environment NAME",
        )
    return f"{available} MiB available, {needed} for the environments here"


def repository(checkout: Path) -> str:
    """Return git's version, the repository and what would be built from it now."""
    found = git.open_checkout(checkout)
    with git.opened(found) as reader:
        verify = ("rev-parse", "--verify", "--short=12", "HEAD")
        head = git.git(reader, *verify, accept=range(256))
    if head.status:
        raise UsageError("the repository has no commit", remedy="git commit: builds use commits")
    changed = git.is_dirty(found)
    state = "with changes that no build sees before they are committed" if changed else "clean"
    return f"{git.version()}; {found.name} at {head.text}, {state}"


def earlier_releases(workspace: Workspace, keys: Path) -> str:
    """Return how many releases upgrade kits can be made from; the last one must verify."""
    location = published.of_farm(workspace, keys)
    listed = in_order(release.tag for release in location.releases())
    if not listed:
        return "there are none yet"
    location.open(listed[-1])
    return f"{len(listed)} at {location.address}; the last of them, {listed[-1]}, verifies"


def reach(name: str, archive: Archive, proxies: Mapping[str, str]) -> str:
    """Return which suites of an archive are available, having asked for each one's InRelease."""
    bases = addresses.all_bases({name: archive})[name]
    with Client(proxies=proxies, patience=QUICK) as client:
        for suite in archive.suites:
            urls = addresses.join(bases, f"dists/{suite}/InRelease")
            client.get(urls, limit=IN_RELEASE_LIMIT)
    return f"{', '.join(archive.suites)} available from {', '.join(bases)}"


def _look(name: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(name, ok=True, text=check())
    except TwinbuildError as error:
        return _broken(name, error)


def _broken(name: str, error: TwinbuildError) -> Finding:
    return Finding(name, ok=False, text=error.what, remedy=error.remedy, status=error.status)
