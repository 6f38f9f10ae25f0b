# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the stages in order: what `./farm build` and `./farm release` do from end to end."""

import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

from pipeline.base import command, dsse, git
from pipeline.base.display import Display
from pipeline.base.errors import Differs, InfrastructureFailed, TwinbuildError, UsageError
from pipeline.base.files import read_json
from pipeline.compare.explain import explain
from pipeline.compare.verdict import run_compare
from pipeline.farm import policy as policies
from pipeline.farm import ready, variation
from pipeline.farm import run as runs
from pipeline.farm.run import Request, Run
from pipeline.farm.workspace import Workspace
from pipeline.inputs import addresses
from pipeline.inputs.stage import run_inputs
from pipeline.machines import engine
from pipeline.machines.host import Mirrors
from pipeline.machines.stage import TREES_JSON, run_build
from pipeline.machines.trees import TwoValues
from pipeline.published import published
from pipeline.published.published import Location
from pipeline.release.stage import Release, describe_again, run_release
from pipeline.report.write import write_report
from pipeline.source.source import run_source

STRONG = "strong"


def start(workspace: Workspace, request: Request) -> Run:
    """Make the run folder of a valid request."""
    variation.choose(workspace.farm, workspace.hosts, "", request)  # refuses what cannot be
    return runs.create(workspace.runs, request)


def check_release(workspace: Workspace, tag: str, display: Display, *, resumed: bool) -> None:
    """Raise the first error that would stop a release, before anything is made or started.

    The checks are those of the policy, as for the release itself. A `resumed` one may be published
    already.
    """
    display.say("checking what a release needs; gpg may ask for the release key")
    with policies.opened(workspace.farm, workspace.checkout) as policy:
        display.say(f"policy: {policy.in_force(workspace.farm)}")
        decided = replace(workspace, farm=policy.farm)
        ready.check_release(decided, tag=None if resumed else tag, notify=display.say)


def check_pinned(workspace: Workspace, tag: str) -> None:
    """Raise the error with which the release of a tag would end for lack of a pinned key."""
    with policies.opened(workspace.farm, workspace.checkout) as policy:
        ready.check_pinned(policy.farm, f"{policy.where}, so {tag} could not be released")


def build(
    workspace: Workspace,
    run: Run,
    display: Display,
    *,
    source: str | None = None,
    keep: bool = False,
    fresh: bool = False,
) -> None:
    """Take a run from its request to its verdict; stages that are complete do nothing.

    `source` is the other repository's address as it was typed. Raise Differs if the builds differ,
    or the error of a build that failed.
    """
    display.say(f"run {run.id}")
    with run.held(), run.at("build", _waiting(display)), _reported(run, display):
        _address(run, source)
        with run.kept_if_possible(display.say):
            take_source(workspace, run, display, source=source)
            take_inputs(workspace, run, display)
        _say_what_varies(workspace, run, display)
        failures = build_all(workspace, run, display, keep=keep, fresh=fresh)
        several = len(run.request().environments) > 1
        failures += filter(None, [_judge(run, display) if several else _contradiction(run)])
    for error in failures:
        raise error


def _waiting(display: Display) -> Callable[[str], None]:
    """Return the function that reports that a stage waits for another process."""
    return lambda what: display.say(f"{what}: waiting until it has ended")


def _say_what_varies(workspace: Workspace, run: Run, display: Display) -> None:
    """Print in how many factors the environments differ, and in which they do not."""
    request = run.request()
    choices = variation.choose(workspace.farm, workspace.hosts, run.id, request)
    if len(choices) > 1:
        display.say(f"vary {request.vary}: {variation.summary(choices.values())}")


def take_source(
    workspace: Workspace, run: Run, display: Display, *, source: str | None = None
) -> None:
    """Stage 1."""
    with run.held(), run.at("source", _waiting(display)):
        there = _address(run, source)
        with run.kept_if_possible(display.say):
            run_source(run, workspace.farm, workspace.checkout, notify=display.say, source=there)


def _address(run: Run, source: str | None) -> str | None:
    """Return the address of the run's other repository, with the password if `source` has one.

    Raise UsageError if `source` is another repository than that of the run.
    """
    asked = run.request().source
    if source and git.without_password(source) != asked:
        raise UsageError(
            f"the run {run.id} is of {asked or 'this repository'},"
            f" not of {git.without_password(source)}",
            remedy="start a new run",
        )
    return source or asked


def take_inputs(workspace: Workspace, run: Run, display: Display) -> None:
    """Stage 2."""
    with (
        run.held(),
        run.at("inputs", _waiting(display)),
        _releases(workspace, run) as locate,
        display.bar("packages") as progress,
    ):
        run_inputs(
            run,
            workspace.farm,
            workspace.store,
            builder_lists=workspace.builder / "package-lists",
            snapshots=workspace.snapshots,
            locate=locate,
            notify=display.say,
            progress=progress,
        )


@contextmanager
def _releases(workspace: Workspace, run: Run) -> Iterator[Callable[[], Location]]:
    """Yield a function that returns where the earlier releases of a tag's kits are, by the policy.

    It is valid until the block ends.
    """
    with ExitStack() as stack:

        def locate() -> Location:
            if run.request().tag is None:
                return published.of_farm(workspace)
            opened = policies.opened(workspace.farm, workspace.checkout)
            policy = stack.enter_context(opened)
            return published.of_farm(replace(workspace, farm=policy.farm), policy.keys)

        yield cache(locate)


def compare(run: Run, display: Display) -> None:
    """Stage 4; raise Differs if the builds differ, or the error of a build that failed."""
    with run.held(), _reported(run, display):
        error = _judge(run, display)
    if error:
        raise error


