# SPDX-License-Identifier: GPL-3.0-or-later
"""The walls of the design, read from the code; each is shown to stop what it is there for."""

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STAGES = ("source", "inputs", "machines", "compare", "release")
# From the top floor down: a room imports only rooms below it.
ROOMS = (
    "tools",
    "cli",
    "narrow",
    "flow",
    "report",
    "release",
    "compare",
    "inputs",
    "machines",
    "source",
    "kits.make",
    "kits.install",
    "look",
    "published",
    "farm",
    "base",
    "guest",
    "verify",
    "documents",
)
OURS = ("pipeline", "tools")
# What `./farm` and `twinbuild` start, and the manual page: they have the whole command line.
ON_TOP = ("tasks", "pipeline.cli.program", "tools.installed", "tools.man_page")
COMMAND_LINE = ("pipeline.cli.parser", "pipeline.cli.program")
# Rooms that are carried alone, into a machine or to an installed system, and what else they import
# beside the standard library. `documents` goes with each.
CARRIED = {
    "documents": (),
    "guest": ("documents",),
    "kits.install": ("documents",),
    "verify": ("documents",),
}
# Rooms that know documents by the dataclasses of `documents/` alone.
TYPED = (
    *("flow", "narrow", "compare", "inputs", "machines", "source", "kits.make", "kits.install"),
    *("farm", "guest"),
)
STARTERS = (
    "pipeline.base.command",
    "pipeline.kits.install.programs",
    "pipeline.verify.gpgv",
    "verify",
)
SPEAKERS = (
    "pipeline.base.transfer",
    "pipeline.kits.install.http",
    "pipeline.verify.transfer",
    "verify",
)
STATEMENTS_LIMIT = 15
HTTP = ("requests", "urllib3", "urllib.request", "http.client", "httpx", "aiohttp")
DYNAMIC = ("__import__", "import_module")
# Modules that may cross a wall, and why.
EXCEPTIONS = {
    (
        "pipeline.machines.engine",
        "requests",
    ): "the Docker SDK lets the errors of its transport through",
}


@dataclass(frozen=True)
class Module:
    """A module of the project: its dotted name, its syntax tree and all that it imports."""

    name: str
    tree: ast.Module
    imports: frozenset[str]

    @property
    def room(self) -> str:
        """The room that it belongs to: `machines` of `pipeline.machines.engine`."""
        return room_of(self.name)


@cache
def project() -> list[Module]:
    return load(ROOT)


def load(root: Path) -> list[Module]:
    """Return all modules of `pipeline/` and `tools/`, and `tasks.py` and `verify.py` beside."""
    paths = [*(root / "pipeline").rglob("*.py"), root / "tasks.py", root / "verify.py"]
    paths += (root / "tools").rglob("*.py")
    names = {name_of(path, root): path for path in paths if path.exists()}
    modules = []
    for name, path in sorted(names.items()):
        tree = ast.parse(path.read_text())
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        found = frozenset(imports(tree, package, set(names)))
        modules.append(Module(name, tree, found))
    return modules


def name_of(path: Path, root: Path) -> str:
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def room_of(name: str) -> str:
    """Return the room of a module by its full name: `kits.make` of `pipeline.kits.make.make`.

    It is empty for what is in no room: `tasks`, `verify`, and modules of other projects.
    """
    if not is_in(name, "pipeline"):
        return "tools" if is_in(name, "tools") else ""
    inner = name.removeprefix("pipeline.")
    return next((room for room in ROOMS if is_in(inner, room)), "")


