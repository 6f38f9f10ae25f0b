# SPDX-License-Identifier: GPL-3.0-or-later
"""What an image leaves out, from real trees with real links."""

import os
from pathlib import Path

import pytest

from pipeline.documents.progress import STATUS_BUILD_FAILED
from pipeline.guest.exclusions import exclude, parse
from pipeline.guest.hook_links import check_hook_links
from pipeline.guest.job import GuestJob
from pipeline.guest.serial_port import StepFailed
from tests.guest_log import Log
from tests.jobs import make_document
from tests.machine_settings import make_settings

NAME = "images/live/mini/exclude"
ROOT = Path(__file__).parents[3]
IMAGES = sorted(path.parent for path in ROOT.glob("images/live/*/image.yaml"))


@pytest.fixture
def job(tmp_path: Path) -> GuestJob:
    made = GuestJob(make_document(), make_settings(), tmp_path / "work")
    made.image_folder.mkdir(parents=True)
    made.tree.mkdir()
    return made


def add(job: GuestJob, *names: str, content: str = "12345") -> None:
    for name in names:
        path = job.tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def left_out(job: GuestJob, text: str) -> list[str]:
    """Do it, and return what was logged."""
    (job.image_folder / "exclude").write_text(text)
    log = Log()
    exclude(job, log)
    return list(log.lines)


def left(job: GuestJob) -> set[str]:
    found = job.tree.rglob("*")
    return {str(p.relative_to(job.tree)) for p in found if p.is_symlink() or not p.is_dir()}


def test_an_image_without_a_list_loses_nothing(job: GuestJob) -> None:
    add(job, "usr/share/doc/a/changelog.gz")
    log = Log()
    exclude(job, log)
    assert left(job) == {"usr/share/doc/a/changelog.gz"}
    assert log.lines == []


def test_what_is_listed_is_removed_and_its_size_is_logged(job: GuestJob) -> None:
    add(job, "usr/share/doc/a/changelog.gz", "usr/share/doc/a/copyright", "usr/share/info/x/y.gz")
    add(job, "big", content="x" * 1_000_000)
    lines = left_out(
        job, "# for people\n\nusr/share/doc/*/changelog*  # long\nusr/share/info\nbig\n"
    )
    assert left(job) == {"usr/share/doc/a/copyright"}
    assert not (job.tree / "usr/share/info").exists()
    assert lines == [f"{NAME}: 5 paths are left out, 1.0 MB"]


@pytest.mark.parametrize(
    ("pattern", "removed"),
    [
        ("a/*", {"a/x", "a/.y", "a/b/z", "a/b/c/z"}),
        ("a/?", {"a/x", "a/b/z", "a/b/c/z"}),
        ("a/**/z", {"a/b/z", "a/b/c/z"}),
        ("**/z", {"a/b/z", "a/b/c/z"}),
        ("a/**", {"a/x", "a/.y", "a/b/z", "a/b/c/z"}),
        ("a/[!b]", {"a/x"}),
        ("a/[b-d]", {"a/b/z", "a/b/c/z"}),
        ("[!x]/x", {"a/x"}),
        ("a", {"a/x", "a/.y", "a/b/z", "a/b/c/z"}),
        ("b[^", {"b[^"}),
        ("c.d", {"c.d"}),
    ],
)
def test_the_words_of_patterns(pattern: str, removed: set[str], job: GuestJob) -> None:
    add(job, "a/x", "a/.y", "a/b/z", "a/b/c/z", "b[^", "c.d", "cxd")
    before = left(job)
    left_out(job, f"{pattern}\n")
    assert before - left(job) == removed


def test_a_pattern_that_matches_nothing_is_logged(job: GuestJob) -> None:
    add(job, "a")
    assert left_out(job, "b\na/b\n")[:2] == [
        f"{NAME}: b matches nothing",
        f"{NAME}: a/b matches nothing",
    ]
    assert left(job) == {"a"}


@pytest.mark.parametrize("line", ["/usr/share/doc", "usr/../../../etc", "./usr", "usr/", "a[z-a]"])
def test_what_is_no_pattern_is_refused_with_its_line(line: str, job: GuestJob) -> None:
    add(job, "usr/share/doc/a")
    with pytest.raises(StepFailed, match=rf"^{NAME}:2: ") as caught:
        left_out(job, f"usr/share/doc\n{line}\n")
    assert caught.value.status == STATUS_BUILD_FAILED
    assert left(job) == {"usr/share/doc/a"}


def test_nothing_behind_a_link_is_removed(job: GuestJob, tmp_path: Path) -> None:
    """A maintainer script may leave a link to the machine's own files in the place of a folder."""
    outside = tmp_path / "outside"
    (outside / "doc").mkdir(parents=True)
    (outside / "doc/file").write_text("of the machine")
    (job.tree / "usr").mkdir()
    (job.tree / "usr/share").symlink_to(outside)
    (job.tree / "up").symlink_to("../..")
    lines = left_out(job, "usr/share/doc\nusr/*/doc/file\n**/file\nup/outside\n")
    assert [line for line in lines if "matches nothing" in line] == lines[:4]
    left_out(job, "usr/share\nup\n")
    assert not os.path.lexists(job.tree / "usr/share")
    assert (outside / "doc/file").read_text() == "of the machine"


def test_a_file_counts_when_its_last_name_goes(job: GuestJob) -> None:
    add(job, "a", content="x" * 2_000_000)
    os.link(job.tree / "a", job.tree / "b")
    assert left_out(job, "a\n") == [f"{NAME}: 1 paths are left out, 0.0 MB"]
    assert left_out(job, "b\n") == [f"{NAME}: 1 paths are left out, 2.0 MB"]


def test_a_list_that_is_no_text_is_refused_or_finds_nothing(job: GuestJob) -> None:
    (job.image_folder / "exclude").write_bytes(b"\xff\xfe\n\x00[\n")
    add(job, "a")
    log = Log()
    exclude(job, log)
    assert left(job) == {"a"}
    assert parse("[[]\n", NAME)["[[]"].fullmatch("[")


@pytest.mark.parametrize("image", IMAGES, ids=lambda path: path.name)
def test_our_own_images_bring_what_the_build_takes(image: Path) -> None:
    listed = image / "exclude"
    if listed.exists():
        assert parse(listed.read_text(), listed.name)
    check_hook_links(image / "hooks", ROOT)
