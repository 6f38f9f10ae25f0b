# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line: `./farm --list` shows the tasks, `./farm TASK --help` explains one.

Each task parses, calls one function, prints, and sets the exit status. It imports the rooms that it
needs when it runs: a command that needs few of them starts at once.
"""

from __future__ import annotations

import functools
import os
import shlex
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invoke.collection import Collection
from invoke.context import Context
from invoke.exceptions import Exit
from invoke.tasks import task

from pipeline.base.errors import ExitStatus, TwinbuildError, UsageError, command_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from pipeline.base.display import Display
    from pipeline.farm.run import Request, Run
    from pipeline.farm.workspace import Workspace
    from pipeline.inputs.debian_source import Binary
    from pipeline.inputs.proof import Proof
    from pipeline.kits.install.description import Trust

CHECKOUT = Path(__file__).parent.absolute()
SIGPIPE_STATUS = 128 + signal.SIGPIPE  # as a shell reports a program that its reader left
PINNED_KEY = CHECKOUT / "keys" / "release.asc"


def _task(function: Callable[..., None]) -> Any:
    """Make a task whose errors are one line and an exit status, and which ends well on SIGTERM.

    Whatever it prints, its errors too, is safe for a terminal.
    """

    @functools.wraps(function)
    def told(*args: Any, **kwargs: Any) -> None:
        from pipeline.base.plain import plain_output

        signal.signal(signal.SIGTERM, _end)
        try:
            try:
                with plain_output():
                    function(*args, **_whole(kwargs))
            finally:
                sys.stdout.flush()  # not when Python ends: then nobody would say it well
        except BrokenPipeError:
            # Who reads what is printed has seen enough: there is nobody to tell anything.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise Exit(code=SIGPIPE_STATUS) from None
        except (TwinbuildError, OSError) as error:
            raise _exit(error) from error
        except KeyboardInterrupt:
            raise Exit("twinbuild: interrupted; nothing is left running", code=130) from None

    return task(told)


def _whole(options: dict[str, Any]) -> dict[str, Any]:
    """Return options whose `source`, if it is a folder, is the same wherever a stage runs.

    Raise UsageError if a value is an option: `invoke` takes any word for one that is missing.
    """
    for name, value in options.items():
        if isinstance(value, str) and value.startswith("--"):
            option = f"--{name.strip('_').replace('_', '-')}"
            raise UsageError(
                f"{option} needs a value, not {value}", remedy=f"see {command_line('--list')}"
            )
    path = Path(options.get("source") or "").expanduser()
    return options | {"source": str(path.resolve())} if path.parts and path.is_dir() else options


def _exit(error: TwinbuildError | OSError) -> Exit:
    """Return what ends a task with an error: its detail, then one line, safe for a terminal."""
    from pipeline.base.disk_room import cannot_write, no_room
    from pipeline.base.plain import plain_lines

    if isinstance(error, TwinbuildError):
        detail = f"{plain_lines(error.detail)}\n" if error.detail else ""
        line = " ".join(str(error).splitlines())
        return Exit(f"{detail}twinbuild: {plain_lines(line)}", code=int(error.status))
    if no_room(error):
        return _exit(cannot_write(error))
    where = f": {error.filename}" if error.filename else ""
    return Exit(plain_lines(f"twinbuild: {error.strerror or error}{where}"), code=4)


def _end(*_: object) -> None:
    """Do on SIGTERM what Ctrl-C does, also where Ctrl-C is ignored: in a script's background."""
    on_interrupt = signal.getsignal(signal.SIGINT)
    if callable(on_interrupt):
        on_interrupt(signal.SIGINT, None)
    else:
        raise KeyboardInterrupt


def _display() -> Display:
    from rich.console import Console

    from pipeline.base.display import Display

    # The display draws with escape sequences of its own, and cleans the texts that it is given.
    screen = getattr(sys.stdout, "raw", sys.stdout)
    return Display(Console(file=screen, highlight=False, soft_wrap=True))


def _workspace() -> Workspace:
    from pipeline.farm.workspace import open_workspace

    return open_workspace(CHECKOUT)


def _run(run: str) -> tuple[Workspace, Run]:
    from pipeline.farm.run import open_run

    workspace = _workspace()
    return workspace, open_run(workspace.runs, run)


