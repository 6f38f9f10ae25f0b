"""What the documents tell people to type is what the command line takes; links lead somewhere."""

import re
import shlex
from pathlib import Path

import pytest
import yaml
from invoke.parser import Parser

import tasks

ROOT = Path(__file__).parents[2]
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
BLOCK = re.compile(r"^ *```sh\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)#\s]+)|(?:src|srcset)=\"([^\"]+)\"")
NOT_TASKS = {"--list", "--help", "TASK"}


def commands(text: str) -> list[str]:
    """The arguments of every `./farm` in the shell blocks of a document."""
    blocks = re.sub(r"\s#.*", "", "".join(BLOCK.findall(text)).replace("\\\n", " "))
    return re.findall(r"(?:^|\s)\./farm ([^&|\n]+)", blocks)


def accepts(line: str) -> None:
    words = shlex.split(re.sub(r"\$\w+", "value", line))
    Parser(contexts=tasks.namespace.to_contexts()).parse_argv(words)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_and_links(document: Path) -> None:
    text = document.read_text()
    for line in commands(text):
        if line.split()[0] not in NOT_TASKS:
            accepts(line)
    for one, other in LINK.findall(text):
        if "://" not in one + other:
            assert (document.parent / (one or other)).exists(), one or other


def test_commands_are_found_and_wrong_ones_refused() -> None:
    assert "test" in [line.strip() for line in commands((ROOT / "README.md").read_text())]
    with pytest.raises(Exception, match="No idea what"):
        accepts("build --imago mini")


def test_what_is_said_can_be_typed() -> None:
    """`invoke` is not in the PATH of someone who uses `./farm`."""
    names = "|".join(map(re.escape, tasks.namespace.task_names))
    told = re.compile(rf"\binvoke (?:{names}|TASK)\b")
    code = [*(ROOT / "pipeline").rglob("*.py"), ROOT / "tasks.py", ROOT / "farm"]
    found = [path for path in [*DOCUMENTS, *code] if told.search(path.read_text())]
    assert found == []


def test_the_pipelines_commands() -> None:
    jobs = yaml.safe_load((ROOT / ".gitlab-ci.yml").read_text()).values()
    scripts = [job["script"] for job in jobs if isinstance(job, dict) and "script" in job]
    lines = [script.removeprefix("./farm ") for script in scripts if script.startswith("./farm")]
    assert len(lines) == 10
    for line in lines:
        accepts(line)