def imports(tree: ast.Module, package: str, known: set[str]) -> Iterator[str]:
    """Give the full names of all modules that are imported, anywhere in the code."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*above * bool(node.level), *filter(None, [node.module])])
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield full if full in known or not base.startswith(OURS) else base
            if not base.startswith(OURS):
                yield base
        elif isinstance(node, ast.Call) and called(node) in DYNAMIC:
            yield "a dynamic import"


def called(call: ast.Call) -> str:
    """Return the last word of the name of what is called."""
    func = call.func
    return func.attr if isinstance(func, ast.Attribute) else getattr(func, "id", "")


def is_in(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def importers(modules: list[Module], *packages: str) -> list[tuple[str, str]]:
    """Return who imports one of `packages`, without the known exceptions."""
    return [
        (module.name, package)
        for module in modules
        for package in packages
        if any(is_in(name, package) for name in module.imports)
        and (module.name, package) not in EXCEPTIONS
    ]


def docker_outside_machines(modules: list[Module]) -> list[str]:
    found = [
        name for name, _ in importers(modules, "docker") if not is_in(name, "pipeline.machines")
    ]
    for module in modules:
        if module.room in ("machines", "guest") or module.name == "pipeline.base.command":
            continue  # command.py knows in which package each program is
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Constant) and re.match(r"qemu-|docker$", str(node.value)):
                found.append(module.name)
    return found


def subprocess_outside_command(modules: list[Module]) -> list[str]:
    starters = importers(modules, "subprocess", "multiprocessing", "pty")
    return [
        name for name, _ in starters if name not in STARTERS and not is_in(name, "pipeline.guest")
    ]


def git_outside_git(modules: list[Module]) -> list[str]:
    """Return who begins a list of arguments with git, or looks for where it is."""
    return [
        module.name
        for module in modules
        if module.name != "pipeline.base.git"
        for node in ast.walk(module.tree)
        for first in _first_words(node)
        if isinstance(first, ast.Constant) and re.match(r"(.*/)?git(-|$)", str(first.value))
    ]


def _first_words(node: ast.AST) -> Iterator[ast.expr]:
    if isinstance(node, (ast.List, ast.Tuple)):
        yield from node.elts[:1]
    elif isinstance(node, ast.Call) and called(node) in ("find", "which"):
        yield from node.args[:1]


def http_outside_transfer(modules: list[Module]) -> list[tuple[str, str]]:
    found = importers(modules, *HTTP)
    return [(name, what) for name, what in found if name not in SPEAKERS]


def yaml_outside_its_reader(modules: list[Module]) -> list[str]:
    found = importers(modules, "yaml", "ruamel")
    return [name for name, _ in found if name != "pipeline.base.yaml_reader"]


def json_outside_its_reader(modules: list[Module]) -> list[tuple[str, str]]:
    """Return who parses JSON by another reader, which takes the last of two equal keys."""
    parsers = re.compile(r"json\.(loads?|JSONDecoder)|.*\.(model_)?validate_json|.*\.json")
    return [
        (module.name, ast.unparse(node.func))
        for module in modules
        if module.name not in ("pipeline.documents.json_form", "verify")
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and parsers.fullmatch(ast.unparse(node.func))
    ]


def untyped_documents(modules: list[Module]) -> list[tuple[str, str]]:
    """Return where a document that passes between rooms is a bare dict of anything."""
    bare = re.compile(r"(dict|Mapping|MutableMapping)\[str, Any\]")
    return [
        (module.name, ast.unparse(node))
        for module in modules
        if module.room in TYPED
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Subscript) and bare.fullmatch(ast.unparse(node))
    ]


def stages_that_import_each_other(modules: list[Module]) -> list[tuple[str, str]]:
    return [
        (module.name, other)
        for module in modules
        for other in STAGES
        if module.room in (*STAGES, "kits.make", "kits.install") and module.room != other
        if any(is_in(name, f"pipeline.{other}") for name in module.imports)
    ]


def foreign_imports_of_the_carried(modules: list[Module]) -> list[tuple[str, str]]:
    """Return what the rooms that are carried alone import beside what goes with them."""
    return [
        (module.name, name)
        for module in modules
        if module.room in CARRIED
        for name in sorted(module.imports)
        if name.split(".")[0] not in sys.stdlib_module_names
        if room_of(name) not in (module.room, *CARRIED[module.room])
    ]


def what_others_take_from_the_guest(modules: list[Module]) -> set[str]:
    """Return what product code imports of the guest; benches start its programs as they are."""
    return {
        name
        for module in modules
        if not is_in(module.name, "pipeline.guest") and module.room != "tools"
        for name in module.imports
        if is_in(name, "pipeline.guest")
    }


def importers_of_verify(modules: list[Module]) -> list[str]:
    """Return who imports modules of verify.py, which goes out as one file."""
    return [
        module.name
        for module in modules
        if any(room_of(name) == "verify" for name in module.imports)
        and module.room not in ("verify", "tools")
    ]


def what_look_takes_from_others(modules: list[Module]) -> list[tuple[str, str]]:
    """Return what `look/` imports of the farm beside `base/` and `documents/`: it knows no run."""
    return [
        (module.name, name)
        for module in modules
        if module.room == "look"
        for name in sorted(module.imports)
        if is_in(name, "pipeline") and room_of(name) not in ("look", "base", "documents")
    ]


def circles(modules: list[Module]) -> list[str]:
    """Return the modules that import themselves by way of others."""
    graph = {module.name: module.imports for module in modules}

    def reach(name: str, seen: set[str]) -> set[str]:
        for other in graph.get(name, ()):
            if other in graph and other not in seen:
                seen.add(other)
                reach(other, seen)
        return seen

    return [name for name in graph if name in reach(name, set())]


def upward_imports(modules: list[Module]) -> list[str]:
    """Return the modules that import the command line, or what it is made with: `invoke`."""
    return [
        name
        for name, imported in importers(modules, "tasks", *COMMAND_LINE, "invoke")
        if name not in ON_TOP
        if not (imported == "invoke" and (is_in(name, "pipeline.cli") or has_tasks(name)))
    ]


def arrows_that_run_up(modules: list[Module]) -> list[tuple[str, str]]:
    """Return the modules that import something of a room above their own, and what it is."""
    floor = {room: number for number, room in enumerate(reversed(ROOMS))}
    return [
        (module.name, other)
        for module in modules
        for other in sorted(module.imports)
        if module.room and room_of(other) and floor[room_of(other)] > floor[module.room]
        if (module.name, "pipeline." + room_of(other)) not in EXCEPTIONS
    ]


def modules_in_no_room(modules: list[Module]) -> list[str]:
    packages = {f"pipeline.{room}" for room in (*ROOMS, "kits")} | {"tools"}
    known = {"pipeline", "tasks", "verify", *packages}
    return [module.name for module in modules if not module.room and module.name not in known]


def rooms_that_every_task_waits_for(modules: list[Module]) -> list[str]:
    """Return what is imported before it is known which task is asked for, and should not be.

    That is by `tasks.py`, and by the modules of `cli/` and those of tasks that it imports at once.
    """
    light = {*sys.stdlib_module_names, "pipeline.base.errors", "pipeline.base.places"}
    known = {module.name: module for module in modules}
    found, reached = [], ["tasks"]
    for name in reached:  # grows meanwhile
        tree = known[name].tree
        at_once: list[ast.stmt] = [
            node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))
        ]
        for other in imports(ast.Module(at_once, []), "", set(known)):
            if (is_in(other, "pipeline.cli") or has_tasks(other)) and other in known:
                reached += [other] * (other not in reached)
            elif not any(is_in(other, part) for part in light):
                found.append(other)
    return found


def has_tasks(name: str) -> bool:
    """Tell whether a module has tasks: they parse, call one function, print, and hold no logic."""
    return name == "tasks" or bool(re.fullmatch(r"(pipeline\.cli|tools)\.\w+_tasks", name))


def dynamic_imports(modules: list[Module]) -> list[tuple[str, str]]:
    return importers(modules, "a dynamic import")


def long_functions(module: Module) -> list[tuple[str, int]]:
    counts = [
        (node.name, sum(isinstance(inner, ast.stmt) for inner in ast.walk(node)) - 1)
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef)
    ]
    return [(name, count) for name, count in counts if count > STATEMENTS_LIMIT]


def test_the_whole_project_is_read() -> None:
    assert {"pipeline.base.command", "pipeline.compare.verdict", "pipeline.farm.run"} <= {
        module.name for module in project()
    }


def test_only_machines_knows_docker_and_qemu() -> None:
    assert docker_outside_machines(project()) == []


def test_one_module_starts_programs_here_and_one_on_an_installed_system() -> None:
    assert subprocess_outside_command(project()) == []


def test_only_git_starts_git() -> None:
    assert git_outside_git(project()) == []


def test_no_script_starts_git_but_the_checks() -> None:
    """Those get a neutral repository in their environment, and refuse to run without one."""
    scripts = [ROOT / "farm", *(ROOT / "hooks").rglob("*"), *(ROOT / ".ci").glob("*")]
    scripts += [*(ROOT / "images/builder").rglob("*"), *(ROOT / "images/hosts").rglob("*")]
    command = re.compile(
        r"""(^|[|&;(]|\bexec|\bthen|\bdo|\$\()\s*git\s+[a-z-]|["']git["'],""", re.MULTILINE
    )
    found = {
        path.relative_to(ROOT).parts[:2]
        for path in scripts
        if path.is_file() and command.search(path.read_bytes().decode(errors="replace"))
    }
    assert found <= {("hooks", "source")}


def test_one_module_speaks_http_here_and_one_on_an_installed_system() -> None:
    assert http_outside_transfer(project()) == []


def test_one_module_reads_yaml() -> None:
    assert yaml_outside_its_reader(project()) == []


def test_one_module_reads_json() -> None:
    assert json_outside_its_reader(project()) == []


def test_documents_have_types() -> None:
    assert untyped_documents(project()) == []


def test_stages_never_import_each_other() -> None:
    assert stages_that_import_each_other(project()) == []


def test_what_is_carried_alone_imports_the_standard_library_and_documents() -> None:
    assert foreign_imports_of_the_carried(project()) == []


def test_nothing_imports_the_guest() -> None:
    assert what_others_take_from_the_guest(project()) == set()


def test_nothing_imports_the_modules_of_verify_py() -> None:
    assert importers_of_verify(project()) == []


def test_look_is_usable_alone() -> None:
    assert what_look_takes_from_others(project()) == []


def test_imports_form_a_tree() -> None:
    assert circles(project()) == []
    assert upward_imports(project()) == []


def test_every_module_is_in_a_room() -> None:
    assert modules_in_no_room(project()) == []


def test_no_arrow_runs_up() -> None:
    assert arrows_that_run_up(project()) == []


def test_the_picture_of_the_rooms_is_true() -> None:
    """Each room has an arrow to each room that it imports, unless longer ways lead there."""
    below: dict[str, set[str]] = {room: set() for room in ROOMS if room != "tools"}
    for module in project():
        if module.room in below:
            below[module.room] |= {room_of(name) for name in module.imports} - {"", module.room}
    reached: dict[str, set[str]] = {}
    for room in reversed(below):
        reached[room] = below[room].union(*(reached[other] for other in below[room]))
    needed = {
        (room, other)
        for room, others in below.items()
        for other in others
        if not any(other in reached[between] for between in others)
    }
    assert drawn((ROOT / "docs/explanation/rooms.md").read_text()) == needed


def drawn(page: str) -> set[tuple[str, str]]:
    """Return the arrows of a page's Mermaid picture, without the dashed ones."""
    picture = page.partition("```mermaid\nflowchart TD\n")[2].partition("```")[0]
    names = {
        name: full.replace("/", ".") for name, full in re.findall(r'(\w+)\["(.*?)"\]', picture)
    }
    arrows = set()
    for line in re.sub(r"\[.*?\]", "", picture).splitlines():
        groups = [part.split(" & ") for part in line.strip().split(" --> ")]
        for left, right in pairwise(groups):
            arrows |= {(names.get(a, a), names.get(b, b)) for a in left for b in right}
    return arrows


def test_nothing_is_imported_by_name_at_run_time() -> None:
    assert dynamic_imports(project()) == []


def test_tasks_hold_no_logic() -> None:
    found = [module for module in project() if has_tasks(module.name)]
    assert len(found) > 5
    for module in found:
        assert long_functions(module) == []
        assert not any(isinstance(node, ast.While) for node in ast.walk(module.tree))


def test_a_task_imports_what_it_needs_when_it_runs() -> None:
    assert rooms_that_every_task_waits_for(project()) == []


def test_every_exception_is_still_needed() -> None:
    for name, package in EXCEPTIONS:
        (module,) = (m for m in project() if m.name == name)
        assert any(is_in(imported, package) for imported in module.imports), (name, package)


BREACHES = {
    "pipeline/compare/verdict.py": (
        "from typing import Any\ndef f(x: list[dict[str, Any]]) -> None: ...",
        untyped_documents,
    ),
    "pipeline/cli/demo.py": ("import docker.errors", docker_outside_machines),
    "pipeline/kits/make/make.py": ("run(['qemu-system-x86_64'])", docker_outside_machines),
    "pipeline/base/files.py": (
        "def f():\n    from subprocess import run",
        subprocess_outside_command,
    ),
    "tasks.py": ("import subprocess as s", subprocess_outside_command),
    "pipeline/farm/tag.py": ("run(['git', '-C', 'x'])", git_outside_git),
    "pipeline/inputs/history.py": ("git = ('/usr/bin/git', 'log')", git_outside_git),
    "pipeline/base/store.py": ("from urllib import request", http_outside_transfer),
    "pipeline/base/git.py": ("import http.client", http_outside_transfer),
    "pipeline/farm/config.py": ("import yaml.nodes", yaml_outside_its_reader),
    "pipeline/machines/trees.py": ("_Index.model_validate_json(b'{}')", json_outside_its_reader),
    "pipeline/compare/ledger.py": ("json.loads(line)", json_outside_its_reader),
    "pipeline/guest/cache.py": ("json.loads(head)", json_outside_its_reader),
    "pipeline/release/stage.py": (
        "from pipeline.machines import engine",
        stages_that_import_each_other,
    ),
    "pipeline/inputs/stage.py": (
        "from pipeline.source import source",
        stages_that_import_each_other,
    ),
    "pipeline/machines/stage.py": ("from ..compare import verdict", stages_that_import_each_other),
    "pipeline/kits/install/apply.py": (
        "from pipeline.release import x",
        stages_that_import_each_other,
    ),
    "pipeline/machines/attempt.py": (
        "from pipeline.guest import tree",
        what_others_take_from_the_guest,
    ),
    "pipeline/guest/tree.py": ("from pipeline.base.files import x", foreign_imports_of_the_carried),
    "pipeline/guest/main.py": ("import yaml", foreign_imports_of_the_carried),
    "pipeline/documents/fields.py": ("import debian.deb822", foreign_imports_of_the_carried),
    "pipeline/kits/install/medium.py": (
        "from pipeline.base.files import x",
        foreign_imports_of_the_carried,
    ),
    "pipeline/kits/install/format.py": ("import pydantic", foreign_imports_of_the_carried),
    "pipeline/kits/install/system.py": (
        "def f():\n    import subprocess",
        subprocess_outside_command,
    ),
    "pipeline/kits/install/check.py": ("import urllib.request", http_outside_transfer),
    "pipeline/kits/install/known.py": ("json.load(file)", json_outside_its_reader),
    "pipeline/documents/lock.py": ("from pipeline.documents.lock import x", circles),
    "pipeline/farm/run.py": ("import tasks", upward_imports),
    "pipeline/look/places.py": ("from pipeline.compare import verdict", arrows_that_run_up),
    "pipeline/look/locate.py": (
        "def f():\n    from pipeline.farm.run import Run",
        what_look_takes_from_others,
    ),
    "pipeline/documents/job.py": (
        "def f():\n    import pydantic",
        foreign_imports_of_the_carried,
    ),
    "pipeline/verify/files.py": ("import yaml", foreign_imports_of_the_carried),
    "pipeline/release/publish.py": (
        "from pipeline.verify.command import main",
        importers_of_verify,
    ),
    "pipeline/verify/statements.py": ("import subprocess", subprocess_outside_command),
    "pipeline/documents/version.py": ("from pipeline.base import x", arrows_that_run_up),
    "pipeline/base/plain.py": (
        "def f():\n    from pipeline.farm.run import Run",
        arrows_that_run_up,
    ),
    "pipeline/flow.py": ("import tools.bench", arrows_that_run_up),
    "pipeline/odd.py": ("", modules_in_no_room),
    "pipeline/kits/install/fetch.py": (
        "import importlib\nimportlib.import_module('docker')",
        dynamic_imports,
    ),
}


@pytest.mark.parametrize("path", BREACHES)
def test_a_breach_is_found(path: str, tmp_path: Path) -> None:
    code, wall = BREACHES[path]
    for other in (
        "source/source.py",
        "compare/verdict.py",
        "compare/__init__.py",
        "machines/engine.py",
        "release/x.py",
    ):
        (tmp_path / "pipeline" / other).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "pipeline" / other).touch()
    assert not wall(load(tmp_path))
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_text(code)
    assert wall(load(tmp_path))


def test_a_circle_is_found(tmp_path: Path) -> None:
    (tmp_path / "pipeline/machines").mkdir(parents=True)
    (tmp_path / "pipeline/machines/a.py").write_text("from pipeline import b")
    (tmp_path / "pipeline/b.py").write_text("from pipeline.c import x")
    (tmp_path / "pipeline/c.py").write_text("def f():\n    from pipeline.machines.a import x")
    assert len(circles(load(tmp_path))) == 3
    (tmp_path / "pipeline/c.py").write_text("")
    assert circles(load(tmp_path)) == []


def test_a_room_that_every_task_waits_for_is_found(tmp_path: Path) -> None:
    at_once = "from pipeline import flow\nfrom pipeline.base import errors\nimport rich\n"
    code = "from pipeline.cli import kit_tasks\ndef f():\n    from pipeline.farm import run"
    (tmp_path / "tasks.py").write_text(code)
    for room in ("base", "cli", "farm"):
        (tmp_path / "pipeline" / room).mkdir(parents=True)
    for name in ("base/errors", "flow", "farm/run", "cli/__init__"):
        (tmp_path / f"pipeline/{name}.py").touch()
    (tmp_path / "pipeline/cli/kit_tasks.py").write_text(at_once)
    assert rooms_that_every_task_waits_for(load(tmp_path)) == ["pipeline.flow", "rich"]


def test_long_tasks_are_found(tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text("def f():\n" + "    x = 1\n" * (STATEMENTS_LIMIT + 1))
    assert long_functions(load(tmp_path)[0]) == [("f", STATEMENTS_LIMIT + 1)]
