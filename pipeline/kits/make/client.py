# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes `upgrade.pyz`: the upgrade client as one file, for systems with only Python and gpgv.

It contains `pipeline/kits/install/` and the modules of `pipeline/documents/` that it imports. Its
bytes depend on these modules alone: names are sorted, all times are the same, and nothing is
compressed, as zlib's output differs from version to version.
"""

import ast
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

from pipeline.base import places

NAME = "upgrade.pyz"
ROOM = "pipeline/kits/install"
PACKAGES = ("pipeline", "pipeline/kits", ROOM, "pipeline/documents")
DOCUMENTS = "pipeline.documents"
FIRST_LINE = b"#!/usr/bin/env python3\n"
TIME = (1980, 1, 1, 0, 0, 0)  # the earliest time in a ZIP
MODE = 0o644 << 16
UNIX = 3  # the system that members are marked with, wherever they are made
# Older versions of Python stop here; otherwise they would fail in the middle of an import.
START = b"""\
# SPDX-License-Identifier: GPL-3.0-or-later
import sys

if sys.version_info < (3, 11):
    sys.stderr.write("error: upgrade.pyz needs Python 3.11 or later\\n")
    sys.exit(2)

from pipeline.kits.install.program import main

sys.exit(main())
"""


def upgrade_client() -> bytes:
    """Return the bytes of `upgrade.pyz`."""
    members = {f"{package}/__init__.py": b"" for package in PACKAGES} | {"__main__.py": START}
    for path in _modules(places.PROGRAM):
        members[path.relative_to(places.PROGRAM).as_posix()] = path.read_bytes()
    packed = io.BytesIO()
    packed.write(FIRST_LINE)
    with zipfile.ZipFile(packed, "a", zipfile.ZIP_STORED) as archive:
        for name in sorted(members):
            member = zipfile.ZipInfo(name, TIME)
            member.create_system, member.external_attr = UNIX, MODE
            archive.writestr(member, members[name])
    return packed.getvalue()


def _modules(root: Path) -> list[Path]:
    """Return the client's modules, and those of documents/ that they import."""
    found = sorted((root / ROOM).glob("*.py"))
    for path in found:  # the list grows in the loop
        for name in _imported(path):
            document = root / f"{name.replace('.', '/')}.py"
            found += [document] * (document not in found)
    return found


def _imported(path: Path) -> Iterator[str]:
    """Yield the modules of documents/ that a module imports, or imports names from."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or node.module is None:
            continue
        if node.module == DOCUMENTS:
            yield from (f"{DOCUMENTS}.{alias.name}" for alias in node.names)
        elif node.module.startswith(f"{DOCUMENTS}."):
            yield node.module
