# SPDX-License-Identifier: GPL-3.0-or-later
"""Scripts that let a shell complete tasks and their options: for bash, zsh and fish.

They hold the names themselves, so that no key press starts Python. `./farm` is completed by the
same script as `twinbuild`. A word that begins no option is left to the shell, as a path.
"""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

PROGRAMS = "twinbuild farm"
BEFORE_A_TASK = ("--list", "--help", "--version", "--completion")


@dataclass(frozen=True)
class TaskHelp:
    """A task: one line of help, and its options; those that are not switches take a value."""

    line: str
    options: Sequence[str]
    switches: Sequence[str]

    @property
    def words(self) -> str:
        """All options that may follow the task, separated by spaces."""
        return " ".join([*self.options, *self.switches, "--help"])


Tasks = Mapping[str, TaskHelp]


def bash(tasks: Tasks) -> str:
    """Return the script for bash, to be sourced."""
    cases = [
        f"        {name}) options={shlex.quote(task.words)} ;;" for name, task in tasks.items()
    ]
    options = f"${{options:-{' '.join(BEFORE_A_TASK)}}}"
    return "\n".join(
        [
            "_twinbuild() {",
            "    local word options=",
            '    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do',
            "        case $word in",
            *cases,
            "        esac",
            "    done",
            "    word=${COMP_WORDS[COMP_CWORD]}",
            "    if [[ $word == -* ]]; then",
            f'        COMPREPLY=($(compgen -W "{options}" -- "$word"))',
            '    elif [ -z "$options" ]; then',
            f"        COMPREPLY=($(compgen -W '{' '.join(tasks)}' -- \"$word\"))",
            "    fi",
            "}",
            f"complete -o default -F _twinbuild {PROGRAMS}",
        ]
    )


def zsh(tasks: Tasks) -> str:
    """Return the script for zsh, to be sourced after compinit or kept as `_twinbuild` in fpath."""
    cases = [f"        {name}) options=({task.words}) ;;" for name, task in tasks.items()]
    described = [f"        {shlex.quote(f'{name}:{task.line}')}" for name, task in tasks.items()]
    return "\n".join(
        [
            f"#compdef {PROGRAMS}",
            "_twinbuild() {",
            "    local word",
            "    local -a options tasks=(",
            *described,
            "    )",
            "    for word in ${words[2,CURRENT-1]}; do",
            "        case $word in",
            *cases,
            "        esac",
            "    done",
            "    if [[ $words[CURRENT] == -* ]]; then",
            f"        (( $#options )) || options=({' '.join(BEFORE_A_TASK)})",
            "        compadd -- $options",
            "    elif (( $#options )); then",
            "        _files",
            "    else",
            "        _describe task tasks",
            "    fi",
            "}",
            'if [ "$funcstack[1]" = _twinbuild ]; then',
            '    _twinbuild "$@"',
            "else",
            f"    compdef _twinbuild {PROGRAMS}",
            "fi",
        ]
    )


def fish(tasks: Tasks) -> str:
    """Return the script for fish, to be sourced."""
    first, *others = PROGRAMS.split()
    lines = []
    for name, task in tasks.items():
        about = f"-a {name} -d {_fish_quoted(task.line)}"
        lines.append(f"complete -c {first} -f -n __fish_use_subcommand {about}")
        seen = f"complete -c {first} -n '__fish_seen_subcommand_from {name}'"
        lines += [f"{seen} -l {option.removeprefix('--')} -r" for option in task.options]
        lines += [f"{seen} -l {option.removeprefix('--')}" for option in task.switches]
    lines += [f"complete -c {other} -w {first}" for other in others]
    return "\n".join(lines)


def _fish_quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


SHELLS: Mapping[str, Callable[[Tasks], str]] = {"bash": bash, "fish": fish, "zsh": zsh}
