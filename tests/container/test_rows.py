# SPDX-License-Identifier: GPL-3.0-or-later
"""The rows of docs/determinism.md: their generators, played in two containers that vary on purpose.

Each container copies its system in another order onto another file system and plays what `all` of
an environment says: another day, time zone, locale, host name, umask and other variables, and
another number of processors. What the generators make by themselves is compared first, then what
the build's own code and the shared hooks leave of it.
"""

import json
import secrets
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from docker import DockerClient

from pipeline import flow
from pipeline.documents.machine import Settings, TreePlan
from pipeline.farm import variation
from pipeline.farm.run import Request
from pipeline.farm.workspace import open_workspace
from pipeline.machines import engine, host
from pipeline.machines.plan import guest_files
from tests import jobs
from tests.rows_catalogue import DIFFERS, ROWS, Row

pytestmark = pytest.mark.container

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent / "rows"
WORK = PurePosixPath("/work")
DAY = 24 * 3600
TIMEOUT_S = 500
HOOKS = (
    "30-byte-code.hook.chroot",
    "50-no-secrets.hook.chroot",
    "60-font-caches.hook.chroot",
)
LIBFAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"
CONTENT, TIME = 0, 4  # of what is seen at a path; between them are its mode and owner

Seen = dict[str, Any]


@pytest.fixture(scope="module")
def played(client: DockerClient) -> Iterator[dict[str, Seen]]:
    """What each environment has seen."""
    workspace = open_workspace(ROOT)
    run_id = f"test-{secrets.token_hex(4)}"
    request = Request(image="mini", commit="HEAD", vary="all", environments=("alpha", "beta"))
    choices = variation.choose(workspace.farm, workspace.hosts, run_id, request)
    described = host.Host("rows", HERE, choices["alpha"].variation, workspace.farm.archives)
    image = host.ensure(client, described, partial(flow.mirrors, workspace))[0]
    epoch = int(time.time()) - 10 * DAY  # one environment's clock is before, the other's after it
    play = partial(_play, client, image, run_id, epoch)
    try:
        with ThreadPoolExecutor() as pool:
            yield dict(zip(choices, pool.map(play, choices, choices.values()), strict=True))
    finally:
        for name in choices:
            engine.sweep(client, run_id, name)


def _play(
    client: DockerClient,
    image: str,
    run_id: str,
    epoch: int,
    name: str,
    choice: variation.Choice,
) -> Seen:
    """Play an environment in a container of its own, and return what it has seen."""
    varied, in_memory = choice.variation, name == "beta"
    offset_s = varied.clock_offset_days * DAY + varied.clock_offset_minutes * 60
    clock = {"LD_PRELOAD": LIBFAKETIME, "FAKETIME": f"{offset_s:+d}", "NO_FAKE_STAT": "1"}
    variables = {**varied.environment_variables, **clock}
    document = {
        "name": name,
        "job": {**jobs.DOCUMENT, "image": "rows", "epoch": epoch},
        "machine": Settings(
            replace(varied.factors(), environment_variables=variables),
            measure_by_hand=False,
            trees=TreePlan((), keep=False, stop=None),
        ).document(),
        "backwards": in_memory,
        "in_memory": in_memory,
        "rows": [asdict(row) for row in ROWS],
        "given": {path: text for row in ROWS for path, text in row.given.items()},
        "hooks": {hook: (ROOT / "hooks" / "chroot" / hook).read_text() for hook in HOOKS},
    }
    container = client.containers.create(
        image,
        ["python3", "/in/player.py"],
        labels={engine.LABEL: "test", engine.RUN_LABEL: f"{run_id}/{name}"},
        network_mode="none",
        cap_add=["SYS_ADMIN"],  # it mounts, as the machine does
        security_opt=["apparmor=unconfined"],
        hostname=varied.host_name,
        cpuset_cpus="0" if in_memory else "",
        environment=clock,
    )
    files: dict[str, Path | bytes] = {f"in/{path}": file for path, file in guest_files().items()}
    files |= {"in/player.py": HERE / "player.py", "in/play.json": json.dumps(document).encode()}
    engine.put(container, PurePosixPath("/"), files)
    container.start()
    status = engine.wait(container, TIMEOUT_S)
    assert status == 0, container.logs().decode(errors="replace")[-5000:]
    with engine.get(container, PurePosixPath("/seen.json")) as file:
        return {"epoch": epoch, **json.load(file)}


def test_the_environments_vary(played: dict[str, Seen]) -> None:
    alpha, beta = (seen["factors"] for seen in played.values())
    assert [factor for factor in alpha if alpha[factor] == beta[factor]] == []
    assert sorted(alpha["directory order"]) == sorted(beta["directory order"])
    assert alpha["sorting"] == ["a", "A", "b", "B", "A", "B", "a", "b"]
    assert beta["sorting"] == ["A", "B", "a", "b"] * 2


def contents(seen: dict[str, list[Any]]) -> dict[str, Any]:
    return {path: what[CONTENT] for path, what in seen.items()}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.number}-{row.name}")
def test_a_rows_generator(row: Row, played: dict[str, Seen]) -> None:
    """Without the measure its files differ, or it needs none; with the measure they match."""
    alpha, beta = (contents(seen["alone"][row.name]) for seen in played.values())
    assert alpha
    assert beta
    assert (alpha != beta) is (row.alone == DIFFERS), differing(alpha, beta)
    alpha, beta = (seen["settled"][row.name] for seen in played.values())
    assert differing(alpha, beta) == []
    assert alpha or row.alone == DIFFERS  # what needs no measure is not removed either


def test_the_whole_tree_matches(played: dict[str, Seen]) -> None:
    """Content, mode, owner and time of every path, and no time after the epoch."""
    alpha, beta = (seen["whole"] for seen in played.values())
    assert differing(alpha, beta) == []
    assert len(alpha) > 10_000


def test_times_of_all_files(played: dict[str, Seen]) -> None:
    """The generators leave the clock's times, which the build settles."""
    alone, settled = zip(
        *(map(newest, (s["alone"], s["settled"])) for s in played.values()), strict=True
    )
    epochs = [seen["epoch"] for seen in played.values()]
    assert alone[0] != alone[1]
    assert min(alone) > epochs[0]
    assert [*settled] == epochs
    assert [
        max(what[TIME] for what in seen["whole"].values()) for seen in played.values()
    ] == epochs


def newest(rows: dict[str, dict[str, list[Any]]]) -> float:
    return max(float(what[TIME]) for files in rows.values() for what in files.values())


def differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    return sorted(path for path in one.keys() | other.keys() if one.get(path) != other.get(path))
