# SPDX-License-Identifier: GPL-3.0-or-later
"""Container hosts: bootstrapped from Debian's archive by mmdebstrap, unless an image is pinned."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from docker import DockerClient
from docker.errors import APIError, ImageNotFound

from pipeline.base.command import run
from pipeline.base.errors import InfrastructureFailed, UsageError
from pipeline.base.files import sha256_bytes
from pipeline.base.plain import plain
from pipeline.farm.config import Archive, Variation
from pipeline.machines.engine import LABEL

BOOTSTRAP_TIMEOUT_S = 1800
DEBIANS_KEYRING = "debian-archive-"  # prefix of the file names of Debian's keyrings
# Documentation is of no use in a container.
LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")


@dataclass(frozen=True)
class Mirrors:
    """How this machine reaches archives: addresses in order, by archive; proxies by scheme."""

    bases: Mapping[str, Sequence[str]]
    proxies: Mapping[str, str]


AskMirrors = Callable[[], Mirrors]  # called only if a container host must be made


@dataclass(frozen=True)
class Host:
    """A container host: its folder below `images/hosts/`, and what it is made from."""

    name: str
    folder: Path
    variation: Variation
    archives: Mapping[str, Archive]
    pinned: str | None = None  # name@sha256:digest of an image in a registry, used instead

    @property
    def packages(self) -> list[str]:
        """The packages named in its package lists."""
        names = []
        for path in sorted((self.folder / "package-lists").glob("*.list")):
            for line in path.read_text().splitlines():
                names += line.partition("#")[0].split()
        if not names:
            raise UsageError(f"{self.folder}/package-lists names no package")
        return names

    @property
    def key(self) -> str:
        """The hash of everything that defines the host, except the time when it is made."""
        nowhere = dict.fromkeys(self.archives, ("",))
        recipe = [self.variation.suite, *self.packages, *self.sources(nowhere), *LEFT_OUT]
        return sha256_bytes("\n".join(recipe).encode())[:16]

    @property
    def tag(self) -> str:
        """The name of its container image."""
        return f"twinbuild-host-{self.name}:{self.key}"

    def sources(self, bases: Mapping[str, Sequence[str]]) -> list[str]:
        """Return apt's sources: Debian's archives, in the suites of this host's release.

        `bases` are the archives' addresses. Raise UsageError if no archive is Debian's own.
        """
        lines = []
        for name, archive in self.archives.items():
            if not archive.keyring.name.startswith(DEBIANS_KEYRING):
                continue  # a third-party archive must not influence the host
            kinds = ["".join(suite.partition("-")[1:]) for suite in archive.suites]
            suites = dict.fromkeys(self.variation.suite + kind for kind in kinds)
            components = " ".join(archive.components)
            options = f"signed-by={archive.keyring}"
            if archive.at:
                options += " check-valid-until=no"  # an old snapshot, on purpose
            lines += [f"deb [{options}] {bases[name][0]} {suite} {components}" for suite in suites]
        if not lines:
            remedy = f"one needs a keyring {DEBIANS_KEYRING}*.gpg"
            raise UsageError("no archive in farm.yaml is signed by Debian's keys", remedy=remedy)
        return lines


def ensure(client: DockerClient, host: Host, ask_mirrors: AskMirrors) -> tuple[str, bool]:
    """Return the id of the host's container image, and whether it had to be made."""
    try:
        return str(client.images.get(host.pinned or host.tag).id), False
    except ImageNotFound:
        if host.pinned:
            return _pull(client, host.pinned), True
    mirrors = ask_mirrors()
    proxies = {
        f"{scheme}_proxy": url for scheme, url in mirrors.proxies.items() if "/" not in scheme
    }
    with tempfile.TemporaryDirectory(prefix="twinbuild-host-") as scratch:
        archive = Path(scratch) / "host.tar"
        left_out = [f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT]
        run(
            ["mmdebstrap", "--variant=apt", f"--include={','.join(host.packages)}"]
            + [*left_out, host.variation.suite, archive, *host.sources(mirrors.bases)],
            timeout_s=BOOTSTRAP_TIMEOUT_S,
            env=proxies,
            stderr_to=Path(scratch) / "log",
            failure=InfrastructureFailed,
        )
        repository, _, tag = host.tag.partition(":")
        answer = client.api.import_image_from_file(
            str(archive), repository=repository, tag=tag, changes=[f"LABEL {LABEL}=host"]
        )
    try:
        return str(client.images.get(host.tag).id), True
    except ImageNotFound:
        what = f"the Docker Engine did not take the container host {host.name}"
        raise InfrastructureFailed(what, detail=plain(str(answer))) from None


def _pull(client: DockerClient, pinned: str) -> str:
    """Pull a container image by its digest, which the Engine checks."""
    name, _, digest = pinned.partition("@")
    try:
        return str(client.images.pull(name, tag=digest).id)
    except APIError as error:
        what = f"the Docker Engine cannot fetch {pinned}"
        raise InfrastructureFailed(what, detail=plain(str(error.explanation))) from error
