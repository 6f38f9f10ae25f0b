# SPDX-License-Identifier: GPL-3.0-or-later
"""What a command line answers without doing a task: the list of all, and the version."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.base.errors import command_line

if TYPE_CHECKING:
    from collections.abc import Mapping

LIST = frozenset({"--list", "-l"})
VERSION = frozenset({"--version", "-V"})


def task_list(lines: Mapping[str, str]) -> str:
    """Return all tasks, each with the first line of its help."""
    width = max(map(len, lines)) + 2
    shown = [f"  {name:{width}}{lines[name]}" for name in sorted(lines)]
    usage = f"Usage: {command_line('TASK [--option VALUE …]')}"
    one = f"{command_line('TASK --help')}: one task"
    completed = f"{command_line('--completion SHELL')}: what lets bash, fish or zsh complete them"
    return "\n".join([usage, "", "Tasks:", *shown, "", one, completed])


def version_line() -> str:
    """Return the line that says which version this is."""
    from pipeline.cli.version import version

    return f"twinbuild {version()}"
