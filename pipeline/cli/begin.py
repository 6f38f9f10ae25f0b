# SPDX-License-Identifier: GPL-3.0-or-later
"""`twinbuild init`: a repository of a distribution's own, with an image, its lock and all keys.

Existing files stay: each step prints what it made or found. So it can be run again, for instance
after a network failure. What it writes comes from Twinbuild's own files, without Twinbuild's keys.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from pipeline.base import git, neutral, places
from pipeline.base.display import Display
from pipeline.base.errors import UsageError
from pipeline.base.files import write_bytes
from pipeline.cli import keys
from pipeline.cli.new_image import check_name, new_image
from pipeline.cli.version import version
from pipeline.farm.workspace import open_workspace
from pipeline.inputs import image_lock

TASKS = "from twinbuild import farm_tasks\nnamespace = farm_tasks(__file__)\n"
IGNORED = "/.cache/\n/demo/\n/public/\n/runs/\n/snapshots/\n__pycache__/\n"
KEYS = """
keys:
  release: null
  environments: {}
  tags:
    signed: true
    signers: []

"""
OWN_JOBS = ("lint", "unit", "proof")  # these test Twinbuild itself
# In each job: the runner has the Twinbuild that the repository names.
PINNED = (
    """grep -qwF "$(twinbuild --version | sed 's/ /==/')" requirements.txt"""
    """ || { echo "requirements.txt names another version"; twinbuild --version; exit 2; }"""
)


def begin(
    folder: Path, image: str, key: str | None, release: str | None, display: Display
) -> keys.ToBackUp:
    """Make what a farm's repository needs and `folder` lacks; return the keys to back up.

    `key` is the user id of a release key to be made, `release` the fingerprint of one that gpg has;
    without both it is the one in `farm.yaml`, or a new one named after the image. Raise UsageError
    if something else is in the way.
    """
    check_name(image)
    notify = display.say
    folder.mkdir(parents=True, exist_ok=True)
    _repository(folder, display)
    for name, text in files(image).items():
        path = folder / name
        if path.exists() or path.is_symlink():
            notify(f"{name}: is there already, and stays")
        else:
            write_bytes(path, text.encode())
            notify(f"{name}: written")
    workspace = open_workspace(folder)
    own = f"images/live/{image}"
    if (folder / own).exists():
        notify(f"{own}/: is there already, and stays")
    else:
        new_image(folder / "images" / "live", image)
        notify(f"{own}/: made")
    wanted = key or release or workspace.farm.keys.release
    kept = keys.set_up(workspace, key if wanted else f"{image} releases", release, notify)
    if (folder / own / "lock").exists():
        notify(f"{own}/lock: is there already, and stays")
    else:
        image_lock.lock_image(open_workspace(folder), image, notify)
        notify(f"{own}/lock: written")
    return kept


def _repository(folder: Path, display: Display) -> None:
    """Make a git repository of a folder that is in none."""
    found = neutral.find(folder.resolve(), above=True)
    if found is None:
        git.git(folder, "init", "--quiet", "--initial-branch=main", env={"GIT_DIR": ".git"})
        display.say(f"{folder}: made a git repository")
    elif found.worktree != folder.resolve():
        raise UsageError(
            f"{folder} is in the repository {found.worktree or found.common}",
            remedy="let --directory name a folder that is in none, or the whole of one",
        )


def files(image: str) -> Mapping[str, str]:
    """Return the texts of the files of a new repository, by their names."""
    return {
        "farm.yaml": farm_text((places.PROGRAM / "farm.yaml").read_text()),
        "tasks.py": TASKS,
        "requirements.txt": f"twinbuild=={version()}\n",
        ".gitlab-ci.yml": pipeline_text((places.PROGRAM / ".gitlab-ci.yml").read_text(), image),
        ".gitignore": IGNORED,
    }


def farm_text(text: str) -> str:
    """Return a `farm.yaml` without any keys, whatever keys the farm has whose file it is."""
    head, _, rest = text.partition("\nkeys:\n")
    following = re.search(r"^[^\s#].*", rest, re.MULTILINE | re.DOTALL)
    return _installed(head) + KEYS + (following[0] if following else "")


def pipeline_text(text: str, image: str) -> str:
    """Return the pipeline of a repository that has images alone, from Twinbuild's own."""
    parts = [part for part in text.split("\n\n") if _job(part) not in OWN_JOBS]
    begun = "\n\n".join(parts).rstrip("\n") + "\n"
    begun = begun.replace("IMAGE: mini", f"IMAGE: {image}").replace(", proof]", "]")
    begun = begun.replace("  before_script:\n", f"  before_script:\n    - {PINNED}\n")
    begun = begun.replace("\ndefault:\n", f"\ndefault:\n  before_script:\n    - {PINNED}\n")
    return _installed(begun)


def _job(part: str) -> str:
    """Return the first key of a part of a YAML file; comments may precede it."""
    lines = (line for line in part.splitlines() if line and not line.startswith("#"))
    return next(lines, "").partition(":")[0]


def _installed(text: str) -> str:
    """Return a text in which commands and pages are those that an installed Twinbuild has."""
    commands = text.replace("./farm ", "twinbuild ")
    return re.sub(r"`?docs/", r"Twinbuild's \g<0>", commands)
