# SPDX-License-Identifier: GPL-3.0-or-later
"""The builder: the build machine's root file system, kernel and initramfs, made from the lock.

Each container host makes its own with its own mmdebstrap, so two builders are similar but not
equal, and none is ever published. A builder is kept in a volume named by the hash of everything
that went into it; a release makes a builder for itself alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from docker import DockerClient
from docker.errors import NotFound
from docker.models.containers import Container

from pipeline.base.command import last_lines
from pipeline.base.errors import InfrastructureFailed
from pipeline.base.files import alone, sha256_bytes
from pipeline.base.plain import plain
from pipeline.base.store import Store
from pipeline.documents.digest import sha256_file
from pipeline.documents.disks import MAIN
from pipeline.documents.lock import Package
from pipeline.machines import engine, repository
from pipeline.machines.engine import LABEL, RUN_LABEL

SCRIPTS = ("make-builder", "init")
TIMEOUT_S = 1800
MEMORY = "2g"
CPUS = 2
WORK = PurePosixPath("/work")  # while the builder is made
MOUNTED = PurePosixPath("/builder")  # afterwards
OUT = MOUNTED / "out"
LOG_LINES = 200
# The capabilities that mmdebstrap needs to unpack packages and run their scripts in a chroot.
CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "MKNOD", "SETFCAP", "SETGID", "SETUID")
CHROOT_CAPABILITIES = (*CAPABILITIES, "SYS_CHROOT", "KILL", "AUDIT_WRITE")


@dataclass(frozen=True)
class Builder:
    """A complete builder: the volume that holds it, and the facts that it recorded."""

    volume: str
    facts: Mapping[str, str]


@dataclass(frozen=True)
class Recipe:
    """Everything that goes into a builder."""

    environment: str
    run_id: str  # the run that it is made for; has no influence on it
    host_image: str  # the image's id
    suite: str
    folder: Path  # images/builder, of which only SCRIPTS are used
    packages: tuple[Package, ...]
    index: bytes  # the Packages paragraphs of `packages`
    fresh: bool  # made for this run alone, and removed with it

    @property
    def volume(self) -> str:
        """The name of the volume: that of the run, or with the hash of everything that goes in."""
        if self.fresh:
            return f"twinbuild-{self.run_id}-{self.environment}-builder"
        parts = [self.host_image, self.suite, sha256_bytes(self.index)]
        parts += [sha256_file(self.folder / name) for name in SCRIPTS]
        parts += [package.sha256 for package in self.packages]
        key = sha256_bytes("\n".join(parts).encode())[:16]
        return f"twinbuild-builder-{self.environment}-{key}"

    @property
    def labels(self) -> dict[str, str]:
        """The volume's labels; a fresh one has those of the run, too."""
        return {LABEL: "builder"} | (self.run_label if self.fresh else {})

    @property
    def run_label(self) -> dict[str, str]:
        """The label of everything that is removed when the run ends."""
        return {RUN_LABEL: f"{self.run_id}/{self.environment}"}


def ensure(client: DockerClient, recipe: Recipe, store: Store, cache: Path) -> tuple[Builder, bool]:
    """Return the builder, and whether it had to be made.

    Runs that need the same builder wait for each other, by a lock file in `cache`. Raise
    InfrastructureFailed, with the last lines of the log, if it cannot be made; nothing of it is
    left then.
    """
    with alone(cache / "builders" / recipe.volume):
        facts = _facts(client, recipe)
        if facts is not None:
            return Builder(recipe.volume, facts), False
        return Builder(recipe.volume, _make_whole(client, recipe, store)), True


def _make_whole(client: DockerClient, recipe: Recipe, store: Store) -> dict[str, str]:
    """Make the builder, or leave nothing of it behind; return the facts that it recorded."""
    label = f"{LABEL}=builder"
    for orphan in client.containers.list(
        all=True, filters={"volume": recipe.volume, "label": label}
    ):
        engine.remove(orphan)  # left by a killed process: the lock is ours
    engine.remove_volume(client, recipe.volume)
    client.volumes.create(recipe.volume, labels=recipe.labels)
    try:
        _make(client, recipe, store)
    except BaseException:
        engine.remove_volume(client, recipe.volume)
        raise
    facts = _facts(client, recipe)
    if facts is None:
        raise InfrastructureFailed(f"the builder of {recipe.environment} was not completed")
    return facts


def _make(client: DockerClient, recipe: Recipe, store: Store) -> None:
    # One pipe for both streams: the Engine does not keep the order between two.
    container = _container(client, recipe, ["sh", "-c", f"exec {WORK}/in/make-builder 2>&1"])
    try:
        files: dict[str, Path | bytes] = {
            "in/packages": "\n".join(p.name for p in recipe.packages).encode(),
            **{f"in/{name}": recipe.folder / name for name in SCRIPTS},
        }
        for name, content in repository.files(
            recipe.suite, {MAIN: recipe.index}, recipe.packages, store
        ).items():
            files[f"in/repository/{name}"] = content
        engine.put(container, WORK, files)
        container.start()
        status = engine.wait(container, TIMEOUT_S)
        if status != 0:
            how = f"did not end within {TIMEOUT_S} s" if status is None else f"status {status}"
            log = last_lines(container.logs(tail=LOG_LINES))
            what = f"the builder of {recipe.environment} could not be made ({how})"
            raise InfrastructureFailed(what, detail="\n".join(map(plain, log.splitlines())))
    finally:
        engine.remove(container)


def _facts(client: DockerClient, recipe: Recipe) -> dict[str, str] | None:
    """Return the facts that a complete builder recorded; None if there is no such builder."""
    try:
        client.volumes.get(recipe.volume)
    except NotFound:
        return None
    container = _container(client, recipe, ["true"])
    try:
        with engine.get(container, WORK / "out" / "complete"):
            pass
        with engine.get(container, WORK / "out" / "facts") as file:
            lines = file.read(4096).decode(errors="replace").splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)
    except NotFound:
        return None
    finally:
        engine.remove(container)


def _container(client: DockerClient, recipe: Recipe, command: list[str]) -> Container:
    return client.containers.create(
        recipe.host_image,
        command,
        labels={LABEL: "builder"} | recipe.run_label,
        environment={"SUITE": recipe.suite},
        volumes={recipe.volume: {"bind": str(WORK), "mode": "rw"}},
        network_mode="none",
        read_only=True,
        tmpfs={"/tmp": ""},  # noqa: S108  the container's own
        cap_drop=["ALL"],
        cap_add=list(CHROOT_CAPABILITIES),
        security_opt=["no-new-privileges"],
        mem_limit=MEMORY,
        nano_cpus=min(CPUS, int(client.info()["NCPU"])) * 1_000_000_000,
        pids_limit=1024,
        log_config=engine.LOG,
    )