@contextmanager
def _reported(run: Run, display: Display) -> Iterator[None]:
    """Write the run's report when the block ends, however it ends."""
    try:
        yield
    finally:
        try:
            if run.folder.exists():
                write_report(run, notify=display.say)
        except TwinbuildError as error:  # the result of the run matters more
            display.say(f"no report: {error}")


def _judge(run: Run, display: Display) -> TwinbuildError | None:
    """Compare the builds and explain how they differ; return the outcome."""
    with run.at("compare", _waiting(display)):
        verdict = run_compare(run, notify=display.say)
        explain(run, verdict, notify=display.say)
    return verdict.error(run.id) or _contradiction(run)


def _contradiction(run: Run) -> TwinbuildError | None:
    """Return the error of a build that contradicts an earlier one of the same environment."""
    for name in run.request().environments:
        path = run.environment(name) / TREES_JSON
        if not path.exists():
            continue
        document = read_json(path, failure=InfrastructureFailed, known="twinbuild-trees/1")
        for found in document.get("two_values", []):
            remedy = "docs/causes.md names the usual causes"
            return Differs(f"{name}: {TwoValues(**found)}", remedy=remedy)
    return None


def build_all(
    workspace: Workspace,
    run: Run,
    display: Display,
    *,
    keep: bool = False,
    measure: bool = False,
    fresh: bool = False,
    only: tuple[str, ...] | None = None,
) -> list[TwinbuildError]:
    """Build in all of the run's environments (or `only` some) at once; return their failures.

    One that fails does not stop the others: their logs are useful. `keep` and `measure` are those
    of `run_build`.
    """
    environments = only or run.request().environments
    make_missing_keys(environments, display)
    with run.held(), display.watch(), ThreadPoolExecutor(len(environments)) as pool:
        futures: dict[str, Future[None]] = {}
        try:
            with _interrupt_held():  # a build that is not known cannot be stopped
                futures = {
                    name: pool.submit(
                        run_build,
                        run,
                        workspace,
                        name,
                        partial(mirrors, workspace),
                        notify=display.tell(name),
                        keep=keep,
                        measure=measure,
                        fresh=fresh,
                    )
                    for name in environments
                }
            _wait(futures.values())
        except BaseException:
            _interrupt(workspace, run, futures)
            raise
    errors = [future.exception() for future in futures.values()]
    for error in errors:
        if error is not None and not isinstance(error, TwinbuildError):
            raise error
    return [error for error in errors if isinstance(error, TwinbuildError)]


@contextmanager
def _interrupt_held() -> Iterator[None]:
    """Delay Ctrl-C until the block has ended; for the main thread."""
    arrived = []
    before = signal.signal(signal.SIGINT, lambda *_: arrived.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if arrived:
        raise KeyboardInterrupt


def _wait(futures: Iterable[Future[None]]) -> None:
    """Wait in the main thread in pieces, so that Ctrl-C reaches it."""
    waiting = set(futures)
    while waiting:
        _, waiting = wait(waiting, timeout=1.0, return_when=FIRST_COMPLETED)


def _interrupt(workspace: Workspace, run: Run, futures: Mapping[str, Future[None]]) -> None:
    """Stop what the builds have started: programs here, containers and machines on the Engines.

    A build notices only when something of its own vanishes, so this is repeated until all have
    ended.
    """
    while True:
        ended = all(future.done() for future in futures.values())
        command.stop_all()
        for name in futures:
            with (
                suppress(TwinbuildError),  # an Engine that is gone has nothing to be stopped
                engine.connect(workspace.farm.environments[name].engine) as client,
            ):
                engine.sweep(client, run.id, name)
        if ended:
            return
        wait(futures.values(), timeout=0.5)


def mirrors(workspace: Workspace) -> Mirrors:
    """Return the addresses at which this machine reaches the farm's archives."""
    bases = addresses.all_bases(workspace.farm.archives)
    return Mirrors(bases, addresses.read_proxies())


def make_missing_keys(environments: Iterable[str], display: Display) -> None:
    """Make missing keys of environments; a release still trusts only pinned ones."""
    for name in environments:
        path = dsse.key_path(name)
        if not path.exists():
            public = dsse.make_key(path)
            display.say(
                f"made a key for {name}: {path}; to release, pin it in farm.yaml: {name}: {public}"
            )


def release(
    workspace: Workspace, run: Run, display: Display, *, source: str | None = None
) -> Release:
    """Stage 5: sign and publish a run that matches; only one process at a time does so.

    The tag is verified once more, from the beginning: the result of the source stage may be old, or
    written by somebody else who has access to the run. `source` is as in `build`.
    """
    with run.held(), run.at("release", _waiting(display)):
        asked = run.request()
        if asked.tag is None:
            raise UsageError(
                f"the run {run.id} is not one of a tag", remedy="release --tag TAG makes one"
            )
        display.say(f"verifying the tag {asked.tag} again")
        there = _address(run, source)
        judged = policies.judged(workspace.farm, workspace.checkout, asked.tag, source=there)
        with judged as (verified, policy):
            decided = replace(workspace, farm=policy.farm)
            return run_release(run, decided.farm, decided.public, verified, notify=display.say)


def describe(workspace: Workspace, tag: str, display: Display) -> list[Path]:
    """Sign the descriptions of a published release's image again; return what was written."""
    with policies.opened(workspace.farm, workspace.checkout) as policy:
        decided = replace(workspace, farm=policy.farm)
        return describe_again(tag, decided.farm, decided.public, notify=display.say)


def clean_engines(workspace: Workspace) -> list[str]:
    """Remove all that Twinbuild keeps on the farm's Engines; return their names for people."""
    removed = []
    for address in {entry.engine for entry in workspace.farm.environments.values()}:
        with engine.connect(address) as client:
            for name, remove in engine.everything(client).items():
                remove()
                removed.append(name)
    return removed