def _request(
    workspace: Workspace,
    image: str,
    commit: str,
    *,
    tag: str | None = None,
    source: str | None = None,
    environment: str | None = None,
    compression: str = "fast",
    vary: str = "default",
) -> Request:
    from pipeline.farm.run import Request

    return Request.of(
        {
            "image": image,
            "commit": commit,
            "source": source,
            "tag": tag,
            "compression": compression,
            "vary": vary,
            "environments": (environment,) if environment else tuple(workspace.farm.environments),
        }
    )


@_task
def lock(
    _c: Context,
    image: str = "mini",
    check: bool = False,
    tag: str | None = None,
    source: str | None = None,
) -> None:
    """Write an image's lock from today's archives, or check that it fits and can be had.

    --check --tag 3.3 proves offline, from the tagged snapshot alone, that each package was in its
    archive at the time the lock states, and names those that are not Debian's. --source is the
    working tree of another repository that holds the image.
    """
    from pipeline import flow

    workspace, tree = _workspace(), Path(source) if source else None
    if tag and not check:
        raise UsageError(
            "--tag goes with --check", remedy=command_line(f"lock --check --tag {tag}")
        )
    if tag:
        _print_proof(flow.prove_lock(workspace, tag, image, source=source))
        _print_own(flow.own_packages(workspace, image, tag=tag, source=source))
        print("proven from the snapshot alone: signature, indices and each package's bytes")
    elif check:
        count = flow.check_lock(workspace, image, _display(), tree=tree)
        _print_own(flow.own_packages(workspace, image, source=source))
        print(f"{count} packages are locked and can be had")
    else:
        print(f"{flow.lock(workspace, image, _display(), tree=tree)} is written; commit it")


def _print_proof(proof: Proof) -> None:
    from pipeline.inputs.validity import days_left

    for suite in proof.suites:
        whose = "Debian" if suite.is_debian else "the archive's own key, not Debian,"
        when = f"{suite.signed:%Y-%m-%d %H:%M} UTC"
        print(f"{suite.archive} {suite.suite}: signed by {whose} {when}; {suite.packages} packages")
        print(f"{suite.archive} {suite.suite}: {days_left(suite.valid_until)}")
    for package in proof.foreign:
        print(f"not Debian's: {package.name} {package.version} ({package.archive})")


def _print_own(packages: Sequence[Binary]) -> None:
    for package in packages:
        how = "built from" if package.source else "ready-made, not built from source:"
        print(f"not Debian's: {package.name} {package.version} ({how} {package.file})")


@_task
def new_image(_c: Context, name: str) -> None:
    """Begin an image of your own: a copy of mini under another name, with its lock."""
    from pipeline import flow
    from pipeline.cli import new_image as copies

    workspace = _workspace()
    folder = copies.new_image(workspace.checkout / "images" / "live", name)
    lock = flow.lock(workspace, name, _display())
    shown = folder.relative_to(workspace.checkout)
    print(f"{shown}/ is made and {lock.name} is written; what goes in is in package-lists/")
    print(f'git add {shown} && git commit --message "{name}: begin"')
    print(command_line(f"build --image {name}"))


@_task
def build(
    _c: Context,
    image: str = "mini",
    commit: str = "HEAD",
    source: str | None = None,
    environment: str | None = None,
    compression: str = "fast",
    vary: str = "default",
    keep: bool = False,
    fresh: bool = False,
    run: str | None = None,
) -> None:
    """Build a commit in both environments and compare; status 0 only if they match.

    --source builds a commit of another repository (a path or an address), --environment builds in
    one environment only, --compression is fast or strong, --vary is none, default or all (what the
    environments do differently on purpose), --keep leaves the machines for inspection, --fresh
    begins without kept trees and compares with them, --run goes on with a run that was interrupted.
    """
    from pipeline import flow
    from pipeline.farm.run import open_run

    workspace = _workspace()
    wanted = _request(
        workspace,
        image,
        commit,
        source=source,
        environment=environment,
        compression=compression,
        vary=vary,
    )
    chosen = open_run(workspace.runs, run) if run else flow.start(workspace, wanted)
    flow.build(workspace, chosen, _display(), source=source, keep=keep, fresh=fresh)
    print(f"done: {chosen.folder}")


