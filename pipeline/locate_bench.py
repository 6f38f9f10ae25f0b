"""`invoke bench locate`: `locate` against cmp and, where it is installed, diffoscope.

Two ISOs differ in one byte of one file inside their SquashFS; then an ISO and its copy are equal.
"""

import random
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline import command
from pipeline.errors import InfrastructureFailed

MIB = 1024 * 1024
SIZES_MIB = (100, 1000)
TIMEOUT_S = 3600.0
# Says how long a program took and how much memory it, or one that it started, needed.
MEASURE = """
import os, resource, sys, time
begin = time.monotonic()
silent = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
process = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ, file_actions=silent)
_, status = os.waitpid(process, 0)
seconds, memory = time.monotonic() - begin, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(os.waitstatus_to_exitcode(status), seconds, memory)
"""


def bench_locate(checkout: Path, *, sizes_mib: Sequence[int] = SIZES_MIB) -> Iterator[str]:
    """Measure all programs side by side; give the lines of a table as they come."""
    yield f"{'':>10} {'':<28} {'seconds':>8} {'MiB':>6}"
    for size in sizes_mib:
        with tempfile.TemporaryDirectory(prefix="twinbuild-bench-") as folder:
            first, second = _make_isos(Path(folder), size * MIB)
            copy = Path(shutil.copyfile(first, Path(folder) / "copy.iso"))
            yield from _rows(f"{size} MB", checkout, first, second, copy)


def _rows(title: str, checkout: Path, first: Path, second: Path, copy: Path) -> Iterator[str]:
    locate = f"{sys.executable} -m invoke --search-root {checkout} locate"
    for program, line, other, status in (
        ("cmp, equal", "cmp", copy, 0),
        ("locate, equal", locate, copy, 0),
        ("locate, one byte differs", locate, second, 1),
        ("diffoscope, one byte differs", "diffoscope --text -", second, 1),
    ):
        words = line.split()
        found = shutil.which(words[0])
        if found is None:
            yield f"{title:>10} {program:<28} is not installed"
            continue
        seconds, memory = _measure([found, *words[1:], first, other], status)
        yield f"{title:>10} {program:<28} {seconds:8.2f} {memory / MIB:6.0f}"


def _measure(argv: Sequence[str | Path], status: int) -> tuple[float, float]:
    """Return the seconds and the bytes of memory that a program takes."""
    said = command.run([sys.executable, "-c", MEASURE, *argv], timeout_s=TIMEOUT_S)
    ended, seconds, memory = said.text.split()
    if int(ended) != status:
        raise InfrastructureFailed(f"{argv[0]} ended with status {ended} instead of {status}")
    return float(seconds), float(memory) * 1024


def _make_isos(folder: Path, size: int) -> tuple[Path, Path]:
    """Make two ISOs of about `size` bytes; one byte of one file in their SquashFS differs."""
    chance, tree = random.Random(7), folder / "tree"  # noqa: S311
    written = number = 0
    while written < size:
        length = min(8 * MIB, int(1500 * chance.paretovariate(1.1)))  # as in a small system
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
