# SPDX-License-Identifier: GPL-3.0-or-later
"""The one place that starts git: without the configuration of user, machine or repository.

Git is started only in repositories that this program has made: its own clones of what it fetches,
and the *neutral* repositories of `pipeline.base.neutral`, which have the objects and refs of
another repository but none of its configuration.

So it does not matter how two clones differ, or what an untrusted repository configures. The few
settings that are needed (where it was cloned from, how its working tree is compared) are read as
data.
"""

import fcntl
import hashlib
import os
import re
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from pipeline.base import command, neutral, pipes
from pipeline.base.errors import InfrastructureFailed, TwinbuildError, UsageError
from pipeline.base.neutral import RepositoryLayout

LOCAL_S = 300.0
FETCH_S = 3600.0
FETCHED_HEAD = "refs/twinbuild/HEAD"
PROTOCOLS = ("file", "git", "http", "https", "ssh")
SCP_LIKE = re.compile(r"(?:[^/@:\s-][^/@:\s]*@)?[A-Za-z0-9][A-Za-z0-9.-]*:(?!:)[^\s]+")
OBJECT_ID = re.compile(r"[0-9a-f]{40}")

ENVIRONMENT = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ALLOW_PROTOCOL": ":".join(PROTOCOLS),
    "GIT_SSH_COMMAND": "ssh -oBatchMode=yes",
}
SETTINGS = (
    "core.alternateRefsCommand=true",
    "core.attributesFile=/dev/null",
    "core.commitGraph=false",
    "core.fsmonitor=false",
    "core.hooksPath=/dev/null",
    "core.untrackedCache=false",
    "gc.auto=0",
    "gpg.program=gpg",
    "gpg.ssh.program=/bin/false",
    "gpg.x509.program=/bin/false",
    "http.lowSpeedLimit=1000",
    "http.lowSpeedTime=60",
    "maintenance.auto=false",
    "tar.umask=0022",
    "transfer.fsckObjects=true",
)
BARE = {"core.repositoryFormatVersion": "0", "core.bare": "true"}
BOOLEAN = re.compile(r"|true|false|yes|no|on|off|1|0")
# The settings of a clone that `git status` depends on, with the values passed on: never programs.
OF_A_WORKTREE = {
    "core.autocrlf": re.compile(r"|true|false|input"),
    "core.eol": re.compile(r"lf|crlf|native"),
    "core.filemode": BOOLEAN,
    "core.ignorecase": BOOLEAN,
    "core.precomposeunicode": BOOLEAN,
    "core.sparsecheckout": BOOLEAN,
    "core.sparsecheckoutcone": BOOLEAN,
    "core.symlinks": BOOLEAN,
    "index.sparse": BOOLEAN,
    "status.showuntrackedfiles": re.compile(r"no|normal|all"),
}
MISSING = re.compile(
    r"(bad|invalid|missing) (object|tree|blob|commit)|[Cc]ould not read|unable to read"
    r"|not a valid object|not a tree object"
)


@dataclass(frozen=True)
class Repository:
    """A local repository that has the commits to choose from."""

    layout: RepositoryLayout
    name: str  # as recorded: an address without user name and password
    head: str  # the ref that HEAD means
    tree: RepositoryLayout | None  # a clone whose working tree may have uncommitted changes

    @property
    def worktree(self) -> Path | None:
        """The working tree of the clone `tree`."""
        return self.tree.worktree if self.tree else None


def git(
    folder: Path,
    *arguments: str | os.PathLike[str],
    env: Mapping[str, str] | None = None,
    settings: tuple[str, ...] = (),
    timeout_s: float = LOCAL_S,
    stdin: bytes | None = None,
    stdout_to: Path | None = None,
    accept: Collection[int] = (0,),
    failure: type[TwinbuildError] = InfrastructureFailed,
) -> command.Completed:
    """Run git in `folder`, a repository that this program has made; git does not look for others.

    `settings` ("name=value") are added to those that are always set. If `env` has another GIT_DIR,
    `folder` may be a working tree.
    """
    options = [word for setting in (*SETTINGS, *settings) for word in ("-c", setting)]
    absolute = os.fspath(folder.absolute())
    return command.run(
        ["git", *options, "-C", absolute, *arguments],
        env={**ENVIRONMENT, "GIT_DIR": absolute, **(env or {})},
        timeout_s=timeout_s,
        stdin=stdin,
        stdout_to=stdout_to,
        accept=accept,
        failure=failure,
    )


def version() -> str:
    """Return git's version."""
    return git(Path("/"), "--version").text.removeprefix("git version ")


def open_checkout(checkout: Path) -> Repository:
    """Return the repository whose working tree is `checkout`; raise UsageError if it is not one."""
    folder = checkout.resolve()
    layout = neutral.find(folder)
    if layout is None or layout.worktree is None:
        raise UsageError(
            f"{folder} is not the top of a git repository",
            remedy="builds are made from commits: clone the project with git",
        )
    origin = read_settings(layout).get("remote.origin.url")
    name = recorded_name(origin, folder) if origin else folder.as_uri()
    return Repository(layout, name, "HEAD", layout)


