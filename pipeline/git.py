"""How git is run: without the user's, the machine's or the repository's own habits.

Refs are looked up where they are; objects are read through a *neutral* repository, a temporary one
that borrows the other's objects and has no configuration, hooks, attributes or refs of its own. So
nothing that differs between two clones, and nothing that a foreign repository configures, matters.
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
from urllib.parse import quote, urlsplit, urlunsplit

from pipeline import command
from pipeline.errors import InfrastructureFailed, TwinbuildError, UsageError

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
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ALLOW_PROTOCOL": ":".join(PROTOCOLS),
    "GIT_SSH_COMMAND": "ssh -oBatchMode=yes",
}
SETTINGS = (
    "core.attributesFile=/dev/null",
    "core.autocrlf=false",
    "core.fsmonitor=false",
    "core.hooksPath=/dev/null",
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
# Every blob is exported as it was committed, whatever the commit's .gitattributes say.
ATTRIBUTES = "* -export-ignore -export-subst -filter -ident -text -working-tree-encoding !eol\n"


@dataclass(frozen=True)
class Repository:
    """A repository on this disk that has the commits to choose from."""

    folder: Path
    name: str  # what is recorded: an address without user name and password
    head: str  # the ref that HEAD means
    worktree: Path | None  # where somebody may have changes that are not committed
    trusted: bool  # whether it may belong to another user


def git(
    folder: Path,
    *arguments: str | os.PathLike[str],
    env: Mapping[str, str] | None = None,
    settings: tuple[str, ...] = (),
    timeout_s: float = LOCAL_S,
    stdout_to: Path | None = None,
    accept: Collection[int] = (0,),
    failure: type[TwinbuildError] = InfrastructureFailed,
) -> command.Completed:
    """Run git in `folder` with neutral settings, to which `settings` ("name=value") are added."""
    options = [word for setting in (*SETTINGS, *settings) for word in ("-c", setting)]
    return command.run(
        ["git", *options, "-C", folder, *arguments],
        env={**ENVIRONMENT, **(env or {})},
        timeout_s=timeout_s,
        stdout_to=stdout_to,
        accept=accept,
        failure=failure,
    )


def ask(repository: Repository, *arguments: str) -> command.Completed:
    """Ask the repository itself about its refs; the answer may be a failure."""
    # A checkout in a container often belongs to another user; its own code is what runs here.
    settings = ("safe.directory=*",) if repository.trusted else ()
    return git(repository.folder, *arguments, settings=settings, accept=range(256))


def open_checkout(checkout: Path) -> Repository:
    """Return the repository whose working tree is `checkout`; raise UsageError if it is none."""
    folder = checkout.resolve()
    opened = Repository(folder, folder.as_uri(), "HEAD", folder, trusted=True)
    top = ask(opened, "rev-parse", "--show-toplevel")
    if top.status or Path(top.text) != folder:
        raise UsageError(
            f"{folder} is not the top of a git repository",
            remedy="builds are made from commits: clone the project with git",
            detail=top.tail,
        )
    origin = ask(opened, "config", "--get", "remote.origin.url")
    name = folder.as_uri() if origin.status else recorded_name(origin.text, folder)
    return Repository(folder, name, "HEAD", folder, trusted=True)


def fetch(source: str, cache: Path) -> Repository:
    """Bring a bare clone of another repository up to date; return it.

    `source` is a path or an address, with a password if it needs one: neither the clone nor an
    error message keeps it. Raise UsageError for an address that is none, InfrastructureFailed if
    it cannot be fetched.
    """
    path = local_path(source)
    address = os.fspath(path) if path else without_password(source)
    name = path.as_uri() if path else recorded_name(source, Path("/"))
    folder = cache / hashlib.sha256(address.encode()).hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    with (cache / f"{folder.name}.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "HEAD").exists():
            git(folder, "init", "--quiet", "--bare", "--template=")
        _fetch_refs(folder, source, address)
    has_tree = path is not None and (path / ".git").exists()
    return Repository(folder, name, FETCHED_HEAD, path if has_tree else None, trusted=False)


def _fetch_refs(folder: Path, source: str, address: str) -> None:
    """Fetch all branches and tags, and then what the other side calls HEAD, if there is one."""
    env = {k: os.environ[k] for k in ("SSH_AUTH_SOCK",) if k in os.environ}
    if source != address:  # by the environment, which other users cannot read as they can argv
        env |= {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": f"url.{source}.insteadOf"}
        env |= {"GIT_CONFIG_VALUE_0": address}
    options = ("--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules")
    everything = ("--prune", "--end-of-options", address, "+refs/heads/*:refs/heads/*")
    head = ("--end-of-options", address, f"+HEAD:{FETCHED_HEAD}")
    fetched = git(
        folder,
        *("fetch", *options, *everything, "+refs/tags/*:refs/tags/*"),
        env=env,
        timeout_s=FETCH_S,
        accept=range(256),
    )
    if fetched.status:
        secret = urlsplit(source).password if "://" in source else None
        detail = fetched.tail.replace(secret, "***") if secret else fetched.tail
        raise InfrastructureFailed(
            f"cannot fetch {address}", remedy="see that git can reach it", detail=detail
        )
    if git(folder, "fetch", *options, *head, env=env, timeout_s=FETCH_S, accept=range(256)).status:
        git(folder, "update-ref", "-d", FETCHED_HEAD)


def local_path(source: str) -> Path | None:
    """Return the folder that `source` names, or None for an address; raise UsageError if odd."""
    if not source or source.startswith("-") or not source.isprintable() or "::" in source:
        raise UsageError(f"{source!r} is not the address of a git repository")
    if "://" in source:
        if urlsplit(source).scheme not in PROTOCOLS:
            raise UsageError(
                f"{without_password(source)} is not fetched", remedy=f"use {', '.join(PROTOCOLS)}"
            )
        return None
    path = Path(source).expanduser().resolve()
    if path.is_dir():
        return path
    if SCP_LIKE.fullmatch(source):
        return None
    raise UsageError(f"there is no repository {path}")


def without_password(source: str) -> str:
    """Return an address without its secrets; the user name is kept where ssh needs it."""
    if "://" not in source:
        return source
    parts = urlsplit(source)
    user, _, host = parts.netloc.rpartition("@")
    keep = f"{user.partition(':')[0]}@" if user and parts.scheme == "ssh" else ""
    return urlunsplit((parts.scheme, keep + host, parts.path, "", ""))


def recorded_name(source: str, folder: Path) -> str:
    """Return an address as it is recorded: no user name, no password, paths as file: URLs."""
    if "://" in source:
        parts = urlsplit(source)
        host = parts.netloc.rpartition("@")[2]
        return urlunsplit((parts.scheme, host, parts.path, "", ""))
    if SCP_LIKE.fullmatch(source):
        host, _, path = source.rpartition("@")[2].partition(":")
        return f"ssh://{host}/{quote(path.lstrip('/'))}"
    return (folder / source).resolve().as_uri()


@contextmanager
def neutral(repository: Repository) -> Iterator[Path]:
    """Give a temporary bare repository that reads the objects of `repository` and nothing else."""
    objects = ask(repository, "rev-parse", "--git-path", "objects")
    if objects.status:
        raise UsageError(f"git cannot read {repository.folder}", detail=objects.tail)
    with tempfile.TemporaryDirectory(prefix="twinbuild-git-") as name:
        folder = Path(name)
        git(folder, "init", "--quiet", "--bare", "--template=")
        borrowed = (repository.folder / objects.text).resolve()
        (folder / "objects/info").mkdir(exist_ok=True)
        (folder / "objects/info/alternates").write_text(f"{borrowed}\n")
        (folder / "info").mkdir(exist_ok=True)
        (folder / "info/attributes").write_text(ATTRIBUTES)
        yield folder
