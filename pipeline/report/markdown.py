# SPDX-License-Identifier: GPL-3.0-or-later
"""The report as Markdown, for the comment of a merge request.

Texts from builds are only in code spans, where neither markup nor mentions nor references work.
"""

import re
from collections.abc import Iterator

from pipeline.report.page import size
from pipeline.report.sections import (
    DifferenceSection,
    EnvironmentSection,
    Report,
    RowSection,
    ShownSection,
)

DIFFERENCES_LIMIT = 10
LINES_LIMIT = 30
REASONS_LIMIT = 8
INSIDE_LIMIT = 3
SIGNS = {"match": "✅", "differ": "❌", "failed": "💥", "unfinished": "⏳"}


def render(report: Report) -> str:
    """Return the report in GitLab's and GitHub's Markdown."""
    return "\n".join(_lines(report)) + "\n"


def code(text: str) -> str:
    """Return any text as inline code."""
    if not text:
        return "–"
    fence = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    space = " " if text[0] in "` " or text[-1] in "` " else ""
    return f"{fence}{space}{text}{space}{fence}"


def _cell(text: str) -> str:
    """Return a text as code in a table, whose cells end at any vertical bar."""
    return code(text.replace("|", "¦"))


def _block(lines: list[str], language: str = "") -> Iterator[str]:
    ticks = max((len(run) for line in lines for run in re.findall("`+", line)), default=0)
    fence = "`" * max(3, ticks + 1)
    yield fence + language
    yield from lines
    yield fence


def _lines(report: Report) -> Iterator[str]:
    image, source = report["asked"]["image"], report["source"]
    commit = f" at {code(source['commit'][:12])}" if source else ""
    sign = "⚠️" if report["only_expected"] else SIGNS[report["state"]]
    yield f"### {sign} {code(image)}{commit}: {report['headline']}"
    yield ""
    yield from (f"- {code(reason)}" for reason in report["reasons"][:REASONS_LIMIT])
    yield ""
    for e in report["environments"]:
        yield f"- {code(e['name'])}: {e['state']}{_why(e)}"
    yield from _factors(report)
    yield from _artifacts(report)
    for difference in report["differences"][:DIFFERENCES_LIMIT]:
        yield from _difference(report, difference)
    others = len(report["differences"]) - DIFFERENCES_LIMIT + report["left_out"]
    if others > 0:
        yield f"\nand {others} more paths, which the page shows."
    yield ""
    yield f"Run {code(report['run'])}; all of it is in `report/index.html`."


def _why(environment: EnvironmentSection) -> str:
    failure = environment["failure"]
    return f", {code(failure['what'])}" if failure else ""


def _factors(report: Report) -> Iterator[str]:
    different = [f for f in report["factors"] if f["differs"]]
    if not different:
        return
    yield "\n<details><summary>In what the environments differ</summary>\n"
    names = [e["name"] for e in report["environments"]]
    yield "| | " + " | ".join(map(_cell, names)) + " |"
    yield "|---" * (len(names) + 1) + "|"
    for factor in different:
        yield f"| {_cell(factor['factor'])} | " + " | ".join(map(_cell, factor["values"])) + " |"
    yield "\n</details>"


def _artifacts(report: Report) -> Iterator[str]:
    if not report["artifacts"]:
        return
    yield "\n| artifact | size | SHA-256 |"
    yield "|---|---|---|"
    for artifact in report["artifacts"]:
        count = artifact["size"]
        length = "differs" if count is None else size(count)
        digest = _cell(artifact["sha256"]) if artifact["sha256"] else "differs"
        yield f"| {_cell(artifact['name'])} | {length} | {digest} |"


def _difference(report: Report, difference: DifferenceSection) -> Iterator[str]:
    kinds = ", ".join(map(code, difference["kinds"]))
    yield f"\n**Step {code(difference['step'])}: {code(difference['path'])}** ({kinds})"
    if difference["expected"]:
        yield f"Expected to differ, {code(difference['expected'])}; no release may."
    if difference["bytes"]:
        yield f"{difference['bytes']} bytes from byte {difference['offset']} on."
    for cause in difference["causes"]:
        looks = "perhaps" if cause["weak"] else "looks like"
        yield f"\n- {looks} {code(cause['name'])}: {code(cause['evidence'])}"
        advice = report["advice"].get(cause["name"])
        if advice:
            yield f"  At the cause: {advice['fix']}"
    for value in difference["values"]:
        yield f"\n- {code(value['kind'])}: {code(value['left'])} / {code(value['right'])}"
    if difference["note"]:
        yield f"\n- {code(difference['note'])}"
    yield from _shown(difference)
    for one in difference["inside"][:INSIDE_LIMIT]:
        values = f": {code(one['left'])} / {code(one['right'])}" if one["left"] else ""
        yield f"\n- in {code(one['where'])} {code(one['path'])} ({code(one['kind'])}){values}"
        yield from _shown(one)


def _shown(difference: ShownSection) -> Iterator[str]:
    if difference["lines"]:
        yield ""
        yield from _block(difference["lines"][:LINES_LIMIT], "diff")
    elif difference["rows"]:
        yield ""
        rows = difference["rows"][: LINES_LIMIT // 2]
        yield from _block([line for row in rows for line in _row(row)], "diff")


def _row(row: RowSection) -> Iterator[str]:
    yield f"-{row['offset']:>10}  {row['left']}"
    yield f"+{row['offset']:>10}  {row['right']}"
