# SPDX-License-Identifier: GPL-3.0-or-later
"""The shell blocks of each page, typed in order in a fresh clone with a fresh home.

Programs are the real ones, and so is `./farm keys`. What would start machines or ask the network
ends before it does: `./farm` writes the files that the page goes on with, notes the words, and
they are parsed as the real one parses them; verify.py parses its own.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import tasks
from pipeline.base.errors import UsageError
from pipeline.cli import parser

pytestmark = pytest.mark.tools

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^ *```sh\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
CONTEXTS = {str(context.name): context for context in tasks.namespace.to_contexts()}
KEYS = 'keys --name "Kiosk releases <releases@example.org>"'
# What a page says in words that there is already.
BEFORE = {
    "CONTRIBUTING.md": """mkdir -p .venv/bin tests/unit/documents
        printf '#!/bin/sh\\nexec "$PYTHON" "$@"\\n' >.venv/bin/python && chmod +x .venv/bin/python
        echo 'def test_read(): pass' >tests/unit/documents/test_lock.py""",
    "docs/how-to/build-packages.md": "./farm new-image kiosk",
    "docs/how-to/profile-a-boot.md": "./farm new-image kiosk",
    "docs/how-to/release.md": f"./farm {KEYS}",
    "docs/how-to/verify.md": f"""./farm {KEYS} && cp keys/release.asc KEY.asc
        echo image >mini-amd64-3.3.iso && sha256sum *.iso >SHA256SUMS
        gpg --batch --armor --detach-sign SHA256SUMS""",
}
FINGERPRINT = "$(gpg --with-colons --list-secret-keys | grep -m1 ^fpr | tr -d :fpr)"
FARM = """#!/bin/sh
set -eu
{ printf '%s\\0' "$@"; echo; } >>"$TYPED"
[ "$1" != keys ] || exec "$PYTHON" tasks.py "$@"
task=$1 image=mini tree=.
while [ $# -gt 1 ]; do
    case $1 in --image | new-image) image=$2 ;; --source) tree=$2 ;; esac
    shift
done
folder=$tree/images/live/$image
case $task in
new-image)
    cp -aT images/live/mini "$folder"
    mv "$folder/package-lists/mini.list.chroot" "$folder/package-lists/$image.list.chroot"
    ;;
lock) date +%N >>"$folder/lock" ;;
profile-boot) touch "$folder/squashfs.sort" ;;
esac
"""
# As it is installed; a lock is written without a network, and what starts machines is parsed.
TWINBUILD = """#!/bin/sh
set -eu
{ printf '%s\\0' "$@"; echo; } >>"$TYPED"
[ "$1" = init ] || exit 0
export PYTHONPATH="$HOME/farm"
exec "$PYTHON" -c '
from pipeline import flow
from tools import installed
def lock(workspace, image, display):
    (workspace.checkout / "images/live" / image / "lock").touch()
flow.lock = lock
raise SystemExit(installed.main())' "$@"
"""
PROGRAMS = {
    "twinbuild": TWINBUILD,
    "python3": """#!/bin/sh
case "$1 $2" in "-m tools.make_"*) exec "$PYTHON" "$@" ;; esac
what=$1
shift
case $what in
verify.py) exec "$PYTHON" -c 'import sys, verify; verify.parse(sys.argv[1:])' "$@" ;;
upgrade.pyz)
    exec "$PYTHON" -c '
import sys
from pipeline.kits.install import program
program.parse(sys.argv[1:])' "$@" ;;
esac
exit 127
""",
    "editor": '#!/bin/sh\nfor file; do [ -f "$file" ]; echo "# edited" >>"$file"; done\n',
}


def executable(path: Path, content: str) -> None:
    path.write_text(content)
    path.chmod(0o755)


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is cloned: the tracked files as they are now, with `./farm` of this test."""
    folder = tmp_path_factory.mktemp("origin")
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org"]
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in names.split("\0"):
        there = folder / name
        if name and not name.startswith(("tests/", ".ci/")) and (ROOT / name).exists():
            there.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, there, follow_symlinks=False)
    executable(folder / "farm", FARM)
    for words in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "-m", "farm"]):
        subprocess.run([*git, *words], cwd=folder, check=True)
    return folder


@pytest.fixture
def home(origin: Path) -> Iterator[dict[str, str]]:
    """A fresh home with a clone in it; its path is short enough for the socket of gpg's agent."""
    with tempfile.TemporaryDirectory(prefix="tb-", ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        (home / ".gitconfig").write_text(
            "[user]\nname = Somebody\nemail = somebody@example.org\n"
            f'[url "{origin}"]\ninsteadOf = https://git.example.org/twinbuild.git\n'
        )
        (home / "bin").mkdir()
        for name, content in PROGRAMS.items():
            executable(home / "bin" / name, content)
        subprocess.run(["git", "clone", "--quiet", origin, home / "farm"], check=True)
        env = {"HOME": folder, "PATH": f"{home}/bin:/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
        env |= {"TYPED": f"{home}/typed", "PYTHON": sys.executable, "GIT_PAGER": "cat"}
        yield env
        subprocess.run(["gpgconf", "--kill", "all"], env=env, check=False)


def type_in(text: str, env: dict[str, str], *, before: str = "") -> None:
    """Run a page's shell blocks; raise if a command fails or `./farm` would refuse its words."""
    blocks = "".join(BLOCK.findall(text))
    placeholders = re.sub(r"\b(FINGERPRINT|[0-9A-F]{40})\b", lambda _: FINGERPRINT, blocks)
    done = subprocess.run(
        ["sh", "-eu", "-c", f"{before}\n{placeholders}"],
        cwd=f"{env['HOME']}/farm",
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    typed = Path(env["TYPED"])
    for line in typed.read_text().splitlines() if typed.exists() else []:
        parser.parse(CONTEXTS, line.rstrip("\0").split("\0"))


WITH_COMMANDS = [page for page in PAGES if BLOCK.search(page.read_text())]


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_pages_commands_work_as_printed(page: Path, home: dict[str, str]) -> None:
    before = BEFORE.get(str(page.relative_to(ROOT)), "")
    type_in(page.read_text(), home, before=before)
    folder = Path(home["HOME"]) / "farm"
    hooks = folder.glob("images/live/*/hooks/normal/*")
    assert all(os.access(hook, os.X_OK) for hook in hooks)


def test_each_preparation_belongs_to_a_page() -> None:
    assert set(BEFORE) <= {str(page.relative_to(ROOT)) for page in WITH_COMMANDS}


@pytest.mark.parametrize(
    "commands",
    [
        "./farm biuld",
        "./farm build --imago mini",
        "./farm lock --image mini --tag",
        "git comit --all --message x",
        "git commit --message nothing",
        "python3 verify.py --url https://example.org --tga 3.3",
        "chmod +x images/live/mini/hooks/normal/nothing",
        "./farm keys --nmae x",
    ],
)
def test_a_wrong_command_is_noticed(commands: str, home: dict[str, str]) -> None:
    with pytest.raises((AssertionError, UsageError)):
        type_in(f"```sh\n{commands}\n```\n", home)