@_task
def release(
    _c: Context,
    tag: str,
    image: str = "mini",
    source: str | None = None,
    run: str | None = None,
) -> None:
    """Build a tag in both environments without caches; sign and publish what matches.

    Keys, room and what is published are checked first, and a trial signature is made.
    --source releases a tag of another repository, --run goes on with a run that was interrupted.
    """
    from pipeline import flow
    from pipeline.farm.run import open_run

    workspace = _workspace()
    wanted = _request(
        workspace, image, tag, tag=tag, source=source, compression="strong", vary="all"
    )
    flow.check_release(workspace, tag, _display(), resumed=run is not None)
    chosen = open_run(workspace.runs, run) if run else flow.start(workspace, wanted)
    flow.build(workspace, chosen, _display(), source=source)
    print(f"published: {flow.release(workspace, chosen, _display(), source=source).folder}")


@_task
def snapshot(_c: Context, tag: str, image: str = "mini", source: str | None = None) -> None:
    """Keep what a tag's lock names, with Debian's own signed indices, so that apt can use it."""
    from pipeline import flow

    print(f"{flow.snapshot(_workspace(), tag, image, source=source)} is complete")


@task(
    help={
        "url": "where the releases are published",
        "file": "an image to check; may be given several times",
        "download": "a file to download and check; may be given several times",
        "all": "download and check everything in the manifest",
        "directory": "where downloads go",
        "keyring": "an exported OpenPGP key that you trust; never the server's own",
        "fingerprint": "the one key in the keyring to trust",
        "repository": "accept only a release that was built from there",
        "image": "accept only a release of this image",
        "environment_key": "NAME=HEX: check who signed an environment's statement; several times",
        "timeout": "seconds that the server may be silent",
        "json": "print one JSON object",
    },
    iterable=["file", "download", "environment_key"],
)
def verify(
    _c: Context,
    url: str,
    tag: str,
    file: list[str],
    download: list[str],
    environment_key: list[str],
    all: bool = False,
    directory: str | None = None,
    keyring: str | None = None,
    fingerprint: str | None = None,
    repository: str | None = None,
    image: str | None = None,
    timeout: str | None = None,
    json: bool = False,
) -> None:
    """Check a release as an outsider does: manifest, signature, files.

    Without --keyring the key that this checkout pins is trusted: keys/release.asc, and in it the
    fingerprint keys.release of farm.yaml.
    """
    given = {name: value for name, value in locals().items() if name != "_c"}
    import verify as verifier

    if keyring is None and PINNED_KEY.exists():
        given["keyring"] = str(PINNED_KEY)
        given["fingerprint"] = fingerprint or _workspace().farm.keys.release
    status = verifier.main(_words(given))
    if status:
        raise Exit(code=status)


def _words(options: dict[str, Any]) -> list[str]:
    """Return options as they are typed, without those that were not given."""
    words = []
    for name, value in options.items():
        option = f"--{name.replace('_', '-')}"
        if value is True:
            words.append(option)
        else:
            words += [
                f"{option}={one}" for one in (value if isinstance(value, list) else [value]) if one
            ]
    return words


@_task
def keys(_c: Context, name: str | None = None, release: str | None = None) -> None:
    """Make or take all keys that a release needs, and write them into farm.yaml and keys/.

    --name "NAME <ADDRESS>" makes a release key; --release FINGERPRINT takes one that gpg has, on a
    card too. What is there stays, so that it can be run again. It ends with a trial signature.
    """
    from pipeline.cli import keys as making

    kept = making.set_up(_workspace(), name, release, _display().say)
    print("\n".join(making.what_to_back_up(kept)))


@_task
def keygen(_c: Context, environment: str) -> None:
    """Make the key that signs an environment's statements; print its line for farm.yaml."""
    from pipeline.cli import keys as making

    path, public = making.make_environment_key(_workspace().farm, environment)
    print(f"{path} is written. In farm.yaml, under keys.environments:\n    {environment}: {public}")


@_task
def runs(_c: Context) -> None:
    """List the runs, the newest first."""
    from pipeline.cli import overview
    from pipeline.farm.run import list_runs

    print("\n".join(overview.list_lines(list_runs(_workspace().runs))) or "there are no runs yet")


@_task
def show(_c: Context, run: str) -> None:
    """Show a run: its stages, verdict, files and logs."""
    from pipeline.cli import overview

    print("\n".join(overview.describe(_run(run)[1])))


