# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of a kit: written and read alike, and refused where a field is malformed."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from pipeline.documents.json_form import json_bytes, parse_json
from pipeline.documents.kit_plan import PROGRAM, Earlier, KitPlan, Later
from pipeline.documents.malformed import Malformed
from pipeline.documents.progress import STATUS_INFRASTRUCTURE
from pipeline.guest.kits import program

FOLDER = Path("/tmp/a folder \udcff")
PLAN = KitPlan(
    Earlier("3.1", FOLDER / "old.ledger", FOLDER / "old.partition"),
    Later(
        image="mini",
        architecture="amd64",
        version="3.3",
        epoch=1_700_000_000,
        compression="strong",
        ledger=FOLDER / "new.ledger",
        partition=FOLDER / "new.partition",
        tree=FOLDER / "tree",
        files=FOLDER / "files",
    ),
    kit=FOLDER / "kit",
    work=FOLDER / "work",
    processors=2,
    proven=False,
)


def test_a_plan_is_read_as_it_was_written() -> None:
    assert KitPlan.of(parse_json(json_bytes(PLAN.document()))) == PLAN


def test_the_program_that_a_plan_is_for_exists() -> None:
    assert find_spec(PROGRAM)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"processors": 0}, "processors is 0"),
        ({"proven": 1}, "proven is 1"),
        ({"kit": None}, "kit is None"),
        ({"more": 1}, "more does not belong there"),
        ({"earlier": {"version": "3.1"}}, r"earlier\.ledger is missing"),
        ({"later": {**PLAN.later.document(), "epoch": -1}}, r"later\.epoch is -1"),
    ],
)
def test_a_malformed_field_is_named(
    change: dict[str, Any], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = {**PLAN.document(), **change}
    with pytest.raises(Malformed, match=words):
        KitPlan.of(document)
    (tmp_path / "plan.json").write_bytes(json_bytes(document))
    assert program.main(tmp_path / "plan.json") == STATUS_INFRASTRUCTURE
    assert "plan.json is no plan of a kit" in capsys.readouterr().err
