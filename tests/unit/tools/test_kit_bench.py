# SPDX-License-Identifier: GPL-3.0-or-later
"""The bench of kits, on a few files: both ways come to a kit, and what is printed can be read."""

import os
import re

import pytest

from pipeline.base.errors import UsageError
from tools import kit_bench

pytestmark = pytest.mark.tools


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_both_ways_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kit_bench, "SOURCES", ("etc",))
    head, columns, theirs, *ours, compared, same = kit_bench.bench_kit(size_mib=2)
    assert re.fullmatch(r"two releases: \d+\.\d and \d+\.\d MiB", head)
    assert columns.split() == ["seconds", "MiB", "compressor", "the", "rest"]
    assert theirs.startswith("overlay, rsync, mksquashfs")
    assert len(ours) == 2
    assert re.fullmatch(r"\d+\.\d times as fast, \d+\.\d% of the size", compared)
    assert same.startswith("the same bytes with 1 and ")


def test_only_root_can_run_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(UsageError, match="mounts file systems"):
        next(kit_bench.bench_kit())
