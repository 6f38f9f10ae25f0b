# SPDX-License-Identifier: GPL-3.0-or-later
"""What the documents tell people to type is what the command line takes; links lead somewhere."""

import re
import shlex
from pathlib import Path
from textwrap import dedent

import pytest
import yaml
from invoke.exceptions import ParseError
from invoke.parser import Parser

import tasks
from pipeline.farm.config import EnvironmentEntry, Farm, Image, Variation
from pipeline.look.formats import known

ROOT = Path(__file__).parents[2]
DOCUMENTS = [path for top in ("", "docs", ".gitlab") for path in (ROOT / top).glob("*.md")]
DOCUMENTS += [path for top in ("docs", ".gitlab") for path in (ROOT / top).glob("*/*.md")]
PARSER = Parser(contexts=tasks.namespace.to_contexts())
BLOCK = re.compile(r"^ *```sh\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)#\s]+)|(?:src|srcset)=\"([^\"]+)\"")
NOT_TASKS = {"--list", "--help", "TASK"}
SPAN = re.compile(r"`([^`\n]+)`")
# A file of the repository, or the beginning of its name, and what is in it: `tasks.py: lint`.
FILE = re.compile(
    r"(farm|farm\.yaml|tasks\.py|verify\.py|pyproject\.toml|\.gitlab-ci\.yml"
    r"|(?:pipeline|tests|docs|tools|\.ci|\.gitlab|hooks/(?:source|chroot)"
    r"|images/(?:builder|hosts|live/(?:mini|reference)))/[\w./-]*)(?:: (\w+))?"
)
COMMAND = re.compile(r"\./farm ([a-z][^…[\x22]*)")  # as far as it is not abridged


def commands(text: str) -> list[str]:
    """The arguments of every `./farm` in the shell blocks of a document."""
    blocks = re.sub(r"\s#.*", "", "".join(BLOCK.findall(text)).replace("\\\n", " "))
    return re.findall(r"(?:^|\s)\./farm ([^&|\n]+)", blocks)


def accepts(line: str) -> None:
    words = shlex.split(re.sub(r"\$\w+", "value", line))
    PARSER.parse_argv(words)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_and_links(document: Path) -> None:
    text = document.read_text()
    for line in commands(text):
        if line.split()[0] not in NOT_TASKS:
            accepts(line)
    for one, other in LINK.findall(text):
        if "://" not in one + other:
            assert (document.parent / (one or other)).exists(), one or other


