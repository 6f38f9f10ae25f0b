# SPDX-License-Identifier: GPL-3.0-or-later
"""Files in and out of a real Engine, and what is left on it."""

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from docker import DockerClient
from docker.errors import NotFound

from pipeline.base.errors import ExitStatus, InfrastructureFailed
from pipeline.machines import engine

pytestmark = pytest.mark.container

WORK = PurePosixPath("/work")
MIB = 1024 * 1024


@pytest.fixture
def box(make: Callable[..., Any], volume: str) -> Any:
    """A container with a volume at /work; it runs what its test puts there."""
    return make(["sh", "-e", "/work/in/script"], volumes={volume: {"bind": "/work", "mode": "rw"}})


def read(box: Any, path: str) -> bytes:
    with engine.get(box, PurePosixPath(path)) as file:
        return file.read()


def test_files_come_back_as_they_went(box: Any, tmp_path: Path) -> None:
    large = os.urandom(3 * MIB + 1)
    (tmp_path / "large").write_bytes(large)
    long_name = "in/" + "n" * 150 + "/" + "ü" * 60
    content = {"in/empty": b"", "in/small": b"x" * 513, long_name: b"long"}
    engine.put(box, WORK, {**content, "in/large": tmp_path / "large"})
    assert read(box, "/work/in/large") == large
    assert {name: read(box, f"/work/{name}") for name in content} == content


def test_files_belong_to_the_machines_user(box: Any, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("stat -c '%u %g %a %n' /work/in /work/in/* >/work/out")
    script.chmod(0o700)
    engine.put(box, WORK, {"in/script": script, "in/data": b""})
    box.start()
    assert engine.wait(box, 60) == 0
    assert read(box, "/work/out").decode().splitlines() == [
        "65534 65534 755 /work/in",
        "65534 65534 644 /work/in/data",
        "65534 65534 755 /work/in/script",
    ]


def test_of_a_large_file_only_what_is_wanted_is_read(box: Any) -> None:
    script = b"printf start >/work/disk; truncate -s 64G /work/disk"
    engine.put(box, WORK, {"in/script": script})
    box.start()
    assert engine.wait(box, 60) == 0
    with engine.get(box, WORK / "disk") as file:
        start = file.read(MIB)
    assert hashlib.sha256(start).digest() == hashlib.sha256(b"start".ljust(MIB, b"\0")).digest()
    assert read(box, "/work/in/script") == script  # the connection is not stuck


def test_what_is_no_file_is_reported(box: Any) -> None:
    engine.put(box, WORK, {"in/script": b""})
    with pytest.raises(NotFound):
        read(box, "/work/none")
    with pytest.raises(InfrastructureFailed, match="gave no file /work/in"):
        read(box, "/work/in")


def test_a_wait_has_an_end(make: Callable[..., Any]) -> None:
    sleeper = make(["sleep", "600"])
    sleeper.start()
    assert engine.wait(sleeper, 0.2) is None
    sleeper.kill()
    assert engine.wait(sleeper, 60) == 137


def test_a_sweep_removes_just_what_is_of_the_build(
    client: DockerClient, make: Callable[..., Any], run_id: str, labels: dict[str, str]
) -> None:
    other = {**labels, engine.RUN_LABEL: f"{run_id}/beta"}
    cache = {engine.LABEL: "builder"}
    sleeper = make(["sleep", "600"], volumes={f"{run_id}-a": {"bind": "/a", "mode": "rw"}})
    sleeper.start()
    make(["true"])
    kept = make(["true"], labels=other)
    for name, marks in (("v", labels), ("w", other), ("x", cache)):
        client.volumes.create(f"{run_id}-{name}", labels=marks)
    try:
        assert engine.sweep(client, run_id, "alpha")
        assert not engine.sweep(client, run_id, "alpha")
        left = {c.name for c in client.containers.list(all=True)}
        assert kept.name in left
        assert sleeper.name not in left
        volumes = {v.name for v in client.volumes.list()}
        assert {f"{run_id}-w", f"{run_id}-x"} <= volumes
        assert f"{run_id}-v" not in volumes
        found = engine.everything(client)
        assert {f"container {kept.name}", f"volume {run_id}-x"} <= found.keys()
        found[f"volume {run_id}-x"]()
        assert f"volume {run_id}-x" not in engine.everything(client)
    finally:
        for name in ("a", "x"):
            engine.remove_volume(client, f"{run_id}-{name}")


def test_the_hosts_image_can_be_removed_with_all_else(
    client: DockerClient, host_image: str
) -> None:
    kept = engine.everything(client)
    tags = client.images.get(host_image).tags
    assert any(f"image {tag}" in kept for tag in tags)


def test_many_may_remove_the_same(make: Callable[..., Any]) -> None:
    sleeper = make(["sleep", "600"])
    sleeper.start()
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(engine.remove, sleeper) for _ in range(4)]:
            assert done.exception() is None
    with pytest.raises(NotFound):
        sleeper.reload()


def test_failures_of_the_engine_are_one_line(client: DockerClient, tmp_path: Path) -> None:
    with (
        pytest.raises(InfrastructureFailed, match="No such container") as caught,
        engine.connect(None) as connected,
    ):
        connected.containers.get("no-such-container")
    assert caught.value.status == ExitStatus.INFRASTRUCTURE
    assert "\n" not in str(caught.value)
