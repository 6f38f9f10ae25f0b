# SPDX-License-Identifier: GPL-3.0-or-later
"""Builders in volumes, made by short scripts in place of `make-builder`; and the accelerator."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from docker import DockerClient
from docker.errors import NotFound

from pipeline.base.errors import ExitStatus, InfrastructureFailed
from pipeline.base.store import Store
from pipeline.machines import accelerator, builder, engine
from pipeline.machines.builder import Recipe

pytestmark = pytest.mark.container

MAKES = """#!/bin/sh
set -e
mkdir /work/out
printf 'kernel=6.1\\nmade=%s\\n' "$(cat /work/in/init)" >/work/out/facts
touch /work/out/complete
"""


@pytest.fixture
def recipe(client: DockerClient, host_image: str, run_id: str, tmp_path: Path) -> Any:
    """A builder whose name no other test shares; its volume is gone afterwards."""
    made = Recipe("alpha", run_id, host_image, "trixie", tmp_path, (), b"index", fresh=False)
    (tmp_path / "init").write_text(f"init of {run_id}")
    write(made, MAKES)
    yield made
    for volume in client.volumes.list(filters={"label": f"{engine.LABEL}=builder"}):
        if volume.name in volumes:
            engine.remove_volume(client, str(volume.name))
    volumes.clear()


volumes: set[str] = set()


def write(recipe: Recipe, script: str) -> None:
    (recipe.folder / "make-builder").write_text(script)
    (recipe.folder / "make-builder").chmod(0o755)


def ensure(client: DockerClient, recipe: Recipe) -> tuple[builder.Builder, bool]:
    volumes.add(recipe.volume)
    return builder.ensure(client, recipe, Store(recipe.folder / "s"), recipe.folder / "cache")


def exists(client: DockerClient, recipe: Recipe) -> bool:
    try:
        client.volumes.get(recipe.volume)
    except NotFound:
        return False
    return True


def test_a_builder_is_made_once(
    client: DockerClient, recipe: Recipe, run_id: str, left: Callable[[], set[str]]
) -> None:
    first, made = ensure(client, recipe)
    assert made
    assert first.facts == {"kernel": "6.1", "made": f"init of {run_id}"}
    assert ensure(client, recipe) == (first, False)
    (recipe.folder / "init").write_text("another")
    second, made = ensure(client, recipe)
    assert made
    assert second.facts["made"] == "another"
    assert second.volume != first.volume
    assert left() == set()


def test_a_release_makes_its_own_which_goes_with_it(
    client: DockerClient, recipe: Recipe, run_id: str, left: Callable[[], set[str]]
) -> None:
    shared, _ = ensure(client, recipe)
    own, made = ensure(client, replace(recipe, fresh=True))
    assert made
    assert left() == {own.volume}
    engine.sweep(client, run_id, "alpha")
    assert left() == set()
    assert ensure(client, recipe) == (shared, False)


def test_a_builder_that_cannot_be_made_leaves_nothing(
    client: DockerClient, recipe: Recipe, left: Callable[[], set[str]]
) -> None:
    write(recipe, "#!/bin/sh\nseq 50\nprintf 'the last \\033[31mwords\\n' >&2\nexit 9\n")
    with pytest.raises(InfrastructureFailed, match=r"of alpha could not be made \(status 9\)") as e:
        ensure(client, recipe)
    assert e.value.status == ExitStatus.INFRASTRUCTURE
    assert e.value.detail.splitlines()[-1] == r"the last \x1b[31mwords"
    assert "50" in e.value.detail
    assert left() == set()
    assert not exists(client, recipe)


def test_a_builder_that_is_not_complete_is_none(client: DockerClient, recipe: Recipe) -> None:
    write(recipe, "#!/bin/sh\nmkdir /work/out && touch /work/out/facts\n")
    with pytest.raises(InfrastructureFailed, match="was not completed"):
        ensure(client, recipe)


def test_a_builder_that_takes_too_long(
    client: DockerClient,
    recipe: Recipe,
    left: Callable[[], set[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(builder, "TIMEOUT_S", 5)
    write(recipe, "#!/bin/sh\necho begun\nsleep 600\n")
    with pytest.raises(InfrastructureFailed, match="did not end within 5 s") as caught:
        ensure(client, recipe)
    assert caught.value.detail == "begun"
    assert left() == set()
    assert not exists(client, recipe)


def test_what_a_killed_orchestrator_left_is_replaced(
    client: DockerClient, recipe: Recipe, make: Callable[..., Any]
) -> None:
    client.volumes.create(recipe.volume, labels=recipe.labels)
    mounted = {recipe.volume: {"bind": "/work", "mode": "rw"}}
    orphan = make(
        ["sh", "-c", "mkdir /work/out; sleep 600"],
        volumes=mounted,
        labels={engine.LABEL: "builder", engine.RUN_LABEL: "another-run/alpha"},
    )
    orphan.start()
    assert ensure(client, recipe)[1]
    with pytest.raises(NotFound):
        orphan.reload()


def test_two_runs_make_one_builder(client: DockerClient, recipe: Recipe) -> None:
    begin = threading.Barrier(2)

    def at_once(run_id: str) -> bool:
        begin.wait()
        return ensure(client, replace(recipe, run_id=run_id))[1]

    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(at_once, [recipe.run_id, f"{recipe.run_id}-2"]))
    assert sorted(made) == [False, True]


CONFINED = """#!/bin/sh
mkdir /work/out
{
    echo "net=$(ls /sys/class/net)"
    echo "caps=$(sed -n 's/^CapEff:.//p' /proc/self/status)"
    echo "nnp=$(sed -n 's/^NoNewPrivs:.//p' /proc/self/status)"
    echo "root=$( (: >/x) 2>/dev/null && echo written)"
} >/work/out/facts
touch /work/out/complete
"""


def test_the_script_is_confined(client: DockerClient, recipe: Recipe) -> None:
    write(recipe, CONFINED)
    facts = ensure(client, recipe)[0].facts
    assert (facts["net"], facts["nnp"], facts["root"]) == ("lo", "1", "")
    caps = int(facts["caps"], 16)
    sys_admin, net_admin, sys_module, sys_ptrace = 21, 12, 16, 19
    assert not any(caps >> bit & 1 for bit in (sys_admin, net_admin, sys_module, sys_ptrace))


def test_kvm_is_not_believed_unless_a_kernel_booted(
    client: DockerClient, host_image: str, volume: str, tmp_path: Path
) -> None:
    """With an empty builder nothing boots, whatever /dev/kvm is here."""
    chosen = accelerator.choose(client, host_image, volume, tmp_path)
    assert chosen == accelerator.TCG
    probes = {"label": f"{engine.LABEL}=probe"}
    assert client.containers.list(all=True, filters=dict(probes)) == []


def test_the_answer_about_kvm_is_kept(
    client: DockerClient, host_image: str, volume: str, tmp_path: Path
) -> None:
    accelerator.choose(client, host_image, volume, tmp_path)
    (answer,) = (tmp_path / "accelerators").iterdir()
    answer.write_text('{"name": "kvm", "kvm_group": 107}')
    kept = accelerator.choose(client, host_image, "no-such-volume", tmp_path)
    assert kept == accelerator.Accelerator("kvm", 107)
    for damaged in ("", "{", "[]", '{"name": "kvm"}'):
        answer.write_text(damaged)
        assert accelerator.choose(client, host_image, volume, tmp_path) == accelerator.TCG
