# SPDX-License-Identifier: GPL-3.0-or-later
"""`./farm bench locate`: times `locate` against cmp and, if it is installed, diffoscope.

Two ISOs differ in one byte of one file in their SquashFS; an ISO and its copy are equal; two
ledgers of 500,000 paths differ, from the first step on or in a late one. Whole processes are
measured, including their start; the first row is the start alone.
"""

import gzip
import hashlib
import json
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.base import command
from pipeline.base.errors import InfrastructureFailed

MIB = 1024 * 1024
SIZES_MIB = (100, 1000)
PATHS, DIFFERING = 500_000, 1000
TIMEOUT_S = 3600.0
PATIENCE_S = 900  # the time limit of diffoscope
GAVE_UP = 124  # timeout(1)'s exit status
CHECKOUT = Path(__file__).parents[1]  # where `-m tools.…` is found


@dataclass(frozen=True)
class Measured:
    """A program's seconds and bytes of memory; `ended` is False if it ran into the time limit."""

    seconds: float
    memory: float
    ended: bool


def bench_locate(
    checkout: Path, *, sizes_mib: Sequence[int] = SIZES_MIB, paths: int = PATHS
) -> Iterator[str]:
    """Measure all programs side by side; yield a table line by line."""
    yield f"{'':>10} {'':<34} {'seconds':>8} {'MiB':>6}"
    with tempfile.TemporaryDirectory(prefix="twinbuild-bench-") as folder:
        empty = Path(folder, "empty")
        empty.touch()
        yield _row("", "locate, the start alone", _measure([*_locate(checkout), empty, empty]))
        yield from _ledger_rows(Path(folder), paths)
    for size in sizes_mib:
        with tempfile.TemporaryDirectory(prefix="twinbuild-bench-") as folder:
            yield from _rows(f"{size} MB", checkout, Path(folder), size * MIB)


def _rows(title: str, checkout: Path, folder: Path, size: int) -> Iterator[str]:
    first, second = _make_isos(folder, size)
    copy = shutil.copyfile(first, folder / "copy.iso")
    locate = _locate(checkout)
    yield _row(title, "cmp, equal", _measure(["cmp", first, copy]))
    yield _row(title, "locate, equal", _measure([*locate, first, copy]))
    ours = _measure([*locate, first, second], status=1)
    yield _row(title, "locate, one byte differs", ours)
    program = "diffoscope, one byte differs"
    diffoscope = shutil.which("diffoscope")
    if diffoscope is None:
        yield f"{title:>10} {program:<34} is not installed"
        return
    patient: list[str | Path] = ["timeout", str(PATIENCE_S), diffoscope, "--text", "-"]
    theirs = _measure([*patient, first, second], status=1)
    yield _row(title, program, theirs)
    least = "" if theirs.ended else "at least "
    yield f"{title:>10} locate is {least}{theirs.seconds / ours.seconds:.0f} times faster"


def _ledger_rows(folder: Path, paths: int) -> Iterator[str]:
    """Measure the comparison of two ledgers, which names the first differing step and paths."""
    argv: list[str | Path] = [sys.executable, "-m", "tools.compare_two_ledgers"]
    for program, first_step, last_step in (
        ("ledgers, the last step differs", 0, 1),
        (f"ledgers, {DIFFERING} paths from the first step", DIFFERING, 0),
    ):
        pair = [folder / name for name in ("alpha", "beta")]
        for path in pair:
            _write_ledger(path, path.name, paths, first_step, last_step)
        yield _row(f"{paths} paths", program, _measure([*argv, *pair]))


def _row(title: str, program: str, took: Measured) -> str:
    note = "" if took.ended else " and had not ended"
    return f"{title:>10} {program:<34} {took.seconds:8.2f} {took.memory / MIB:6.0f}{note}"


def _locate(checkout: Path) -> list[str | Path]:
    return [sys.executable, "-m", "invoke", "--search-root", checkout, "locate"]


def _measure(argv: Sequence[str | Path], status: int = 0) -> Measured:
    measure = [sys.executable, "-m", "tools.measure", *argv]
    output = command.run(measure, timeout_s=TIMEOUT_S, cwd=CHECKOUT)
    ended, seconds, memory = output.text.split()
    if int(ended) not in (status, GAVE_UP):
        raise InfrastructureFailed(f"{argv[0]} ended with status {ended} instead of {status}")
    return Measured(float(seconds), float(memory) * 1024, int(ended) == status)


def _write_ledger(path: Path, name: str, paths: int, first_step: int, last_step: int) -> None:
    """Write the ledger of a tree of `paths` paths and two steps.

    The content of `first_step` of the paths is `name` from the first step on; that of `last_step`
    of them becomes `name` in the second.
    """

    def line(**fields: Any) -> bytes:
        return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode() + b"\n"

    def file(number: int, content: str) -> bytes:
        digest = hashlib.sha256(f"{number} {content}".encode()).hexdigest()
        others = {"mode": 420, "uid": 0, "gid": 0, "mtime": 1766400000, "size": number}
        folder = f"usr/share/{digest_of[number // 100]}/{number:07}"
        return line(path=folder, type="file", sha256=digest, **others)

    digest_of = sorted(hashlib.sha256(b"%d" % n).hexdigest()[:12] for n in range(paths // 100 + 1))
    every = paths // first_step if first_step else paths + 1
    with path.open("wb") as raw, gzip.GzipFile("", "wb", 6, raw, mtime=0) as out:
        out.write(line(step="20-bootstrap"))
        for number in range(paths):
            out.write(file(number, name if number % every == every - 1 else ""))
        out.write(line(step="40-hooks/10-stamp.hook.chroot"))
        for number in range(last_step):
            out.write(file(number, name))


def _make_isos(folder: Path, size: int) -> tuple[Path, Path]:
    """Make two ISOs of about `size` bytes; one byte of one file in their SquashFS differs."""
    chance, tree = random.Random(7), folder / "tree"  # noqa: S311
    written = number = 0
    while written < size:
        length = min(8 * MIB, int(1500 * chance.paretovariate(1.1)))  # sizes as in a small system
        path = tree / f"folder-{number // 100:04}" / f"file-{number:06}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(chance.randbytes(length) + b"what can be compressed " * (length // 20))
        written, number = written + length, number + 1
    isos = []
    changed = tree / "folder-0003" / "file-000333"
    for name in ("first", "second"):
        live = folder / name / "live"
        live.mkdir(parents=True)
        squashfs = live / "filesystem.squashfs"
        options = ["-noappend", "-quiet", "-no-progress", "-comp", "zstd", "-b", "256K"]
        options += ["-Xcompression-level", "1", "-mkfs-time", "0", "-all-time", "0"]
        command.run(["mksquashfs", tree, squashfs, *options], timeout_s=TIMEOUT_S)
        isos.append(folder / f"{name}.iso")
        dates = ["--modification-date=2025122210400000", "--set_all_file_dates", "2025122210400000"]
        command.run(
            ["xorriso", "-as", "mkisofs", "-quiet", "-o", isos[-1], "-R", *dates, live.parent],
            timeout_s=TIMEOUT_S,
        )
        shutil.rmtree(live.parent)
        content = changed.read_bytes()
        changed.write_bytes(content[:7] + bytes([content[7] ^ 1]) + content[8:])
    shutil.rmtree(tree)
    return isos[0], isos[1]
