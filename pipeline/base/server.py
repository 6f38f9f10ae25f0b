# SPDX-License-Identifier: GPL-3.0-or-later
"""The default branch of a repository on its server, whatever a checkout's own refs claim.

The server is where the repository was cloned from: its remote `origin`, or its only remote. A
repository without a remote is the home of its project, and so its own server. In a GitLab job the
address is that in GitLab's variable, not that in the checkout's configuration.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from pipeline.base import git
from pipeline.base.errors import InfrastructureFailed, SignatureInvalid, UsageError
from pipeline.base.git import OBJECT_ID, Repository

BRANCHES = ("refs/heads/main", "refs/heads/master")
REMOTE = re.compile(r"remote\.(.+)\.url")
GITLABS = "CI_REPOSITORY_URL"
REMEDY = "push to the server's default branch what shall be released"


def fetch(repository: Repository, cache: Path) -> Repository:
    """Fetch a repository from its server and return it; its `head` is the default branch.

    Raise InfrastructureFailed if the server cannot be reached, UsageError for an invalid address,
    SignatureInvalid if it has no default branch.
    """
    address = _address(repository, os.environ)
    if address is not None:
        served = _fetched(address, cache)
    elif repository.tree is None:
        served = repository  # it was fetched from its server
    else:
        served = replace(repository, head=_own_branch(repository))
    if commit_at_head(served) is None:
        raise SignatureInvalid(f"{served.name} has no default branch", remedy=REMEDY)
    return served


def _fetched(address: str, cache: Path) -> Repository:
    try:
        return git.fetch(address, cache / "git")
    except InfrastructureFailed as error:
        raise InfrastructureFailed(
            f"{error.what}, whose default branch decides what may be released",
            remedy="see that git can reach it without asking: by an SSH agent, or a token in the"
            " address",
            detail=error.detail,
        ) from error


def commit_at_head(served: Repository) -> str | None:
    """Return the newest commit of the default branch, or None if there is none."""
    with git.opened(served) as reader:
        argv = ("rev-parse", "--verify", "--quiet", f"{served.head}^{{commit}}")
        found = git.git(reader, *argv, accept=range(256))
    return found.text if found.status == 0 and OBJECT_ID.fullmatch(found.text) else None


def check_reachable(served: Repository, commit: str, name: str) -> None:
    """Raise SignatureInvalid unless the default branch has `commit`, that of the tag `name`."""
    with git.opened(served) as reader:
        argv = ("merge-base", "--is-ancestor", commit, served.head)
        if git.git(reader, *argv, accept=range(256)).status == 0:
            return
    if served.layout.shallow:
        raise SignatureInvalid(
            f"the history of {served.name} is cut, so nobody can tell whether {name} is of its"
            " default branch",
            remedy="git fetch --unshallow there brings the rest",
        )
    raise SignatureInvalid(
        f"the tag {name} names {commit[:12]}, which is not on the default branch of {served.name}",
        remedy="merge and push it; a clone that is the farm's only home has no remote",
    )


def read(served: Repository, path: str, limit: int) -> bytes | None:
    """Return the content of a file of the default branch, or None if there is no such file.

    Raise UsageError if it is larger than `limit` bytes.
    """
    with git.opened(served) as reader:
        return git.blob(reader, f"{served.head}:{path}", limit)


def names(served: Repository, folder: str) -> list[str]:
    """Return the full paths of the regular files in a folder of the default branch."""
    with git.opened(served) as reader:
        argv = ("ls-tree", "-z", served.head, "--", f"{folder}/")
        listed = git.git(reader, *argv, failure=SignatureInvalid).stdout
    entries = (entry.partition(b"\t") for entry in listed.split(b"\0") if entry)
    return sorted(os.fsdecode(path) for mode, _, path in entries if mode.startswith(b"100"))


def _address(repository: Repository, environ: Mapping[str, str]) -> str | None:
    """Return the address of the server of a working tree's repository, if it has one."""
    if repository.tree is None or repository.worktree is None:
        return None
    project = environ.get("CI_PROJECT_DIR")
    if project and Path(project).resolve() == repository.worktree and environ.get(GITLABS):
        return environ[GITLABS]
    settings = git.read_settings(repository.tree)
    remotes = {found[1]: url for n, url in settings.items() if (found := REMOTE.fullmatch(n))}
    if len(remotes) > 1 and "origin" not in remotes:
        raise UsageError(
            f"{repository.worktree} has the remotes {', '.join(sorted(remotes))} and no origin",
            remedy="git remote rename NAME origin, for the one that has the default branch",
        )
    address = remotes.get("origin") or next(iter(remotes.values()), None)
    there = repository.worktree / address if address and "://" not in address else None
    return os.fspath(there.resolve()) if there and there.is_dir() else address


def _own_branch(repository: Repository) -> str:
    """Return the default branch of a repository without a server: main, master, or that of HEAD."""
    with git.opened(repository) as reader:
        for branch in BRANCHES:
            exists = ("rev-parse", "--verify", "--quiet", f"{branch}^{{commit}}")
            if git.git(reader, *exists, accept=range(256)).status == 0:
                return branch
        head = git.git(reader, "symbolic-ref", "--quiet", "HEAD", accept=range(256))
    if head.status:
        raise SignatureInvalid(f"{repository.name} has no default branch", remedy=REMEDY)
    return head.text
