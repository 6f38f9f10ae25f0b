"""Expected differences are told apart, and never make a match."""

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipeline.compare.verdict import Verdict, run_compare
from pipeline.config import parse_image
from pipeline.errors import ExitStatus, UsageError
from pipeline.files import read_json, write_json
from pipeline.report.write import write_report
from pipeline.run import Run
from tests.differing_run import make_run

TODAY = date.today()  # noqa: DTZ011 - the comparison's own, give or take the zone
LATER, EARLIER = (str(TODAY + timedelta(days=days)) for days in (30, -30))


def compare(tmp_path: Path, expected: Any, *more: str) -> tuple[Run, Verdict]:
    paths = ["etc/a", *more]
    trees = {name: dict.fromkeys(paths, name.encode() + b"\n") for name in ("alpha", "beta")}
    run = make_run(tmp_path, trees)
    for name in trees:
        job = run.environment(name) / "job.json"
        document = read_json(job, failure=UsageError)
        write_json(job, {**document, "expected_differences": expected})
    return run, run_compare(run, notify=lambda _: None)


def entry(until: str, path: str = "etc/a") -> dict[str, str]:
    return {"path": path, "reason": "reported upstream", "until": until}


def test_only_what_is_expected(tmp_path: Path) -> None:
    run, verdict = compare(tmp_path, [entry(LATER), entry(LATER, "etc/equal")])
    assert (verdict.verdict, verdict.status) == ("differ", ExitStatus.DIFFERS)
    assert verdict.reasons[0] == "the builds differ only as expected, which no release may"
    assert verdict.reasons[1] == f"etc/a is expected to differ until {LATER}: reported upstream"
    assert [e.path for e in verdict.expected] == ["etc/a"]
    folder = write_report(run, notify=lambda _: None).parent
    assert f"until {LATER}: reported upstream" in (folder / "index.html").read_text()
    assert f'<skipped message="expected until {LATER}' in (folder / "report.xml").read_text()


def test_more_than_is_expected(tmp_path: Path) -> None:
    _, verdict = compare(tmp_path, [entry(LATER)], "etc/b")
    assert verdict.reasons[0].startswith("etc/a is expected to differ")
    assert [e.path for e in verdict.expected] == ["etc/a"]


def test_an_expectation_ends(tmp_path: Path) -> None:
    _, verdict = compare(tmp_path, [entry(EARLIER)])
    assert verdict.expected == ()
    assert "which has passed" in verdict.reasons[0]


@pytest.mark.parametrize("damaged", [None, 7, "x", [7], [{}], [entry("soon")], {"a": 1}])
def test_a_damaged_list_expects_nothing(damaged: Any, tmp_path: Path) -> None:
    _, verdict = compare(tmp_path, damaged)
    assert (verdict.verdict, verdict.expected) == ("differ", ())


def image(**fields: str) -> bytes:
    listed = "".join(f"    {name}: {value}\n" for name, value in fields.items())
    start = "description: x\nvolume_id: X\nexpected_differences:\n  -\n"
    return (start + listed).encode()


def test_image_yaml_lists_them() -> None:
    good = {"path": "etc/a", "reason": "reported", "until": "2027-03-31"}
    (found,) = parse_image(image(**good), "image.yaml").expected_differences
    assert (found.path, found.until) == ("etc/a", date(2027, 3, 31))
    for wrong in ({"path": "/etc/a"}, {"reason": '""'}, {"until": "some day"}, {"until": "''"}):
        with pytest.raises(UsageError):
            parse_image(image(**{**good, **wrong}), "image.yaml")
    for missing in good:
        with pytest.raises(UsageError):
            parse_image(image(**{k: v for k, v in good.items() if k != missing}), "image.yaml")
