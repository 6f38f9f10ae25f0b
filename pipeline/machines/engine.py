# SPDX-License-Identifier: GPL-3.0-or-later
"""Talks to a Docker Engine: connects, copies files in and out, and finds what builds left there.

Files go through the Engine's API as archives, never as bind mounts, so that an Engine on another
machine works like a local one.
"""

import io
import tarfile
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

import docker
import requests
from docker import DockerClient
from docker.errors import APIError, DockerException, NotFound
from docker.models.containers import Container
from docker.types import LogConfig

from pipeline.base.errors import InfrastructureFailed, command_line

LABEL = "twinbuild"  # on everything that is created on an Engine; its value is the purpose
RUN_LABEL = "twinbuild.run"
TIMEOUT_S = 600
REMOVAL_S = 60
CONFLICT = 409
PIECE = 1024 * 1024
# A machine may print any amount: the Engine keeps only the end of it.
LOG = LogConfig(type=LogConfig.types.JSON, config={"max-size": "256m", "max-file": "1"})
BUILDER_USER = 65534  # nobody: owns the files in a machine's container


@contextmanager
def connect(address: str | None) -> Iterator[DockerClient]:
    """Connect to the Engine at `address`, or else to that of `DOCKER_HOST`, or to the default one.

    Raise InfrastructureFailed if none answers, and for failures of the Engine inside the block.
    """
    where = address or "the default address"
    try:
        client = (
            DockerClient(base_url=address, timeout=TIMEOUT_S)
            if address
            else docker.from_env(timeout=TIMEOUT_S)
        )
        client.ping()
    except (DockerException, requests.RequestException, ValueError) as error:
        remedy = "start one (./farm does), or name one in farm.yaml"
        raise InfrastructureFailed(f"no Docker Engine answers at {where}", remedy=remedy) from error
    try:
        yield client
    except (DockerException, requests.RequestException) as error:
        reason = error.explanation if isinstance(error, APIError) else error
        full = "no space left on device" in str(reason).lower()
        remedy = f"make room on its disk; {command_line('clean --all')} does" if full else ""
        what = f"the Docker Engine at {where} failed: {reason}"
        raise InfrastructureFailed(what, remedy=remedy) from error
    finally:
        client.close()


def put(container: Container, folder: PurePosixPath, files: dict[str, Path | bytes]) -> None:
    """Copy files into a folder of a container, owned by the user that machines run as."""
    container.put_archive(str(folder), archive(files))


def archive(files: dict[str, Path | bytes]) -> Iterator[bytes]:
    """Yield a tar archive piece by piece, without holding a whole file in memory."""
    folders = {str(p) for name in files for p in PurePosixPath(name).parents if p.name}
    for folder in sorted(folders):
        member = tarfile.TarInfo(folder)
        member.type, member.mode = tarfile.DIRTYPE, 0o755
        member.uid = member.gid = BUILDER_USER
        yield member.tobuf(tarfile.PAX_FORMAT)
    for name, content in files.items():
        member = tarfile.TarInfo(name)
        member.uid = member.gid = BUILDER_USER
        member.size = content.stat().st_size if isinstance(content, Path) else len(content)
        executable = isinstance(content, Path) and content.stat().st_mode & 0o100
        member.mode = 0o755 if executable else 0o644
        yield member.tobuf(tarfile.PAX_FORMAT)
        with content.open("rb") if isinstance(content, Path) else io.BytesIO(content) as file:
            while piece := file.read(PIECE):
                yield piece
        yield bytes(-member.size % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)


@contextmanager
def get(container: Container, path: PurePosixPath) -> Iterator[BinaryIO]:
    """Open a file in a container as a stream; what is not read is not transferred."""
    pieces, _ = container.get_archive(str(path), chunk_size=PIECE)
    stream = io.BufferedReader(_Pieces(pieces), PIECE)
    try:
        with tarfile.open(fileobj=stream, mode="r|") as tar:
            member = tar.next()
            file = tar.extractfile(member) if member and member.isfile() else None
            if file is None:
                raise InfrastructureFailed(f"the Docker Engine gave no file {path}")
            yield file  # type: ignore[misc]
    except tarfile.TarError as error:
        raise InfrastructureFailed(
            f"the Docker Engine broke off in the middle of {path}"
        ) from error
    finally:
        cast("Generator[bytes]", pieces).close()


class _Pieces(io.RawIOBase):
    """Reads an iterator of bytes like a file."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        target = memoryview(buffer)  # type: ignore[arg-type]
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = piece
        count = min(len(target), len(self._rest))
        target[:count], self._rest = self._rest[:count], self._rest[count:]
        return count


def wait(container: Container, timeout_s: float) -> int | None:
    """Wait until a container ends; return its exit status, or None after `timeout_s`."""
    try:
        return int(container.wait(timeout=timeout_s)["StatusCode"])
    except requests.ConnectionError as error:  # the SDK's timeout, once a response has begun
        if "Read timed out" in str(error):
            return None
        raise
    except requests.ReadTimeout:
        return None


def remove(container: Container) -> None:
    """Stop and remove a container, if it still exists."""
    with suppress(NotFound):
        try:
            container.remove(force=True, v=True)
        except APIError as error:
            if error.status_code != CONFLICT:
                raise
            container.wait(condition="removed", timeout=REMOVAL_S)  # another thread removes it


def remove_volume(client: DockerClient, name: str) -> None:
    """Remove a volume, if it exists."""
    with suppress(NotFound):
        client.volumes.get(name).remove(force=True)


def sweep(client: DockerClient, run_id: str, environment: str) -> bool:
    """Remove what a build left on an Engine, except cached builders; tell if there was anything."""
    value = f"{RUN_LABEL}={run_id}/{environment}"
    containers = client.containers.list(all=True, filters={"label": value})
    volumes = client.volumes.list(filters={"label": value})
    for container in containers:
        remove(container)
    for volume in volumes:
        remove_volume(client, volume.name)
    return bool(containers or volumes)


def everything(client: DockerClient) -> dict[str, Callable[[], None]]:
    """Return everything that Twinbuild keeps on an Engine: names for people, with removers."""
    found: dict[str, Callable[[], None]] = {}
    for container in client.containers.list(all=True, filters={"label": LABEL}):
        found[f"container {container.name}"] = partial(remove, container)
    for volume in client.volumes.list(filters={"label": LABEL}):
        found[f"volume {volume.name}"] = partial(remove_volume, client, volume.name)
    for image in client.images.list(filters={"label": LABEL}):
        name = next(iter(image.tags), str(image.id))
        found[f"image {name}"] = partial(client.images.remove, name, force=True)
    return found
