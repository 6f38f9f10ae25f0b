# SPDX-License-Identifier: GPL-3.0-or-later
"""Kept trees: the trees after the steps of an environment's builds, cached on its Engine.

A layer is what one step changed. Its key is the hash of everything that went into the tree so far,
and only the environment that made it begins from it. The layers come from a hostile machine: the
digest that it reported, before the next step began, is compared with the disk.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, Self

from docker import DockerClient
from docker.errors import NotFound
from docker.models.containers import Container
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic import model_validator as validator

from pipeline.base.errors import InfrastructureFailed
from pipeline.base.files import alone, sha256_bytes
from pipeline.base.plain import plain
from pipeline.documents.json_form import json_bytes, parse_json
from pipeline.documents.machine import Layer
from pipeline.machines import engine
from pipeline.machines.engine import BUILDER_USER, LABEL, RUN_LABEL
from pipeline.machines.machine import LAYERS, LAYERS_BYTES, TREES, VOLUME, WORK

FORMAT = "twinbuild-trees/1"
LIMIT = 12 * 1024**3  # bytes of an environment's layers; the least recently used go first
INDEX_LIMIT = 16 * 1024 * 1024
COPY_TIMEOUT_S = 900
MOUNTED = PurePosixPath("/trees")
FOLDER = "kept"  # created by the first file put into it, so that the containers' user owns it

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
StepName = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]{1,300}$")]
Seconds = Annotated[int, Field(ge=-(2**40), le=2**40)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ReportedLayer(_Strict):
    """A machine's record of a layer on its layers disk, as `documents/progress.py` describes it."""

    record: str
    step: StepName
    offset: Annotated[int, Field(ge=0, le=LAYERS_BYTES)]
    size: Annotated[int, Field(gt=0, le=LAYERS_BYTES)]
    head: Annotated[int, Field(gt=0, le=LAYERS_BYTES)]
    started: Seconds
    ended: Seconds
    digest: Digest
    sha256: Digest

    @validator(mode="after")
    def _possible(self) -> Self:
        if self.offset + self.size > LAYERS_BYTES or self.head >= self.size:
            raise ValueError("it does not fit on the disk")
        if self.ended < self.started:
            raise ValueError("it ended before it began")
        return self


class KeptLayer(_Strict):
    """A layer in the volume, in a file named by its key; `used` is when it was last used."""

    key: Digest
    parent: Digest | None
    step: StepName
    size: int
    head: int
    started: Seconds
    ended: Seconds
    digest: Digest
    used: int

    def at(self, offset: int) -> Layer:
        """Return its description for a machine; it is `offset` bytes into the trees disk."""
        numbers = self.size, self.head, self.started, self.ended
        return Layer(self.step, offset, *numbers, self.digest)


@dataclass(frozen=True)
class TreeKeys:
    """The basis of layers' keys: digests of what goes into the bootstrap and the later steps."""

    bootstrap: str
    commit: str

    def chain(self, steps: Iterable[str]) -> list[str]:
        """Return the keys of the steps, the first of which is the bootstrap."""
        keys: list[str] = []
        for step in steps:
            first = not keys
            parts = [self.bootstrap, step] if first else [keys[-1], self.commit, step]
            keys.append(sha256_bytes("\n".join(parts).encode()))
        return keys


@dataclass(frozen=True)
class TwoValues:
    """A step that made two trees from the same inputs: it is not reproducible by itself."""

    step: str
    before: str  # the ledger's digests
    now: str

    def __str__(self) -> str:
        return (
            f"{plain(self.step)} made another tree than before of the same inputs:"
            " it is not reproducible even in one environment"
        )


def read_layers(records: Iterable[Mapping[str, object]]) -> list[ReportedLayer]:
    """Return the layers that a machine reports, up to the first impossible one.

    Each step has one layer, and they follow one another on the disk, so that a later step cannot
    replace an earlier layer.
    """
    layers: list[ReportedLayer] = []
    steps: set[str] = set()
    end = 0
    for record in records:
        try:
            layer = ReportedLayer.model_validate(dict(record))
        except ValidationError:
            break
        if layer.step in steps or layer.offset < end:
            break
        layers.append(layer)
        steps.add(layer.step)
        end = layer.offset + layer.size
    return layers


