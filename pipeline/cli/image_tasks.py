# SPDX-License-Identifier: GPL-3.0-or-later
"""Tasks that start a farm or an image, lock it, check it and build it twice."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.base import places
from pipeline.base.errors import ExitStatus, UsageError, command_line
from pipeline.cli.task import farm_task, open_display, open_farm, request

if TYPE_CHECKING:
    from collections.abc import Sequence

    from invoke.context import Context

    from pipeline.inputs.debian_source import Binary
    from pipeline.inputs.proof import Proof


@farm_task(ExitStatus.INPUTS_UNVERIFIED, ExitStatus.SIGNATURE)
def init(
    _c: Context,
    name: str,
    directory: str = ".",
    key: str | None = None,
    release: str | None = None,
) -> None:
    """Start a repository of your own in --directory: an image from mini, its lock, all keys.

    Existing files stay, so it can be run again. --key "NAME <ADDRESS>" names the release key that
    is made, by default after the image; --release FINGERPRINT uses one that gpg has. Nothing is
    committed.
    """
    from pipeline.cli import begin, keys

    folder = Path(directory).expanduser().resolve()
    kept = begin.begin(folder, name, key, release, open_display())
    print("\n".join(keys.what_to_back_up(kept)))
    print(f"Then, in {folder}:\n  git add --all && git commit --message '{name}: begin'")
    print(f"  twinbuild build --image {name}")


@farm_task(ExitStatus.INPUTS_UNVERIFIED)
def new_image(_c: Context, name: str) -> None:
    """Start an image of your own: a copy of mini under another name, with its lock."""
    from pipeline.cli import new_image as copies
    from pipeline.inputs.image_lock import lock_image

    workspace = open_farm()
    folder = copies.new_image(workspace.checkout / "images" / "live", name)
    lock = lock_image(workspace, name, open_display().say)
    shown = folder.relative_to(workspace.checkout)
    print(f"{shown}/ is made and {lock.name} is written; what goes in is in package-lists/")
    print(f'git add {shown} && git commit --message "{name}: begin"')
    print(command_line(f"build --image {name}"))


@farm_task(ExitStatus.INPUTS_UNVERIFIED, ExitStatus.SIGNATURE)
def lock(
    _c: Context,
    image: str = "mini",
    check: bool = False,
    tag: str | None = None,
    source: str | None = None,
) -> None:
    """Write an image's lock from today's archives, or check that it is current and available.

    --check --tag 3.3 proves offline, from the tagged snapshot alone, that each package was in its
    archive at the time the lock states, and names those that are not Debian's. --source is the
    working tree of another repository that holds the image.
    """
    from pipeline.inputs import image_lock

    workspace, tree = open_farm(), Path(source) if source else None
    if tag and not check:
        raise UsageError(
            "--tag goes with --check", remedy=command_line(f"lock --check --tag {tag}")
        )
    if tag:
        _print_proof(image_lock.prove_tagged_lock(workspace, tag, image, source=source))
        _print_own(image_lock.own_packages(workspace, image, tag=tag, source=source))
        print("proven from the snapshot alone: signature, indices and each package's bytes")
    elif check:
        count = image_lock.check_lock(workspace, image, open_display().say, tree=tree)
        _print_own(image_lock.own_packages(workspace, image, source=source))
        print(f"{count} packages are locked and can be had")
    else:
        written = image_lock.lock_image(workspace, image, open_display().say, tree=tree)
        print(f"{written} is written; commit it")


def _print_proof(proof: Proof) -> None:
    from pipeline.inputs.validity import days_left

    for suite in proof.suites:
        whose = "Debian" if suite.is_debian else "the archive's own key, not Debian,"
        when = f"{suite.signed:%Y-%m-%d %H:%M} UTC"
        print(f"{suite.archive} {suite.suite}: signed by {whose} {when}; {suite.packages} packages")
        print(f"{suite.archive} {suite.suite}: {days_left(suite.valid_until)}")
    for locked in proof.foreign:
        package, archive = locked.package, locked.place.archive
        print(f"not Debian's: {package.name} {package.version} ({archive})")


def _print_own(packages: Sequence[Binary]) -> None:
    for package in packages:
        how = "built from" if package.source else "ready-made, not built from source:"
        print(f"not Debian's: {package.name} {package.version} ({how} {package.file})")


@farm_task(ExitStatus.BUILD_FAILED)
def check(_c: Context, source: str | None = None) -> None:
    """Check a working tree before a build, with every program of hooks/source/."""
    from pipeline.source.check import check_source

    tree = Path(source) if source else places.farm
    findings = places.farm / ".cache" / "check.txt"
    hooks = places.shared(places.farm, "hooks/source")
    count = check_source(hooks, tree, findings, notify=open_display().say)
    print(f"{count} checks passed")


@farm_task(
    ExitStatus.DIFFERS, ExitStatus.BUILD_FAILED, ExitStatus.INPUTS_UNVERIFIED, ExitStatus.SIGNATURE
)
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
    one environment only, --compression is fast or strong, --vary is none, default or all (how the
    environments differ on purpose), --keep leaves the machines for inspection, --fresh begins
    without kept trees and compares with them, --run continues an interrupted run.
    """
    from pipeline import flow
    from pipeline.farm.run import open_run

    workspace = open_farm()
    wanted = request(
        workspace,
        image,
        commit,
        source=source,
        environment=environment,
        compression=compression,
        vary=vary,
    )
    chosen = open_run(workspace.runs, run) if run else flow.start(workspace, wanted)
    flow.build(workspace, chosen, open_display(), source=source, keep=keep, fresh=fresh)
    print(f"done: {chosen.folder}")
