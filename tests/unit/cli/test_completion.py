# SPDX-License-Identifier: GPL-3.0-or-later
"""What shells offer when somebody types a task: bash itself is asked."""

import re
import subprocess
from pathlib import Path

import pytest

import tasks
from pipeline.base.errors import ExitStatus
from pipeline.cli import parser

NAMES = sorted(tasks.namespace.task_names)
ASKED = """. ./script
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_twinbuild
printf '%s\\n' "${COMPREPLY[@]}"
"""


def script(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert parser.main(tasks.namespace, ["--completion", shell]) == ExitStatus.DONE
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("twinbuild kit.r", ["kit.renew", "kit.rollback"]),
        ("twinbuild -", ["--list", "--help", "--version", "--completion"]),
        ("./farm build --com", ["--commit", "--compression"]),
        ("farm keys --", ["--name", "--release", "--help"]),
        ("twinbuild stage.inputs --run x stage.build --k", ["--keep"]),
        ("twinbuild lock --source .", []),  # the shell goes on with files
        ("twinbuild show r", []),
    ],
)
def test_bash_offers(
    typed: str, offered: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "script").write_text(script("bash", capsys))
    argv = ["bash", "--norc", "-euc", ASKED, "bash", *typed.split()]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == offered


def test_bash_asks_for_both_commands_and_goes_on_with_files(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert script("bash", capsys).endswith("complete -o default -F _twinbuild twinbuild farm\n")


def test_zsh_has_every_task_with_its_line_and_options(capsys: pytest.CaptureFixture[str]) -> None:
    text = script("zsh", capsys)
    assert text.startswith("#compdef twinbuild farm\n")
    assert [
        n for n in NAMES if f"        '{n}:" in text and f"        {n}) options=(" in text
    ] == NAMES
    assert re.search(r"^ +lock\) options=\(--image --tag --source --check --help\) ;;$", text, re.M)
    assert """'keygen:Make the key that signs an environment'"'"'s statements""" in text


def test_fish_has_every_task_and_knows_which_options_take_a_value(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = script("fish", capsys).splitlines()
    offered = [line for line in lines if "__fish_use_subcommand" in line]
    assert [line.split(" -a ")[1].split()[0] for line in offered] == NAMES
    assert "complete -c twinbuild -n '__fish_seen_subcommand_from lock' -l image -r" in lines
    assert "complete -c twinbuild -n '__fish_seen_subcommand_from lock' -l check" in lines
    assert r" -d 'Build a run\'s job in one environment, or in all.'" in "\n".join(lines)


@pytest.mark.parametrize("words", [[], ["tcsh"], ["bash", "zsh"]])
def test_another_shell_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert parser.main(tasks.namespace, ["--completion", *words]) == ExitStatus.USAGE
    assert (
        "--completion needs the name of a shell; one of bash, fish, zsh" in capsys.readouterr().err
    )
