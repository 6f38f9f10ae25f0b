# SPDX-License-Identifier: GPL-3.0-or-later
"""Every row of docs/determinism.md is there, and the proofs that it names are."""

import re
from pathlib import Path

import pytest

from tests.rows_catalogue import ROWS

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "determinism.md"
PROOF = re.compile(r"`([a-z_/]+\.py)::(\w+)(?:\[(.+?)\])?`")
GENERATORS = ("container/test_rows.py", "test_a_rows_generator")


def table(text: str) -> dict[int, str]:
    """The proofs of each row, by its number; a line without one goes on with the row above."""
    rows: dict[int, str] = {}
    number = 0
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("| ") and (cells[0].isdigit() or not cells[0]):
            number = int(cells[0] or number)
            rows[number] = rows.get(number, "") + cells[-1]
    return rows


def proofs(text: str) -> list[tuple[str, str, str]]:
    found: list[tuple[str, str, str]] = PROOF.findall(text)
    return found


def missing(text: str) -> list[tuple[str, str, str]]:
    """The proofs that no test makes."""
    known = {f"{row.number}-{row.name}" for row in ROWS}

    def exists(file: str, function: str, parameter: str) -> bool:
        path = TESTS / file
        if not path.is_file() or not re.search(
            rf"^def {function}\(", path.read_text(), re.MULTILINE
        ):
            return False
        return parameter in known if (file, function) == GENERATORS else not parameter

    return [proof for proof in proofs(text) if not exists(*proof)]


def test_the_table_has_every_row() -> None:
    assert list(table(PAGE.read_text())) == list(range(1, 33))


def test_every_row_is_proven() -> None:
    assert [number for number, text in table(PAGE.read_text()).items() if not proofs(text)] == []


def test_every_proof_exists() -> None:
    text = PAGE.read_text()
    assert missing(text) == []
    assert text.count(".py::") == len(proofs(text))


def test_every_generator_is_a_proof_of_its_own_row() -> None:
    cited = {
        number: {parameter for *_, parameter in proofs(text) if parameter}
        for number, text in table(PAGE.read_text()).items()
    }
    for row in ROWS:
        assert f"{row.number}-{row.name}" in cited[row.number]


@pytest.mark.parametrize(
    "proof",
    [
        "`unit/test_nothing.py::test_it`",
        "`unit/test_determinism.py::test_nothing`",
        "`container/test_rows.py::test_a_rows_generator`",
        "`container/test_rows.py::test_a_rows_generator[9-icons]`",
    ],
)
def test_a_proof_that_is_none_is_found(proof: str) -> None:
    assert len(missing(proof)) == 1
