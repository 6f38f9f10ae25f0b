# SPDX-License-Identifier: GPL-3.0-or-later
"""A new user's machine: a Debian with git and nothing else sets itself up and runs the unit tests.

Both releases do so at the same time, so that one works while the other waits for its packages.
The container has this machine's way to package archives and indices (addresses, certificates,
proxies), and nothing else of it: what `./farm` forgets to install is missing there.
"""

import os
import re
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from docker import DockerClient
from docker.models.containers import Container
from docker.types import Mount

from pipeline import flow
from pipeline.farm.config import load_environment
from pipeline.farm.workspace import open_workspace
from pipeline.machines import engine
from pipeline.machines.host import Host

pytestmark = [pytest.mark.container, pytest.mark.timeout(2400)]

ROOT = Path(__file__).parents[2]
# All that needs no Engine where the tools are newest; the pure tests alone in the other, for time.
LEVELS = {"bookworm": "unit", "trixie": "tools"}
# How pip, npm and their TLS reach what this machine uses.
SETTINGS = ("/etc/pip.conf", "/etc/xdg/pip", "/root/.config/pip", "/etc/npmrc", "/root/.npmrc")
CERTIFICATES = "/usr/local/share/ca-certificates"
VARIABLES = re.compile(r"(PIP|NPM|npm)_.*|.*_CERTS?|.*_CERT_FILE|.*_CA_BUNDLE|.*_(proxy|PROXY)")
SCRIPT = """set -eu
git clone --quiet /in/checkout.bundle /work
cd /work
./farm test --level "$1"
"""


@pytest.fixture(scope="module")
def machines(
    client: DockerClient, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Container]]:
    """A container of each release, at work."""
    with ExitStack() as stack:
        made = {}
        for suite, level in LEVELS.items():
            folder = tmp_path_factory.mktemp(suite)
            image = stack.enter_context(bare(suite, client, folder))
            made[suite] = stack.enter_context(machine(image, level, client, folder))
        yield made


@contextmanager
def bare(suite: str, client: DockerClient, folder: Path) -> Iterator[str]:
    """A container image of a Debian release: its essential packages, apt and git."""
    name = f"twinbuild-test-bare:{secrets.token_hex(4)}"
    workspace = open_workspace(ROOT)
    mirrors = flow.mirrors(workspace)
    variation = load_environment(workspace.hosts / "alpha" / "environment.yaml")
    archives = dict(workspace.farm.archives)
    host = Host("bare", folder, variation.model_copy(update={"suite": suite}), archives)
    sources = host.sources(mirrors.bases)
    tree = folder / "bare.tar"
    argv = ["mmdebstrap", "--variant=apt", "--include=git", suite, str(tree), *sources]
    env = {**os.environ, **{f"{k}_proxy": v for k, v in mirrors.proxies.items() if "/" not in k}}
    subprocess.run(argv, check=True, capture_output=True, env=env)
    repository, _, tag = name.partition(":")
    client.api.import_image_from_file(str(tree), repository=repository, tag=tag)
    tree.unlink()
    try:
        yield name
    finally:
        client.images.remove(name)


@contextmanager
def machine(image: str, level: str, client: DockerClient, folder: Path) -> Iterator[Container]:
    """A container that runs the README's test command on this commit."""
    (folder / "in").mkdir()
    bundle = folder / "in" / "checkout.bundle"
    subprocess.run(["git", "bundle", "create", "--quiet", bundle, "HEAD"], cwd=ROOT, check=True)
    readable = list(filter(os.path.exists, [*SETTINGS, CERTIFICATES]))
    find_links = os.environ.get("PIP_FIND_LINKS", "")
    readable += [path for path in find_links.split() if Path(path).is_dir()]
    mounts = [Mount("/in", str(bundle.parent), type="bind", read_only=True)]
    mounts += [Mount(path, path, type="bind", read_only=True) for path in readable]
    mounts += [Mount("/dev", "/dev", type="bind")]  # loop devices
    mounts += [Mount("/dev/shm", None, type="tmpfs")]
    mounts += [Mount(folder, None) for folder in ("/tmp", "/work")]  # no overlay over an overlay
    made = client.containers.create(
        image,
        ["sh", "-c", SCRIPT, "sh", level],
        # Privileged but for what this machine may lack itself: the tests mount file systems.
        cap_add=["ALL"],
        cap_drop=["SYS_RESOURCE"],
        security_opt=["seccomp=unconfined", "apparmor=unconfined"],
        device_cgroup_rules=["a *:* rwm"],
        network_mode="host",
        environment={k: v for k, v in os.environ.items() if VARIABLES.fullmatch(k)},
        mounts=mounts,
        labels={engine.LABEL: "test"},
    )
    try:
        made.start()
        yield made
    finally:
        made.remove(force=True, v=True)


@pytest.mark.parametrize("suite", LEVELS)
def test_the_unit_tests_pass_on_a_machine_that_has_git_alone(
    suite: str, machines: dict[str, Container]
) -> None:
    log = "".join(piece.decode(errors="replace") for piece in machines[suite].logs(stream=True))
    assert machines[suite].wait()["StatusCode"] == 0, log[-20000:]
    assert re.search(r"\d{3,} passed", log), log[-2000:]
    assert "skipped" not in log, [line for line in log.splitlines() if "SKIPPED" in line]
