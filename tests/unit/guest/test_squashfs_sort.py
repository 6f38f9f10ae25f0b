# SPDX-License-Identifier: GPL-3.0-or-later
"""The order of files in the SquashFS: what an image may say, what mksquashfs makes of it."""

import os
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.documents.image_folder import sort_line
from pipeline.documents.progress import STATUS_BUILD_FAILED
from pipeline.guest.job import GuestJob
from pipeline.guest.programs import run
from pipeline.guest.serial_port import StepFailed
from pipeline.guest.squashfs_sort import options, parse
from pipeline.guest.tree import check_configuration
from tests.guest_log import Log
from tests.jobs import make_document
from tests.machine_settings import make_settings

NAME = "images/live/mini/squashfs.sort"
EPOCH = 1_766_400_000
STRANGE = ("a space", 'a"quote', "back\\slash", "#hash", "d/tab\there", "naïve", "-sort")


def make_job(work: Path, names: Iterable[str] = (), sort: str | None = None) -> GuestJob:
    """Make a tree of files, filled in the given order; each says its name first."""
    job = GuestJob(make_document(), make_settings(), work)
    job.image_folder.mkdir(parents=True)
    job.tree.mkdir()
    for name in names:
        path = job.tree / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(f"<{name}>".encode().ljust(300_000 if name == "big" else 1000, b"."))
    for path in (*job.tree.rglob("*"), job.tree):
        path.chmod(0o755)
        os.utime(path, (EPOCH, EPOCH))
    if sort is not None:
        (job.image_folder / "squashfs.sort").write_text(sort)
    return job


def packed(job: GuestJob) -> tuple[bytes, list[str]]:
    """Return the tree as mksquashfs packs it, uncompressed so that it can be read, and the log."""
    log = Log()
    order, squashfs = options(job, log), job.work / "squashfs"
    argv = ["mksquashfs", os.fspath(job.tree), os.fspath(squashfs), "-noappend", "-no-progress"]
    argv += ["-quiet", "-noD", "-noF", *order]
    run(log, argv, env={"PATH": os.environ["PATH"], "SOURCE_DATE_EPOCH": str(EPOCH)})
    return squashfs.read_bytes(), log.lines


def places(squashfs: bytes, names: Iterable[str]) -> list[int]:
    return [squashfs.index(f"<{name}>".encode()) for name in names]


def test_an_image_without_the_file_says_nothing(tmp_path: Path) -> None:
    log = Log()
    assert options(make_job(tmp_path / "work"), log) == []
    assert log.lines == []


def test_files_lie_in_the_order_of_their_priorities(tmp_path: Path) -> None:
    names = ["a", "b", "c", "big", "d/e"]
    image, log = packed(
        make_job(tmp_path / "work", names, "# for people\nd/e 9\nb 7\n\nbig 3\na -2\n")
    )
    assert sorted(wanted := places(image, ["big", "d/e", "b", "c", "a"])) == wanted
    assert log == [f"{NAME}: 4 of 4 paths are in the tree"]
    plain, _ = packed(make_job(tmp_path / "plain", names))
    assert sorted(usual := places(plain, ["big", "a", "b", "c", "d/e"])) == usual


def test_a_path_that_is_not_there_is_only_logged(tmp_path: Path) -> None:
    image, log = packed(make_job(tmp_path / "work", ["a", "b"], "gone/away 9\nb 5\n"))
    assert sorted(wanted := places(image, ["b", "a"])) == wanted
    assert log == [
        f"{NAME}: 'gone/away' is not in the tree",
        f"{NAME}: 1 of 2 paths are in the tree",
    ]


def test_strange_names_are_found_too(tmp_path: Path) -> None:
    lines = [sort_line(name, 9 - number) for number, name in enumerate(STRANGE)]
    image, log = packed(make_job(tmp_path / "work", ["a", *STRANGE], "".join(lines)))
    assert sorted(wanted := places(image, [*STRANGE, "a"])) == wanted
    assert log == [f"{NAME}: 7 of 7 paths are in the tree"]


def test_processors_and_the_order_of_folders_do_not_show(tmp_path: Path) -> None:
    """Row 4 of docs/determinism.md."""
    names = [f"{number}" for number in range(60)] + ["big"]
    sort = "".join(f"{number} {number % 5}\n" for number in range(0, 60, 3)) + "big 2\n"
    cpus = os.sched_getaffinity(0)
    image, _ = packed(make_job(tmp_path / "a", names, sort))
    try:
        os.sched_setaffinity(0, {min(cpus)})
        other, _ = packed(make_job(tmp_path / "elsewhere", reversed(names), sort))
    finally:
        os.sched_setaffinity(0, cpus)
    assert other == image
    assert packed(make_job(tmp_path / "plain", names))[0] != image


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("usr/bin/env", "give a path and a number"),
        ("usr/bin/env many", "give a path and a number"),
        ("usr/bin/env 1 2", "give a path and a number"),
        ("usr/bin/a space 1", "give a path and a number"),
        ('"usr/bin/env" 1', "give a path and a number"),
        ("usr/bin/env 1\r", "give a path and a number"),
        ("7", "give a path and a number"),
        ("usr/bin/env \\", "give a path and a number"),
        ("/usr/bin/env 1", "from the root"),
        ("usr/../../etc/shadow 1", "from the root"),
        ("./usr 1", "from the root"),
        ("usr/bin/ 1", "from the root"),
        ("usr/bin/env 32768", "from -32768 to 32767"),
        ("usr/bin/env -32769", "from -32768 to 32767"),
        ("usr/bin/sh 2", "there before"),
    ],
)
def test_a_malformed_line_fails_at_once_by_file_and_line(
    line: str, why: str, tmp_path: Path
) -> None:
    job = make_job(tmp_path / "work", sort=f"# two\nusr/bin/sh 1\n{line}\n")
    with pytest.raises(StepFailed, match=f"^{NAME}:3: .*{why}") as caught:
        check_configuration(job)
    assert caught.value.status == STATUS_BUILD_FAILED


PATHS = st.lists(
    st.text(st.characters(exclude_characters="/\0\n", exclude_categories=[]), min_size=1).filter(
        lambda name: name not in (".", "..")
    ),
    min_size=1,
    max_size=4,
).map("/".join)


@given(PATHS, st.integers(-(2**15), 2**15 - 1))
def test_what_is_written_is_what_is_read(path: str, priority: int) -> None:
    assert parse(sort_line(path, priority), NAME) == {path: priority}
