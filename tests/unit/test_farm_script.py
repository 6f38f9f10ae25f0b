# SPDX-License-Identifier: GPL-3.0-or-later
"""./farm, the real one, in a checkout whose tasks and only Python package are stand-ins."""

import hashlib
import os
import shutil
import stat
import subprocess
import time
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.tools

ROOT = Path(__file__).parents[2]
WHEEL = "invoke-0-py3-none-any.whl"
TASKS = """
import os, sys
import invoke_stub
if __name__ == "__main__":
    print("tasks", *sys.argv[1:])
    print("in", os.getcwd())
    print("umask", oct(os.umask(0)))
    print("locale", os.environ["LC_ALL"])
    print("python", os.path.realpath(sys.executable))
    print("proxy", os.environ.get("https_proxy"))
    print("started as", os.environ["TWINBUILD_STARTED_AS"])
    sys.exit(int(os.environ.get("STATUS", "0")))
"""


def write_wheel(folder: Path) -> None:
    """Write the stand-in and the lock that names it by its hash."""
    with zipfile.ZipFile(folder / WHEEL, "w") as wheel:
        info = "invoke-0.dist-info"
        wheel.writestr("invoke_stub.py", "def main(): pass\n")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: invoke\nVersion: 0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/entry_points.txt", "[console_scripts]\ninvoke = invoke_stub:main\n")
        wheel.writestr(f"{info}/RECORD", "")
    digest = hashlib.sha256((folder / WHEEL).read_bytes()).hexdigest()
    lock = f"{folder.as_uri()}/{WHEEL} --hash=sha256:{digest}\n"
    (folder / "requirements.lock").write_text(lock)


