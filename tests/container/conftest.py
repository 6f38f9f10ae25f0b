# SPDX-License-Identifier: GPL-3.0-or-later
"""A real Engine, a container host on it, and a run of its own for each test."""

import secrets
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from docker import DockerClient

from pipeline import flow
from pipeline.farm.config import load_environment
from pipeline.farm.workspace import open_workspace
from pipeline.machines import engine, host
from pipeline.machines.accelerator import TCG
from pipeline.machines.builder import Builder
from pipeline.machines.machine import Machine

ROOT = Path(__file__).parents[2]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first test on a new machine waits until the container host is made."""
    for item in items:
        ours = item.path.is_relative_to(Path(__file__).parent)
        if ours and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(600))


@pytest.fixture(scope="session")
def client() -> Iterator[DockerClient]:
    with engine.connect(None) as connected:
        yield connected


@pytest.fixture(scope="session")
def alpha() -> host.Host:
    """The container host that most tests run on; its image is kept from one session to the next."""
    workspace = open_workspace(ROOT)
    variation = load_environment(workspace.hosts / "alpha" / "environment.yaml")
    return host.Host("alpha", workspace.hosts / "alpha", variation, workspace.farm.archives)


@pytest.fixture(scope="session")
def host_image(client: DockerClient, alpha: host.Host) -> str:
    return host.ensure(client, alpha, partial(flow.mirrors, open_workspace(ROOT)))[0]


@pytest.fixture
def run_id(client: DockerClient) -> Iterator[str]:
    """A run's name; what bears its label is gone afterwards."""
    name = f"test-{secrets.token_hex(4)}"
    yield name
    for environment in ("alpha", "beta"):
        engine.sweep(client, name, environment)


@pytest.fixture
def labels(run_id: str) -> dict[str, str]:
    return {engine.LABEL: "test", engine.RUN_LABEL: f"{run_id}/alpha"}


@pytest.fixture
def volume(client: DockerClient, labels: dict[str, str]) -> str:
    """An empty volume."""
    return str(client.volumes.create(f"test-{secrets.token_hex(4)}", labels=labels).name)


@pytest.fixture
def make(client: DockerClient, host_image: str, labels: dict[str, str]) -> Callable[..., Any]:
    """Make containers of the run on the container host."""
    return partial(client.containers.create, host_image, labels=labels, network_mode="none")


@pytest.fixture
def machine_of_run(alpha: host.Host, host_image: str, run_id: str, volume: str) -> Machine:
    """A machine whose builder is an empty volume."""
    entry = open_workspace(ROOT).farm.environments["alpha"]
    builder = Builder(volume, {})
    return Machine(run_id, "alpha", host_image, builder, TCG, entry, alpha.variation)


@pytest.fixture
def left(client: DockerClient, run_id: str) -> Callable[[], set[str]]:
    """Tells the names of all that the run has on the Engine."""

    def names() -> set[str]:
        found: set[str] = set()
        for environment in ("alpha", "beta"):
            label = f"{engine.RUN_LABEL}={run_id}/{environment}"
            found |= {
                str(c.name) for c in client.containers.list(all=True, filters={"label": label})
            }
            found |= {str(v.name) for v in client.volumes.list(filters={"label": label})}
        return found

    return names
