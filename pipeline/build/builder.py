"""The builder: the build machine's root file system, kernel and initramfs, made from the lock.

Each container host makes its own with its own mmdebstrap, so two of them are similar, not equal,
and none is ever published. It is kept in a volume named by the hash of all that went into it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from docker import DockerClient
from docker.errors import NotFound
from docker.models.containers import Container

from pipeline.build import engine, repository
from pipeline.build.engine import LABEL, RUN_LABEL
from pipeline.errors import InfrastructureFailed
from pipeline.files import sha256_bytes, sha256_file
from pipeline.lock import Package
from pipeline.store import Store

TIMEOUT_S = 1800
WORK = PurePosixPath("/work")  # while it is made
MOUNTED = PurePosixPath("/builder")  # afterwards
OUT = MOUNTED / "out"
TAIL_LINES = 15
# Those that mmdebstrap needs to unpack packages and to run their scripts in a chroot.
CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "MKNOD", "SETFCAP", "SETGID", "SETUID")
CHROOT_CAPABILITIES = (*CAPABILITIES, "SYS_CHROOT", "KILL", "AUDIT_WRITE")


@dataclass(frozen=True)
class Builder:
    """A builder that is ready: the volume that holds it, and what it says of itself."""

    volume: str
    facts: Mapping[str, str]


@dataclass(frozen=True)
class Recipe:
    """All that goes into a builder."""

    environment: str
    run_id: str  # for whom it is made; does not go into it
    host_image: str  # its id
    suite: str
    folder: Path  # images/builder
    packages: tuple[Package, ...]
    index: bytes  # the Packages paragraphs of these

    @property
    def volume(self) -> str:
        """The name of the volume: the hash of all the above."""
        parts = [self.host_image, self.suite, sha256_bytes(self.index)]
        parts += [sha256_file(self.folder / name) for name in ("make-builder", "init")]
        parts += [package.sha256 for package in self.packages]
        key = sha256_bytes("\n".join(parts).encode())[:16]
        return f"twinbuild-builder-{self.environment}-{key}"


def ensure(
    client: DockerClient, recipe: Recipe, store: Store, *, fresh: bool
) -> tuple[Builder, bool]:
    """Return the builder, and whether it had to be made; a `fresh` one is made in any case."""
    if fresh:
        engine.remove_volume(client, recipe.volume)
    facts = _facts(client, recipe)
    if facts is not None:
        return Builder(recipe.volume, facts), False
    engine.remove_volume(client, recipe.volume)
    client.volumes.create(recipe.volume, labels={LABEL: "builder"})
    try:
        _make(client, recipe, store)
    except BaseException:
        engine.remove_volume(client, recipe.volume)
        raise
    facts = _facts(client, recipe)
    if facts is None:
        raise InfrastructureFailed(f"the builder of {recipe.environment} was not completed")
    return Builder(recipe.volume, facts), True


def _make(client: DockerClient, recipe: Recipe, store: Store) -> None:
    container = _container(client, recipe, [f"{WORK}/in/make-builder"])
    try:
        files: dict[str, Path | bytes] = {
            "in/make-builder": recipe.folder / "make-builder",
            "in/init": recipe.folder / "init",
            "in/packages": "\n".join(p.name for p in recipe.packages).encode(),
        }
        for name, content in repository.files(
            recipe.suite, recipe.index, recipe.packages, store
        ).items():
            files[f"in/repository/{name}"] = content
        engine.put(container, WORK, files)
        container.start()
        status = int(container.wait(timeout=TIMEOUT_S)["StatusCode"])
        if status != 0:
            log = container.logs(tail=TAIL_LINES).decode(errors="replace")
            what = f"the builder of {recipe.environment} could not be made (status {status})"
            raise InfrastructureFailed(what, detail=log)
    finally:
        engine.remove(container)


def _facts(client: DockerClient, recipe: Recipe) -> dict[str, str] | None:
    """Return what a complete builder says of itself, or None if there is none."""
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
        labels={LABEL: "builder", RUN_LABEL: f"{recipe.run_id}/{recipe.environment}"},
        environment={"SUITE": recipe.suite},
        volumes={recipe.volume: {"bind": str(WORK), "mode": "rw"}},
        network_mode="none",
        read_only=True,
        tmpfs={"/tmp": ""},  # noqa: S108  the container's own
        cap_drop=["ALL"],
        cap_add=list(CHROOT_CAPABILITIES),
        security_opt=["no-new-privileges"],
        pids_limit=1024,
    )
