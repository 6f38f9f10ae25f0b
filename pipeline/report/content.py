# SPDX-License-Identifier: GPL-3.0-or-later
"""The content of a report, which its forms (page, Markdown, JSON, JUnit) present differently.

`docs/reference/report.schema.json` describes it. All texts are safe for a terminal, on one line
and of limited length; each form escapes them for itself.
"""

from collections.abc import Sequence

from pipeline.documents.explanation import (
    Cause,
    DiffoscopeOutput,
    Explained,
    Explanation,
    Inside,
    Row,
    Shown,
)
from pipeline.farm.run import Request, Run
from pipeline.farm.run_view import ArtifactView, RunView, VerdictView
from pipeline.report import parts
from pipeline.report.advice import read_advice
from pipeline.report.parts import ITEMS_LIMIT, text
from pipeline.report.sections import (
    ArtifactSection,
    AskedSection,
    CauseSection,
    DifferenceSection,
    EnvironmentSection,
    FactorSection,
    InsideSection,
    Report,
    RowSection,
    ShownSection,
)

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
NO_EXPLANATION = Explanation((), (), (), 0)
NOTHING_SHOWN, NO_OUTPUT = Shown(), DiffoscopeOutput()
NO_VERDICT = VerdictView(None, False, (), (), (), ())  # noqa: FBT003


def collect(run: Run) -> Report:
    """Return everything that a run's folder has to show, whatever the state of the run."""
    seen = RunView(run)
    verdict = seen.verdict.content or NO_VERDICT
    state = verdict.verdict if verdict.verdict in STATES else "unfinished"
    only = state == "differ" and verdict.only_expected
    environments = [parts.environment(environment) for environment in seen.environments.values()]
    explanation = seen.explanation.content or NO_EXPLANATION
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
        "diffoscope": text(explanation.diffoscope),
        "advice": {name: advice[name] for name in found if name in advice},
        "released": seen.released,
    }


def _asked(request: Request | None) -> AskedSection:
    if request is None:
        return {"image": "", "commit": "", "tag": "", "source": "", "compression": ""}
    return {
        "image": text(request.image),
        "commit": text(request.commit),
        "tag": text(request.tag),
        "source": text(request.source),
        "compression": request.compression,
    }


def _factors(environments: Sequence[EnvironmentSection]) -> list[FactorSection]:
    """Return the facts side by side; one that only one environment states counts as equal."""
    names = sorted({name for e in environments for name in e["facts"]})
    rows: list[FactorSection] = []
    for name in names:
        values = [e["facts"].get(name, "") for e in environments]
        rows.append(
            {"factor": name, "values": values, "differs": len(set(filter(None, values))) > 1}
        )
    return rows


def _artifact(artifact: ArtifactView) -> ArtifactSection:
    return {
        "name": text(artifact.name),
        "size": artifact.size,
        "sha256": text(artifact.sha256) or None,
        "equal": artifact.sha256 is not None,
    }


def _differences(
    explanation: Explanation, verdict: VerdictView
) -> tuple[list[DifferenceSection], int]:
    """Return the differences, explained ones first, and how many are left out."""
    explained = [_explained(file) for file in explanation.files[:ITEMS_LIMIT]]
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
    return explained + others, max(0, explanation.left_out - len(others))


def _unexplained(step: str, path: str, kinds: list[str]) -> DifferenceSection:
    bare = _explained(Explained(path, step, ()))
    return {**bare, "step": step, "path": path, "kinds": kinds}


def _explained(file: Explained) -> DifferenceSection:
    return {
        "step": text(file.step),
        "path": text(file.path),
        "kinds": [text(kind) for kind in file.kinds],
        "offset": file.offset,
        "bytes": file.bytes,
        "values": [
            {"kind": text(one.kind), "left": text(one.left), "right": text(one.right)}
            for one in file.values
        ],
        **_shown(file.shown or NOTHING_SHOWN),
        "causes": _causes(file.causes),
        "inside": [_inside(one) for one in file.inside[:INSIDE_LIMIT]],
        "diffoscope": _diffoscope(file.diffoscope or NO_OUTPUT),
        "note": text(file.note),
        "expected": "",
    }


def _shown(shown: Shown) -> ShownSection:
    return {
        "lines": [text(line) for line in shown.lines[:LINES_LIMIT]],
        "rows": [_row(row) for row in shown.rows[:LINES_LIMIT]],
        "cut": shown.cut,
    }


def _inside(inside: Inside) -> InsideSection:
    """Return what differs inside a container."""
    return {
        "where": text(inside.where),
        "path": text(inside.path),
        "kind": text(inside.kind),
        "left": text(inside.left),
        "right": text(inside.right),
        "offset": inside.offset,
        "bytes": inside.bytes,
        **_shown(inside.shown or NOTHING_SHOWN),
        "causes": _causes(inside.causes),
    }


def _causes(causes: Sequence[Cause]) -> list[CauseSection]:
    return [
        {"name": text(cause.name), "evidence": text(cause.evidence), "weak": cause.weak}
        for cause in causes[:CAUSES_LIMIT]
    ]


def _diffoscope(output: DiffoscopeOutput) -> list[str]:
    """Return the output of diffoscope, or why there is none."""
    lines = [text(line) for line in output.lines[:LINES_LIMIT]]
    return lines or [text(output.note)] if output.note else lines


def _row(row: Row) -> RowSection:
    return {
        "offset": row.offset,
        "left": text(row.left)[:ROW_TEXT],
        "right": text(row.right)[:ROW_TEXT],
        "marks": list(row.marks[:ITEMS_LIMIT]),
    }
