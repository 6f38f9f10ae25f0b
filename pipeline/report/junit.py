# SPDX-License-Identifier: GPL-3.0-or-later
"""The report as JUnit XML, so that GitLab shows builds, artifacts and differences as tests."""

from xml.etree import ElementTree as ET

from pipeline.report.sections import EnvironmentSection, Report


def render(report: Report) -> bytes:
    """Return a test suite: a case for each build, each artifact and each path that differs."""
    suite = ET.Element("testsuite", name=f"twinbuild {report['asked']['image']}".strip())
    for environment in report["environments"]:
        _build(suite, environment)
    for artifact in report["artifacts"]:
        case = _case(suite, "artifacts", artifact["name"])
        if not artifact["equal"] and report["only_expected"]:
            ET.SubElement(case, "skipped", message=report["headline"])
        elif not artifact["equal"]:
            _fault(case, "failure", "the environments do not agree on it", report["reasons"])
    for difference in report["differences"]:
        case = _case(suite, difference["step"], difference["path"])
        if difference["expected"]:
            ET.SubElement(case, "skipped", message=f"expected {difference['expected']}")
            continue
        looks = [f"looks like {c['name']}: {c['evidence']}" for c in difference["causes"]]
        rows = [f"{row['offset']}: {row['left']} / {row['right']}" for row in difference["rows"]]
        message = "; ".join([f"differs in {', '.join(difference['kinds'])}", *looks[:1]])
        _fault(case, "failure", message, [*looks, *difference["lines"], *rows])
    if report["state"] == "unfinished":
        _fault(_case(suite, "compare", "verdict"), "error", report["headline"], [])
    for kind, name in (("tests", "testcase"), ("failures", "failure"), ("errors", "error")):
        suite.set(kind, str(len(list(suite.iter(name)))))
    root = ET.Element("testsuites")
    root.append(suite)
    text: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


def _build(suite: ET.Element, environment: EnvironmentSection) -> None:
    case = _case(suite, "builds", environment["name"])
    case.set("time", f"{sum(step['seconds'] or 0 for step in environment['steps']):.3f}")
    failure = environment["failure"]
    if failure:
        kind = "failure" if failure["status"] == 3 else "error"
        _fault(case, kind, failure["what"], failure["detail"])
    elif environment["state"] != "built":
        ET.SubElement(case, "skipped")


def _case(suite: ET.Element, group: str, name: str) -> ET.Element:
    return ET.SubElement(suite, "testcase", classname=group, name=name)


def _fault(case: ET.Element, kind: str, message: str, lines: list[str]) -> None:
    ET.SubElement(case, kind, message=message).text = "\n".join(lines)
