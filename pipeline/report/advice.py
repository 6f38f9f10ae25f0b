# SPDX-License-Identifier: GPL-3.0-or-later
"""The advice in `docs/causes.md` on each cause: symptom, fix at the cause, fix by a hook."""

import re
from pathlib import Path

from pipeline.base import places

CAUSES = places.PROGRAM / "docs" / "causes.md"
PARTS = {
    "symptom": "**Symptom.**",
    "fix": "**At the cause.**",
    "hook": "**By a hook.**",
}


def read_advice(path: Path = CAUSES) -> dict[str, dict[str, str]]:
    """Return the parts of every entry by the cause's name, as Markdown on one line."""
    entries = re.split(r"^## ", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    advice = {}
    for entry in entries:
        name, _, rest = entry.partition("\n")
        advice[name.strip()] = {part: _part(rest, mark) for part, mark in PARTS.items()}
    return advice


def _part(entry: str, mark: str) -> str:
    """Return the text from a mark to the next one."""
    rest = entry.partition(mark)[2]
    return " ".join(re.split(r"^\*\*", rest, flags=re.MULTILINE)[0].split())
