# SPDX-License-Identifier: GPL-3.0-or-later
"""The files that tell people and their tools how to work on the project are true."""

import configparser
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.cli.version import version

ROOT = Path(__file__).parents[2]
TEMPLATES = [path.relative_to(ROOT) for path in (ROOT / ".gitlab").rglob("*.md")]


def load(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text())


def test_the_license_is_the_one_that_is_declared() -> None:
    text = (ROOT / "LICENSE").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert " ".join(text.split()[:7]) == "GNU GENERAL PUBLIC LICENSE Version 3, 29"
    assert text.rstrip().endswith("<https://www.gnu.org/licenses/why-not-lgpl.html>.")
    assert project["license"] == "GPL-3.0-or-later"
    assert project["license-files"] == ["LICENSE"]


def test_pre_commit_runs_what_the_pipeline_runs() -> None:
    (repository,) = load(".pre-commit-config.yaml")["repos"]
    (hook,) = repository["hooks"]
    assert (repository["repo"], hook["language"]) == ("local", "system")
    assert hook["entry"] == load(".gitlab-ci.yml")["lint"]["script"] == "./farm lint"
    assert hook["always_run"]
    assert not hook["pass_filenames"]


def files() -> list[tuple[str, str]]:
    """Return the files that git would commit, with their text; none that is binary.

    Those of `tests/data/` are what earlier versions have written, byte for byte.
    """
    argv = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(argv, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    names = [name for name in listed.split("\0") if name and not name.startswith("tests/data/")]
    paths = [ROOT / name for name in names]
    contents = [(path, path.read_bytes()) for path in paths if path.is_file()]
    return [(str(path.relative_to(ROOT)), c.decode()) for path, c in contents if b"\0" not in c]


def test_every_file_is_as_editorconfig_says() -> None:
    parser = configparser.ConfigParser()
    parser.read_string("[top]\n" + (ROOT / ".editorconfig").read_text())
    assert dict(parser["*"]) == {
        "charset": "utf-8",
        "end_of_line": "lf",
        "insert_final_newline": "true",
        "trim_trailing_whitespace": "true",
        "indent_style": "space",
        "indent_size": "4",
    }
    wrong = [name for name, text in files() if not is_tidy(text)]
    assert wrong == []
    tabs = {Path(name).name for name, text in files() if "\n\t" in text}
    assert tabs <= {"Makefile", "rules"}


def is_tidy(text: str) -> bool:
    lines = text.split("\n")
    return lines[-1] == "" and all(line == line.rstrip() for line in lines)


@pytest.mark.parametrize("text", ["a", "a \n", "a\r\n", "a\n \nb\n"])
def test_an_untidy_file_is_found(text: str) -> None:
    assert is_tidy("")
    assert is_tidy("a\n\nb\n")
    assert not is_tidy(text)


def test_gitlab_finds_the_templates() -> None:
    """GitLab lists what lies directly in these two folders; `Default` is the one chosen."""
    folders = {str(path.parent) for path in TEMPLATES}
    assert folders == {".gitlab/issue_templates", ".gitlab/merge_request_templates"}
    assert Path(".gitlab/merge_request_templates/Default.md") in TEMPLATES


def test_a_vulnerability_is_reported_confidentially() -> None:
    template = ROOT / ".gitlab/issue_templates/Vulnerability.md"
    assert "\n/confidential\n" in template.read_text()
    assert f"*{template.stem}*" in (ROOT / "SECURITY.md").read_text()


def test_every_program_names_its_license() -> None:
    """In SPDX's short form; images carry the text of their own files as it is."""
    programs = [
        (name, text.splitlines()[:2])
        for name, text in files()
        if text.strip() and (name.endswith(".py") or text.startswith("#!"))
        if not name.startswith("images/live/")
    ]
    line = "# SPDX-License-Identifier: GPL-3.0-or-later"
    assert [name for name, head in programs if line not in head] == []
    assert len(programs) > 300


def test_the_version_stands_in_one_place_and_has_its_section() -> None:
    """pyproject.toml has it; `./farm --version` shows it, the first section is called like it."""
    number = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    sections = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert sections[0] == number == version()
    assert len(sections) == len(set(sections))
