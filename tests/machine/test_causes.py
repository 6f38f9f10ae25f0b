# SPDX-License-Identifier: GPL-3.0-or-later
"""Causes injected into real builds: one image with a hook for each, one build in each machine.

What needs no machine, and every layer below the tree, is in `tests/causes_catalogue.py`.
"""

import json

import pytest

from pipeline import flow
from pipeline.base.errors import Differs
from pipeline.farm.workspace import Workspace
from tests.machine.conftest import Tiny, display, start

pytestmark = [pytest.mark.machine, pytest.mark.timeout(1500)]

# A hook by its name: what it does, the path that differs, and what it must be called.
HOOKS = {
    "10-clock": ("date +%s >/etc/stamp", "etc/stamp", "time-text"),
    "20-host": (
        'echo "built on $(cat /proc/sys/kernel/hostname)" >/etc/built-on',
        "etc/built-on",
        "host-name",
    ),
    "30-kernel": ("uname -r >/etc/built-with", "etc/built-with", "kernel"),
    "40-jobs": ('echo "make -j $(nproc)" >/etc/jobs', "etc/jobs", "cpu-count"),
    "50-serial": ("cat /proc/sys/kernel/random/uuid >/etc/serial", "etc/serial", "uuid"),
    "60-list": (
        "mkdir /opt/x; for n in $(seq 90); do : >/opt/x/file-$n.so; done; ls -U /opt/x >/etc/list",
        "etc/list",
        "directory-order",
    ),
    "70-user": ('echo "packaged by $USER" >/etc/packager', "etc/packager", "user"),
    "80-zone": ('echo "zone=$TZ" >/etc/zone', "etc/zone", "time-zone"),
}


def test_causes_in_real_machines_are_found_and_named(workspace: Workspace, tiny: Tiny) -> None:
    hooks = {
        f"hooks/normal/{name}.hook.chroot": f"#!/bin/sh\nset -e\n{does}\n"
        for name, (does, _, _) in HOOKS.items()
    }
    run = start(workspace, tiny, tiny.commit(hooks))
    with pytest.raises(Differs):
        flow.build(workspace, run, display())
    verdict = json.loads(run.verdict_json.read_text())
    explanation = json.loads((run.folder / "explanation.json").read_text())
    expected = {
        (f"40-hooks/{name}.hook.chroot", path): cause for name, (_, path, cause) in HOOKS.items()
    }
    found = {(d["step"], d["path"]) for d in verdict["differences"] if d["kind"] == "content"}
    assert found == expected.keys()
    named = {(f["step"], f["path"]): [c["name"] for c in f["causes"]] for f in explanation["files"]}
    assert {place: causes[:1] for place, causes in named.items()} == {
        place: [cause] for place, cause in expected.items()
    }
    shown = {f["path"]: f["shown"]["lines"] for f in explanation["files"]}
    assert any(line.startswith("-built on alpha-host") for line in shown["etc/built-on"])
