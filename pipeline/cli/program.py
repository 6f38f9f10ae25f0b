# SPDX-License-Identifier: GPL-3.0-or-later
"""The program: list and version at once, all else by `parser`, which needs invoke."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.base.plain import print_plain
from pipeline.cli.listing import LIST, VERSION, task_list, version_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.cli.collection import Tasks


def main(tasks: Tasks, words: Sequence[str]) -> int:
    """Do what the words of a command line ask for; return the exit status."""
    if not words or words[0] in LIST:
        print_plain(task_list({name: task.line for name, task in tasks.items()}))
        return 0
    if words[0] in VERSION:
        print_plain(version_line())
        return 0
    from pipeline.cli.collection import collection
    from pipeline.cli.parser import main as parse_and_execute

    return parse_and_execute(collection(tasks), words)
