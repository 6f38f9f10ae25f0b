# SPDX-License-Identifier: GPL-3.0-or-later
"""The content of a report, which its forms (page, Markdown, JSON, JUnit) show in different ways.

`docs/reference/report.schema.json` describes it. All texts are safe for a terminal, on one line
and of limited length; each form escapes them for itself.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.base.errors import TwinbuildError
from pipeline.farm.run import Request, Run
from pipeline.report import told
from pipeline.report.advice import read_advice
from pipeline.report.told import Told, document, items, mapping, number, text

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


def collect(run: Run) -> Told:
    """Return all that a run tells, as far as it came."""
    request = _request(run)
    verdict = document(run.verdict_json)
    state = str(verdict.get("verdict"))
    state = state if state in STATES else "unfinished"
    only = state == "differ" and verdict.get("only_expected") is True
    names = request.environments if request else ()
    environments = [told.environment(run, name) for name in names]
    differences, left_out = _differences(run, verdict)
    found = sorted({cause["name"] for d in differences for cause in d["causes"]})
    advice = read_advice()
    return {
        "format": FORMAT,
        "run": run.id,
        "started": f"{run.started:%Y-%m-%d %H:%M} UTC",
        "asked": _asked(request),
        "state": state,
        "headline": HEADLINES["expected" if only else state],
        "only_expected": only,
        "reasons": [text(reason) for reason in items(verdict.get("reasons"))[:50]],
        "source": told.source(run),
        "inputs": told.inputs(run),
        "seconds": {stage: told.seconds(run, stage) for stage in ("source", "inputs")},
        "environments": environments,
        "factors": _factors(environments),
        "artifacts": [_artifact(a) for a in items(verdict.get("artifacts"))],
        "differences": differences,
        "left_out": left_out,
        "diffoscope": text(document(run.folder / "explanation.json").get("diffoscope")),
        "advice": {name: advice[name] for name in found if name in advice},
        "released": (run.release / "SHA256SUMS.asc").exists(),
    }


def _request(run: Run) -> Request | None:
    try:
        return run.request()
    except TwinbuildError:
        return None


def _asked(request: Request | None) -> Told:
    if request is None:
        return dict.fromkeys(("image", "commit", "tag", "source", "compression"), "")
    return {
        "image": text(request.image),
        "commit": text(request.commit),
        "tag": text(request.tag),
        "source": text(request.source),
        "compression": request.compression,
    }


def _factors(environments: Sequence[Told]) -> list[Told]:
    """Return the facts side by side; what an environment does not state is not held against it."""
    names = sorted({name for e in environments for name in e["facts"]})
    rows = []
    for name in names:
        values = [e["facts"].get(name, "") for e in environments]
        rows.append(
            {"factor": name, "values": values, "differs": len(set(filter(None, values))) > 1}
        )
    return rows


def _artifact(said: object) -> Told:
    artifact = mapping(said)
    digest = artifact.get("sha256")
    return {
        "name": text(artifact.get("name")),
        "size": number(artifact.get("size")),
        "sha256": text(digest) if digest else None,
        "equal": isinstance(digest, str),
    }


def _differences(run: Run, verdict: Mapping[str, Any]) -> tuple[list[Told], int]:
    """Return the differences, those that were explained first, and how many are left out."""
    explanation = document(run.folder / "explanation.json")
    explained = [_explained(mapping(file)) for file in items(explanation.get("files"))]
    seen = {(d["step"], d["path"]) for d in explained}
    more: dict[tuple[str, str], list[str]] = {}
    listed = [mapping(said) for said in items(verdict.get("differences"))]
    for said in listed:
        key = text(said.get("step")), text(said.get("path"))
        if key not in seen:
            more.setdefault(key, []).append(text(said.get("kind")))
    expected = _expected(verdict)
    others = [_unexplained(step, path, kinds) for (step, path), kinds in more.items()]
    for difference in explained + others:
        difference["expected"] = expected.get(difference["path"], "")
    return explained + others, max(0, (number(explanation.get("left_out")) or 0) - len(others))


def _expected(verdict: Mapping[str, Any]) -> dict[str, str]:
    """Return until when, and why, paths were expected to differ."""
    told_of = [mapping(said) for said in items(verdict.get("expected"))]
    return {
        text(e.get("path")): f"until {text(e.get('until'))}: {text(e.get('reason'))}"
        for e in told_of
    }


def _unexplained(step: str, path: str, kinds: list[str]) -> Told:
    empty: Told = {
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


def _explained(said: Mapping[str, Any]) -> Told:
    shown = mapping(said.get("shown"))
    values = [mapping(value) for value in items(said.get("values"))]
    return {
        "step": text(said.get("step")),
        "path": text(said.get("path")),
        "kinds": [text(kind) for kind in items(said.get("kinds"))],
        "offset": number(said.get("offset")),
        "bytes": number(said.get("bytes")),
        "values": [{k: text(v.get(k)) for k in ("kind", "left", "right")} for v in values],
        **_shown(shown),
        "causes": _causes(said),
        "inside": [_inside(mapping(one)) for one in items(said.get("inside"))[:INSIDE_LIMIT]],
        "diffoscope": _diffoscope(mapping(said.get("diffoscope"))),
        "note": text(said.get("note")),
    }


def _shown(said: Mapping[str, Any]) -> Told:
    return {
        "lines": [text(line) for line in items(said.get("lines"))[:LINES_LIMIT]],
        "rows": [_row(mapping(row)) for row in items(said.get("rows"))[:LINES_LIMIT]],
        "cut": said.get("cut") is True,
    }


def _inside(said: Mapping[str, Any]) -> Told:
    """Return what differs inside a packed content."""
    return {
        **{name: text(said.get(name)) for name in ("where", "path", "kind", "left", "right")},
        **{name: number(said.get(name)) for name in ("offset", "bytes")},
        **_shown(mapping(said.get("shown"))),
        "causes": _causes(said),
    }


def _causes(said: Mapping[str, Any]) -> list[Told]:
    return [_cause(mapping(c)) for c in items(said.get("causes"))[:CAUSES_LIMIT]]


def _diffoscope(said: Mapping[str, Any]) -> list[str]:
    """Return what diffoscope said, or why it said nothing."""
    lines = [text(line) for line in items(said.get("lines"))[:LINES_LIMIT]]
    return lines or [text(said["note"])] if said.get("note") else lines


def _row(said: Mapping[str, Any]) -> Told:
    return {
        "offset": number(said.get("offset")) or 0,
        "left": text(said.get("left"))[:ROW_TEXT],
        "right": text(said.get("right"))[:ROW_TEXT],
        "marks": [mark for mark in items(said.get("marks")) if number(mark) is not None],
    }


def _cause(said: Mapping[str, Any]) -> Told:
    weak = said.get("weak") is True
    return {"name": text(said.get("name")), "evidence": text(said.get("evidence")), "weak": weak}
