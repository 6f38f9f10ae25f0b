# SPDX-License-Identifier: GPL-3.0-or-later
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from pipeline.base.errors import BuildFailed, UsageError
from pipeline.source.check import check_source

pytestmark = pytest.mark.tools

ROOT = Path(__file__).parents[3]
HOOKS = ROOT / "hooks" / "source"
WEBSITE = Path("images/live/reference/packages/website")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    return tmp_path


def add(tree: Path, name: str, content: str = "text\n", *, mode: int = 0o644) -> None:
    path = tree / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    path.chmod(mode)
    subprocess.run(["git", "add", "--all"], cwd=tree, check=True)


def test_a_clean_tree_passes_every_check(tree: Path) -> None:
    add(tree, "images/live/mini/hooks/normal/10-a.hook.chroot", "#!/bin/sh\n", mode=0o755)
    messages: list[str] = []
    assert check_source(HOOKS, tree, tree.parent / "findings", notify=messages.append) == len(
        list(HOOKS.iterdir())
    )
    assert all(line.endswith(": fine") for line in messages)


@pytest.mark.parametrize(
    ("name", "content", "mode"),
    [
        ("images/a.list.orig", "text\n", 0o644),
        ("images/live/mini/.gitattributes", "VERSION export-subst\n", 0o644),
        ("images/live/mini/po/de.mo", "text\n", 0o644),
        ("images/live/mini/image.yaml~", "text\n", 0o644),
        ("images/live/mini/includes.chroot/usr/share/x/gschemas.compiled", "text\n", 0o644),
        ("images/live/mini/includes.chroot/etc/ld.so.cache", "text\n", 0o644),
        (".gitattributes", "*.bin filter=lfs -text\n", 0o644),
        ("images/live/mini/hooks/10-old.chroot", "#!/bin/sh\n", 0o644),
        ("images/live/mini/hooks/normal/10-a.hook.binary", "#!/bin/sh\n", 0o644),
        ("hooks/chroot/10-shared.hook.chroot", "#!/bin/sh\n", 0o644),
        ("images/live/mini/includes.chroot/usr/sbin/tool", "#!/bin/sh\n", 0o644),
        ("images/live/mini/includes.chroot/etc/motd", "hello\n", 0o755),
        ("images/live/mini/hooks/normal/10-a.hook.chroot", "#!/bin/sh\n", 0o644),
        ("images/live/mini/image.yaml", "text\n", 0o755),
    ],
)
def test_a_surprise_is_refused_by_its_path(tree: Path, name: str, content: str, mode: int) -> None:
    add(tree, name, content, mode=mode)
    with pytest.raises(BuildFailed) as caught:
        check_source(HOOKS, tree, tree.parent / "findings", notify=lambda _: None)
    assert name in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "mode"),
    [
        (".gitattributes", "# no export-subst and no filter=x here\n*.txt text\n", 0o644),
        ("images/live/mini/includes.chroot/usr/bin/tool", "#!/bin/sh\n", 0o755),
        ("images/live/mini/includes.chroot/usr/bin/elf", "\x7fELF...", 0o755),
        ("images/live/mini/includes.chroot/usr/lib/part.sh", "#!/bin/sh\n", 0o644),
        ("images/live/mini/packages/x/debian/odd", "text\n", 0o755),
        ("images/live/mini/includes.chroot/etc/ä name", "text\n", 0o644),
    ],
)
def test_what_is_as_it_should_be_passes(tree: Path, name: str, content: str, mode: int) -> None:
    add(tree, name, content, mode=mode)
    check_source(HOOKS, tree, tree.parent / "findings", notify=lambda _: None)


def test_paths_that_differ_in_case_are_refused(tree: Path) -> None:
    add(tree, "images/README")
    add(tree, "images/Readme")
    with pytest.raises(BuildFailed, match="only in case"):
        check_source(HOOKS, tree, tree.parent / "findings", notify=lambda _: None)


def test_a_check_that_says_escape_sequences_cannot_reach_the_terminal(
    tree: Path, tmp_path: Path
) -> None:
    hooks = tmp_path / "checks"
    hooks.mkdir()
    (hooks / "10-rude").write_text("#!/bin/sh\nprintf '\\033[2Jgone\\n'; exit 1\n")
    os.chmod(hooks / "10-rude", 0o755)  # noqa: PTH101
    with pytest.raises(BuildFailed) as caught:
        check_source(hooks, tree, tree.parent / "findings", notify=lambda _: None)
    assert "\x1b" not in str(caught.value) + caught.value.detail


@pytest.mark.parametrize(("count", "summary"), [(1, "0000"), (40, "0000 and 39 more")])
def test_all_findings_are_counted_and_written(
    tree: Path, tmp_path: Path, count: int, summary: str
) -> None:
    hooks, findings = tmp_path / "checks", tmp_path / "cache" / "check.txt"
    hooks.mkdir()
    (hooks / "10-many").write_text(f"#!/bin/sh\nseq --format=%04.0f 0 {count - 1}; exit 1\n")
    (hooks / "10-many").chmod(0o755)
    with pytest.raises(BuildFailed) as caught:
        check_source(hooks, tree, findings, notify=lambda _: None)
    assert caught.value.what == f"10-many: {summary}"
    assert str(findings) in caught.value.remedy
    assert len(caught.value.detail.splitlines()) == min(count, 15)
    assert findings.read_text().splitlines() == [f"10-many: {n:04}" for n in range(count)]


