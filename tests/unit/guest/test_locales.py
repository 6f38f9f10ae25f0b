# SPDX-License-Identifier: GPL-3.0-or-later
"""The data of the environment's locale: made in the machine, lent to a tree, never in it.

`tests/container/test_rows.py` has real data, and programs that sort by them.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.guest import locales
from pipeline.guest.serial_port import StepFailed

GERMAN = "de_DE.UTF-8"


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine that has sources of two locales, and no data yet."""
    folder = tmp_path / "sources"
    folder.mkdir()
    for name in ("de_DE", "fr_FR"):
        (folder / name).touch()
    monkeypatch.setattr(locales, "SOURCES", folder)
    monkeypatch.setattr(locales, "DATA", tmp_path / "data")
    return folder


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Put a program in the place of the machine's, which are not everywhere."""
    (tmp_path / "bin").mkdir()
    path = f"{tmp_path}/bin:/usr/bin:/bin"
    monkeypatch.setattr(locales, "ENVIRONMENT", {"PATH": path, "LC_ALL": "C"})

    def put(name: str, does: str) -> None:
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / "bin" / name).chmod(0o755)

    put(
        "localedef",
        'for last; do :; done; case $1 in --no-archive) mkdir "$last";; *) echo l 2.41;; esac',
    )
    put("locale", "echo UTF-8")
    return put


@pytest.mark.parametrize("name", ["C", "C.UTF-8", "POSIX"])
def test_what_needs_no_data(name: str) -> None:
    assert locales.make(name) == "built in"
    assert locales.lent(Path("/nowhere"), {"LC_ALL": name}) == {"LC_ALL": name}


def test_data_are_made_in_the_machine(sources: Path, program: Callable[[str, str], None]) -> None:
    assert locales.make(GERMAN) == "l 2.41"
    assert [path.name for path in locales.DATA.iterdir()] == ["de_DE.utf8"]


def test_a_builder_without_sources_is_noted(sources: Path) -> None:
    assert locales.make("sv_SE.UTF-8") == "none: the builder has no package locales"
    assert locales.lent(Path("/nowhere"), {"LC_ALL": "sv_SE.UTF-8"}) == {"LC_ALL": "sv_SE.UTF-8"}


def test_localedef_fails(sources: Path, program: Callable[[str, str], None]) -> None:
    program("localedef", "echo no charmap >&2; exit 4")
    with pytest.raises(StepFailed, match="localedef --no-archive -i de_DE failed in the machine"):
        locales.make(GERMAN)


def test_data_that_the_machine_does_not_take(
    sources: Path, program: Callable[[str, str], None]
) -> None:
    program("locale", "echo ANSI_X3.4-1968")
    what = "cannot use its data of the locale de_DE.UTF-8: it says ANSI_X3.4-1968"
    with pytest.raises(StepFailed, match=what):
        locales.make(GERMAN)


def test_a_program_in_a_tree_finds_them(sources: Path, tmp_path: Path) -> None:
    lent = locales.lent(tmp_path, {"LC_ALL": GERMAN, "A": "1"})
    assert lent == {"LC_ALL": GERMAN, "A": "1", "LOCPATH": f"{locales.DATA}:/run/locale"}


def test_what_the_trees_own_archive_has_is_made_too(
    sources: Path, program: Callable[[str, str], None], tmp_path: Path
) -> None:
    """With LOCPATH glibc does not read the archive that locale-gen has made."""
    archive = tmp_path / "tree" / locales.ARCHIVE
    archive.parent.mkdir(parents=True)
    archive.touch()
    program(
        "localedef",
        "for last; do :; done; case $1 in --list-archive) echo fr_FR.utf8 sv_SE.utf8 en_GB;; "
        '*) mkdir "$last";; esac',
    )
    locales.lent(tmp_path / "tree", {"LC_ALL": GERMAN})
    assert [path.name for path in locales.DATA.iterdir()] == ["fr_FR.utf8"]
    program("localedef", "exit 1")
    assert locales.lent(tmp_path / "tree", {"LC_ALL": GERMAN})["LOCPATH"]
    archive.unlink()
    archive.symlink_to("/etc/passwd")
    assert locales.lent(tmp_path / "tree", {"LC_ALL": GERMAN})["LOCPATH"]
