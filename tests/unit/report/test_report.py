# SPDX-License-Identifier: GPL-3.0-or-later
"""The report in all its forms, on runs of every kind, whatever a build wrote into them."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, get_type_hints
from xml.etree import ElementTree as ET

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from pipeline.base.files import write_json
from pipeline.cli.overview import describe
from pipeline.compare.explain import explain
from pipeline.compare.verdict import run_compare
from pipeline.farm.run import Request, Run, create
from pipeline.farm.run_view import StatementView
from pipeline.look.causes.classify import NAMES
from pipeline.report import junit, markdown, page, parts, sections
from pipeline.report.advice import read_advice
from pipeline.report.content import collect
from pipeline.report.write import write_report
from tests.differing_run import VARIED, built_at, fail, make_run

ROOT = Path(__file__).parents[3]
SCHEMA = json.loads((ROOT / "docs/reference/report.schema.json").read_text())
FORM = jsonschema.validators.validator_for(SCHEMA)(SCHEMA)
EVIL = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "{{ 7*7 }}{% include '/etc/passwd' %}",
    "\x1b]0;evil\x07\x1b[2J",
    "]]><!--",
    "```\n# heading\n@everyone #1 !2 ~3 | cell |",
    "`code` *bold* [x](javascript:alert(1))",
    "\u202egnp.exe\u2066",
    "\udcff\ufffe\x00",
    "x" * 100_000,
]


class Page(HTMLParser):
    """What a page is made of: its elements with attributes, and its text."""

    VOID = frozenset({"meta", "input", "br", "img", "link", "rect"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] not in (["style"], ["script"]):
            self.text += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def write(run: Run) -> tuple[dict[str, Any], Page]:
    """Write and check all forms of a report; return the JSON and the page."""
    path = write_report(run, notify=lambda line: None)
    assert path == run.folder / "report" / "index.html"
    report = json.loads((path.parent / "report.json").read_bytes())
    FORM.validate(report)
    check_markdown((path.parent / "report.md").read_text())
    check_junit((path.parent / "report.xml").read_bytes(), report)
    shown = Page(path.read_text())
    check_page(shown)
    return report, shown


def check_page(shown: Page) -> None:
    tags = {tag for tag, _ in shown.elements}
    assert not tags & {"img", "iframe", "object", "embed", "form", "base", "link", "input", "b"}
    assert len(shown.named("script")) == len(shown.named("style")) == len(shown.named("h1")) == 1
    for _, attributes in shown.elements:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        href = attributes.get("href") or ""
        assert not href or re.fullmatch(r"#[a-z]+|report\.(json|md|xml)", href)
        assert "src" not in attributes
    (policy,) = [m for m in shown.named("meta") if m.get("http-equiv")]
    assert "default-src 'none'" in str(policy["content"])
    assert "unsafe" not in str(policy["content"])
    assert all(c.isprintable() or c == "\n" for c in shown.text)
    identifiers = [a["id"] for _, a in shown.elements if "id" in a]
    assert len(identifiers) == len(set(identifiers))
    for _, attributes in shown.elements:
        if "aria-labelledby" in attributes:
            assert attributes["aria-labelledby"] in identifiers
    assert tags >= {"header", "nav", "main", "footer"}


def check_markdown(text: str) -> None:
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    inner = [child for token in tokens for child in token.children or []]
    assert not {t.type for t in inner} & {"link_open", "image", "html_inline", "em_open"}
    html = {t.content.strip() for t in tokens if t.type == "html_block"}
    assert html <= {
        "<details><summary>In what the environments differ</summary>",
        "</details>",
    }
    assert len([t for t in tokens if t.type == "heading_open"]) == 1
    outside = "".join(t.content for t in inner if t.type == "text")
    assert not re.search(r"[@#!~]", outside)


def check_junit(content: bytes, report: dict[str, Any]) -> None:
    (suite,) = ET.fromstring(content)
    cases = list(suite)
    assert int(suite.get("tests", "")) == len(cases)
    bad = [
        case for case in cases if case.find("failure") is not None or case.find("error") is not None
    ]
    assert bool(bad) == (report["state"] != "match")
    assert int(suite.get("failures", "")) + int(suite.get("errors", "")) == len(bad)


def judge(run: Run) -> None:
    explain(run, run_compare(run, notify=lambda _: None), notify=lambda _: None)


def new_run(tmp_path: Path) -> Run:
    return create(tmp_path, Request(image="mini", commit="HEAD", environments=("alpha", "beta")))


def test_a_difference_is_shown_down_to_the_bytes(tmp_path: Path) -> None:
    trees = {
        name: {
            "etc/motd": f"hello\nfrom {VARIED[name]['host_name']}\n".encode(),
            "var/cache.bin": bytes(12) + built_at(name).to_bytes(4, "little") + bytes(8),
        }
        for name in ("alpha", "beta")
    }
    run = make_run(tmp_path, trees)
    judge(run)
    report, shown = write(run)
    assert report["state"] == "differ"
    motd, cache = report["differences"]
    assert [cause["name"] for cause in motd["causes"]] == ["host-name"]
    assert [cause["name"] for cause in cache["causes"]] == ["time-binary"]
    assert set(report["advice"]) == {"host-name", "time-binary"}
    assert "-from alpha-host\n" in shown.text
    assert "both are within the builds' hours" in shown.text
    assert "SOURCE_DATE_EPOCH" in shown.text
    marked = len(shown.named("mark"))
    assert marked == 4 * 2 * 2  # four bytes, of two sides, as numbers and as letters
    assert len([d for d in shown.named("details") if d["class"] == "path"]) == 2
    text = (run.folder / "report" / "report.md").read_text()
    assert "**Step `40-hooks/10-stamp`: `etc/motd`** (`content`, `size`)" in text
    assert "+from b" in text
    cases = ET.parse(run.folder / "report" / "report.xml").iter("testcase")
    assert ("40-hooks/10-stamp", "etc/motd") in {(c.get("classname"), c.get("name")) for c in cases}


def test_a_match_says_so_and_the_facts_that_differ(tmp_path: Path) -> None:
    run = make_run(tmp_path, {name: {"etc/same": b"x"} for name in ("alpha", "beta")})
    judge(run)
    report, shown = write(run)
    assert report["state"] == "match"
    assert report["differences"] == []
    factors = {f["factor"]: f for f in report["factors"]}
    assert factors["host name"] == {
        "factor": "host name",
        "values": ["alpha-host", "b"],
        "differs": True,
    }
    assert factors["memory mib"]["differs"] is False
    assert all(
        artifact["equal"] and len(artifact["sha256"]) == 64 for artifact in report["artifacts"]
    )
    assert "the builds match, bit for bit" in shown.text
    assert "320.5" in shown.text
    assert not any(a.get("id") == "differences" for _, a in shown.elements)
    lines = describe(run)
    assert any("report/index.html" in line for line in lines)


def test_a_failed_build_says_what_its_machine_was_to_be(tmp_path: Path) -> None:
    run = make_run(tmp_path, {name: {} for name in ("alpha", "beta")})
    fail(run, "beta", "hook 10-stamp ended with status 1")
    path = run.environment("beta") / "failure.json"
    machine = {"host_name": "b", "cpus": 1, "memory_mib": 4096}
    write_json(path, {**json.loads(path.read_text()), "machine": machine})
    write_json(run.folder / "stages" / "inputs.json", {"seconds": 75.04})
    report, _ = write(run)
    factors = {f["factor"]: (f["values"], f["differs"]) for f in report["factors"]}
    assert factors["host name"] == (["alpha-host", "b"], True)
    assert factors["cpus"] == (["2", "1"], True)
    assert report["seconds"] == {"source": None, "inputs": 75.04}
    assert "1 package, 186.6 KiB in 1 min 15 s" in (run.folder / "report/index.html").read_text()


def test_drawn_variables_are_one_fact() -> None:
    varied = {"open_files": 1024, "environment_variables": {"ABCD": "x y", "EFGH": {"\x1b": 1}}}
    internal = {"machine": {"varied": varied, "builder": {"qemu": "10"}, "vary": "all"}}
    predicate = {"buildDefinition": {"internalParameters": internal}}
    assert parts._facts(StatementView(None, predicate), None) == {
        "builder: qemu": "10",
        "environment variables": "ABCD=x y, EFGH={'\\x1b': 1}",
        "open files": "1024",
        "vary": "all",
    }


def test_a_failed_build_shows_its_last_words(tmp_path: Path) -> None:
    run = make_run(tmp_path, {name: {} for name in ("alpha", "beta")})
    fail(run, "beta", "hook 10-stamp ended with status 1")
    (run.environment("beta") / "timings.json").unlink()
    records = [
        {"record": "step", "step": "20-bootstrap"},
        {"record": "step-done", "step": "20-bootstrap", "seconds": 12.5},
        {"record": "step", "step": "40-hooks/10-stamp"},
    ]
    progress = "".join(json.dumps(record) + "\n" for record in records)
    (run.environment("beta") / "progress.jsonl").write_text(progress + '{"step": ')
    judge(run)
    report, shown = write(run)
    assert (report["state"], report["environments"][1]["state"]) == ("failed", "failed")
    assert report["environments"][1]["steps"][-1] == {"step": "40-hooks/10-stamp", "seconds": None}
    assert "beta failed with status 3: hook 10-stamp ended with status 1" in shown.text
    assert "did not end" in shown.text


def test_a_run_that_has_just_begun(tmp_path: Path) -> None:
    report, shown = write(new_run(tmp_path))
    assert report["state"] == "unfinished"
    assert report["source"] is report["inputs"] is None
    assert "there is no verdict" in shown.text


def test_a_run_without_any_document(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    (run.folder / "run.json").write_text("no JSON")
    report, _ = write(run)
    assert report["environments"] == []


def hostile(run: Run, evil: str) -> None:
    """Write a text into every place of a run that has one."""
    safe = evil.encode("utf-8", "surrogateescape").decode(errors="replace")
    cause = {"name": evil, "evidence": evil, "weak": False}
    shown = {
        "lines": [f"-{evil}", f"+{evil}"],
        "rows": [{"offset": 0, "left": evil, "right": evil, "marks": [0]}],
        "cut": True,
    }
    values = [{"kind": evil, "left": evil, "right": evil}]
    file: dict[str, object]
    file = {"path": evil, "step": evil, "kinds": [evil], "offset": 1, "bytes": 2, "note": evil}
    file |= {"values": values, "causes": [cause], "shown": shown}
    inside: dict[str, object]
    inside = {"where": evil, "path": evil, "kind": evil, "left": evil, "right": evil}
    inside |= {"offset": 1, "bytes": 2, "shown": shown, "causes": [cause]}
    file |= {"inside": [inside], "diffoscope": {"lines": [evil], "cut": True, "note": evil}}
    explanation: dict[str, object]
    explanation = {"format": "twinbuild-explanation/1", "environments": ["alpha", "beta"]}
    explanation |= {"factors": [], "files": [file, file], "left_out": 3, "diffoscope": evil}
    write_json(run.folder / "explanation.json", explanation)
    write_json(run.folder / "stages" / "source.json", {"seconds": evil})
    difference = {"step": evil, "path": f"{evil}2", "kind": evil}
    artifact = {"name": evil, "size": 1, "sha256": evil}
    verdict = {"verdict": "differ", "reasons": [evil] * 9, "differences": [difference] * 3}
    write_json(run.verdict_json, verdict | {"artifacts": [artifact, {**artifact, "sha256": None}]})
    write_json(run.source_json, {"repository": evil, "commit": evil, "version": evil, "epoch": 1})
    write_json(run.inputs_json, {"packages": [{"size": 1}], "lock_sha256": evil})
    folder = run.environment("beta")
    folder.mkdir()
    failure = {"status": 3, "what": evil, "detail": f"{evil}\n{evil}", "machine": {evil: evil}}
    write_json(folder / "failure.json", failure)
    (folder / "console.log").write_text(f"{safe}\n{safe}\n", errors="replace")
    write_json(folder / "timings.json", {"steps": {evil: 1.5, "x": evil, "y": -1, "z": 1e99}})


@pytest.mark.parametrize("evil", EVIL, ids=range(len(EVIL)))
def test_hostile_texts_are_shown_and_do_nothing(evil: str, tmp_path: Path) -> None:
    run = new_run(tmp_path)
    hostile(run, evil)
    _, shown = write(run)
    assert "alert(1)" not in "".join(str(a) for _, a in shown.elements if "aria-label" not in a)
    for form in ("index.html", "report.md", "report.json", "report.xml"):
        assert (run.folder / "report" / form).stat().st_size < 200_000
    assert ("{{ 7*7 }}" in shown.text) == ("{{ 7*7 }}" in evil)


DAMAGED: list[Any] = [
    [],
    "x",
    7,
    None,
    {"verdict": []},
    {"files": [[], 3, {"shown": [], "causes": [9]}]},
    {"verdict": "differ", "artifacts": [None, 1], "differences": ["x", {}], "reasons": [{}]},
    {"steps": {"a": None, "b": True, "c": "9" * 5000}},
    {"payload": "e30=", "payloadType": "x", "signatures": []},
]


@pytest.mark.parametrize("content", DAMAGED, ids=range(len(DAMAGED)))
def test_damaged_documents_are_survived(content: Any, tmp_path: Path) -> None:
    run = new_run(tmp_path)
    folder = run.environment("alpha")
    folder.mkdir()
    names = ("verdict.json", "explanation.json", "source.json", "inputs.json")
    own = ("statement.json", "failure.json", "timings.json", "progress.jsonl")
    for path in (*(run.folder / name for name in names), *(folder / name for name in own)):
        path.write_text(json.dumps(content))
    write(run)


def test_logs_are_bounded_and_no_link_is_followed(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    for name in ("alpha", "beta"):
        run.environment(name).mkdir()
    log = run.environment("alpha") / "console.log"
    log.write_text("".join(f"line {n}\n" for n in range(100_000)) + "the last line\n")
    secret = tmp_path / "secret"
    secret.write_text("secret")
    (run.environment("beta") / "console.log").symlink_to(secret)
    report, shown = write(run)
    (found,) = report["environments"][0]["logs"]
    assert report["environments"][1]["logs"][0]["lines"] == []
    assert (len(found["lines"]), found["cut"]) == (2000, True)
    assert found["lines"][-1] == "the last line"
    assert "secret" not in shown.text


def test_many_differences_stay_readable(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    differences = [{"step": "s", "path": f"p{n}", "kind": "content"} for n in range(1000)]
    write_json(run.verdict_json, {"verdict": "differ", "differences": differences, "artifacts": []})
    report, _ = write(run)
    assert len(report["differences"]) == 1000
    assert "and 990 more paths" in (run.folder / "report" / "report.md").read_text()


@settings(max_examples=40)
@given(st.text(max_size=60))
def test_no_text_gets_out_of_its_place(text: str) -> None:
    inner = MarkdownIt().parseInline(markdown.code(parts.text(text)))[0].children or []
    assert {t.type for t in inner} <= {"code_inline", "text"}
    assert len(inner) == 1


@settings(max_examples=20)
@given(st.text(max_size=40))
def test_all_forms_take_any_text(text: str) -> None:
    safe = parts.text(text)
    report: Any = {**EMPTY, "reasons": [safe], "headline": safe, "run": safe}
    check_page(Page(page.render(report)))
    ET.fromstring(junit.render(report))
    markdown.render(report)


EMPTY: dict[str, Any] = {
    "asked": {"image": "mini", "commit": "HEAD", "tag": "", "source": "", "compression": "fast"},
    "state": "unfinished",
    "started": "",
    "source": None,
    "inputs": None,
    "environments": [],
    "factors": [],
    "artifacts": [],
    "differences": [],
    "left_out": 0,
    "diffoscope": "",
    "only_expected": False,
    "seconds": {"source": 1.5, "inputs": None},
    "advice": {},
    "released": False,
}


def test_the_schema_refuses_what_it_does_not_describe(tmp_path: Path) -> None:
    FORM.check_schema(SCHEMA)
    report = collect(new_run(tmp_path))
    FORM.validate(report)
    for wrong in ({**report, "more": 1}, {**report, "state": "equal"}, {**report, "run": None}):
        with pytest.raises(jsonschema.ValidationError):
            FORM.validate(wrong)


def test_the_schema_has_the_fields_of_the_sections() -> None:
    described = SCHEMA["properties"]
    difference = described["differences"]["items"]
    for section, schema in (
        (sections.Report, SCHEMA),
        (sections.AskedSection, described["asked"]),
        (sections.EnvironmentSection, described["environments"]["items"]),
        (sections.ArtifactSection, described["artifacts"]["items"]),
        (sections.DifferenceSection, difference),
    ):
        assert get_type_hints(section).keys() == resolved(schema)["properties"].keys()


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema, or what it refers to in the whole one."""
    found: dict[str, Any] = schema
    for name in schema.get("$ref", "").split("/")[1:]:
        found = (SCHEMA if found is schema else found)[name]
    return found


def test_there_is_advice_for_every_cause() -> None:
    advice = read_advice()
    assert set(advice) == NAMES
    for name, entry in advice.items():
        assert all(len(part) > 10 for part in entry.values()), name
        assert all(part.count("`") % 2 == 0 for part in entry.values()), name
