# SPDX-License-Identifier: GPL-3.0-or-later
"""Layers in a volume of a real Engine: taken from a machine's disk, put on another's."""

import json
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from docker import DockerClient

from pipeline.base.errors import InfrastructureFailed
from pipeline.machines import engine, machine, trees
from pipeline.machines.machine import LAYERS, VOLUME, WORK, Machine
from pipeline.machines.trees import KeptTrees, ReportedLayer, TreeKeys, TwoValues, read_layers

pytestmark = pytest.mark.container

STEPS = ["20-bootstrap", "30-includes", "40-hooks/a"]
CONTENT = {step: step.encode() * 3000 for step in STEPS}
KEYS = TreeKeys("bootstrap", "commit")


@pytest.fixture
def kept(client: DockerClient, host_image: str, run_id: str, tmp_path: Path) -> Iterator[KeptTrees]:
    """The trees of an environment that is this test's alone."""
    made = KeptTrees(client, run_id, run_id, host_image, tmp_path)
    yield made
    engine.sweep(client, run_id, run_id)
    engine.remove_volume(client, made.volume)


@pytest.fixture
def container(client: DockerClient, machine_of_run: Machine) -> Any:
    """A machine that was made and has not run."""
    made = machine.create(client, machine_of_run, ["true"])
    engine.put(made, VOLUME, {f"{WORK.name}/input.tar": b""})
    return made


def reported(content: Mapping[str, bytes] = CONTENT, **changes: Any) -> list[ReportedLayer]:
    records, offset = [], 0
    for step, layer in content.items():
        record = {
            "record": "layer",
            "step": step,
            "offset": offset,
            "size": len(layer),
            "head": 10,
            "started": 1_800_000_000,
            "ended": 1_800_000_100,
            "digest": sha256(layer).hexdigest(),
            "sha256": sha256(layer).hexdigest(),
        }
        records.append(record | changes)
        offset += len(layer) + -len(layer) % 4096
    return read_layers(records)


def disk(content: Mapping[str, bytes] = CONTENT) -> bytes:
    return b"".join(layer + bytes(-len(layer) % 4096) for layer in content.values())


def take(
    kept: KeptTrees,
    container: Any,
    layers: Sequence[ReportedLayer],
    content: bytes | None = None,
    steps: Sequence[str] = STEPS,
    keys: TreeKeys = KEYS,
) -> list[TwoValues]:
    engine.put(container, VOLUME, {f"{WORK.name}/{LAYERS}": content or disk()})
    return kept.take(keys.chain(steps), layers, container)


def on_disk(container: Any) -> bytes:
    with engine.get(container, WORK / machine.TREES) as file:
        return file.read()


def begin(
    kept: KeptTrees, container: Any, steps: Sequence[str] = STEPS, keys: TreeKeys = KEYS
) -> list[str]:
    found = kept.begin(keys.chain(steps), container)
    assert on_disk(container) == b"".join(CONTENT[layer.step] for layer in found)
    return [layer.step for layer in found]


def files(kept: KeptTrees, container: Any) -> list[str]:
    listing = kept._run(f"ls {trees.MOUNTED}/{trees.FOLDER}", [], container)
    return sorted(set(listing.split()) - {"index.json", "names"})


def test_what_is_taken_is_there_to_begin_with(kept: KeptTrees, container: Any) -> None:
    assert begin(kept, container) == []
    assert take(kept, container, reported()) == []
    assert begin(kept, container) == STEPS
    assert begin(kept, container, STEPS[:1]) == STEPS[:1]
    assert begin(kept, container, keys=TreeKeys("bootstrap", "another")) == STEPS[:1]
    assert begin(kept, container, keys=TreeKeys("another", "commit")) == []
    assert take(kept, container, reported()) == []  # the same again
    assert files(kept, container) == sorted(KEYS.chain(STEPS))


def test_a_build_that_began_later_adds_to_it(kept: KeptTrees, container: Any) -> None:
    first = {step: CONTENT[step] for step in STEPS[:1]}
    rest = {step: CONTENT[step] for step in STEPS[1:]}
    assert take(kept, container, reported(first), disk(first), STEPS[:1]) == []
    assert take(kept, container, reported(rest), disk(rest)) == []
    assert begin(kept, container) == STEPS


def test_what_was_changed_after_it_was_reported_is_not_taken(
    kept: KeptTrees, container: Any
) -> None:
    """A hook that overwrites the disk poisons nothing, nor what it would rest on."""
    changed = bytearray(disk())
    changed[len(CONTENT[STEPS[0]]) + 4096] ^= 1
    assert take(kept, container, reported(), bytes(changed)) == []
    assert begin(kept, container) == STEPS[:1]
    assert files(kept, container) == KEYS.chain(STEPS[:1])


def test_a_disk_that_is_shorter_than_reported(kept: KeptTrees, container: Any) -> None:
    assert take(kept, container, reported(), disk()[:100]) == []
    assert begin(kept, container) == []


def test_two_trees_under_one_key_are_reported_and_dropped(kept: KeptTrees, container: Any) -> None:
    take(kept, container, reported())
    other = {**CONTENT, STEPS[1]: b"another" * 1000}
    (found,) = take(kept, container, reported(other), disk(other))
    assert found.step == STEPS[1]
    assert found.before == sha256(CONTENT[STEPS[1]]).hexdigest()
    assert found.now == sha256(other[STEPS[1]]).hexdigest()
    assert "30-includes made another tree than before of the same inputs" in str(found)
    assert begin(kept, container) == STEPS[:1]
    assert files(kept, container) == KEYS.chain(STEPS[:1])
    assert take(kept, container, reported()) == []  # it begins anew
    assert begin(kept, container) == STEPS


def test_a_damaged_layer_goes_with_what_was_made_from_it(kept: KeptTrees, container: Any) -> None:
    take(kept, container, reported())
    kept.drop(KEYS.chain(STEPS)[1], container)
    assert begin(kept, container) == STEPS[:1]


def test_a_damaged_index_is_none(kept: KeptTrees, container: Any) -> None:
    take(kept, container, reported())
    twice = '{"format": "x", "layers": [{"key": "../x"}], "layers": []}'
    for damage in ("{", "{}", json.dumps({"format": "x", "layers": [{"key": "../x"}]}), twice):
        kept._run(f"printf %s '{damage}' >{trees.MOUNTED}/kept/index.json", [], container)
        assert begin(kept, container) == []
    assert take(kept, container, reported()) == []
    assert begin(kept, container) == STEPS


def test_there_is_a_limit(kept: KeptTrees, container: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    size = sum(map(len, CONTENT.values()))
    monkeypatch.setattr(trees, "LIMIT", size + 10)
    take(kept, container, reported())
    take(kept, container, reported(), keys=TreeKeys("another", "commit"))
    assert len(files(kept, container)) == len(STEPS)


def test_a_volume_that_cannot_be_used(
    kept: KeptTrees, container: Any, client: DockerClient
) -> None:
    """This one forgets what was put there as soon as nobody looks."""
    forgets = {"type": "tmpfs", "device": "tmpfs", "o": "size=64k,mode=755"}
    client.volumes.create(kept.volume, driver_opts=forgets, labels={engine.LABEL: "trees"})
    with pytest.raises(InfrastructureFailed, match=r"kept trees of .* cannot be reached"):
        take(kept, container, reported())


def test_invoke_clean_finds_it(kept: KeptTrees, client: DockerClient, container: Any) -> None:
    take(kept, container, reported())
    assert f"volume {kept.volume}" in engine.everything(client)