def anchors(page: Path) -> set[str]:
    """The names by which GitLab links to the headings of a page."""
    headings = re.findall(r"^#+ (.*)", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_a_heading(document: Path) -> None:
    found = re.findall(r"\]\(([^)#\s:]*)#([^)\s]+)\)", document.read_text())
    pages = [(document.parent / name if name else document, anchor) for name, anchor in found]
    assert [link for link in pages if link[1] not in anchors(link[0])] == []


def known_command(line: str) -> bool:
    """Tell whether a task and its options are there; some that it needs may be left out."""
    if line.endswith("."):
        return any(name.startswith(line) for name in tasks.namespace.task_names)
    try:
        accepts(line)
    except ParseError as error:
        return bool(re.search("did not receive required|needed value", str(error)))
    return True


def missing(span: str) -> bool:
    """Tell whether a span of code is a file, a name in it or a task, and there is none such."""
    if command := COMMAND.match(span):
        return not known_command(command[1])
    named = FILE.fullmatch(span)
    if not named:
        return False
    path = ROOT / named[1]
    if named[2]:
        return not re.search(rf"\b{named[2]}\b", path.read_text())
    return not path.exists() and not list(path.parent.glob(f"{path.name}*"))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_tasks_that_are_named_exist(document: Path) -> None:
    assert [span for span in SPAN.findall(document.read_text()) if missing(span)] == []


@pytest.mark.parametrize(
    "span",
    [
        "pipeline/nothing.py",
        "tests/unit/documents/test_lock.py: nothing",
        "hooks/chroot/99-x",
        "./farm biuld",
        "./farm build --imago mini",
    ],
)
def test_what_does_not_exist_is_found(span: str) -> None:
    assert missing(span)


def test_every_decision_is_listed_and_has_its_parts() -> None:
    listed = (ROOT / "docs/README.md").read_text()
    decisions = sorted((ROOT / "docs/decisions").glob("*.md"))
    assert [path.name[:4] for path in decisions] == [f"{n + 1:04}" for n in range(len(decisions))]
    for path in decisions:
        text = path.read_text()
        parts = re.findall(r"^\*\*(\w+)\.\*\*", text, re.MULTILINE)
        assert parts == ["Context", "Options", "Outcome"], path.name
        assert f"](decisions/{path.name})" in listed, path.name


def test_every_page_is_listed() -> None:
    listed = (ROOT / "docs/README.md").read_text()
    pages = [path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")]
    assert [str(page) for page in pages if f"]({page})" not in listed] == ["README.md"]


def test_every_key_of_the_configuration_has_its_line() -> None:
    text = (ROOT / "docs/reference/farm-yaml.md").read_text()
    fields = [f for model in (Farm, EnvironmentEntry, Variation, Image) for f in model.model_fields]
    assert [f for f in fields if not re.search(rf"`{f}`|^ *{f}:", text, re.MULTILINE)] == []


def test_every_format_that_locate_reads_has_its_line() -> None:
    text = (ROOT / "docs/reference/locate.md").read_text()
    formats = [found.name for _, load in known.KINDS for found in load()]
    assert len(formats) > 10
    assert [name for name in formats if f"`{name}`" not in text] == []


def test_every_document_is_described() -> None:
    files = [path for path in (ROOT / "docs/reference").rglob("*") if path.is_file()]
    pages = "".join(path.read_text() for path in files)
    code = "".join(path.read_text() for path in (ROOT / "pipeline").rglob("*.py"))
    formats = set(re.findall(r"\"(twinbuild-[a-z]+/\d+)\"", code))
    assert len(formats) > 10
    assert [name for name in sorted(formats) if name not in pages] == []


def test_commands_are_found_and_wrong_ones_refused() -> None:
    assert "test" in [line.strip() for line in commands((ROOT / "README.md").read_text())]
    with pytest.raises(Exception, match="No idea what"):
        accepts("build --imago mini")


def test_printed_commands_can_be_typed() -> None:
    """`invoke` is not in the PATH of someone who uses `./farm`."""
    names = "|".join(map(re.escape, tasks.namespace.task_names))
    command = re.compile(rf"\binvoke (?:{names}|TASK)\b")
    code = [*(ROOT / "pipeline").rglob("*.py"), ROOT / "tasks.py", ROOT / "farm"]
    found = [path for path in [*DOCUMENTS, *code] if command.search(path.read_text())]
    assert found == []


def test_the_pipelines_commands() -> None:
    jobs = yaml.safe_load((ROOT / ".gitlab-ci.yml").read_text()).values()
    scripts = [job["script"] for job in jobs if isinstance(job, dict) and "script" in job]
    lines = [script.removeprefix("./farm ") for script in scripts if script.startswith("./farm")]
    assert len(lines) == 10
    for line in lines:
        accepts(line)


def yaml_examples() -> list[tuple[Path, str]]:
    """Return each example of YAML in a page, without the indentation of the list it stands in."""
    block = re.compile(r"^( *)```yaml\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
    pages = [(path, path.read_text()) for path in DOCUMENTS]
    return [(path, dedent(found[2])) for path, text in pages for found in block.finditer(text)]


def test_examples_of_yaml_can_be_parsed() -> None:
    examples = yaml_examples()
    assert len(examples) >= 5
    for path, text in examples:
        assert yaml.safe_load(text), f"{path}: {text}"
    with pytest.raises(yaml.YAMLError):
        yaml.safe_load("at: null\n    urls: null\n")
