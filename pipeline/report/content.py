# SPDX-License-Identifier: GPL-3.0-or-later
"""The content of a report, which its forms (page, Markdown, JSON, JUnit) show in different ways.

`docs/reference/report.schema.json` describes it. All texts are safe for a terminal, on one line
and of limited length; each form escapes them for itself.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.farm.run import Request, Run
from pipeline.farm.run_view import ArtifactView, RunView, VerdictView, mapping, whole_number
from pipeline.report import parts
from pipeline.report.advice import read_advice
from pipeline.report.parts import ITEMS_LIMIT, Section, items, text

FORMAT = "twinbuild-report/1"
HEADLINES = {
    "match": "the builds match, bit for bit",
    "differ": "the builds differ",
    "expected": "the builds differ only as expected, which no release may",
    "failed": "a build failed",
    "unfinished": "there is no verdict",
}
STATES = ("match", "differ", "failed", "unfinished")
LINES_LIMIT = 200  # of one difference
CAUSES_LIMIT = 20
INSIDE_LIMIT = 20
ROW_TEXT = 80
REASONS_LIMIT = 50
NO_VERDICT = VerdictView(None, False, (), (), (), ())  # noqa: FBT003


def collect(run: Run) -> Section:
    """Return all that a run's folder has to show, as far as the run is."""
    seen = RunView(run)
    verdict = seen.verdict.content or NO_VERDICT
    state = verdict.verdict if verdict.verdict in STATES else "unfinished"
    only = state == "differ" and verdict.only_expected
    environments = [parts.environment(environment) for environment in seen.environments.values()]
    explanation = seen.explanation.content or {}
    differences, left_out = _differences(explanation, verdict)
    found = sorted({cause["name"] for d in differences for cause in d["causes"]})
    advice = read_advice()
    return {
        "format": FORMAT,
        "run": run.id,
        "started": f"{run.started:%Y-%m-%d %H:%M} UTC",
        "asked": _asked(seen.request.content),
        "state": state,
        "headline": HEADLINES["expected" if only else state],
        "only_expected": only,
        "reasons": [text(reason) for reason in verdict.reasons[:REASONS_LIMIT]],
        "source": parts.source(seen),
        "inputs": parts.inputs(seen),
        "seconds": {stage: seen.seconds(stage) for stage in ("source", "inputs")},
        "environments": environments,
        "factors": _factors(environments),
        "artifacts": [_artifact(one) for one in verdict.artifacts[:ITEMS_LIMIT]],
        "differences": differences,
        "left_out": left_out,
        "diffoscope": text(explanation.get("diffoscope")),
        "advice": {name: advice[name] for name in found if name in advice},
        "released": seen.released,
    }


def _asked(request: Request | None) -> Section:
    if request is None:
        return dict.fromkeys(("image", "commit", "tag", "source", "compression"), "")
    return {
        "image": text(request.image),
        "commit": text(request.commit),
        "tag": text(request.tag),
        "source": text(request.source),
        "compression": request.compression,
    }


def _factors(environments: Sequence[Section]) -> list[Section]:
    """Return the facts side by side; what only one environment states counts as equal."""
    names = sorted({name for e in environments for name in e["facts"]})
    rows = []
    for name in names:
        values = [e["facts"].get(name, "") for e in environments]
        rows.append(
            {"factor": name, "values": values, "differs": len(set(filter(None, values))) > 1}
        )
    return rows


def _artifact(artifact: ArtifactView) -> Section:
    return {
        "name": text(artifact.name),
        "size": artifact.size,
        "sha256": text(artifact.sha256) or None,
        "equal": artifact.sha256 is not None,
    }


def _differences(explanation: Mapping[str, Any], verdict: VerdictView) -> tuple[list[Section], int]:
    """Return the differences, those that were explained first, and how many are left out."""
    explained = [_explained(mapping(file)) for file in items(explanation.get("files"))]
    seen = {(d["step"], d["path"]) for d in explained}
    more: dict[tuple[str, str], list[str]] = {}
    for difference in verdict.differences[:ITEMS_LIMIT]:
        key = text(difference.step), text(difference.path)
        if key not in seen:
            more.setdefault(key, []).append(text(difference.kind))
    expected = {
        text(one.path): f"until {text(one.until)}: {text(one.reason)}"
        for one in verdict.expected[:ITEMS_LIMIT]
    }
    others = [_unexplained(step, path, kinds) for (step, path), kinds in more.items()]
    for shown in explained + others:
        shown["expected"] = expected.get(shown["path"], "")
    left_out = whole_number(explanation.get("left_out")) or 0
    return explained + others, max(0, left_out - len(others))


def _unexplained(step: str, path: str, kinds: list[str]) -> Section:
    empty: Section = {
        "offset": None,
        "bytes": None,
        "values": [],
        "lines": [],
        "rows": [],
        "causes": [],
        "inside": [],
        "diffoscope": [],
    }
    return {"step": step, "path": path, "kinds": kinds, "cut": False, "note": "", **empty}


def _explained(fields: Mapping[str, Any]) -> Section:
    shown = mapping(fields.get("shown"))
    values = [mapping(value) for value in items(fields.get("values"))]
    return {
        "step": text(fields.get("step")),
        "path": text(fields.get("path")),
        "kinds": [text(kind) for kind in items(fields.get("kinds"))],
        "offset": whole_number(fields.get("offset")),
        "bytes": whole_number(fields.get("bytes")),
        "values": [{k: text(v.get(k)) for k in ("kind", "left", "right")} for v in values],
        **_shown(shown),
        "causes": _causes(fields),
        "inside": [_inside(mapping(one)) for one in items(fields.get("inside"))[:INSIDE_LIMIT]],
        "diffoscope": _diffoscope(mapping(fields.get("diffoscope"))),
        "note": text(fields.get("note")),
    }


def _shown(fields: Mapping[str, Any]) -> Section:
    return {
        "lines": [text(line) for line in items(fields.get("lines"))[:LINES_LIMIT]],
        "rows": [_row(mapping(row)) for row in items(fields.get("rows"))[:LINES_LIMIT]],
        "cut": fields.get("cut") is True,
    }


def _inside(fields: Mapping[str, Any]) -> Section:
    """Return what differs inside a packed content."""
    return {
        **{name: text(fields.get(name)) for name in ("where", "path", "kind", "left", "right")},
        **{name: whole_number(fields.get(name)) for name in ("offset", "bytes")},
        **_shown(mapping(fields.get("shown"))),
        "causes": _causes(fields),
    }


def _causes(fields: Mapping[str, Any]) -> list[Section]:
    return [_cause(mapping(c)) for c in items(fields.get("causes"))[:CAUSES_LIMIT]]


def _diffoscope(fields: Mapping[str, Any]) -> list[str]:
    """Return the output of diffoscope, or why there is none."""
    lines = [text(line) for line in items(fields.get("lines"))[:LINES_LIMIT]]
    return lines or [text(fields["note"])] if fields.get("note") else lines


def _row(fields: Mapping[str, Any]) -> Section:
    return {
        "offset": whole_number(fields.get("offset")) or 0,
        "left": text(fields.get("left"))[:ROW_TEXT],
        "right": text(fields.get("right"))[:ROW_TEXT],
        "marks": [mark for mark in items(fields.get("marks")) if whole_number(mark) is not None],
    }


def _cause(fields: Mapping[str, Any]) -> Section:
    weak = fields.get("weak") is True
    return {
        "name": text(fields.get("name")),
        "evidence": text(fields.get("evidence")),
        "weak": weak,
    }
