# SPDX-License-Identifier: GPL-3.0-or-later
"""Locate and the explanation do not take memory by size: asked of processes of their own."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.base import command
from tests import image_pairs as pairs
from tests.differing_run import make_run

LIMIT_MIB = 256  # whatever is compared
LARGE = 96 * 1024 * 1024
STREAMING_MIB = 140  # less than Python and one such content
CHECKOUT = Path(__file__).parents[3]
PEAK = """
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
LOCATE = """
import sys
from pathlib import Path
from pipeline.look.locate import locate_files
compared = locate_files(Path(sys.argv[1]), Path(sys.argv[2]))
print(len(compared.places))
"""
EXPLAIN = """
import sys
from pathlib import Path
from pipeline.compare.explain import explain
from pipeline.compare.verdict import run_compare
from pipeline.farm.run import Run
run, quiet = Run(Path(sys.argv[1])), lambda _: None
explain(run, run_compare(run, notify=quiet), notify=quiet)
print((run.folder / "explanation.json").read_text().count('"path": "var/large"'))
"""


def peak(script: str, *arguments: Path) -> tuple[int, int]:
    """Return how much a process of its own found, and its peak of memory in MiB."""
    argv = [sys.executable, "-c", script + PEAK, *map(os.fspath, arguments)]
    found, kibibytes = command.run(argv, timeout_s=50, cwd=CHECKOUT).text.split()
    return int(found), int(kibibytes) // 1024


def sparse(path: Path, end: bytes) -> Path:
    with path.open("wb") as file:
        file.seek(LARGE)
        file.write(end)
    return path


def packed(path: Path, end: bytes) -> Path:
    plain = sparse(path.with_suffix(".plain"), end)
    pairs.run("zstd", "-q", "-1", plain, "-o", path)
    plain.unlink()
    return path


@pytest.mark.parametrize("make", [sparse, packed], ids=["plain", "packed"])
def test_large_contents(make: Callable[[Path, bytes], Path], tmp_path: Path) -> None:
    images = [make(tmp_path / f"{number}", b"end %d" % number) for number in (1, 2)]
    found, mebibytes = peak(LOCATE, *images)
    assert found == 1
    assert mebibytes < STREAMING_MIB


def test_a_tree_of_many_paths(tmp_path: Path) -> None:
    """The links are those of a list that mksquashfs reads: making them takes seconds."""
    folder, listed = tmp_path / "tree", tmp_path / "listed"
    folder.mkdir()
    lines = [f"d{number} d 755 0 0\n" for number in range(300)]
    link = "d{1}/a-link-with-a-long-name-{0} s 777 0 0 somewhere/else/{0}\n"
    lines += [link.format(number, number // 100) for number in range(30_000)]
    listed.write_text("".join(lines))
    images = []
    for content in ("one", "two"):
        (folder / "file").write_text(content)
        options = ("-all-time", "1", "-pf", str(listed))
        images.append(pairs.squashfs(folder, tmp_path / content, *options))
    found, mebibytes = peak(LOCATE, *images)
    assert found == 1
    assert mebibytes < LIMIT_MIB


def test_the_explanation_of_a_large_file(tmp_path: Path) -> None:
    sides = {name: {"var/large": bytes(LARGE) + name.encode()} for name in ("alpha", "beta")}
    found, mebibytes = peak(EXPLAIN, make_run(tmp_path, sides).folder)
    assert found == 1
    assert mebibytes < STREAMING_MIB
