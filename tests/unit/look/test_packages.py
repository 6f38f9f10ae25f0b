# SPDX-License-Identifier: GPL-3.0-or-later
"""A package that an image builds itself, and that two builds made otherwise."""

import gzip
import json
import shutil
import subprocess
from pathlib import Path

from pipeline.compare.explain import explain
from pipeline.compare.verdict import run_compare
from pipeline.documents.digest import sha256_file
from pipeline.farm.run import Run
from tests.differing_run import make_run, state

STEP, NAME = "15-packages/greeter", "greeter_1.2_all.deb"


def add_package(run: Run, environment: str, content: str) -> None:
    """Have a build make the package before its tree, as the machine does."""
    folder = run.environment(environment)
    tree = folder / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(
        "Package: greeter\nVersion: 1.2\nArchitecture: all\nMaintainer: T <t@example.org>\n"
        "Description: greets\n"
    )
    (tree / "usr/share").mkdir(parents=True)
    (tree / "usr/share/greeting").write_text(content)
    path = folder / "artifacts" / NAME
    argv = ["dpkg-deb", "--root-owner-group", "-Zxz", "--build", str(tree), str(path)]
    env = {"SOURCE_DATE_EPOCH": "1700000000", "PATH": "/usr/bin:/bin"}
    subprocess.run(argv, check=True, capture_output=True, env=env)
    shutil.rmtree(tree)
    made = {"artifact": NAME, "sha256": sha256_file(path), "size": path.stat().st_size}
    lines = "".join(
        json.dumps(line, separators=(",", ":")) + "\n" for line in ({"step": STEP}, made)
    )
    ledger = folder / "ledger.jsonl.gz"
    whole = lines.encode() + gzip.decompress(ledger.read_bytes())
    ledger.write_bytes(gzip.compress(whole, mtime=0))
    state(run, environment, json.loads((folder / "job.json").read_text()))


def test_the_build_of_a_package_is_named_before_what_it_was_installed_to(tmp_path: Path) -> None:
    texts = {"alpha": "built in /srv/alpha\n", "beta": "built in /b\n"}
    trees = {name: {"usr/share/greeting": text.encode()} for name, text in texts.items()}
    run = make_run(tmp_path, trees)
    for name, text in texts.items():
        add_package(run, name, text)
    verdict = run_compare(run, notify=lambda _: None)
    first = verdict.differences[0]
    assert (first.step, first.path, first.kind) == (STEP, NAME, "content")
    reason = f"the trees are equal until then: the difference arises in {STEP} ({NAME})"
    assert verdict.reasons[0] == reason
    path = explain(run, verdict, notify=lambda _: None)
    assert path is not None
    file = json.loads(path.read_text())["files"][0]
    assert file["path"] == NAME
    assert any(place["path"] == "usr/share/greeting" for place in file["inside"])