@_task
def clean(_c: Context, keep: int = 3, all: bool = False) -> None:
    """Remove old runs; --keep says how many stay. --all: also what is kept on the Engines."""
    from pipeline import flow
    from pipeline.cli import overview
    from pipeline.farm.run import list_runs

    workspace = _workspace()
    freed = overview.clean(list_runs(workspace.runs), keep=0 if all else keep)
    removed = flow.clean_engines(workspace) if all else []
    print("\n".join([*(f"removed {name}" for name in removed), f"{freed / 2**20:.0f} MiB freed"]))


@_task
def doctor(_c: Context) -> None:
    """Say what this machine has and lacks: a line each, OK or what mends it."""
    from pipeline.cli.doctor import examine, exit_status

    findings = []
    for finding in examine(CHECKOUT):
        print(finding, flush=True)
        findings.append(finding)
    status = exit_status(findings)
    if status is not ExitStatus.DONE:
        raise Exit(code=int(status))


@_task
def demo(_c: Context) -> None:
    """Release a throw-away clone with a throw-away key, verify it as an outsider, boot it."""
    from pipeline.cli.demo import run_demo

    run_demo(_workspace(), _display())


@_task
def check(_c: Context, source: str | None = None) -> None:
    """Check a working tree before a build, with every program of hooks/source/."""
    from pipeline.source.check import check_source

    tree = Path(source) if source else CHECKOUT
    findings = CHECKOUT / ".cache" / "check.txt"
    count = check_source(CHECKOUT / "hooks" / "source", tree, findings, notify=_display().say)
    print(f"{count} checks passed")


@_task
def profile_boot(
    _c: Context,
    image: str = "mini",
    iso: str | None = None,
    seconds: int = 0,
    source: str | None = None,
) -> None:
    """Boot an image's newest ISO and write in which order it reads its files: squashfs.sort.

    --iso boots this one, which says which image it is. --seconds ends the boot after so long,
    instead of when the system announces itself on its console. --source is the working tree of
    another repository that holds the image.
    """
    from tools import profile_boot as profiles

    path = profiles.profile_boot(
        _workspace(),
        image,
        _display(),
        iso=Path(iso) if iso else None,
        seconds=seconds or None,
        tree=Path(source) if source else None,
    )
    print(f"{path} is written; commit it, and the next build packs these files first")


@_task
def bisect(_c: Context, run: str) -> None:
    """Find which factor decides what differs in a run, by doing the step again with fewer of them.

    Status 0 if factors are named, 1 if an environment makes something else each time.
    """
    from pipeline.narrow.bisect import bisect as search

    answer = search(*_run(run), _display())
    error = answer.error()
    if error:
        raise error
    print(answer.sentence)


@_task
def locate(_c: Context, first: str, second: str, json: bool = False) -> None:
    """Say where two files differ: images, kits, packages, anything; status 0 only if they do not.

    ISO, disk, FAT and SquashFS images and archives are looked into. --json prints one JSON object.
    """
    from pipeline.base.files import json_text
    from pipeline.look.locate import locate_files

    compared = locate_files(Path(first), Path(second))
    print("\n".join(compared.lines()) if not json else json_text(compared.document()))
    if not compared.equal:
        raise Exit(code=int(ExitStatus.DIFFERS))


@_task
def bench(_c: Context, what: str) -> None:
    """Measure: `bench build`, `bench kit` or `bench locate`.

    build: the farm against the same programs run by hand, in the same machine. kit: making a kit
    against the way Tails makes one. locate: `locate` against cmp and, if installed, diffoscope.
    """
    from tools.bench import run_bench
    from tools.kit_bench import bench_kit
    from tools.locate_bench import bench_locate

    subjects: dict[str, Callable[[], Iterable[str]]] = {
        "build": lambda: run_bench(_workspace(), _display()),
        "kit": bench_kit,
        "locate": lambda: bench_locate(CHECKOUT),
    }
    if what not in subjects:
        raise UsageError(f"there is no bench of {what!r}", remedy=" or ".join(subjects))
    for line in subjects[what]():
        print(line, flush=True)


@task
def test(c: Context, level: str = "all", only: str = "") -> None:
    """Run the tests: --level unit, tools, container, all or proof; --only PATH.

    unit needs a minute. tools are unit and those that have other programs at work, container are
    these and those on a Docker Engine, all adds builds and boots in machines.
    The proof is not among all: it takes an hour and a half. It upgrades a system three times and
    boots it, finds the factor that decides, begins from kept trees, and varies nothing and all.
    """
    levels = ("unit", "tools", "container", "all", "proof")
    if level not in levels:
        raise Exit(f"twinbuild: there is no level {level!r}: {', '.join(levels)}", code=2)
    result = c.run(f"{sys.executable} -m tests.levels {level} {shlex.quote(only)}", warn=True)
    if result is None or not result.ok:
        raise Exit(code=1)


@task
def lint(c: Context) -> None:
    """Check style, types and shell scripts."""
    python = f"{sys.executable} -m"
    c.run(f"{python} ruff format --check . && {python} ruff check . && {python} mypy")
    shell = "hooks/source/10-nothing-generated hooks/source/20-modes"
    c.run(f"shellcheck farm .ci/run images/builder/make-builder images/builder/init {shell}")


@_task
def stage_source(
    _c: Context,
    image: str = "mini",
    commit: str = "HEAD",
    source: str | None = None,
    tag: str = "",
    dotenv: str | None = None,
) -> None:
    """Start a run and export its commit; --dotenv writes RUN_ID for the pipeline's other jobs."""
    from pipeline import flow

    workspace = _workspace()
    asked = {"tag": tag, "compression": "strong", "vary": "all"} if tag else {}
    wanted = _request(workspace, image, commit, source=source, **asked)
    run = flow.start(workspace, wanted)
    flow.take_source(workspace, run, _display(), source=source)
    if tag:
        flow.check_pinned(workspace, tag)
    if dotenv:
        Path(dotenv).write_text(f"RUN_ID={run.id}\n")
    print(run.id)


@_task
def stage_inputs(_c: Context, run: str) -> None:
    """Have all that a run's lock names in the store, verified."""
    from pipeline import flow

    workspace, chosen = _run(run)
    flow.take_inputs(workspace, chosen, _display())


@_task
def stage_build(_c: Context, run: str, environment: str | None = None, keep: bool = False) -> None:
    """Build a run's job in one environment, or in all."""
    from pipeline import flow

    workspace, chosen = _run(run)
    only = (environment,) if environment else None
    for error in flow.build_all(workspace, chosen, _display(), keep=keep, only=only):
        raise error


@_task
def kit_describe(_c: Context, tag: str) -> None:
    """Sign the upgrade descriptions of a published release's image again, with the release key."""
    from pipeline import flow

    for path in flow.describe(_workspace(), tag, _display()):
        print(path)


@_task
def kit_keygen(_c: Context) -> None:
    """Make the key that renews upgrade descriptions; print its line for farm.yaml."""
    from pipeline.cli import keys as making

    path, public = making.make_renewal_key()
    print(f"{path} is written. In farm.yaml, under keys:\n  renewal: {public}")


@_task
def kit_renew(_c: Context) -> None:
    """Let the published upgrade descriptions hold for longer, with the renewal key alone.

    It extends what the release key has signed, and only as far as that allows.
    """
    from pipeline.base import gpgv
    from pipeline.release.renewals import renew

    workspace, now = _workspace(), datetime.now(UTC)
    keyring = gpgv.public_keys(workspace.checkout / "keys")
    for path in renew(workspace.farm, keyring, workspace.public, now=now, notify=_display().say):
        print(path)


def _trust(keyring: str | None, fingerprint: str | None) -> Trust:
    """Return the given keyring, or else the key that this checkout pins."""
    from pipeline.kits.install.description import load_trust

    if keyring is None and PINNED_KEY.exists():
        return load_trust(PINNED_KEY, fingerprint or _workspace().farm.keys.release)
    return load_trust(Path(keyring) if keyring else None, fingerprint)


@_task
def kit_check(
    _c: Context,
    from_: str,
    url: str,
    image: str = "mini",
    keyring: str | None = None,
    fingerprint: str | None = None,
) -> None:
    """Ask a publish location whether there is an upgrade, and believe only the release key.

    Status 0 if that is known, be there one or not; 4 if it cannot be told.
    --from is the release that was installed first, --keyring the exported key that you trust;
    without it the key that this checkout pins.
    """
    from pipeline.kits.install.check import check_upgrade

    found = check_upgrade(url, from_, image, _trust(keyring, fingerprint), datetime.now(UTC))
    print(found.description)


@_task
def kit_fetch(
    _c: Context,
    from_: str,
    url: str,
    image: str = "mini",
    directory: str = ".",
    keyring: str | None = None,
    fingerprint: str | None = None,
) -> None:
    """Fetch the kit of an upgrade, with its description beside it; goes on where it broke off.

    The options are those of kit.check; --directory is where the kit goes, made if need be.
    """
    from pipeline.kits.install.check import check_upgrade
    from pipeline.kits.install.fetch import fetch_kit

    found = check_upgrade(url, from_, image, _trust(keyring, fingerprint), datetime.now(UTC))
    if found.description.offer is None:
        print(f"{found.description}: nothing to fetch")
        return
    with _display().bar(found.description.offer.file) as progress:
        print(f"fetched: {fetch_kit(url, found, Path(directory), progress)}")


@_task
def kit_apply(
    _c: Context,
    kit: str,
    target: str,
    keyring: str | None = None,
    fingerprint: str | None = None,
) -> None:
    """Upgrade the installed system on a device or image file; the release before stays bootable.

    The kit's description lies beside it, as kit.fetch has put it there. A power cut at any moment
    leaves the old release or the new one.
    """
    from pipeline.kits.install.apply import apply_kit

    trust = _trust(keyring, fingerprint)
    print(apply_kit(Path(kit), Path(target), trust, _display(), datetime.now(UTC)))


@_task
def kit_make(
    _c: Context,
    from_: str,
    to: str,
    url: str | None = None,
    directory: str = ".",
    keyring: str | None = None,
    fingerprint: str | None = None,
) -> None:
    """Make a kit again from two published releases: needs unsquashfs and sqfstar, no root, no farm.

    --url is where both are published, an address or a folder; without it, as farm.yaml says.
    Both are verified by their manifests first. --directory is where the kit goes, made if need be.
    """
    from pipeline.kits.make.make import make_kit
    from pipeline.published.published import Location, of_farm

    workspace, trust = _workspace(), _trust(keyring, fingerprint)
    location = Location(url or of_farm(workspace).address, trust.keyring, trust.fingerprint)
    print(make_kit(location, from_, to, Path(directory), workspace.store, _display().say))


@_task
def kit_rollback(_c: Context, target: str) -> None:
    """Let an installed system boot the release before again; doing it twice returns."""
    from pipeline.kits.install.rollback import roll_back

    switch = roll_back(Path(target))
    print(f"{target} boots {switch.version} now; {switch.previous} is still there")


@_task
def stage_compare(_c: Context, run: str) -> None:
    """Compare a run's builds; status 0 only if they match."""
    from pipeline import flow

    flow.compare(_run(run)[1], _display())


@_task
def stage_release(_c: Context, run: str, source: str | None = None) -> None:
    """Sign and publish a run whose builds match; its tag is verified again.

    --source is the address of the tag's repository where it needs a password, which no run keeps.
    """
    from pipeline import flow

    workspace, chosen = _run(run)
    print(f"published: {flow.release(workspace, chosen, _display(), source=source).folder}")


namespace = Collection(
    *(new_image, lock, check, build, release, snapshot, verify, keys, keygen),
    *(runs, show, clean, doctor, demo, bench, test, lint, locate, bisect, profile_boot),
)
kits = Collection("kit")
for name, action in (
    ("check", kit_check),
    ("fetch", kit_fetch),
    ("apply", kit_apply),
    ("rollback", kit_rollback),
    ("make", kit_make),
    ("describe", kit_describe),
    ("renew", kit_renew),
    ("keygen", kit_keygen),
):
    kits.add_task(action, name=name)
namespace.add_collection(kits)
stages = Collection("stage")
for name, stage in (
    ("source", stage_source),
    ("inputs", stage_inputs),
    ("build", stage_build),
    ("compare", stage_compare),
    ("release", stage_release),
):
    stages.add_task(stage, name=name)
namespace.add_collection(stages)

if __name__ == "__main__":  # as `./farm` runs it
    from pipeline.cli.parser import main

    sys.exit(main(namespace, sys.argv[1:]))