def open_tree(tree: Path) -> Repository | None:
    """Return the repository whose working tree is `tree` or contains it, or None."""
    layout = neutral.find(tree, above=True)
    if layout is None or layout.worktree is None:
        return None
    return Repository(layout, layout.worktree.as_uri(), "HEAD", layout)


def read_settings(layout: RepositoryLayout) -> dict[str, str]:
    """Return a repository's configuration as data: lower-case names, the last value of each.

    Included files are not read. Raise UsageError for a malformed configuration, and for a
    repository whose object names are not SHA-1.
    """
    settings = _parse_settings(layout.common / "config")
    if settings.get("extensions.worktreeconfig", "false") in ("", "true", "yes", "on", "1"):
        settings |= _parse_settings(layout.git_dir / "config.worktree")
    if settings.get("extensions.objectformat", "sha1") != "sha1":
        raise UsageError(f"{layout.common} does not name its objects by SHA-1, which is needed")
    return settings


def _refuse_other_hash(layout: RepositoryLayout) -> None:
    if (
        b"objectformat"
        in (neutral.read(layout.common / "config", neutral.TEXT_LIMIT) or b"").lower()
    ):
        read_settings(layout)


def _parse_settings(path: Path) -> dict[str, str]:
    content = neutral.read(path, neutral.TEXT_LIMIT) or b""
    options = ("--file", "-", "--no-includes", "--null", "--list")
    listed = git(Path("/"), "config", *options, stdin=content, failure=UsageError)
    pairs = (entry.partition("\n") for entry in listed.text.split("\0") if entry)
    return {name: value for name, _, value in pairs}


