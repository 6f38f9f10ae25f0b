# SPDX-License-Identifier: GPL-3.0-or-later
"""A container host from a registry, pinned by its digest, with a real registry on this machine."""

import io
import re
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from docker import DockerClient

from pipeline.base.errors import InfrastructureFailed
from pipeline.farm.config import load_environment
from pipeline.machines import host
from pipeline.machines.host import Host, Mirrors

pytestmark = pytest.mark.container

LISTENING = re.compile(r"listening on (127\.0\.0\.1:\d+)")
HOSTS = Path(__file__).parents[2] / "images" / "hosts"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Debian's docker-registry, unpacked and not installed: its package would start a service."""
    folder = tmp_path_factory.mktemp("registry")
    download = ["apt-get", "-oAPT::Sandbox::User=root", "download", "docker-registry"]
    if subprocess.run(download, cwd=folder, check=False, capture_output=True).returncode:
        subprocess.run(["apt-get", "update"], check=True, capture_output=True)
        subprocess.run(download, cwd=folder, check=True, capture_output=True)
    subprocess.run(["dpkg-deb", "-x", next(folder.glob("*.deb")), folder], check=True)
    return folder / "usr" / "bin" / "docker-registry"


@pytest.fixture
def registry(program: Path, tmp_path: Path) -> Iterator[str]:
    """The address of a registry that ends with the test."""
    (tmp_path / "registry.yml").write_text(
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {tmp_path}/blobs}}}}\n"
        "http: {addr: '127.0.0.1:0'}\n"
    )
    argv = [str(program), "serve", str(tmp_path / "registry.yml")]
    with (
        (tmp_path / "log").open("wb") as log,
        subprocess.Popen(argv, stdout=log, stderr=log) as server,
    ):
        try:
            while not (found := LISTENING.search((tmp_path / "log").read_text())):
                assert server.poll() is None
                time.sleep(0.1)
            yield found[1]
        finally:
            server.terminate()


def never() -> Mirrors:
    raise AssertionError("a pinned container host needs no mirror")


def pinned(name: str) -> Host:
    variation = load_environment(HOSTS / "alpha" / "environment.yaml")
    return Host("alpha", HOSTS / "alpha", variation, {}, name)


def test_it_is_fetched_by_its_digest(client: DockerClient, registry: str) -> None:
    tree = io.BytesIO()
    with tarfile.open(fileobj=tree, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("a-file"))
    name = f"{registry}/host"
    client.api.import_image_from_data(tree.getvalue(), repository=name, tag="test")
    client.images.push(name, tag="test")
    local = client.images.get(f"{name}:test")
    digest = local.attrs["RepoDigests"][0].partition("@")[2]
    client.images.remove(f"{name}:test", force=True)
    try:
        found, made = host.ensure(client, pinned(f"{name}@{digest}"), never)
        assert (found, made) == (local.id, True)
        assert host.ensure(client, pinned(f"{name}@{digest}"), never) == (local.id, False)
    finally:
        client.images.remove(str(local.id), force=True)


def test_another_digest_is_not_to_be_had(client: DockerClient, registry: str) -> None:
    with pytest.raises(InfrastructureFailed, match="cannot fetch"):
        host.ensure(client, pinned(f"{registry}/host@sha256:{'0' * 64}"), never)
