# SPDX-License-Identifier: GPL-3.0-or-later
"""The bench of `locate`, on ledgers that are small."""

from pathlib import Path

from tools.locate_bench import bench_locate

ROOT = Path(__file__).parents[3]


def test_it_measures_ledgers_and_what_the_start_takes() -> None:
    lines = list(bench_locate(ROOT, sizes_mib=(), paths=2000))
    assert lines[0].split() == ["seconds", "MiB"]
    assert "the start alone" in lines[1]
    assert "the last step differs" in lines[2]
    assert "1000 paths from the first step" in lines[3]
    for line in lines[1:]:
        seconds, memory = map(float, line.split()[-2:])
        assert 0 < seconds < 60
        assert 1 < memory < 256
