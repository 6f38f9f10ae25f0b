# SPDX-License-Identifier: GPL-3.0-or-later
"""Expected differences are listed apart: neither an error nor a match, and never in a release."""

import gzip
import json
import random
from collections.abc import Callable
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pipeline.base.errors import ExitStatus, UsageError
from pipeline.base.files import read_json, sha256_bytes, write_json
from pipeline.compare.verdict import Outcome, run_compare
from pipeline.farm.config import parse_image
from pipeline.farm.run import Run
from pipeline.report.write import write_report
from tests.differing_run import make_run

Compared = tuple[Run, Outcome]
STEM = "mini-amd64-3.3"
TODAY = date.today()  # noqa: DTZ011 - the comparison's own, give or take the zone
LATER, EARLIER = (str(TODAY + timedelta(days=days)) for days in (30, -30))


def compare(tmp_path: Path, expected: Any, *more: str, tag: str | None = None) -> Compared:
    """Compare two builds in which `etc/a` and `more` differ, by more than their length."""
    paths = ["etc/a", *more]
    trees = {
        name: {**dict.fromkeys(paths, random.Random(name).randbytes(size)), "etc/z": b"same\n"}
        for name, size in (("alpha", 9_000), ("beta", 99_000))
    }
    run = make_run(tmp_path, trees)
    asked = read_json(run.folder / "run.json", failure=UsageError)
    released = {"tag": tag, "vary": "all"} if tag else {}
    write_json(run.folder / "run.json", {**asked, **released})
    for name in trees:
        job = run.environment(name) / "job.json"
        document = read_json(job, failure=UsageError)
        write_json(job, {**document, "expected_differences": expected})
        lines = [{"path": p, "sha256": sha256_bytes(c)} for p, c in sorted(trees[name].items())]
        _list(run, name, f"{STEM}.ledger.jsonl.gz", lines)
        _list(run, name, f"{STEM}.partition", [{"path": "live/x.squashfs", "sha256": name}])
    return run, run_compare(run, notify=lambda _: None)


def _list(run: Run, name: str, artifact: str, lines: list[dict[str, str]]) -> None:
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    packed = gzip.compress(content, mtime=0) if artifact.endswith(".gz") else content
    (run.environment(name) / "artifacts" / artifact).write_bytes(packed)


def entry(until: str, path: str = "etc/a") -> dict[str, str]:
    return {"path": path, "reason": "reported upstream", "until": until}


def test_only_what_is_expected_is_no_error(tmp_path: Path) -> None:
    run, verdict = compare(tmp_path, [entry(LATER), entry(LATER, "etc/equal")])
    assert (verdict.verdict, verdict.only_expected, verdict.status) == (
        "differ",
        True,
        ExitStatus.DONE,
    )
    assert verdict.error(run.id) is None
    assert verdict.reasons[0].startswith("the builds differ only as expected; that is no error")
    assert verdict.reasons[1] == f"etc/a is expected to differ until {LATER}: reported upstream"
    assert [e.path for e in verdict.expected] == ["etc/a"]
    assert read_json(run.verdict_json, failure=UsageError)["only_expected"] is True


def test_a_report_shows_what_is_expected(tmp_path: Path) -> None:
    run, _ = compare(tmp_path, [entry(LATER)])
    folder = write_report(run, notify=lambda _: None).parent
    assert f"until {LATER}: reported upstream" in (folder / "index.html").read_text()
    assert "the builds differ only as expected" in (folder / "report.md").read_text()
    xml = (folder / "report.xml").read_text()
    assert f'<skipped message="expected until {LATER}' in xml
    assert 'failures="0"' in xml


def test_a_release_may_not(tmp_path: Path) -> None:
    run, verdict = compare(tmp_path, [entry(LATER)], tag="3.3")
    assert (verdict.only_expected, verdict.status) == (True, ExitStatus.DIFFERS)
    assert verdict.reasons[0].endswith("; a release may not")
    assert verdict.error(run.id) is not None


def test_more_than_is_expected(tmp_path: Path) -> None:
    _, verdict = compare(tmp_path, [entry(LATER)], "etc/b")
    assert (verdict.only_expected, verdict.status) == (False, ExitStatus.DIFFERS)
    assert verdict.reasons[0].startswith("etc/a is expected to differ")
    assert [e.path for e in verdict.expected] == ["etc/a"]


def _append(path: Path, content: bytes) -> None:
    path.write_bytes(path.read_bytes() + content)


def _write(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    at %= len(content)
    content[at : at + 4] = b"EVIL"[: len(content) - at]
    path.write_bytes(content)


def _second_path(path: Path) -> None:
    line = b'{"path": "etc/y", "sha256": "other", "path": "etc/a"}\n'
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + line, mtime=0))


def _hidden_line(path: Path) -> None:
    line = b'{"path": "etc/z", "sha256": "other"}\n'
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + line, mtime=0))


HIDDEN: dict[str, tuple[str, Callable[[Path], object]]] = {
    "behind the image": (f"{STEM}.iso", lambda path: _append(path, b"more")),
    "a volume descriptor": (
        f"{STEM}.iso",
        lambda path: path.write_bytes(path.read_bytes().replace(b"ISOIMAGE", b"ISOIMAGF", 1)),
    ),
    **{
        f"byte {at} of the image": (f"{STEM}.iso", partial(_write, at=at))
        for at in (600, 1000, 20_000, -1, -300_000)
    },
    "the image's table of partitions": (f"{STEM}.iso", partial(_write, at=450)),
    "no image": (f"{STEM}.iso", lambda path: path.write_bytes(b"hello")),
    "a list of packages": (f"{STEM}.packages", lambda path: _append(path, b"more\n")),
    "another line of the ledger": (f"{STEM}.ledger.jsonl.gz", _hidden_line),
    "a line with two paths": (f"{STEM}.ledger.jsonl.gz", _second_path),
    "behind the ledger": (f"{STEM}.ledger.jsonl.gz", lambda path: _append(path, bytes(4))),
    "the ledger's header": (f"{STEM}.ledger.jsonl.gz", partial(_write, at=4)),
    "a second ledger": (
        f"{STEM}.ledger.jsonl.gz",
        lambda path: _append(path, gzip.compress(b"", mtime=0)),
    ),
    "no ledger": (f"{STEM}.ledger.jsonl.gz", lambda path: path.write_bytes(b"\x1f\x8bx")),
    "another file of the partition": (
        f"{STEM}.partition",
        lambda path: _append(path, b'{"path": "live/x.cfg"}\n'),
    ),
    "a missing artifact": (f"{STEM}.packages", Path.unlink),
    "another artifact": (f"{STEM}.iuk", lambda path: path.write_bytes(b"x")),
}


@pytest.mark.parametrize("hidden", HIDDEN)
def test_what_the_ledgers_do_not_say_is_not_excused(hidden: str, tmp_path: Path) -> None:
    """The artifacts decide: a build that keeps silent about a difference is found out.

    The attacker holds all that one environment gives back: its ledgers and its artifacts.
    """
    run, before = compare(tmp_path, [entry(LATER)])
    assert before.only_expected
    artifact, change = HIDDEN[hidden]
    change(run.environment("beta") / "artifacts" / artifact)
    verdict = run_compare(run, notify=lambda _: None)
    assert (verdict.verdict, verdict.only_expected) == ("differ", False)
    assert verdict.status is ExitStatus.DIFFERS


def test_a_path_that_looks_like_one_inside_is_not_excused(tmp_path: Path) -> None:
    _, verdict = compare(tmp_path, [entry(LATER)], "etc/a > gzip content")
    assert not verdict.only_expected


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
