# SPDX-License-Identifier: GPL-3.0-or-later
"""The wheel: made without a network, twice the same, and what is installed from it works."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

from pipeline.machines import plan
from pipeline.report.advice import read_advice
from tests.gpg_home import made_home
from tools import wheel_backend

pytestmark = pytest.mark.tools

ROOT = Path(__file__).parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
OFFLINE = ("--no-index", "--no-deps", "--no-cache-dir")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, as pip makes it."""
    folder = tmp_path_factory.mktemp("wheel")
    run([*PIP, "wheel", *OFFLINE, "--wheel-dir", folder, ROOT], cwd=folder)
    (made,) = folder.iterdir()
    return made


@pytest.fixture(scope="module")
def program(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The installed command, in an environment that has nothing else but the dependencies."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, symlinks=True)
    run([*PIP, "--python", folder / "bin" / "python", "install", *OFFLINE, wheel], cwd=folder)
    (site,) = folder.glob("lib/python3*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return folder / "bin" / "twinbuild"


@pytest.fixture
def farm(tmp_path: Path) -> Path:
    """A distribution's repository with nothing but `farm.yaml`."""
    (tmp_path / "farm").mkdir()
    shutil.copy(ROOT / "farm.yaml", tmp_path / "farm")
    return tmp_path / "farm"


def run(
    argv: list[str | Path], cwd: Path, *, status: int = 0, gnupg: Path | None = None
) -> subprocess.CompletedProcess[str]:
    env = {"PATH": "/usr/bin:/bin", "HOME": os.fspath(cwd), "LC_ALL": "C.UTF-8"}
    env["GNUPGHOME"] = os.fspath(gnupg or cwd / ".gnupg")
    done = subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return done


def test_two_wheels_are_the_same(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of another folder, with other times, where Python has left files of its own."""
    shutil.copytree(
        ROOT,
        tmp_path / "again",
        symlinks=True,
        copy_function=shutil.copy,
        ignore=shutil.ignore_patterns(".*_cache", ".venv", ".git", "node_modules", "runs", "tests"),
    )
    cache = tmp_path / "again" / "pipeline" / "__pycache__"
    cache.mkdir(exist_ok=True)
    (cache / "flow.cpython-311.pyc").write_bytes(b"\0")
    monkeypatch.setattr(wheel_backend, "ROOT", tmp_path / "again")
    name = wheel_backend.build_wheel(os.fspath(tmp_path))
    assert name == wheel.name
    assert (tmp_path / name).read_bytes() == wheel.read_bytes()


def test_the_time_of_all_files_is_the_commits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    made = tmp_path / wheel_backend.build_wheel(os.fspath(tmp_path))
    with zipfile.ZipFile(made) as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(2023, 11, 14, 22, 13, 20)}


def test_it_describes_itself_as_pyproject_does(wheel: Path) -> None:
    info = f"twinbuild-{PROJECT['version']}.dist-info"
    with zipfile.ZipFile(wheel) as archive:
        about = message_from_bytes(archive.read(f"{info}/METADATA"))
        top = {name.partition("/")[0] for name in archive.namelist()}
    assert about["Version"] == PROJECT["version"]
    assert about["License-Expression"] == PROJECT["license"]
    assert about.get_all("Requires-Dist") == PROJECT["dependencies"]
    assert top == {"twinbuild", info, info.replace("dist-info", "data")}


def test_the_source_archive_makes_the_same_wheel(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = wheel_backend.build_sdist(os.fspath(tmp_path))
    run(["tar", "--extract", "--file", name], tmp_path)
    folder = tmp_path / name.removesuffix(".tar.gz")
    monkeypatch.setattr(wheel_backend, "ROOT", folder)
    again = tmp_path / wheel_backend.build_wheel(os.fspath(tmp_path))
    assert again.read_bytes() == wheel.read_bytes()
    assert (folder / "PKG-INFO").is_file()


def test_a_symbolic_link_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Installed, it would be a file that holds the link's target."""
    shutil.copytree(ROOT / "tools", tmp_path / "tools")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "tools" / "link.py").symlink_to("bench.py")
    monkeypatch.setattr(wheel_backend, "ROOT", tmp_path)
    monkeypatch.setattr(wheel_backend, "CARRIED", ("tools",))
    with pytest.raises(ValueError, match=r"link\.py is a symbolic link"):
        wheel_backend.build_wheel(os.fspath(tmp_path))


def test_the_installed_command_is_the_farms(program: Path, farm: Path) -> None:
    assert run([program, "--version"], farm).stdout == f"twinbuild {PROJECT['version']}\n"
    listed = run([program, "--list"], farm).stdout
    assert listed.startswith("Usage: twinbuild TASK")
    assert "\n  stage.build " in listed
    assert "\n  profile-boot " in listed
    assert "\n  lint " not in listed


def test_it_finds_the_farm_above(program: Path, farm: Path) -> None:
    (farm / "images" / "live").mkdir(parents=True)
    assert run([program, "runs"], farm / "images").stdout == "there are no runs yet\n"


def test_it_brings_its_manual_page(program: Path) -> None:
    page = program.parents[1] / "share" / "man" / "man1" / "twinbuild.1"
    assert page.read_bytes() == (ROOT / "docs" / "reference" / "twinbuild.1").read_bytes()


def test_what_it_reads_at_its_own_place_is_the_checkouts(program: Path, tmp_path: Path) -> None:
    """The machine's programs above all: their digest is part of a job, and of every statement."""
    code = """import twinbuild
from pipeline.machines import plan
from pipeline.release.publish import VERIFIER
from pipeline.report.advice import read_advice
print(plan._guest_sha256(), len(read_advice()), VERIFIER.is_file())"""
    shown = run([program.with_name("python"), "-c", code], tmp_path).stdout
    assert shown == f"{plan._guest_sha256()} {len(read_advice())} True\n"


def test_without_a_farm_it_says_so(program: Path, tmp_path: Path) -> None:
    error = run([program, "runs"], tmp_path, status=2).stderr
    assert "has no farm.yaml; run this in" in error
    assert error.endswith("twinbuild init NAME begins one\n")


def test_a_farm_without_checks_has_twinbuilds(program: Path, farm: Path) -> None:
    """They run as programs, so their modes are those of the checkout."""
    run(["git", "init", "--quiet"], farm)
    run(["git", "add", "--all"], farm)
    count = len([p for p in (ROOT / "hooks" / "source").iterdir() if os.access(p, os.X_OK)])
    assert f"{count} checks passed" in run([program, "check"], farm).stdout


WITHOUT_NETWORK = """import twinbuild
from pipeline import flow
def lock(workspace, image, display):
    path = workspace.checkout / "images/live" / image / "lock"
    path.write_text("the packages of today")
flow.lock = lock
raise SystemExit(twinbuild.main())"""


def test_it_begins_a_repository_of_its_own(program: Path, tmp_path: Path) -> None:
    init: list[str | Path] = ["init", "kiosk", "--directory", "kiosk"]
    with made_home() as home:
        python = program.with_name("python")
        run([python, "-c", WITHOUT_NETWORK, *init], tmp_path, gnupg=home.path)
        again = run([program, *init], tmp_path, gnupg=home.path)
    assert "images/live/kiosk/lock: is there already, and stays" in again.stdout
    folder = tmp_path / "kiosk"
    assert run([program, "runs"], folder / "images").stdout == "there are no runs yet\n"
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org"]
    run([*git, "add", "--all"], folder)
    assert "checks passed" in run([program, "check"], folder).stdout
    invoke: list[str | Path] = [program.with_name("python"), "-m", "invoke", "--list"]
    assert "kit.apply" in run(invoke, folder).stdout


def test_a_farms_own_tasks_file_has_all_tasks(program: Path, farm: Path) -> None:
    """It is called `tasks` and its folder may have a `tools/`: neither gets in the way."""
    text = "from twinbuild import farm_tasks\nnamespace = farm_tasks(__file__)\n"
    (farm / "tasks.py").write_text(text)
    for name in ("tools", "pipeline"):
        (farm / name).mkdir()
        (farm / name / "__init__.py").write_text("raise SystemExit('the wrong one')\n")
    invoke: list[str | Path] = [program.with_name("python"), "-m", "invoke"]
    assert "profile-boot" in run([*invoke, "--list"], farm).stdout
    assert run([*invoke, "runs"], farm).stdout == "there are no runs yet\n"


def test_only_one_name_stands_in_pythons_folder(program: Path, tmp_path: Path) -> None:
    code = (
        "import importlib.util as u; print(*(n for n in ('pipeline', 'tasks') if u.find_spec(n)))"
    )
    assert run([program.with_name("python"), "-c", code], tmp_path).stdout == "\n"
