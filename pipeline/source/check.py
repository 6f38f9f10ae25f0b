# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the checks in `hooks/source/` before a build: they read a repository, but run none of it.

They are the farm's own even if another repository is built: programs of that repository run only in
a machine. In a check, git does not read the repository's configuration.
"""

import os
from collections.abc import Callable
from pathlib import Path

from pipeline.base import command, git, pipes
from pipeline.base.errors import BuildFailed, UsageError
from pipeline.base.files import write_bytes
from pipeline.base.plain import plain

TIMEOUT_S = 600.0
SHOWN = 15  # findings in the error; the file has all of them


def check_source(
    hooks: Path, repository: Path, findings: Path, *, notify: Callable[[str], None]
) -> int:
    """Run every check in the folder `hooks` on a working tree; return the number of checks.

    A check gets the tree as its argument, and an environment in which git accesses the tree through
    a neutral repository. It prints one line for each finding; all findings are written to the file
    `findings`. Raise BuildFailed, with the first finding and their number, if a check does not end
    with status 0; UsageError if the tree is not in a git repository.
    """
    checks = sorted(path for path in hooks.iterdir() if os.access(path, os.X_OK))
    if not checks:
        raise UsageError(f"{hooks} holds no executable check")
    opened = git.open_tree(repository)
    if opened is None:
        raise UsageError(f"{repository} is in no git repository", remedy="git init, git add")
    found: list[str] = []
    with git.worktree(opened) as env:
        # Fail here: a check that cannot list the files would find nothing.
        listed = git.git(repository, "ls-files", "-z", env=env, failure=UsageError).stdout
        pipes.refuse(repository / os.fsdecode(name) for name in listed.split(b"\0"))
        for check in checks:
            done = command.run([check, repository], env=env, timeout_s=TIMEOUT_S, accept=range(256))
            notify(f"{check.name}: {'fine' if done.status == 0 else 'NOT fine'}")
            if done.status:
                output = (done.stderr.strip() or done.stdout.strip()).decode(errors="replace")
                lines = output.splitlines() or [f"ended with status {done.status}"]
                found += [f"{check.name}: {plain(line)}" for line in lines]
    if found:
        write_bytes(findings, "".join(f"{line}\n" for line in found).encode())
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        raise BuildFailed(
            f"{found[0]}{more}",
            remedy=f"all are in {findings}; see hooks/source/ for what each check refuses",
            detail="\n".join(found[:SHOWN]),
        )
    return len(checks)
