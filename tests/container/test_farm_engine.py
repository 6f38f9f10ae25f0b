# SPDX-License-Identifier: GPL-3.0-or-later
"""./farm starts an engine by hand where none answers: in namespaces of its own, on this machine."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Its own /run and /var/lib/docker, so that the engine that runs here is out of sight.
ALONE = """set -eu
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/lib/docker
mkdir -p /etc/docker
mount -t tmpfs tmpfs /etc/docker
ip link set lo up
printf '%s' "$DAEMON_JSON" >/etc/docker/daemon.json
status=0
./farm build || status=$?
./farm build || status=$?
[ ! -e .cache/engine.pid ] || kill "$(cat .cache/engine.pid)"
exit "$status"
"""

pytestmark = [
    pytest.mark.container,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can start an engine by hand"),
]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout in which everything but the engine is ready."""
    shutil.copy(ROOT / "farm", tmp_path)
    (tmp_path / "requirements.lock").touch()
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "invoke").symlink_to("/bin/true")
    (tmp_path / "tasks.py").write_text('print("the tasks")\n')
    subprocess.run(["/usr/bin/python3", "-m", "venv", tmp_path / ".venv"], check=True)
    return tmp_path


def run_alone(checkout: Path, daemon_json: str) -> subprocess.CompletedProcess[str]:
    unshare = ["unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", "--kill-child"]
    env = {"PATH": os.environ["PATH"], "HOME": str(checkout), "DAEMON_JSON": daemon_json}
    return subprocess.run(
        [*unshare, "sh", "-c", ALONE],
        cwd=checkout,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_engine_is_started_once(checkout: Path) -> None:
    done = run_alone(checkout, "{}")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("starting a Docker Engine by hand") == 1
    assert done.stdout.count("the tasks") == 2
    assert "API listen" in (checkout / ".cache" / "engine.log").read_text()


def test_an_engine_that_does_not_start_is_explained(checkout: Path) -> None:
    done = run_alone(checkout, "garbage")
    assert done.returncode == 4
    assert "invalid character 'g'" in done.stderr  # the engine's own words
    assert "engine.log" in done.stderr.splitlines()[-1]
    assert "the tasks" not in done.stdout