def fetch(source: str, cache: Path) -> Repository:
    """Bring a bare clone of another repository up to date; return it.

    `source` is a path or an address, with a password if needed: neither the clone nor an error
    message keeps that. Raise UsageError for an invalid address and for a local repository that
    lacks objects, InfrastructureFailed if it cannot be fetched.
    """
    path = local_path(source)
    address = os.fspath(path) if path else without_password(source)
    folder = cache / hashlib.sha256(address.encode()).hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    with (cache / f"{folder.name}.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "HEAD").exists():
            git(folder, "init", "--quiet", "--bare", "--template=")
        if path is None:
            _fetch_refs(folder, source, address)
        else:
            _fetch_here(folder, path)
    fetched = RepositoryLayout(folder, folder, None)
    if path is None:
        return Repository(fetched, recorded_name(source, Path("/")), FETCHED_HEAD, None)
    tree = neutral.find(path)
    return Repository(
        fetched, path.as_uri(), FETCHED_HEAD, tree if tree and tree.worktree else None
    )


def _fetch_here(folder: Path, path: Path) -> None:
    """Fetch from a local repository, without running git there, which would read its configuration.

    The objects are copied, and checked like those from a server.
    """
    layout = neutral.find(path)
    if layout is None:
        raise InfrastructureFailed(
            f"cannot fetch {path}, it is not the top of a git repository",
            remedy="give the folder of a clone",
        )
    with opened(Repository(layout, path.as_uri(), "HEAD", None)) as reader:
        _fetch_refs(folder, os.fspath(reader), os.fspath(path), read_from=reader)


def _fetch_refs(folder: Path, source: str, address: str, *, read_from: Path | None = None) -> None:
    """Fetch all branches and tags, and then the other side's HEAD, if there is one."""
    env = {k: os.environ[k] for k in ("SSH_AUTH_SOCK",) if k in os.environ}
    if read_from is None and source != address:
        # In the environment, which other users cannot read, unlike argv.
        env |= {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": f"url.{source}.insteadOf"}
        env |= {"GIT_CONFIG_VALUE_0": address}
    place = os.fspath(read_from) if read_from else address
    every = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
    fetched = _fetch_into(folder, "--prune", "--end-of-options", place, *every, env=env)
    if fetched.status:
        secret = urlsplit(source).password if "://" in source else None
        detail = fetched.tail.replace(secret, "***") if secret else fetched.tail
        raise InfrastructureFailed(
            f"cannot fetch {address}", remedy="see that git can reach it", detail=detail
        )
    if _fetch_into(folder, "--end-of-options", place, f"+HEAD:{FETCHED_HEAD}", env=env).status:
        git(folder, "update-ref", "-d", FETCHED_HEAD)


def _fetch_into(folder: Path, *arguments: str, env: Mapping[str, str]) -> command.Completed:
    options = ["--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules"]
    # A shallow history is accepted, and is completed once the other side has more.
    options += ["--update-shallow", *["--unshallow"] * (folder / "shallow").exists()]
    argv = ("fetch", *options, *arguments)
    return git(folder, *argv, env=env, timeout_s=FETCH_S, accept=range(256))


def local_path(source: str) -> Path | None:
    """Return the folder that `source` names, None for an address; raise UsageError if neither."""
    if not source or source.startswith("-") or not source.isprintable() or "::" in source:
        raise UsageError(f"{source!r} is not the address of a git repository")
    if "://" in source:
        parts = urlsplit(source)
        if parts.scheme not in PROTOCOLS:
            raise UsageError(
                f"{without_password(source)} is not fetched", remedy=f"use {', '.join(PROTOCOLS)}"
            )
        if parts.scheme != "file":
            return None
        source = unquote(parts.path)
    path = Path(source).expanduser().resolve()
    if path.is_dir():
        return path
    if SCP_LIKE.fullmatch(source):
        return None
    raise UsageError(f"there is no repository {path}")


def without_password(source: str) -> str:
    """Return an address without secrets; the user name is kept if ssh needs it."""
    if "://" not in source:
        return source
    parts = urlsplit(source)
    user, _, host = parts.netloc.rpartition("@")
    keep = f"{user.partition(':')[0]}@" if user and parts.scheme == "ssh" else ""
    return urlunsplit((parts.scheme, keep + host, parts.path, "", ""))


def recorded_name(source: str, folder: Path) -> str:
    """Return an address as it is recorded: without user name and password, paths as file: URLs."""
    if "://" in source:
        parts = urlsplit(source)
        host = parts.netloc.rpartition("@")[2]
        return urlunsplit((parts.scheme, host, parts.path, "", ""))
    if SCP_LIKE.fullmatch(source):
        host, _, path = source.rpartition("@")[2].partition(":")
        return f"ssh://{host}/{quote(path.lstrip('/'))}"
    return (folder / source).resolve().as_uri()


@contextmanager
def opened(repository: Repository) -> Iterator[Path]:
    """Yield the neutral repository that has the objects and refs of `repository`.

    Raise UsageError, with a remedy, if the block fails because a partial or shallow clone lacks
    objects.
    """
    _refuse_other_hash(repository.layout)
    pipes.refuse_in_objects(repository.layout.objects)
    with tempfile.TemporaryDirectory(prefix="twinbuild-git-") as name:
        neutral.make(repository.layout, Path(name), {**BARE, **dict(map(_pair, SETTINGS))})
        try:
            yield Path(name)
        except TwinbuildError as error:
            if incomplete := _incomplete(repository, error):
                raise incomplete from error
            raise


@contextmanager
def worktree(repository: Repository) -> Iterator[dict[str, str]]:
    """Yield the environment in which git sees a working tree through a neutral repository.

    Its index is a copy. Line endings, modes, sparse and ignored files are treated as by `git
    status` in the clone itself, but no filter is run. Raise UsageError for pipes and devices, for
    which git would wait.
    """
    tree = repository.tree
    if tree is None:
        raise UsageError(f"{repository.name} has no working tree")
    pipes.refuse_in_objects(tree.objects)
    if tree.worktree:
        pipes.refuse_in_worktree(tree.worktree)
    found = read_settings(tree)
    passed = {n: found[n] for n, form in OF_A_WORKTREE.items() if form.fullmatch(found.get(n, "-"))}
    with tempfile.TemporaryDirectory(prefix="twinbuild-git-") as name:
        folder = Path(name)
        neutral.make(tree, folder, {**BARE, **dict(map(_pair, SETTINGS)), **passed})
        neutral.add_worktree(tree, folder)
        yield {
            **ENVIRONMENT,
            "GIT_DIR": name,
            "GIT_INDEX_FILE": f"{name}/index",
            "GIT_WORK_TREE": os.fspath(tree.worktree or ""),
        }


def blob(reader: Path, name: str, limit: int) -> bytes | None:
    """Return the content of a file, named as "REF:PATH", or None if there is no such file.

    Raise UsageError if it is larger than `limit` bytes.
    """
    size = git(reader, "cat-file", "-s", name, accept=range(256))
    if size.status:
        return None
    if int(size.text) > limit:
        raise UsageError(f"{name} is larger than {limit} bytes")
    return git(reader, "cat-file", "blob", name, failure=UsageError).stdout


def is_dirty(repository: Repository) -> bool:
    """Tell whether the working tree, if there is one, has changes that are not committed."""
    if repository.worktree is None:
        return False
    with worktree(repository) as env:
        status = ("status", "--porcelain", "--ignore-submodules=all")
        changed = git(repository.worktree, *status, env=env, failure=UsageError)
    return bool(changed.stdout)


def _pair(setting: str) -> tuple[str, str]:
    name, _, value = setting.partition("=")
    return name, value


def _incomplete(repository: Repository, error: TwinbuildError) -> UsageError | None:
    """Return the error for missing objects of a partial or shallow clone; None for other errors."""
    if not MISSING.search(error.detail):
        return None
    if repository.layout.partial:
        what, remedy = "partial", "git fetch --refetch --no-filter"
    elif repository.layout.shallow:
        what, remedy = "shallow", "git fetch --unshallow"
    else:
        return None
    return UsageError(
        f"{repository.name} is a {what} clone and lacks objects that are needed",
        remedy=f"fetch the rest there: {remedy}",
        detail=error.detail,
    )
