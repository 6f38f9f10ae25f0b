# SPDX-License-Identifier: GPL-3.0-or-later
"""Applies a kit to an installed system so that a power cut leaves the old release or the new one.

Everything is verified first: the description's signature, every byte of the kit, the base on the
target. What is new is written to free space, flushed and read back; then it gets its names, one
sector each; then the switch, one sector, says that the new release boots. What the release before
the present one needed is removed at the beginning of the next upgrade, which is also when what a
cut has left is reclaimed.
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast

from pipeline.documents.kit_control import Content, Control
from pipeline.documents.upgrade_description import Offer
from pipeline.documents.upgrade_file import UPGRADE_FILE_LIMIT
from pipeline.kits.install import description as descriptions
from pipeline.kits.install.description import Trust
from pipeline.kits.install.failure import (
    InfrastructureFailed,
    InputsUnverified,
    SignatureInvalid,
    UsageError,
    command,
)
from pipeline.kits.install.fat import Staged
from pipeline.kits.install.format import Kit, open_kit
from pipeline.kits.install.plan import Brought, Plan, check_brought, check_fits, make_plan
from pipeline.kits.install.system import TEXT_LIMIT, Switch, System, open_system

Progress = Callable[[int, int], None]  # bytes done and bytes in all
Watch = Callable[[str, int, int], None]  # the same, after the name of the step
FROM_CACHE = "it was read back from the cache, as this file system cannot read past it"


@dataclass(frozen=True)
class Applied:
    """The result; `changed` is false if the system already was that release, and complete."""

    version: str
    before: str
    changed: bool
    past_cache: bool = True  # whether what was written was read back from the medium itself

    def __str__(self) -> str:
        """One line for people."""
        if not self.changed:
            return f"{self.version} is installed already: nothing to do"
        if self.version == self.before:
            what = f"{self.version} was installed already: what was missing or damaged is repaired"
        else:
            what = f"{self.version} is installed and boots from now on"
            what += f"; {self.before} is still there"
        return what if self.past_cache else f"{what}; {FROM_CACHE}"


def apply_kit(path: Path, target: Path, trust: Trust, watch: Watch, now: datetime) -> Applied:
    """Upgrade the installed system on an image file or device with a kit.

    The kit's description lies beside it, as `fetch` has put it there. Raise SignatureInvalid if no
    trusted key has signed it, InputsUnverified if the kit or the base is not what it names,
    UsageError if the kit is not for this target or the target is in use, InfrastructureFailed if
    the target is damaged or full. Whatever is raised, the target boots as before.
    """
    offer = read_description(path, trust, now)
    with _opened(path) as stream, open_system(target) as (system, medium):
        brought = examine(stream, offer, path.name, partial(watch, f"verifying {path.name}"))
        check_brought(brought)
        check_fits(system, brought.control)
        before = system.switch.version
        total = sum(content.size for content in brought.control.partition.values())
        plan = make_plan(system, brought, _Count(partial(watch, "verifying the target"), total))
        if plan.is_empty:
            return Applied(before, before, changed=False)
        stream.seek(0)
        kit = open_kit(stream, path.name)
        carry_out(plan, system, brought.control, kit, partial(watch, "writing and reading back"))
        past_cache = medium.reads_past_cache
    return Applied(brought.control.to, before, changed=True, past_cache=past_cache)


def read_description(kit: Path, trust: Trust, now: datetime) -> Offer:
    """Return what the verified description beside a kit offers."""
    path = kit.with_name(f"{kit.name}.json")
    try:
        with path.open("rb") as file:
            content = file.read(UPGRADE_FILE_LIMIT + 1)
    except OSError as error:
        raise SignatureInvalid(
            f"there is no upgrade description {path}: {error.strerror}",
            remedy=f"{command('fetch')} gets kit and description",
        ) from error
    found = descriptions.check(content, trust, now)
    if found.offer is None:
        raise InputsUnverified(f"{path} is for no kit: {found}", remedy="fetch both again")
    return found.offer


def examine(stream: BinaryIO, offer: Offer, where: str, progress: Progress) -> Brought:
    """Read a whole kit and return what it brings; raise InputsUnverified if it is another one."""
    hashed = _Hashed(stream, _Count(progress, offer.size))
    kit = open_kit(cast(BinaryIO, hashed), where)
    control = kit.control
    _check_described(control, offer, where)
    texts = {f"live/{control.to}.cfg": "", f"live/{control.to}.module": ""}
    files = dict[str, Content]()
    for file in kit.files():
        files[file.path] = Content(size=file.size, sha256=file.sha256)
        if file.path in texts and file.size <= TEXT_LIMIT:
            texts[file.path] = b"".join(file.pieces).decode("ascii", "replace")
    if hashed.size != offer.size or hashed.digest.hexdigest() != offer.sha256:
        raise InputsUnverified(
            f"{where} is not the kit that its description names", remedy="fetch it again"
        )
    return Brought(control, files, *texts.values())


def _check_described(control: Control, offer: Offer, where: str) -> None:
    found = (control.name, control.architecture, control.from_, control.to)
    described = (offer.image, offer.architecture, offer.from_, offer.to)
    if found != described:
        raise InputsUnverified(
            f"{where} is a kit for {' '.join(found)},"
            f" and its description is of {' '.join(described)}",
            remedy="fetch both again",
        )


def carry_out(plan: Plan, system: System, control: Control, kit: Kit, progress: Progress) -> None:
    """Carry out a plan; the top of this file has the order, which makes it safe."""
    files, before = system.files, system.switch
    total = sum(control.partition[path].size for path in plan.write)
    total += sum(file.size for file in plan.copies.values())
    advance = _Count(progress, 2 * total)
    files.begin()
    _remove_outdated(plan, system)
    staged = {
        path: files.stage(source.size, files.pieces(source), advance)
        for path, source in plan.copies.items()
    }
    for file in kit.files():
        if file.path in plan.write:
            content = control.partition[file.path]
            staged[file.path] = files.stage(content.size, file.pieces, advance)
            if staged[file.path].sha256 != content.sha256:
                raise InputsUnverified(f"{file.path} in the kit has changed while it was read")
    files.settle()
    for path, written in staged.items():
        if files.digest(written, back=True, advance=advance) != written.sha256:
            raise InfrastructureFailed(
                f"{path} reads back from the target as something else", remedy="use another medium"
            )
    _name(plan, system, control, staged)
    if plan.switch:
        system.turn(Switch(control.to, before.version))
    files.remove(plan.delete)
    files.finish()


def _remove_outdated(plan: Plan, system: System) -> None:
    """Remove releases that are no longer needed; by their module files they are found, so last."""
    if system.switch.previous in plan.old:
        system.turn(Switch(system.switch.version))
    last = [path for path in plan.outdated if path.endswith(".module")]
    system.files.remove(path for path in plan.outdated if path not in last)
    system.files.remove(last)


def _name(plan: Plan, system: System, control: Control, staged: dict[str, Staged]) -> None:
    """Give all that was written its names: new ones first, then those of other content.

    Of the new ones the release's own texts come first: by them it is found if it stays unfinished.
    """
    texts = [f"live/{control.to}.module", f"live/{control.to}.cfg"]
    new = [path for path in staged if path not in texts and not system.files.find(path)]
    replaced = [path for path in staged if path not in texts and path not in new]

    def add(paths: Iterable[str]) -> None:
        for path in paths:
            system.files.add(path, staged[path], control.epoch)
        system.files.settle()

    for text in texts:
        add([text] if text in staged else [])
    add(path for path in new if path in plan.copies)
    add(path for path in new if path not in plan.copies)
    add(replaced)
    if plan.switch and (missing := system.missing(control.to)):
        raise InputsUnverified(f"the kit to {control.to} does not bring {missing[0]}")


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error


class _Hashed:
    """A stream that hashes what is read from it."""

    def __init__(self, stream: BinaryIO, advance: Callable[[int], None]) -> None:
        self._stream, self._advance = stream, advance
        self.digest, self.size = hashlib.sha256(), 0

    def read(self, size: int) -> bytes:
        content = self._stream.read(size)
        self.digest.update(content)
        self.size += len(content)
        self._advance(len(content))
        return content


class _Count:
    """Adds up bytes for a progress display."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._done, self._total = progress, 0, total

    def __call__(self, count: int) -> None:
        self._done += count
        self._progress(self._done, self._total)
