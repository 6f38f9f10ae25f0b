# SPDX-License-Identifier: GPL-3.0-or-later
"""Which tests of the tree have no outcome.

The functions are read from the sources, the outcomes from pytest's JUnit reports, so that a test
that no runner collects is found. Tests marked `proof` are no part of this: they run by a level of
their own.
"""

import ast
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree


def test_functions(root: Path) -> set[str]:
    """Return all tests below `root`/tests but the proofs: `tests.unit.test_x::test_y`."""
    return {
        f"{'.'.join(path.relative_to(root).with_suffix('').parts)}::{name}"
        for path in (root / "tests").rglob("test_*.py")
        for name in _functions_of(ast.parse(path.read_text()))
    }


def _functions_of(tree: ast.Module) -> Iterator[str]:
    if any(_names_proof(node) for node in tree.body if _assigns(node, "pytestmark")):
        return
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if node.name.startswith("test") and not any(map(_names_proof, node.decorator_list)):
                yield node.name
        elif isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef) and inner.name.startswith("test"):
                    yield f"{node.name}.{inner.name}"


def _assigns(node: ast.stmt, name: str) -> bool:
    return isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name


def _names_proof(node: ast.AST) -> bool:
    return "pytest.mark.proof" in ast.unparse(node)


def outcomes(reports: list[Path]) -> set[str]:
    """Return the tests that passed, failed or were skipped, by the names of `test_functions`."""
    return {
        f"{case.get('classname', '')}::{case.get('name', '').split('[')[0]}"
        for report in reports
        for case in ElementTree.parse(report).iter("testcase")
    }


def missing(root: Path, reports: list[Path]) -> list[str]:
    """Return the tests of the tree that have no outcome, sorted."""
    return sorted(test_functions(root) - outcomes(reports))
