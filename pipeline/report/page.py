# SPDX-License-Identifier: GPL-3.0-or-later
"""The report as a page: one file that needs nothing else, not even a script.

Jinja2 escapes every text. Should something get past that, the page's own policy runs and fetches
nothing but the style and script here, by hash.
"""

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup, escape

from pipeline.report.sections import (
    EnvironmentSection,
    FactorSection,
    Report,
    RowSection,
)

FOLDER = Path(__file__).parent
Shown = Mapping[str, object]  # what the template shows of a section
FEW_LETTERS = 40
BYTE = re.compile(r"[0-9a-f]{2}")
PRINTABLE = range(0x20, 0x7F)
WORDS = {"done": "✓ done", "bad": "✗ failed", "odd": "≠ differs", "open": "– not done"}


def render(report: Report) -> str:
    """Return the page of a report."""
    css, script = _own("page.css"), _own("page.js")
    return _template().render(
        r=report,
        title=_title(report),
        css=css,
        script=script,
        policy=_policy(css, script),
        sections=list(_sections(report)),
        pair=[e["name"] for e in report["environments"][:2]],
        different=[f["factor"] for f in report["factors"] if f["differs"] and _short(f)],
        tree=_tree(report),
        advice=_advice(report["advice"]),
        flow=list(_flow(report)),
        steps=_steps(report["environments"]),
        sums=[_seconds(_sum(e)) for e in report["environments"]],
        size=size,
    )


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2")


def _own(name: str) -> Markup:
    """Return a file of this folder, not escaped."""
    return Markup((FOLDER / name).read_text(encoding="utf-8"))  # noqa: S704


def size(count: int) -> str:
    """Return a number of bytes for people."""
    for unit, length in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= length:
            return f"{count / length:.1f} {unit}"
    return f"{count} bytes"


def _short(factor: FactorSection) -> bool:
    """Tell whether a factor fits into a sentence: a single one, in few words."""
    return ":" not in factor["factor"] and max(map(len, factor["values"])) < FEW_LETTERS


def _title(report: Report) -> str:
    version = report["source"]["version"] if report["source"] else report["asked"]["commit"]
    return f"{report['asked']['image'] or 'unknown'} {version}".strip()


def _policy(css: str, script: str) -> str:
    """Return the Content-Security-Policy of the page: only this style and this script."""
    digests = [
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (css, script)
    ]
    parts = ["default-src 'none'", "base-uri 'none'", "form-action 'none'"]
    return "; ".join(
        [*parts, f"style-src 'sha256-{digests[0]}'", f"script-src 'sha256-{digests[1]}'"]
    )


def _sections(report: Report) -> Iterator[tuple[str, str]]:
    if report["state"] == "differ":
        yield "differences", "Differences"
    for name in ("flow", "environments", "artifacts", "logs"):
        yield name, name.capitalize()


def _tree(report: Report) -> list[tuple[str, list[Shown]]]:
    """Return the differences by step, ready to be shown; the first with a cause is open."""
    steps: dict[str, list[Shown]] = {}
    names = [e["name"] for e in report["environments"][:2]]
    caused = [n for n, difference in enumerate(report["differences"]) if difference["causes"]]
    opened = (caused or [0])[0]
    for number, difference in enumerate(report["differences"]):
        rows = [_row(row, names) for row in difference["rows"]]
        inside = [
            {**one, "rows": [_row(row, names) for row in one["rows"]]}
            for one in difference["inside"]
        ]
        steps.setdefault(difference["step"], []).append(
            {**difference, "rows": rows, "inside": inside, "open": number == opened}
        )
    return list(steps.items())


def _row(row: RowSection, names: Sequence[str]) -> Shown:
    texts = row["left"], row["right"]
    pairs = zip(names, texts, strict=False)
    sides = [_side(name, side, row["marks"]) for name, side in pairs]
    return {"offset": row["offset"], "sides": sides}


def _side(name: str, text: str, marks: Sequence[int]) -> Shown:
    pieces = text.split()
    letters = [_letter(piece) for piece in pieces]
    return {
        "name": name,
        "bytes": [(piece, n in marks) for n, piece in enumerate(pieces)],
        "letters": [(letter, n in marks) for n, letter in enumerate(letters)],
    }


def _letter(piece: str) -> str:
    """Return the letter that a byte in hexadecimal stands for, or a dot."""
    number = int(piece, 16) if BYTE.fullmatch(piece) else 0
    return chr(number) if number in PRINTABLE else "·"


def _advice(advice: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, Markup]]:
    """Return the advice with its code marked as such."""
    return {
        name: {part: _code(text) for part, text in parts.items()} for name, parts in advice.items()
    }


def _code(text: str) -> Markup:
    pieces = [escape(piece) for piece in text.split("`")]
    marked = [Markup("<code>{}</code>").format(p) if n % 2 else p for n, p in enumerate(pieces)]
    return Markup("").join(marked)


def _flow(report: Report) -> Iterator[Shown]:
    """Yield the stages, with the state and a detail of each."""
    source, inputs = report["source"], report["inputs"]
    committed = source["committed"] if source else ""
    yield _stage("source", "done" if source else "open", _timed(report, "source", committed))
    count = inputs["packages"] if inputs else 0
    packages = f"{count} package{'s' * (count != 1)}, {size(inputs['size'])}" if inputs else ""
    yield _stage("inputs", "done" if inputs else "open", _timed(report, "inputs", packages))
    states = {"built": "done", "failed": "bad", "not built": "open"}
    for e in report["environments"]:
        seconds = _sum(e)
        detail = f"{_duration(seconds)} in the machine" if seconds else ""
        yield _stage(f"build {e['name']}", states[e["state"]], detail)
    verdicts = {"match": "done", "differ": "odd", "failed": "bad", "unfinished": "open"}
    yield _stage("compare", verdicts[report["state"]], report["headline"])
    if report["asked"]["tag"]:
        yield _stage("release", "done" if report["released"] else "open", report["asked"]["tag"])


def _timed(report: Report, stage: str, detail: str) -> str:
    """Return a stage's detail with the time that it took."""
    seconds = report["seconds"][stage]
    return detail if seconds is None else f"{detail} in {_duration(seconds)}".strip()


def _stage(name: str, state: str, detail: str) -> Shown:
    return {"name": name, "state": state, "word": WORDS[state], "detail": detail}


def _steps(environments: Sequence[EnvironmentSection]) -> list[tuple[str, list[Shown]]]:
    """Return the seconds of each step side by side, with the lengths of their bars."""
    times = [{s["step"]: s["seconds"] for s in e["steps"]} for e in environments]
    names = list(dict.fromkeys(name for side in times for name in side))
    longest = max((t for side in times for t in side.values() if t is not None), default=0) or 1
    return [(name, [_cell(side, name, longest) for side in times]) for name in names]


def _cell(times: Mapping[str, float | None], name: str, longest: float) -> Shown:
    if name not in times:
        return {"words": "–", "width": 0}
    seconds = times[name]
    if seconds is None:
        return {"words": "did not end", "width": 0}
    return {"words": _seconds(seconds), "width": round(max(100 * seconds / longest, 0.5), 1)}


def _sum(environment: EnvironmentSection) -> float:
    return sum(step["seconds"] or 0 for step in environment["steps"])


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
