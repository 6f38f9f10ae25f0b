# SPDX-License-Identifier: GPL-3.0-or-later
"""Ctrl-C while builds are at work: nothing of them stays, here or on the Engine."""

import secrets
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from docker import DockerClient

from pipeline.base import dsse
from pipeline.base.files import write_json
from pipeline.farm.run import Run
from pipeline.farm.workspace import Workspace
from pipeline.machines import engine
from pipeline.machines.host import Host
from tests.prepared_run import ROOT, make_farm, make_run

pytestmark = pytest.mark.container

# A script's background job, and what it starts, ignores SIGINT.
BUILD = """
import signal
import sys
from pathlib import Path
from rich.console import Console
from pipeline import flow
from pipeline.base.display import Display
from pipeline.farm.run import open_run
from pipeline.farm.workspace import open_workspace
signal.signal(signal.SIGINT, signal.default_int_handler)
workspace = open_workspace(Path(sys.argv[1]))
flow.build_all(workspace, open_run(workspace.runs, sys.argv[2]), Display(Console()), keep=False)
"""
HANGS = "#!/bin/sh\nsleep 600\n"
# A builder whose kernel boots and finds nothing: time enough.
BOOTS = """#!/bin/sh
set -e
mkdir /work/out
cp /boot/vmlinuz-* /work/out/vmlinuz
: >/work/out/initrd.img
truncate -s 1M /work/out/root.img
: >/work/out/facts
: >/work/out/complete
"""
END_S = 300


@pytest.fixture
def workspace(
    client: DockerClient,
    host_image: str,
    alpha: Host,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Workspace]:
    """A farm whose two environments have the one container host that is there already."""
    monkeypatch.setenv("TWINBUILD_CACHE", str(tmp_path / 'it\'s a 50% "cache"'))
    made = make_farm(tmp_path / "farm")
    shutil.rmtree(made.hosts / "beta")
    shutil.copytree(made.hosts / "alpha", made.hosts / "beta")
    for name in ("alpha", "beta"):
        monkeypatch.setenv(f"TWINBUILD_KEY_{name.upper()}", str(tmp_path / f"{name}.pem"))
        dsse.make_key(tmp_path / f"{name}.pem")
    engine_id = client.info()["ID"].replace(":", "-")
    answer = made.cache / "accelerators" / f"{engine_id}-{host_image[-16:]}.json"
    write_json(answer, {"name": "tcg", "kvm_group": None})
    client.images.get(host_image).tag("twinbuild-host-beta", alpha.key)
    yield made
    client.images.remove(f"twinbuild-host-beta:{alpha.key}")


@pytest.fixture
def run(workspace: Workspace, client: DockerClient) -> Iterator[Run]:
    made = make_run(workspace)
    yield made
    for name in ("alpha", "beta"):
        engine.sweep(client, made.id, name)


@pytest.fixture
def builders(client: DockerClient) -> Iterator[set[str]]:
    """The volumes of the builders that the test has seen at work; gone afterwards."""
    seen: set[str] = set()
    yield seen
    for name in seen:
        engine.remove_volume(client, name)


def exist(client: DockerClient, names: set[str]) -> set[str]:
    return names & {str(volume.name) for volume in client.volumes.list()}


def of_run(client: DockerClient, run: Run) -> list[Any]:
    found: list[Any] = []
    for name in ("alpha", "beta"):
        label = f"{engine.RUN_LABEL}={run.id}/{name}"
        found += client.containers.list(all=True, filters={"label": label})
        found += client.volumes.list(filters={"label": label})
    return found


def write_builder(workspace: Workspace, script: str) -> None:
    """Give the farm a builder that no other test, and no killed one of before, has too."""
    (workspace.builder / "make-builder").write_text(f"{script}# {secrets.token_hex(8)}\n")


def interrupted(workspace: Workspace, run: Run, at_work: Callable[[], object]) -> str:
    """Start a build, interrupt it when it is at work, and return its output."""
    argv = [sys.executable, "-c", BUILD, str(workspace.checkout), run.id]
    with subprocess.Popen(
        argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            at_work()
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=END_S)
        finally:
            process.kill()
    assert process.returncode in (-signal.SIGINT, 130), err
    assert err.splitlines()[-1] == "KeyboardInterrupt", err
    return out


def starts(client: DockerClient, run: Run, kind: str, volumes: set[str]) -> Callable[[], None]:
    """Return what waits until each environment has a container of this kind at work.

    The names of the volumes that these containers use are added to `volumes`.
    """
    labels = [f"{engine.LABEL}={kind}"]
    events = client.events(
        decode=True, filters={"type": "container", "event": "start", "label": labels}
    )

    def wait() -> None:
        waiting = {f"{run.id}/alpha", f"{run.id}/beta"}
        while waiting:
            actor = next(events)["Actor"]
            if actor["Attributes"][engine.RUN_LABEL] in waiting:
                waiting.remove(actor["Attributes"][engine.RUN_LABEL])
                mounts = client.containers.get(actor["ID"]).attrs["Mounts"]
                volumes.update(m["Name"] for m in mounts if m["Type"] == "volume")
        events.close()

    return wait


def test_while_the_builders_are_made(
    client: DockerClient, workspace: Workspace, run: Run, builders: set[str]
) -> None:
    write_builder(workspace, HANGS)
    interrupted(workspace, run, starts(client, run, "builder", builders))
    assert of_run(client, run) == []
    assert len(builders) == 2
    assert exist(client, builders) == set()


def test_while_the_machines_run(
    client: DockerClient, workspace: Workspace, run: Run, builders: set[str]
) -> None:
    write_builder(workspace, BOOTS)
    output = interrupted(workspace, run, starts(client, run, "machine", builders))
    assert "machine (tcg)" in output
    assert of_run(client, run) == []
    assert not run.verdict_json.exists()


def test_while_a_container_host_is_made(
    client: DockerClient, workspace: Workspace, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """mmdebstrap waits for a mirror that never answers."""
    for name in ("alpha", "beta"):
        path = workspace.hosts / name / "environment.yaml"
        document = yaml.safe_load(path.read_text())
        path.write_text(yaml.safe_dump({**document, "suite": "sid"}))
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        for name in workspace.farm.archives:
            variable = f"TWINBUILD_MIRROR_{name.upper().replace('-', '_')}"
            monkeypatch.setenv(variable, f"{address}/{name}")
        for variable in ("http_proxy", "https_proxy"):
            monkeypatch.delenv(variable, raising=False)
        connections: list[socket.socket] = []
        interrupted(workspace, run, lambda: connections.append(server.accept()[0]))
        connections.pop().close()
        assert [argv for argv in running() if address in argv] == []
    assert of_run(client, run) == []


def running() -> Iterator[str]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
