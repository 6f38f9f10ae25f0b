# SPDX-License-Identifier: GPL-3.0-or-later
"""Farms and images for tests that boot machines: real keys, real archives, real Engines."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from pipeline import flow
from pipeline.base import dsse
from pipeline.base.display import Display
from pipeline.farm.run import Request, Run
from pipeline.farm.workspace import Workspace, open_workspace
from pipeline.inputs.image_lock import lock_image
from pipeline.machines import engine

CHECKOUT = Path(__file__).parent.parent.parent
IDENTITY = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
TREE = "images/live/tiny"


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *IDENTITY, *arguments], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def display() -> Display:
    return Display(Console(file=StringIO()))


@dataclass(frozen=True)
class Tiny:
    """A repository with an image of little more than Debian's essential packages."""

    folder: Path

    def commit(self, files: Mapping[str, str]) -> str:
        """Commit these files, by their paths in the image's folder, and return the commit."""
        git(self.folder, "checkout", "--quiet", "--detach", "base")
        for name, content in files.items():
            path = self.folder / TREE / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        git(self.folder, "add", "--all")
        git(self.folder, "commit", "--quiet", "--allow-empty", "--message=Change the image")
        return git(self.folder, "rev-parse", "HEAD")


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A farm of its own, with keys of its own, that makes what it needs on the Engine."""
    folder = tmp_path_factory.mktemp("farm")
    for name in ("images", "hooks"):
        shutil.copytree(CHECKOUT / name, folder / name, symlinks=True)
    shutil.copy(CHECKOUT / "farm.yaml", folder)
    git(folder, "init", "--quiet")
    farm = open_workspace(folder)
    with pytest.MonkeyPatch.context() as patch:
        for name in farm.farm.environments:
            patch.setenv(f"TWINBUILD_KEY_{name.upper()}", os.fspath(folder / f"{name}.pem"))
            dsse.make_key(folder / f"{name}.pem")
        yield farm


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory, workspace: Workspace) -> Tiny:
    folder = tmp_path_factory.mktemp("tiny")
    image = folder / TREE
    (image / "package-lists").mkdir(parents=True)
    (image / "package-lists" / "tiny.list.chroot").write_text("bash\n")
    (image / "image.yaml").write_text("description: A test\nsuite: trixie\nvolume_id: TINY\n")
    boot = image / "includes.chroot" / "boot"
    boot.mkdir(parents=True)
    (boot / "vmlinuz-0").write_text("no kernel\n")
    (boot / "initrd.img-0").write_text("no initramfs\n")
    git(folder, "init", "--quiet")
    lock_image(workspace, "tiny", display().say, tree=folder)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message=A tiny image")
    git(folder, "branch", "base")
    return Tiny(folder)


def start(workspace: Workspace, tiny: Tiny, commit: str, *environments: str) -> Run:
    return flow.start(
        workspace,
        Request(
            image="tiny",
            commit=commit,
            source=os.fspath(tiny.folder),
            environments=environments or tuple(workspace.farm.environments),
        ),
    )


def left_on_engine(run: Run) -> list[str]:
    """Return the containers and volumes of a run that are still there."""
    with engine.connect(None) as client:
        return [name for name in engine.everything(client) if run.id in name]


def invoke(workspace: Workspace, *arguments: str) -> list[str]:
    """Return the command line of a task in another process, on the farm of a test."""
    script = (
        "import sys, tasks, pathlib; from invoke import Program; from pipeline.base import places;"
        f"places.farm = pathlib.Path({os.fspath(workspace.checkout)!r});"
        "Program(namespace=tasks.namespace).run(['invoke', *sys.argv[1:]])"
    )
    return [sys.executable, "-c", script, *arguments]