def farm(program: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {"PATH": "/nowhere", "HOME": str(program.parent), "LANG": "tr_TR.ISO-8859-9", **env}
    return subprocess.run(
        [program, *arguments], env=clean, cwd="/", capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout that ./farm has prepared, under umask 0 and with another Python in PATH."""
    folder = tmp_path_factory.mktemp("with space") / "check out"
    folder.mkdir()
    shutil.copy(ROOT / "farm", folder)
    write_wheel(folder)
    (folder / "tasks.py").write_text(TASKS)
    other = folder / "bin"
    other.mkdir()
    (other / "python3").write_text("#!/bin/sh\nexit 99\n")
    (other / "python3").chmod(0o755)
    before = os.umask(0)
    try:
        done = farm(folder / "farm", "hello", PATH=str(other), PYTHONPATH="/nonsense")
    finally:
        os.umask(before)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "farm: installing the Python packages of requirements.lock into .venv\n"
    return folder


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_it_teaches_and_installs_nothing(tmp_path: Path, arguments: list[str]) -> None:
    shutil.copy(ROOT / "farm", tmp_path)
    done = farm(tmp_path / "farm", *arguments)
    assert done.returncode == 0
    assert "./farm demo" in done.stdout
    assert "./farm test" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["farm"]


@pytest.mark.parametrize(
    ("given", "passed"),
    [
        ({}, None),
        ({"HTTPS_PROXY": "http://127.0.0.1:9"}, "http://127.0.0.1:9"),
        ({"HTTPS_PROXY": "http://127.0.0.1:9", "https_proxy": ""}, ""),
    ],
)
def test_a_proxy_in_capitals_is_known_in_small_letters(
    checkout: Path, given: dict[str, str], passed: str | None
) -> None:
    done = farm(checkout / "farm", "hello", **given)
    assert f"proxy {passed}\n" in done.stdout


def test_the_second_time_is_quick_and_silent(checkout: Path) -> None:
    begin = time.monotonic()
    done = farm(checkout / "farm", "verify", "--file", "a b.iso")
    took_s = time.monotonic() - begin
    assert done.stderr == ""
    assert took_s < 1.5  # 0.1 s on an idle machine
    lines = done.stdout.splitlines()
    assert lines[0] == "tasks verify --file a b.iso"
    assert lines[1] == "in /"  # so that the user's relative paths are the user's
    assert lines[2:4] == ["umask 0o22", "locale C.UTF-8"]
    assert lines[4] == f"python {Path('/usr/bin/python3').resolve()}"


def test_a_wide_open_umask_leaves_nothing_writable_to_others(checkout: Path) -> None:
    made = [path for top in (".venv", ".cache") for path in (checkout / top).rglob("*")]
    assert made
    wide = stat.S_IWGRP | stat.S_IWOTH
    assert not [p for p in made if not p.is_symlink() and p.stat().st_mode & wide]


def test_it_works_through_a_link_and_passes_the_status_on(checkout: Path, tmp_path: Path) -> None:
    link = tmp_path / "farm"
    link.symlink_to(checkout / "farm")
    done = farm(link, "compare", STATUS="1")
    assert done.returncode == 1
    assert "tasks compare\n" in done.stdout
    assert f"started as {link}\n" in done.stdout  # what messages tell people to type


def test_a_new_lock_is_installed_and_a_wrong_hash_is_not(checkout: Path) -> None:
    lock = checkout / "requirements.lock"
    good = lock.read_text()
    lock.write_text(good.replace("sha256:", "sha256:0000")[: len(good) - 4])
    refused = farm(checkout / "farm", "hello")
    assert refused.returncode == 4
    assert "pip could not install" in refused.stderr
    assert "tasks" not in refused.stdout
    lock.write_text("# another comment\n" + good)
    again = farm(checkout / "farm", "hello")
    assert again.returncode == 0
    assert "installing the Python packages" in again.stderr
    assert farm(checkout / "farm", "hello").stderr == ""


def test_what_needs_no_machine_asks_for_no_engine(checkout: Path) -> None:
    nobody = "unix:///nowhere/docker.sock"
    for task in ("lint", "doctor", "stage.compare", "verify"):
        assert farm(checkout / "farm", task, DOCKER_HOST=nobody).stderr == ""
    assert farm(checkout / "farm", "build", "--help", DOCKER_HOST=nobody).stderr == ""


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """./farm for a user without sudo, in a PATH with just what the script itself uses."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("readlink", "dirname", "apt-get"):
        (tools / name).symlink_to(f"/usr/bin/{name}")
    (tools / "id").write_text("#!/bin/sh\necho 1000\n")
    (tools / "id").chmod(0o755)
    script = (ROOT / "farm").read_text()
    fixed = 'PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:$PATH"'
    assert fixed in script
    program = tmp_path / "farm"
    program.write_text(script.replace(fixed, f"PATH='{tools}'"))
    program.chmod(0o755)
    return program


def test_an_ordinary_user_without_sudo_learns_what_to_install(bare: Path) -> None:
    done = farm(bare, "hello")
    assert done.returncode == 2
    assert "as root: apt-get install git gnupg" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "needed", "not_needed"),
    [
        ("bench --what kit", {"rsync", "squashfs-tools"}, {"qemu-system-x86"}),
        ("bench --what=locate", {"xorriso", "squashfs-tools"}, {"qemu-system-x86"}),
        ("bench --what build", {"qemu-system-x86", "mmdebstrap"}, {"chromium"}),
        ("bench build", {"qemu-system-x86"}, {"chromium"}),
        ("test --level unit", {"rsync", "zip"}, {"qemu-system-x86", "chromium"}),
        ("test --level=tools", {"rsync", "zip"}, {"qemu-system-x86", "chromium"}),
        ("test", {"qemu-system-x86", "chromium", "rsync", "zip"}, set()),
        ("verify --file build", set(), {"qemu-system-x86", "rsync"}),
    ],
)
def test_each_task_has_what_it_needs(
    bare: Path, arguments: str, needed: set[str], not_needed: set[str]
) -> None:
    named = set(farm(bare, *arguments.split()).stderr.split())
    # What is found by its file may be on this machine.
    assert needed - named <= {"ovmf", "fonts-dejavu-core"}
    assert not_needed & named == set()


@pytest.mark.parametrize(
    "arguments",
    ["build --help", "test -h", "bench --what kit --help", "--list", "-V", "--completion bash"],
)
def test_help_needs_python_alone(bare: Path, arguments: str) -> None:
    named = set(farm(bare, *arguments.split()).stderr.split())
    assert not named & {"git", "gnupg", "rsync", "qemu-system-x86", "docker.io"}


@pytest.mark.parametrize("script", ["farm", ".ci/run", "tests/gitlab/farm"])
def test_shellcheck_has_no_complaint(script: str) -> None:
    checked = subprocess.run(
        ["shellcheck", "--shell=sh", ROOT / script], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout
