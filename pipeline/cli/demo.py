# SPDX-License-Identifier: GPL-3.0-or-later
"""The demo: a throw-away clone is released with throw-away keys, verified from outside, booted.

Everything is in `demo/` of the checkout and can be removed with that folder.
"""

import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import verify
from pipeline import flow
from pipeline.base import command, dsse, git, places
from pipeline.base.display import Display
from pipeline.base.errors import ExitStatus, InfrastructureFailed, UsageError, command_line
from pipeline.base.files import write_bytes, write_json
from pipeline.base.yaml_reader import parse_yaml
from pipeline.cli.new_image import new_image
from pipeline.farm import policy, ready
from pipeline.farm.run import Request
from pipeline.farm.workspace import Workspace, open_workspace
from pipeline.inputs.image_lock import lock_image
from pipeline.machines.boot import Announcement, boot_image

TAG, IMAGE = "3.3", "mini"
SIGNER = "Twinbuild demo (throw-away) <demo@twinbuild.invalid>"
GIT_S = GPG_S = 120.0
MINUTES_WITHOUT = 24  # of KVM: measured on 2 cores with other work, container hosts made anew
MINUTES_WITH_KVM = 6  # not measured: downloads and packing stay, the machines' part shrinks
DISK_GIB = 5


@dataclass(frozen=True)
class Demo:
    """A demo's folder and the keys in it."""

    folder: Path
    fingerprint: str
    environment_keys: Mapping[str, str]  # public halves, in hexadecimal

    @property
    def farm(self) -> Path:
        """The throw-away clone."""
        return self.folder / "farm"

    @property
    def public_key(self) -> Path:
        """What the outsider knows of the release key."""
        return self.folder / "release-key.asc"

    @property
    def iso(self) -> Path:
        """The ISO that the outsider has downloaded."""
        return self.folder / "downloaded" / f"{IMAGE}-amd64-{TAG}.iso"


def run_demo(workspace: Workspace, display: Display) -> None:
    """Show the whole way from a commit to a booted system; raise the error of a step that fails."""
    started = time.monotonic()
    for line in what_it_takes(workspace):
        display.say(line)
    demo = prepare(workspace, workspace.checkout / "demo", display)
    release(demo, display)
    with served(open_workspace(demo.farm).public) as url:
        check(demo, url, display)
    announced = boot(demo, display)
    minutes, seconds = divmod(int(time.monotonic() - started), 60)
    lines = [
        "",
        f"released   {demo.farm}/public/{TAG}/",
        f"downloaded {demo.iso}",
        f"booted     {announced.image} {announced.version}, commit {announced.commit[:12]}",
        f"run folder {demo.farm}/runs/ ({list_runs(demo)})",
        f"took       {minutes} min {seconds} s; rm -r {demo.folder} removes all of it",
    ]
    for line in lines:
        display.say(line)


def what_it_takes(
    workspace: Workspace, *, kvm: Path = Path("/dev/kvm"), cores: int | None = None
) -> list[str]:
    """Return how long the demo takes on this machine, and how much disk.

    Raise InfrastructureFailed if there is no room.
    """
    cores = cores or len(os.sched_getaffinity(0))
    has_kvm = os.access(kvm, os.R_OK | os.W_OK)
    minutes = (MINUTES_WITH_KVM if has_kvm else MINUTES_WITHOUT) * max(1, 2 // cores)
    faster = f"{MINUTES_WITH_KVM} with KVM is an estimate"
    why = f"with KVM ({faster})" if has_kvm else f"without KVM ({faster})"
    folder = workspace.checkout / "demo"
    free = ready.disk([folder, *ready.folders(workspace)])
    return [
        f"this takes about {minutes} minutes on {cores} cores {why}; longer if they are busy",
        f"it needs about {DISK_GIB} GiB, most of it in {folder} and at the Docker Engine: {free}",
    ]


def prepare(workspace: Workspace, folder: Path, display: Display) -> Demo:
    """Make the clone, its keys and its lock, and tag it; the clone's own policy applies."""
    os.environ.pop(policy.VARIABLE, None)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    display.say(f"a throw-away clone and throw-away keys in {folder}")
    farm = folder / "farm"
    _clone(workspace.checkout, farm)
    with _gpg_home() as home:
        fingerprint = _make_release_key(home, folder)
        keys = {name: dsse.make_key(folder / f"{name}.pem") for name in workspace.farm.environments}
        demo = Demo(folder, fingerprint, keys)
        _pin_keys(demo)
        if not (farm / "images" / "live" / IMAGE).is_dir():
            display.say(
                f"the image {IMAGE} is Twinbuild's own: there is none in {workspace.checkout}"
            )
            new_image(farm / "images" / "live", IMAGE)
        lock_image(open_workspace(farm), IMAGE, display.say)
        identity = {"GNUPGHOME": os.fspath(home)}
        _git(farm, "add", "--all", env=identity)
        _git(farm, "commit", "--quiet", "--message=Lock today's packages", env=identity)
        _git(farm, "tag", "-u", fingerprint, "-m", f"Release {TAG}", TAG, env=identity)
    return demo


def release(demo: Demo, display: Display) -> None:
    """Do what `./farm release --tag 3.3` does in the clone."""
    secrets = {
        f"TWINBUILD_KEY_{n.upper()}": f"{demo.folder}/{n}.pem" for n in demo.environment_keys
    }
    secrets["TWINBUILD_RELEASE_KEY"] = f"{demo.folder}/release-secret-key.asc"
    os.environ.update(secrets)
    workspace = open_workspace(demo.farm)
    request = Request(
        image=IMAGE,
        commit=TAG,
        tag=TAG,
        compression=flow.STRONG,
        vary="all",
        environments=tuple(workspace.farm.environments),
    )
    flow.check_release(workspace, TAG, display, resumed=False)
    run = flow.start(workspace, request)
    flow.build(workspace, run, display)
    flow.release(workspace, run, display)


def check(demo: Demo, url: str, display: Display) -> None:
    """Download and verify the release as an outsider does who knows the public keys."""
    display.say(f"verifying {url} as an outsider")
    argv = ["--url", url, "--tag", TAG, "--keyring", os.fspath(demo.public_key)]
    argv += ["--fingerprint", demo.fingerprint, "--all"]
    argv += ["--directory", os.fspath(demo.iso.parent)]
    for name, public in demo.environment_keys.items():
        argv += ["--environment-key", f"{name}={public}"]
    demo.iso.parent.mkdir()
    status = verify.main(argv)
    if status != ExitStatus.DONE:
        raise InfrastructureFailed(f"the verifier ended with status {status}")


def boot(demo: Demo, display: Display) -> Announcement:
    """Boot the downloaded ISO; raise UsageError if it is another system than the one released."""
    display.say(f"booting {demo.iso}")
    announced = boot_image(demo.iso, demo.folder / "boot.log")
    commit = _git(demo.farm, "rev-parse", f"{TAG}^{{commit}}").text
    if (announced.image, announced.version, announced.commit) != (IMAGE, TAG, commit):
        raise UsageError(f"the ISO says that it is {announced}, not {IMAGE} {TAG} of {commit}")
    return announced


def list_runs(demo: Demo) -> str:
    """Return the command that lists the clone's runs, with the Twinbuild that made them."""
    if places.farm == places.PROGRAM:  # the clone's own `./farm` would first set up a .venv
        return f"{sys.executable} {demo.farm}/tasks.py runs"
    return f"cd {demo.farm} && {command_line('runs')}"


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder over HTTP on this machine; yield its address."""
    handler = partial(_Quiet, directory=os.fspath(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _clone(checkout: Path, farm: Path) -> None:
    """Make a clone of what is committed; it has no remote, so it is where its farm lives."""
    farm.mkdir()
    _git(farm, "init", "--quiet", "--initial-branch=main")
    repository = git.open_checkout(checkout)
    with git.opened(repository) as reader:
        head = ("rev-parse", "--verify", "--quiet", "HEAD")
        if git.git(reader, *head, accept=range(256)).status:
            raise UsageError(f"nothing is committed in {checkout}", remedy="git commit, then again")
        options = ("--quiet", "--depth=1", "--update-shallow")
        _git(farm, "fetch", *options, reader, "+HEAD:refs/remotes/checkout/main")
    _git(farm, "checkout", "--quiet", "--no-track", "-B", "main", "refs/remotes/checkout/main")


def _git(
    folder: Path, *arguments: str | Path, env: Mapping[str, str] | None = None
) -> command.Completed:
    settings = ("user.name=Twinbuild demo", "user.email=demo@twinbuild.invalid")
    env = {"GIT_DIR": os.fspath(folder / ".git"), **(env or {})}
    return git.git(folder, *arguments, settings=settings, env=env, timeout_s=GIT_S)


@contextmanager
def _gpg_home() -> Iterator[Path]:
    """Make a GnuPG home whose path is short enough for its agent's socket."""
    with tempfile.TemporaryDirectory(prefix="tb-gpg-", ignore_cleanup_errors=True) as home:
        try:
            yield Path(home)
        finally:
            env = {"GNUPGHOME": home}
            command.run(["gpgconf", "--kill", "all"], env=env, timeout_s=GPG_S, accept=range(256))


def _make_release_key(home: Path, folder: Path) -> str:
    env = {"GNUPGHOME": os.fspath(home)}
    gpg = ["gpg", "--batch", "--pinentry-mode", "loopback", "--passphrase", ""]
    command.run(
        [*gpg, "--quick-gen-key", SIGNER, "ed25519", "sign", "1w"], env=env, timeout_s=GPG_S
    )
    listed = command.run([*gpg, "--with-colons", "--list-keys"], env=env, timeout_s=GPG_S).text
    fingerprint = next(line.split(":")[9] for line in listed.splitlines() if line[:4] == "fpr:")
    public = command.run([*gpg, "--armor", "--export"], env=env, timeout_s=GPG_S).stdout
    secret = command.run([*gpg, "--armor", "--export-secret-keys"], env=env, timeout_s=GPG_S).stdout
    write_bytes(folder / "release-key.asc", public)
    write_bytes(folder / "release-secret-key.asc", secret, mode=0o600)
    write_bytes(folder / "farm" / "keys" / "demo.asc", public)
    return fingerprint


def _pin_keys(demo: Demo) -> None:
    """Write the throw-away keys into the clone's farm.yaml."""
    path = demo.farm / "farm.yaml"
    farm = parse_yaml(path.read_bytes(), str(path))
    farm["keys"] = {
        "release": demo.fingerprint,
        "environments": dict(demo.environment_keys),
        "tags": {"signed": True, "signers": [demo.fingerprint]},
    }
    write_json(path, farm)  # JSON is YAML, too
