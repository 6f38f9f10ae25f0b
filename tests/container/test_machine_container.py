# SPDX-License-Identifier: GPL-3.0-or-later
"""The machine's container as it is made, with a shell in QEMU's place."""

import gc
import io
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from docker import DockerClient
from docker.errors import NotFound

from pipeline.base.errors import ExitStatus, InfrastructureFailed
from pipeline.documents.progress import Record
from pipeline.machines import engine, machine
from pipeline.machines.machine import Machine
from tests.container.broken_engine import cut_engine

pytestmark = [
    pytest.mark.container,
    # The SDK leaves the socket of an `exec`, and one that was cut, to the garbage collector.
    pytest.mark.filterwarnings("ignore:.*socket:pytest.PytestUnraisableExceptionWarning"),
]

DONE = """printf '{"record": "done", "facts": {}}\\n'"""


ALIVE = """printf '{"record": "alive"}\\n'"""


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    yield
    gc.collect()  # its warnings belong to this test


def start(client: DockerClient, made: Machine, script: str, inputs: bytes = b"input") -> Any:
    container = machine.create(client, made, ["sh", "-c", script])
    engine.put(container, machine.VOLUME, {f"{machine.WORK.name}/input.tar": inputs})
    return container


def follow(container: Any, **more: Any) -> tuple[Record, str, str]:
    console, records = io.BytesIO(), io.BytesIO()
    done = machine.follow(container, console, records, lambda _: None, **more)
    return done, console.getvalue().decode(), records.getvalue().decode()


def test_its_container_may_do_nothing(client: DockerClient, machine_of_run: Machine) -> None:
    container = machine.create(client, machine_of_run, ["true"])
    container.reload()
    config, limits = container.attrs["Config"], container.attrs["HostConfig"]
    entry = machine_of_run.entry
    assert config["User"] == "65534:65534"
    assert limits["Privileged"] is False
    assert limits["CapDrop"] == ["ALL"]
    assert not limits["CapAdd"]
    assert limits["SecurityOpt"] == ["no-new-privileges"]
    assert limits["ReadonlyRootfs"] is True
    assert limits["NetworkMode"] == "none"
    assert limits["Memory"] == (entry.memory_mib + machine.OVERHEAD_MIB) * 1024**2
    assert limits["NanoCpus"] == min(entry.cpus + 1, client.info()["NCPU"]) * 10**9
    assert limits["PidsLimit"] == machine.PIDS_LIMIT
    assert not limits["Devices"]
    assert not limits["Binds"] or all(not bind.startswith("/") for bind in limits["Binds"])
    writable = {m["Destination"]: m["RW"] for m in container.attrs["Mounts"]}
    assert writable == {"/machine": True, "/builder": False}
    assert {m["Type"] for m in container.attrs["Mounts"]} == {"volume"}


LOOK = """
exec 2>&1
echo "$(id -u) $(id -g) $(id -G)"
grep -E '^(CapEff|CapPrm|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status
ls /sys/class/net
for path in /etc/x /builder/x /machine/x /machine/work/x /tmp/x; do
    if (: >$path) 2>/dev/null; then echo "writes $path"; fi
done
cat /machine/work/input.tar
stat -c '%n %s' /machine/work/*.raw
"""


def test_what_runs_in_it_sees_that(client: DockerClient, machine_of_run: Machine) -> None:
    container = start(client, machine_of_run, f"({LOOK}) >&2; {DONE}", b"what went in\n")
    done, console, records = follow(container)
    assert done.fields == {"record": "done", "facts": {}}
    assert json.loads(records) == done.fields
    nothing = "0" * 16
    assert console.splitlines() == [
        "65534 65534 65534",
        f"CapPrm:\t{nothing}",
        f"CapEff:\t{nothing}",
        f"CapBnd:\t{nothing}",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        "lo",
        "writes /machine/work/x",
        "writes /tmp/x",
        "what went in",
        f"/machine/work/layers.raw {16 * 1024**3}",
        f"/machine/work/output.raw {16 * 1024**3}",
        f"/machine/work/scratch.raw {32 * 1024**3}",
        f"/machine/work/trees.raw {1024**2}",
    ]


