# SPDX-License-Identifier: GPL-3.0-or-later
"""What is varied in real machines: they are asked themselves, and no bit of it is in the image."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from pipeline import flow
from pipeline.base import dsse
from pipeline.farm.run import Request, Run
from pipeline.farm.variation import Choice, choose
from pipeline.farm.workspace import Workspace
from tests.machine.conftest import Tiny, display

pytestmark = [pytest.mark.proof, pytest.mark.machine, pytest.mark.timeout(1500)]

# What a program in the machine sees; and files with times on which the clocks might disagree.
HOOK = """#!/bin/sh
set -e
seen() { echo "seen $1=$2"; }
seen clock "$(date +%s)"
seen time_zone "$TZ"
seen locale "$LC_ALL"
seen sorting "$(printf 'a\\nB\\n' | sort | tr '\\n' ' ')"
seen host_name "$(cat /proc/sys/kernel/hostname)"
seen user "$USER"
seen open_files "$(ulimit -n)"
seen processes "$(sed -n 's/^Max processes *\\([0-9]*\\) .*/\\1/p' /proc/self/limits)"
seen randomize_va_space "$(cat /proc/sys/kernel/randomize_va_space)"
seen variables "$(env | grep -c '^[A-Z]\\{8,24\\}=' || true)"
seen cpus "$(nproc)"
seen memory "$(sed -n 's/^MemTotal: *\\([0-9]*\\) .*/\\1/p' /proc/meminfo)"
seen kernel "$(uname -r)"
seen scratch_filesystem "$(stat -f -c %T /)"
mkdir /opt/names
for name in $(seq 40); do : >/opt/names/$name; done
seen order "$(ls -U /opt/names | tr '\\n' ' ')"
rm -r /opt/names
touch --date="@$((SOURCE_DATE_EPOCH - 86400))" /etc/of-a-package
touch --date="@$((SOURCE_DATE_EPOCH - 900000000))" /etc/old
touch --date="@$(date +%s)" /etc/whole-seconds
mkdir /etc/written
: >/etc/written/now
"""
ALIKE = {"kernel", "clock", "memory"}  # that can be the same, or nearly so, only within reason


def build(workspace: Workspace, tiny: Tiny, vary: str) -> tuple[Run, dict[str, Choice]]:
    commit = tiny.commit({"hooks/normal/10-see.hook.chroot": HOOK})
    names = tuple(workspace.farm.environments)
    asked = {"image": "tiny", "commit": commit, "source": str(tiny.folder), "vary": vary}
    request = Request.of(asked | {"environments": names})
    run = flow.start(workspace, request)
    flow.build(workspace, run, display())
    assert json.loads(run.verdict_json.read_text())["verdict"] == "match"
    return run, choose(workspace.farm, workspace.hosts, run.id, request)


def seen(run: Run, name: str) -> dict[str, str]:
    log = (run.environment(name) / "console.log").read_text(errors="replace")
    lines = [line[5:].strip() for line in log.splitlines() if line.startswith("seen ")]
    return dict(line.split("=", 1) for line in lines)


def stated(run: Run, name: str) -> dict[str, Any]:
    envelope = json.loads((run.environment(name) / "statement.json").read_text())
    predicate: Any = dsse.unverified_payload(envelope)["predicate"]
    machine: dict[str, Any] = predicate["buildDefinition"]["internalParameters"]["machine"]
    return machine


def test_under_all_every_factor_acts_and_none_shows(workspace: Workspace, tiny: Tiny) -> None:
    run, choices = build(workspace, tiny, "all")
    alpha, beta = seen(run, "alpha"), seen(run, "beta")
    assert [name for name in alpha if alpha[name] == beta[name] and name != "variables"] == []
    assert int(alpha["clock"]) < int(beta["clock"]) - 500 * 86400
    for name, choice in choices.items():
        observed, machine = seen(run, name), stated(run, name)
        for factor in ("time_zone", "locale", "host_name", "user", "open_files", "processes"):
            assert observed[factor] == str(getattr(choice.variation, factor))
        assert observed["randomize_va_space"] == ("2" if name == "alpha" else "0")
        assert observed["variables"] == "6"
        assert observed["cpus"] == str(choice.entry.cpus)
        assert machine["varied"] == choice.variation.model_dump()
        assert machine["vary"] == "all"


@pytest.fixture
def other_scratch(workspace: Workspace) -> Iterator[dict[str, str]]:
    """Let the environments build on file systems that neither has by itself."""
    kinds = {"alpha": "btrfs", "beta": "tmpfs"}
    paths = {name: workspace.hosts / name / "environment.yaml" for name in kinds}
    before = {path: path.read_text() for path in paths.values()}
    for name, path in paths.items():
        line = re.compile(r"^scratch_filesystem: .*$", re.MULTILINE)
        path.write_text(line.sub(f"scratch_filesystem: {kinds[name]}", before[path]))
    yield kinds
    for path, text in before.items():
        path.write_text(text)


def test_a_build_in_memory_and_one_on_btrfs_match(
    workspace: Workspace, tiny: Tiny, other_scratch: dict[str, str]
) -> None:
    run, _ = build(workspace, tiny, "default")
    assert {name: seen(run, name)["scratch_filesystem"] for name in other_scratch} == other_scratch


def test_under_none_only_the_kernel_and_qemu_differ(workspace: Workspace, tiny: Tiny) -> None:
    run, _ = build(workspace, tiny, "none")
    alpha, beta = seen(run, "alpha"), seen(run, "beta")
    assert {name for name in alpha if alpha[name] != beta[name]} <= ALIKE
    assert alpha["kernel"] != beta["kernel"]
    assert abs(int(alpha["clock"]) - int(beta["clock"])) < 600
    assert abs(int(alpha["memory"]) / int(beta["memory"]) - 1) < 0.05
    varied = [stated(run, name)["varied"] for name in ("alpha", "beta")]
    differing = {name for name in varied[0] if varied[0][name] != varied[1][name]}
    assert differing == {"description", "suite"}