@dataclass(frozen=True)
class KeptTrees:
    """The kept trees of one environment."""

    client: DockerClient
    environment: str
    run_id: str  # the run that containers are created for
    host_image: str
    cache: Path  # has the lock by which runs wait for each other

    @property
    def volume(self) -> str:
        """The volume's name."""
        return f"twinbuild-trees-{self.environment}"

    def begin(self, keys: Sequence[str], machine: Container) -> list[KeptLayer]:
        """Copy the layers with these keys to a machine's trees disk, up to the first missing one.

        Return them in this order; on the disk they follow one another without gaps.
        """
        engine.put(machine, VOLUME, {f"{WORK.name}/{TREES}": b""})
        with self._alone():
            index = self._read()
            found: list[KeptLayer] = []
            for key in keys:
                if key not in index:
                    break
                found.append(index[key])
            if found:
                script = f'cd {MOUNTED}/{FOLDER}; cat -- "$@" >{WORK}/{TREES}'
                self._run(script, [layer.key for layer in found], machine)
                now = int(time.time())
                used = {layer.key: layer.model_copy(update={"used": now}) for layer in found}
                self._write(index | used, machine)
        return found

    def take(
        self, keys: Sequence[str], layers: Sequence[ReportedLayer], machine: Container
    ) -> list[TwoValues]:
        """Keep the layers that a machine reports; return those that contradict a kept one.

        `keys` are those of all steps so far, `layers` belong to the last ones. If there are two
        different trees under one key, neither is kept, nor anything made from them.
        """
        with self._alone():
            index = self._read()
            parents = dict(zip(keys[1:], keys, strict=False))
            new: dict[str, ReportedLayer] = {}
            for key, layer in zip(keys[len(keys) - len(layers) :], layers, strict=True):
                known = index.get(key)
                if known and known.digest != layer.digest:
                    self._write(_without(index, key), machine)
                    return [TwoValues(layer.step, known.digest, layer.digest)]
                if not known:
                    new[key] = layer
            copied = self._copy(new, machine)
            now = int(time.time())
            for key, layer in new.items():
                parent = parents.get(key)
                if key not in copied or (parent and parent not in index):
                    break
                fields = layer.model_dump(exclude={"record", "offset", "sha256"})
                index[key] = KeptLayer(key=key, parent=parent, used=now, **fields)
            self._write(index, machine)
        return []

    def drop(self, key: str, machine: Container) -> None:
        """Remove a layer that turned out to be damaged, and everything made from it."""
        with self._alone():
            self._write(_without(self._read(), key), machine)

    def _copy(self, layers: Mapping[str, ReportedLayer], machine: Container) -> set[str]:
        """Copy layers from a machine's disk; return the keys of those with the reported digest."""
        if not layers:
            return set()
        script = f"""
            cd {MOUNTED}/{FOLDER}
            while [ $# -gt 0 ]; do
                dd if={WORK}/{LAYERS} of="$1.part" bs=1M iflag=skip_bytes,count_bytes \\
                    skip="$2" count="$3" status=none
                if echo "$4  $1.part" | sha256sum --check --status; then
                    mv "$1.part" "$1"
                    echo "$1"
                else
                    rm "$1.part"
                fi
                shift 4
            done"""
        arguments = [
            str(part)
            for key, layer in layers.items()
            for part in (key, layer.offset, layer.size, layer.sha256)
        ]
        return set(self._run(script, arguments, machine).split()) & layers.keys()

    def _read(self) -> dict[str, KeptLayer]:
        """Return the index by key; a damaged one, or one of a later version, counts as empty."""
        self.client.volumes.create(self.volume, labels={LABEL: "trees"})
        container = self._container(["true"], None)
        try:
            with engine.get(container, MOUNTED / FOLDER / "index.json") as file:
                index = _Index.model_validate(parse_json(file.read(INDEX_LIMIT)))
            return {layer.key: layer for layer in index.layers}
        except (NotFound, ValueError, RecursionError):  # pydantic's errors are ValueErrors
            return {}
        finally:
            engine.remove(container)

    def _write(self, index: Mapping[str, KeptLayer], machine: Container) -> None:
        """Write the index of the layers that fit into the limit, and remove all other files."""
        kept = fitting(index, LIMIT)
        document = {"format": FORMAT, "layers": [layer.model_dump() for layer in kept]}
        names = [*(layer.key for layer in kept), "index.json"]
        script = f"""
            cd {MOUNTED}/{FOLDER}
            for name in *; do
                grep -qxF "$name" names || rm -f "$name"
            done"""
        files: dict[str, Path | bytes] = {
            f"{FOLDER}/index.json": json_bytes(document),
            f"{FOLDER}/names": "\n".join([*names, "names"]).encode(),
        }
        self._run(script, [], machine, files)

    def _alone(self) -> AbstractContextManager[None]:
        return alone(self.cache / "trees" / f"{self.environment}.lock")

    def _run(
        self,
        script: str,
        arguments: Sequence[str],
        machine: Container,
        files: dict[str, Path | bytes] | None = None,
    ) -> str:
        """Run a shell script with access to the kept trees and a machine's volume.

        Return its output; raise InfrastructureFailed if it fails.
        """
        container = self._container(["/bin/sh", "-euc", script, "keeper", *arguments], machine)
        try:
            engine.put(container, MOUNTED, files or {f"{FOLDER}/names": b""})
            container.start()
            status = engine.wait(container, COPY_TIMEOUT_S)
            output: str = container.logs().decode(errors="replace")
        finally:
            engine.remove(container)
        if status != 0:
            what = f"the kept trees of {self.environment} cannot be reached (status {status})"
            raise InfrastructureFailed(what, detail=plain(output[-2000:]))
        return output

    def _container(self, command: list[str], machine: Container | None) -> Container:
        """Create a container with access to the kept trees and the volume of `machine`, if any."""
        volumes = {self.volume: {"bind": str(MOUNTED), "mode": "rw"}}
        if machine:
            volumes[str(machine.name)] = {"bind": str(VOLUME), "mode": "rw"}
        return self.client.containers.create(
            self.host_image,
            command,
            labels={LABEL: "trees", RUN_LABEL: f"{self.run_id}/{self.environment}"},
            user=f"{BUILDER_USER}:{BUILDER_USER}",
            volumes=volumes,
            network_mode="none",
            read_only=True,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            mem_limit="256m",
            pids_limit=64,
            log_config=engine.LOG,
        )


class _Index(_Strict):
    format: Literal["twinbuild-trees/1"]
    layers: list[KeptLayer]


def _without(index: Mapping[str, KeptLayer], key: str) -> dict[str, KeptLayer]:
    """Return the index without a layer and everything made from it."""
    return {
        name: layer
        for name, layer in index.items()
        if key not in {other.key for other in _chain(index, layer)}
    }


def fitting(index: Mapping[str, KeptLayer], limit: int) -> list[KeptLayer]:
    """Return the layers that fit into `limit` bytes with those below them, last used first."""
    kept: dict[str, KeptLayer] = {}
    room = limit
    for layer in sorted(index.values(), key=lambda layer: (-layer.used, layer.key)):
        chain = _chain(index, layer)
        new = [other for other in chain if other.key not in kept]
        size = sum(other.size for other in new)
        if chain[-1].parent is None and size <= room:
            kept |= {other.key: other for other in new}
            room -= size
    return list(kept.values())


def _chain(index: Mapping[str, KeptLayer], layer: KeptLayer) -> list[KeptLayer]:
    """Return a layer and those below it, topmost first, as far as they exist."""
    chain = [layer]
    while (parent := index.get(chain[-1].parent or "")) and parent not in chain:
        chain.append(parent)
    return chain
