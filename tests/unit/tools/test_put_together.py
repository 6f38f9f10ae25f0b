# SPDX-License-Identifier: GPL-3.0-or-later
"""verify.py is what its modules say, and a module that does not fit is refused."""

import ast
import re
import shutil
import sys
from pathlib import Path

import pytest

from tools import put_together
from tools.put_together import CannotBeJoined

ROOT = Path(__file__).parents[3]
COMMAND = "pipeline/verify/command.py"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A copy of all that verify.py is put together from, to be changed."""
    for path in (put_together.HEAD, *put_together.PARTS):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, tmp_path / path)
    return tmp_path


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_verify_py_is_what_its_modules_say() -> None:
    remedy = "put it together again: python3 -m tools.put_together"
    assert (ROOT / "verify.py").read_text() == put_together.put_together(), remedy


@pytest.mark.parametrize("path", [put_together.HEAD, *put_together.PARTS])
def test_a_change_of_a_module_shows(path: str, root: Path) -> None:
    (root / path).write_text((root / path).read_text().replace('"""', '"""Changed. ', 1))
    assert (ROOT / "verify.py").read_text() != put_together.put_together(root)


def test_a_change_of_one_character_of_code_shows(root: Path) -> None:
    change(root / "pipeline/documents/signatures.py", "TOLERANCE_S = 300", "TOLERANCE_S = 301")
    assert (ROOT / "verify.py").read_text() != put_together.put_together(root)


def test_it_is_python_3_9() -> None:
    ast.parse((ROOT / "verify.py").read_text(), feature_version=(3, 9))


def test_every_line_of_code_of_the_modules_is_in_it() -> None:
    whole = (ROOT / "verify.py").read_text()
    for path in put_together.PARTS:
        tree = ast.parse((ROOT / path).read_text())
        for node in tree.body[1:]:
            if not isinstance(node, ast.Import | ast.ImportFrom):
                source = ast.get_source_segment((ROOT / path).read_text(), node)
                assert source is not None
                assert source in whole


def test_it_imports_the_standard_library_alone_and_nothing_twice() -> None:
    text = (ROOT / "verify.py").read_text()
    modules = re.findall(r"^(?:import|from) ([\w.]+)", text, re.MULTILINE)
    assert len(modules) == len(set(modules))
    assert {module.split(".")[0] for module in modules} <= {*sys.stdlib_module_names, "__future__"}


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("from pipeline.base.files import replace", "not in a part above"),
        ("from pipeline.verify import transfer", "not in a part above"),
        ("from pipeline.verify.report import Missing", "not in a part above"),
        ("import pipeline.verify.report", "not in a part above"),
        ("import json as j", "names must stay what they are"),
        ("from .report import Refused", "names must stay what they are"),
        ("def f():\n    import json", "imports inside of something"),
        ("PIECE = 1", "command.py and pipeline/verify/files.py both have PIECE"),
        ("class VerificationReport: pass", "both have VerificationReport"),
        ("re = 1", "both have re"),
        ("def _named_files(): pass", "both have _named_files"),
    ],
)
def test_what_does_not_fit_is_refused(code: str, why: str, root: Path) -> None:
    with (root / COMMAND).open("a") as file:
        file.write(f"\n{code}\n")
    with pytest.raises(CannotBeJoined, match=why):
        put_together.put_together(root)


def test_a_part_may_use_only_those_above_it(root: Path) -> None:
    with (root / "pipeline/verify/report.py").open("a") as file:
        file.write("\nfrom pipeline.verify.transfer import Trouble\n")
    with pytest.raises(CannotBeJoined, match="not in a part above"):
        put_together.put_together(root)