def test_no_check_at_all_is_no_pass(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no executable check"):
        check_source(tmp_path, tmp_path, tmp_path / "findings", notify=lambda _: None)


FIELDS = {
    "Project-Id-Version": "site",
    "PO-Revision-Date": "2026-11-22 10:00+0000",
    "Last-Translator": "none",
    "Language-Team": "none",
    "Language": "de",
    "MIME-Version": "1.0",
    "Content-Type": "text/plain; charset=UTF-8",
    "Content-Transfer-Encoding": "8bit",
}
HEADER = 'msgid ""\nmsgstr ""\n' + "".join(f'"{k}: {v}\\n"\n' for k, v in FIELDS.items()) + "\n"
DATE = '[[!meta date=\\"Tue, 14 Nov 2017 10:00:00 +0000\\"]]'


def catalogue(*, header: str = HEADER, flags: str = "", original: str, translated: str) -> str:
    return f'{header}{flags}msgid "{original}"\nmsgstr "{translated}"\n'


def refused(tree: Path) -> str:
    with pytest.raises(BuildFailed) as caught:
        check_source(HOOKS, tree, tree.parent / "findings", notify=lambda _: None)
    return caught.value.detail


def test_a_good_catalogue_and_page_pass(tree: Path) -> None:
    add(tree, "website/de.po", catalogue(original=DATE + " News", translated=DATE + " Neues"))
    add(tree, "website/site.setup")
    add(tree, "website/news/a.mdwn", '[[!meta date="Tue, 14 Nov 2017 10:00:00 +0000"]]\n')
    add(tree, "website/b.mdwn", '[[!meta date="2017-11-14 10:00:00 +0100"]]\n')
    add(tree, "elsewhere/notes.mdwn", "no page of a website\n")
    check_source(HOOKS, tree, tree.parent / "findings", notify=lambda _: None)


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [
        (catalogue(original="a", translated="b") + "msgid broken\n", 14, "syntax error"),
        (
            catalogue(flags="#, c-format\n", original="%d files", translated="%s Dateien"),
            14,
            "format specifications",
        ),
        (catalogue(header="", original="a", translated="ü"), None, "header missing"),
        (
            catalogue(header=HEADER.replace("UTF-8", "NONSENSE"), original="a", translated="b"),
            None,
            "NONSENSE",
        ),
        (catalogue(original=DATE, translated=DATE.replace("14", "15")), 13, "must stay as it is"),
        (catalogue(original=DATE, translated=DATE.replace('\\"', "'")), 13, "must stay as it is"),
    ],
)
def test_a_bad_catalogue_is_refused_by_file_and_line(
    tree: Path, content: str, line: int | None, message: str
) -> None:
    add(tree, "images/po/de.po", content)
    found = [one for one in refused(tree).splitlines() if message in one]
    assert found
    assert "images/po/de.po:" + (str(line) if line else "") in "\n".join(found)


def test_a_catalogue_in_a_wrong_charset_is_refused(tree: Path) -> None:
    add(tree, "images/po/de.po")
    content = catalogue(original="a", translated="ü").encode("latin-1")
    (tree / "images/po/de.po").write_bytes(content)
    assert "images/po/de.po:" in refused(tree)


@pytest.mark.parametrize(
    ("page", "line"),
    [
        ("no date at all\n", 1),
        ('text\n[[!meta date="Wed, 14 Nov 2017 10:00:00 +0000"]]\n', 2),
        ('[[!meta date="Tue, 14 Novembre 2017 10:00:00 +0000"]]\n', 1),
        ('[[!meta date="2017-11-14 10:00:00"]]\n', 1),
        ('[[!meta date=""]]\n', 1),
    ],
)
def test_a_page_without_a_date_is_refused_by_file_and_line(
    tree: Path, page: str, line: int
) -> None:
    add(tree, "website/site.setup")
    add(tree, "website/news/a.mdwn", page)
    assert f"website/news/a.mdwn:{line}: " in refused(tree)


@pytest.mark.parametrize(
    ("file", "stated", "instead", "message"),
    [
        (
            "news/twice.mdwn",
            '[[!meta date="2026-11-22 20:00:00 +0000"]]',
            "",
            ":1: the page has no",
        ),
        (
            "tags/building.mdwn",
            "20:00:00",
            "25:00:00",
            ":3: '2026-11-22 25:00:00 +0000' is no date",
        ),
        (
            "news/languages.fr.po",
            'msgstr "[[!meta date=\\"Mon, 23 Nov',
            'msgstr "[[!meta date=\\"Lun, 23 nov',
            ": the date ",
        ),
    ],
)
def test_the_reference_images_website_is_checked(
    tree: Path, file: str, stated: str, instead: str, message: str
) -> None:
    shutil.copytree(ROOT / WEBSITE / "src", tree / WEBSITE / "src")
    add(tree, os.fspath(WEBSITE / "website.setup"))
    check_source(HOOKS, tree, tree.parent / "findings", notify=lambda _: None)
    content = (tree / WEBSITE / "src" / file).read_text()
    assert stated in content
    add(tree, os.fspath(WEBSITE / "src" / file), content.replace(stated, instead))
    (found,) = refused(tree).splitlines()
    assert f"{WEBSITE}/src/{file}" in found
    assert message in found
