# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes verify.py, the single file for outsiders, from the modules that it consists of.

Run `python3 -m tools.put_together` after a change to one of them. The modules are concatenated:
each keeps its comments, and its docstring becomes a comment; imports of each other are left out,
and imports of the standard library are merged at the top.
"""

import ast
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILE = ROOT / "verify.py"
HEAD = "pipeline/verify/__init__.py"  # its docstring becomes that of the file
# In the order in which they appear in the file: each imports only those before it.
PARTS = (
    "pipeline/verify/report.py",
    "pipeline/verify/transfer.py",
    "pipeline/documents/signatures.py",
    "pipeline/verify/gpgv.py",
    "pipeline/documents/malformed.py",
    "pipeline/documents/formats.py",
    "pipeline/documents/json_form.py",
    "pipeline/documents/fields.py",
    "pipeline/documents/manifest.py",
    "pipeline/documents/dsse.py",
    "pipeline/documents/statement.py",
    "pipeline/documents/verdict.py",
    "pipeline/documents/names.py",
    "pipeline/documents/artifact_names.py",
    "pipeline/documents/ed25519.py",
    "pipeline/verify/statements.py",
    "pipeline/verify/files.py",
    "pipeline/verify/command.py",
)
NOTE = """\
# This file is put together from modules of Twinbuild's source by tools/put_together.py, so that
# people can take it alone: what is changed here is lost. Each section names its module.
"""
WIDTH = 100

Import = ast.Import | ast.ImportFrom
Outer = dict[str, set[str]]  # names imported from a module; empty for `import MODULE`


class CannotBeJoined(Exception):
    """A module has a form that cannot become a section of one file."""


@dataclass(frozen=True)
class Part:
    """A module: its path, text and syntax tree."""

    path: str
    text: str
    tree: ast.Module

    @property
    def name(self) -> str:
        """Its dotted name."""
        return self.path.removesuffix(".py").replace("/", ".")

    def imports(self) -> list[Import]:
        """Return its imports; raise CannotBeJoined if one is not at the top level."""
        found = [n for n in ast.walk(self.tree) if isinstance(n, ast.Import | ast.ImportFrom)]
        if any(node not in self.tree.body for node in found):
            raise CannotBeJoined(f"{self.path} imports inside of something")
        return found

    def body(self) -> str:
        """Return everything below its imports, unchanged."""
        last = max((node.end_lineno or 0 for node in self.tree.body[:1]), default=0)
        last = max([last, *(node.end_lineno or 0 for node in self.imports())])
        return "\n".join(self.text.split("\n")[last:]).strip("\n")

    def defined(self) -> set[str]:
        """Return the names that it defines at its top level."""
        names: set[str] = set()
        for node in self.tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names.add(node.name)
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names |= {n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)}
        return names


def put_together(root: Path = ROOT) -> str:
    """Return the text of verify.py; raise CannotBeJoined if the modules do not fit together."""
    parts = [_part(root, path) for path in PARTS]
    outer = _outer_imports(parts)
    _check_names(parts, outer)
    whole = ast.get_docstring(_part(root, HEAD).tree, clean=False)
    head = f'#!/usr/bin/env python3\n# SPDX-License-Identifier: GPL-3.0-or-later\n"""{whole}"""\n'
    imports = "from __future__ import annotations\n\n" + "\n".join(_sorted(outer)) + "\n"
    return "\n".join([head, NOTE, imports, "\n\n\n".join(map(_section, parts)) + "\n"])


def _part(root: Path, path: str) -> Part:
    text = (root / path).read_text()
    return Part(path, text, ast.parse(text))


def _outer_imports(parts: list[Part]) -> Outer:
    """Return what all parts import from the standard library."""
    outer: Outer = defaultdict(set)
    before: dict[str, set[str]] = {}  # the names of the parts above, by module
    for part in parts:
        for node in part.imports():
            _check_import(part, node, before)
            if isinstance(node, ast.Import):
                outer.update({alias.name: set() for alias in node.names})
            elif node.module and node.module not in before and node.module != "__future__":
                outer[node.module] |= {alias.name for alias in node.names}
        before[part.name] = part.defined()
    return outer


def _check_import(part: Part, node: Import, before: dict[str, set[str]]) -> None:
    """Raise CannotBeJoined if an imported name would be renamed or missing in the file."""
    line = f"{part.path}: {ast.unparse(node)}"
    module = "" if isinstance(node, ast.Import) else node.module or ""
    names = {alias.name for alias in node.names}
    relative = isinstance(node, ast.ImportFrom) and node.level
    if relative or any(alias.asname for alias in node.names):
        raise CannotBeJoined(f"{line}: names must stay what they are")
    inner = any(name.startswith("pipeline") for name in ({module} if module else names))
    if inner and not names <= before.get(module, set()):
        raise CannotBeJoined(f"{line}: not in a part above")


def _check_names(parts: list[Part], outer: Outer) -> None:
    """Raise CannotBeJoined if a name is defined or imported twice with different meanings."""
    owner = {name: module for module, names in outer.items() for name in names or [module]}
    for part in parts:
        twice = sorted(part.defined() & owner.keys())
        if twice:
            raise CannotBeJoined(f"{part.path} and {owner[twice[0]]} both have {twice[0]}")
        owner.update(dict.fromkeys(part.defined(), part.path))


def _sorted(outer: Outer) -> Iterator[str]:
    """Yield the import lines, in the order that ruff's isort rules require."""
    yield from (f"import {module}" for module in sorted(outer) if not outer[module])
    for module in sorted(outer):
        names = sorted(outer[module], key=lambda name: (not name.isupper(), name.islower(), name))
        if names:
            yield f"from {module} import {', '.join(names)}"


def _section(part: Part) -> str:
    """Return a module as a section: a line with its path, its docstring as a comment, its code."""
    heading = f"# --- {part.path} ".ljust(WIDTH, "-")
    comment = [f"# {line}".rstrip() for line in (ast.get_docstring(part.tree) or "").split("\n")]
    body = part.body()
    gap = ["", ""] if body.startswith(("class ", "def ", "@")) else [""]
    return "\n".join([heading, "#", *comment, *gap, body])


if __name__ == "__main__":
    FILE.write_text(put_together())
