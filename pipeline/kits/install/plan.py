# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans what a kit changes on an installed system, before anything is written.

A kit is made against the partition of its base release, and the partition may have gone through
other upgrades since. So what the base release boots from stays, and the first time that another
file of the base is replaced or removed, a copy goes to `live/<from>.base/<path>`: a later release
may have that file as the base had it, and its kit does not bring it.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pipeline.documents.kit_control import Content, Control
from pipeline.documents.version import is_older
from pipeline.kits.install.failure import (
    InfrastructureFailed,
    InputsUnverified,
    UsageError,
    command,
)
from pipeline.kits.install.fat import File
from pipeline.kits.install.system import VERSION, System, read_kernels, read_modules

# Made by upgrades or named by content: never replaced by another file.
OWN = re.compile(
    rf"live/(?:{VERSION}\.(?:cfg|module|squashfs)|vmlinuz-[0-9a-f]{{12}}|initrd-[0-9a-f]{{12}}\.img)"
)
MIB = 1024 * 1024

Advance = Callable[[int], None]


@dataclass(frozen=True)
class Brought:
    """What a kit brings, verified as a whole: its files, and the texts that name what boots."""

    control: Control
    files: Mapping[str, Content]
    configuration: str
    modules: str


@dataclass(frozen=True)
class Plan:
    """What will be done, in this order; paths are of the system partition."""

    old: frozenset[str]  # releases to remove first: neither the base nor the one that boots
    outdated: tuple[str, ...]  # what only they need
    copies: Mapping[str, File]  # new path → file whose content it gets
    write: frozenset[str]  # from the kit
    delete: tuple[str, ...]  # after the switch
    switch: bool

    @property
    def is_empty(self) -> bool:
        """Whether the system is already what the kit makes of it."""
        return not (self.copies or self.write or self.delete or self.switch)


def check_brought(brought: Brought) -> None:
    """Raise InputsUnverified unless what the kit brings is a release that can boot."""
    control, to = brought.control, brought.control.to
    wanted = [f"live/{control.base.file}", f"live/{control.delta}"]
    kernels = read_kernels(brought.configuration)
    try:
        modules = read_modules(brought.modules, to)
    except InfrastructureFailed:
        modules = []
    if modules != wanted or len(kernels) < 2 or not kernels <= control.partition.keys():
        raise InputsUnverified(
            f"the kit to {to} does not bring a release that boots: its live/{to}.cfg or"
            f" live/{to}.module does not name what is there",
            remedy="tell who made it",
        )


def check_fits(system: System, control: Control) -> None:
    """Raise UsageError unless the kit is for this system and leads forwards."""
    product = f"{control.name} {control.architecture}"
    installed = f"{system.image} {system.architecture}"
    if product != installed:
        raise UsageError(f"the kit is for {product}, and the target is {installed}")
    version = system.switch.version
    base = system.modules(version)[0].removeprefix("live/")
    if base != control.base.file:
        start = base.removesuffix(".squashfs")
        raise UsageError(
            f"the kit is for systems installed as {control.from_}, and this one was installed as"
            f" {start}",
            remedy=f"get the other kit: {command(f'fetch --from {start} --url URL')}",
        )
    if is_older(control.to, version):
        raise UsageError(
            f"the kit leads to {control.to}, and {version} is installed",
            remedy=f"{command('rollback')} goes back one release",
        )


def make_plan(system: System, brought: Brought, advance: Advance) -> Plan:
    """Return what has to be done; all that the release needs and the kit lacks is hashed.

    Raise InputsUnverified if the base is not the one that the kit fits on, InfrastructureFailed if
    another file is damaged or there is no space.
    """
    control, files = brought.control, system.files
    write, copies = set[str](), dict[str, File]()
    for path, content in control.partition.items():
        there = files.find(path)
        if (
            there
            and there.size == content.size
            and files.digest(there, advance=advance) == (content.sha256)
        ):
            continue
        if path in brought.files:
            write.add(path)
        else:
            copies[path] = _kept(system, control, path, content)
        if there and not OWN.fullmatch(path):
            _keep(system, control, there, copies)
    delete = _delete(system, control)
    for path in delete:
        if there := files.find(path):
            _keep(system, control, there, copies)
    old, outdated = _outdated(system, control)
    switch = system.switch.version != control.to
    plan = Plan(old, outdated, copies, frozenset(write), delete, switch)
    _check_space(system, plan, control.partition)
    return plan


def _base_copy(control: Control, path: str) -> str:
    return f"live/{control.from_}.base/{path}"


def _keep(system: System, control: Control, there: File, copies: dict[str, File]) -> None:
    copy = _base_copy(control, there.path)
    if not system.files.find(copy):
        copies[copy] = there


def _kept(system: System, control: Control, path: str, content: Content) -> File:
    """Return the file with the content that the base release had under this path."""
    if path == f"live/{control.base.file}":
        raise InputsUnverified(
            f"{path} on the target is not the SquashFS of {control.from_}: it is damaged",
            remedy="write the newest image to the target anew",
        )
    kept = system.files.find(_base_copy(control, path))
    if not kept or kept.size != content.size or system.files.digest(kept) != content.sha256:
        raise InfrastructureFailed(
            f"{path} on the target is not that of {control.from_}, and the kit does not bring it",
            remedy="write the newest image to the target anew",
        )
    return kept


def _delete(system: System, control: Control) -> tuple[str, ...]:
    """Return what the new release no longer has, unless it or the present one boots from it."""
    needed = system.needs(system.switch.version) | _needs_there(system, control.from_)
    if system.switch.version == control.to and system.switch.previous:
        needed |= _needs_there(system, system.switch.previous)
    needed = {path.lower() for path in needed}
    return tuple(p for p in control.delete if p.lower() not in needed and system.files.find(p))


def _needs_there(system: System, version: str) -> set[str]:
    """Return what a release needs, as far as the partition's files still name it."""
    needs = {f"live/{version}.cfg", f"live/{version}.module"}
    return needs if system.missing(version) else system.needs(version)


def _outdated(system: System, control: Control) -> tuple[frozenset[str], tuple[str, ...]]:
    """Return the releases that neither boot nor are the base, and what only they need."""
    current = system.switch.version
    old = system.releases() - {current, control.to, control.from_}
    keep = system.needs(current) | _needs_there(system, control.from_) | control.partition.keys()
    if current == control.to:  # nothing new is written: the previous release stays
        old -= {system.switch.previous}
    needs = set[str]().union(*(system.named(version) for version in old))
    kept = {path.lower() for path in keep}
    return frozenset(old), tuple(sorted(p for p in needs if p.lower() not in kept))


def _check_space(system: System, plan: Plan, sizes: Mapping[str, Content]) -> None:
    files = system.files
    wanted = [sizes[path].size for path in plan.write]
    wanted += [file.size for file in plan.copies.values()]
    clusters = sum(-(-size // files.cluster) for size in wanted)
    # a new name may need a cluster for its folder, and one for each folder on the way
    names = [path for path in (*plan.write, *plan.copies) if not files.find(path)]
    clusters += sum(1 + path.count("/") for path in names)
    freed = (files.find(path) for path in plan.outdated)
    free = files.free + sum(count for f in freed if f for _, count in f.runs) * files.cluster
    if clusters * files.cluster > free:
        raise InfrastructureFailed(
            f"the target has {free // MIB} MiB of space and the upgrade takes"
            f" {-(-clusters * files.cluster // MIB)}",
            remedy="remove files of your own from its system partition",
        )
