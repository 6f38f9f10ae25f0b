# SPDX-License-Identifier: GPL-3.0-or-later
"""The machine's settings that need no machine of their own: limits and the scratch file system."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.guest import machine
from tests.machine_settings import SEED, make_factors


def test_limits_are_inherited_by_programs() -> None:
    script = (
        "from pipeline.guest.machine import set_limits; import subprocess;"
        "from tests.machine_settings import make_factors;"
        "set_limits(make_factors(open_files=512, processes=700));"
        "subprocess.run(['cat', '/proc/self/limits'], check=True)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    limits = {line[:26].strip(): line[26:].split()[:2] for line in done.stdout.splitlines()}
    assert limits["Max open files"] == ["512", "512"]
    assert limits["Max processes"] == ["700", "700"]


def test_ext4_has_the_seed_of_its_order(tmp_path: Path) -> None:
    disk = tmp_path / "scratch.raw"
    with disk.open("wb") as file:
        file.truncate(8 * 1024 * 1024)
    settings = make_factors(scratch_filesystem="ext4", directory_seed=SEED)
    env = {"PATH": "/usr/sbin:/sbin:/usr/bin:/bin"}
    subprocess.run(machine.mkfs(settings, os.fspath(disk)), env=env, check=True)
    output = subprocess.run(
        ["dumpe2fs", "-h", disk], env=env, check=True, capture_output=True, text=True
    ).stdout
    assert f"Directory Hash Seed:      {SEED}" in output


@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_the_others_have_no_seed(kind: str) -> None:
    settings = make_factors(scratch_filesystem=kind, directory_seed=SEED)
    assert machine.mkfs(settings, "/dev/vdc") == [f"mkfs.{kind}", "-qf", "/dev/vdc"]