def test_what_it_says_first_and_last_is_not_lost(
    client: DockerClient, machine_of_run: Machine
) -> None:
    script = 'i=0; while [ $i -lt 5000 ]; do echo "line $i" >&2; i=$((i+1)); done; ' + DONE
    _, console, _ = follow(start(client, machine_of_run, script))
    assert console.splitlines() == [f"line {n}" for n in range(5000)]


def test_one_that_was_kept_does_the_same_once_more(
    client: DockerClient, machine_of_run: Machine
) -> None:
    """As docs/how-to/replay.md says: with its disks, and the clock that its arguments give."""
    container = start(client, machine_of_run, f"cat {machine.WORK}/input.tar >&2; {DONE}")
    _, first, _ = follow(container)
    container.start()
    assert container.wait(timeout=60)["StatusCode"] == 0
    assert container.logs(stdout=False).decode() == first * 2
    container.reload()
    argv = machine_of_run.argv(machine.now())
    assert container.attrs["Config"]["Cmd"][-3:-1] == ["sh", "-c"]
    assert argv[argv.index("-rtc") + 1].startswith("base=2")


def test_an_end_without_a_result(client: DockerClient, machine_of_run: Machine) -> None:
    with pytest.raises(InfrastructureFailed, match=r"without a result \(QEMU's status 7\)"):
        follow(start(client, machine_of_run, f"{DONE}; exit 7"))


def test_silence(client: DockerClient, machine_of_run: Machine) -> None:
    container = start(client, machine_of_run, "echo booting >&2; sleep 600")
    with pytest.raises(InfrastructureFailed, match="no sign of life"):
        follow(container, silence_s=2.0)
    assert "read a machine" not in {thread.name for thread in threading.enumerate()}


def test_a_container_that_vanishes(
    client: DockerClient, machine_of_run: Machine, run_id: str
) -> None:
    container = start(client, machine_of_run, f"{ALIVE}; sleep 600")
    console = io.BytesIO()

    def sweep(_: Record) -> None:
        engine.sweep(client, run_id, "alpha")

    with pytest.raises((InfrastructureFailed, NotFound)):  # as when a run is interrupted
        machine.follow(container, console, console, sweep)


@pytest.fixture
def small(
    client: DockerClient, make: Callable[..., Any], machine_of_run: Machine, labels: dict[str, str]
) -> Machine:
    """The machine with a small disk, which the container `holder` keeps from being emptied."""
    size = {"type": "tmpfs", "device": "tmpfs", "o": "size=4m,mode=777"}
    client.volumes.create(machine_of_run.name, driver_opts=size, labels=labels)
    mounted = {machine_of_run.name: {"bind": "/machine", "mode": "rw"}}
    make(["sleep", "600"], volumes=mounted, name=holder(machine_of_run)).start()
    return machine_of_run


def holder(made: Machine) -> str:
    return f"{made.name}-holder"


def test_no_room_for_the_inputs(client: DockerClient, small: Machine) -> None:
    with (
        pytest.raises(InfrastructureFailed, match="no space left on device") as caught,
        engine.connect(None) as connected,
    ):
        start(connected, small, "true", bytes(8 * 1024 * 1024))
    assert caught.value.status == ExitStatus.INFRASTRUCTURE


def test_no_room_while_it_runs(client: DockerClient, small: Machine) -> None:
    """QEMU stops a machine then, which falls silent."""
    container = start(client, small, "sleep 600")
    fill = ["sh", "-c", "cat /dev/zero >/machine/work/x"]
    assert client.containers.get(holder(small)).exec_run(fill).exit_code
    with pytest.raises(InfrastructureFailed, match="no room left on the Docker Engine's disk"):
        follow(container, silence_s=2.0)


def test_an_engine_that_dies(client: DockerClient, machine_of_run: Machine, tmp_path: Path) -> None:
    """The connection breaks while the machine runs, and for good."""
    before = threading.active_count()

    def run(address: str) -> None:
        with engine.connect(address) as through:
            container = start(through, machine_of_run, f"{ALIVE}; sleep 600")
            machine.follow(container, io.BytesIO(), io.BytesIO(), lambda _: cut.now())

    with cut_engine(tmp_path / "engine.sock") as cut, pytest.raises(InfrastructureFailed) as caught:
        run(cut.address)
    assert caught.value.status == ExitStatus.INFRASTRUCTURE
    assert cut.address in caught.value.what
    assert "\n" not in caught.value.what
    assert threading.active_count() <= before  # one of an earlier test may have ended meanwhile
