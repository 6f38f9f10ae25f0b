# SPDX-License-Identifier: GPL-3.0-or-later
"""The manual page is the one that the help of the tasks makes."""

import re
import subprocess
import sys
from pathlib import Path

from tools import installed
from tools.man_page import PAGE

ROOT = Path(__file__).parents[3]


def test_the_page_is_up_to_date() -> None:
    """In a process of its own: invoke gives the help of an option only to who asks first."""
    code = (
        "from tools import installed, man_page as m; print(end=m.page(installed.all_of_a_farm()))"
    )
    argv = [sys.executable, "-c", code]
    made = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert PAGE.read_text() == made, "run python3 -m tools.man_page"


def test_it_has_every_task_and_all_of_its_options() -> None:
    text = PAGE.read_text().replace("\\-", "-")
    parts = dict(re.findall(r"^\.SS (\S+)\n(.*?)(?=^\.S[SH])", text, re.DOTALL | re.MULTILINE))
    for context in installed.all_of_a_farm().to_contexts():
        options = [option for option in context.flags if option.startswith("--")]
        assert all(option in parts[str(context.name)] for option in options)


def test_nothing_of_a_help_is_taken_for_a_request() -> None:
    """A line that begins with a dot or an apostrophe would be one."""
    requests = {line.split()[0] for line in PAGE.read_text().splitlines() if line[:1] in (".", "'")}
    assert all(re.fullmatch(r"\.(\\\"|TH|SH|SS|TP|PP|BR?|IR?|nf|fi)", one) for one in requests)
