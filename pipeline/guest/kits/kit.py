# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes a kit, which upgrades a system from an earlier release to the one that was built.

`docs/reference/kit.md` describes the format. Of the earlier release only the final ledger and the
list of the system partition's files are needed. Several kits may be made at once, each with a
`work` folder of its own.
"""

import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pipeline.documents.digest import sha256_file
from pipeline.documents.kit_control import (
    BOOT,
    KIT_FORMAT,
    Base,
    Content,
    Control,
    control_bytes,
)
from pipeline.documents.kit_plan import Earlier, KitPlan, Later
from pipeline.documents.ledger_line import parse_entry
from pipeline.documents.malformed import Malformed
from pipeline.documents.progress import STATUS_BUILD_FAILED, STATUS_INPUTS
from pipeline.documents.system_partition import PARTITION_LIST_LIMIT, SWITCH
from pipeline.documents.ustar import BLOCK, RECORD, ustar_header
from pipeline.guest.kits.delta import compare
from pipeline.guest.kits.lines import read_ledger, tree_digest
from pipeline.guest.kits.overlay import prove
from pipeline.guest.kits.squashfs import check_root, read_back, write_squashfs
from pipeline.guest.media import SQUASHFS_OPTIONS
from pipeline.guest.serial_port import StepFailed

PIECE = 1024 * 1024


@dataclass(frozen=True)
class _Partition:
    """The system partition's content after an upgrade, and what the kit brings and deletes."""

    content: Mapping[str, Content]  # by path, without the switch
    brought: tuple[str, ...]
    delete: tuple[str, ...]


def make_kit(plan: KitPlan, env: Mapping[str, str]) -> None:
    """Write the kit of a plan; its bytes depend only on the two releases and squashfs-tools.

    `plan.work` is removed. Raise StepFailed, which names the path, if no kit can produce the later
    tree.
    """
    later, work = plan.later, plan.work
    work.mkdir(parents=True)
    squashfs = work / f"{later.version}.squashfs"
    delta = compare(plan.earlier.ledger, later.ledger)
    write_squashfs(
        delta,
        later.ledger,
        later.tree,
        squashfs,
        epoch=later.epoch,
        options=_sqfstar_options(later.compression),
        env=env,
        processors=plan.processors,
    )
    if plan.proven:
        check_root(later.tree)
        prove(plan.earlier.ledger, *read_back(squashfs, work, env, later.epoch), later.ledger)
    _write_kit(plan, squashfs)
    shutil.rmtree(work)


def _sqfstar_options(compression: str) -> list[str]:
    """Return the compressor's options in the form that sqfstar accepts.

    sqfstar of squashfs-tools 4.5 accepts no level; its default is 15, the level of releases.
    """
    options = list(SQUASHFS_OPTIONS[compression])
    for at in range(len(options) - 1):
        if options[at : at + 2] == ["-Xcompression-level", "15"]:
            return options[:at] + options[at + 2 :]
    return options


def _write_kit(plan: KitPlan, squashfs: Path) -> None:
    earlier, later, work = plan.earlier, plan.later, plan.work
    base_name = f"{earlier.version}.squashfs"
    module = work / "module"
    module.write_text(f"{base_name}\n{squashfs.name}\n")
    partition = _partition(earlier, later, _content(squashfs), module)
    boot = work / BOOT
    sources = {path: later.files / path for path in partition.brought}
    sources[f"live/{later.version}.module"] = module
    for path, source in sources.items():
        if _content(source) != partition.content[path]:
            what = f"{path} is not as {later.partition.name} lists it"
            raise StepFailed(STATUS_BUILD_FAILED, what)
    _write_archive(boot, sources, later.epoch)
    control = work / "control.json"
    base = partition.content[f"live/{base_name}"]
    described = Control(
        name=later.image,
        architecture=later.architecture,
        from_=earlier.version,
        to=later.version,
        epoch=later.epoch,
        members={path.name: _content(path) for path in (boot, squashfs)},
        base=Base(base_name, base.size, base.sha256),
        delete=partition.delete,
        partition=partition.content,
        tree_sha256=tree_digest(read_ledger(later.ledger)),
    )
    control.write_bytes(control_bytes(described))
    form = work / "FORMAT"
    form.write_text(f"{KIT_FORMAT}\n")
    members = {path.name: path for path in (form, control, boot, squashfs)}
    _write_archive(plan.kit, members, later.epoch)


def _partition(earlier: Earlier, later: Later, delta: Content, module: Path) -> _Partition:
    """Compare the system partitions; raise StepFailed if the earlier one has no base."""
    before, after = _read_partition(earlier.partition), _read_partition(later.partition)
    base = f"live/{earlier.version}.squashfs"
    if base not in before:
        raise StepFailed(STATUS_INPUTS, f"the release {earlier.version} has no {base}")
    own = f"live/{later.version}.squashfs"
    after = {
        **after,
        base: before[base],
        own: delta,
        f"live/{later.version}.module": _content(module),
    }
    for listed in (before, after):
        listed.pop(SWITCH, None)  # written by the installer, never by a kit
    brought = sorted(path for path in after.keys() - {own} if before.get(path) != after[path])
    deleted = sorted(before.keys() - after.keys())
    _check_names([*after, *deleted])
    return _Partition(after, tuple(brought), tuple(deleted))


def _read_partition(path: Path) -> dict[str, Content]:
    try:
        with path.open("rb") as file:
            return _listed(file.read(PARTITION_LIST_LIMIT + 1))
    except (OSError, Malformed) as error:
        what = f"{path.name} is not the list of a system partition"
        raise StepFailed(STATUS_INPUTS, what, repr(error)) from error


def _listed(content: bytes) -> dict[str, Content]:
    """Parse the list of a system partition's files; raise Malformed if it is not one."""
    if len(content) > PARTITION_LIST_LIMIT or not content.isascii():
        raise Malformed(f"it is not ASCII of at most {PARTITION_LIST_LIMIT} bytes")
    found: dict[str, Content] = {}
    for line in content.splitlines():
        entry = parse_entry(line)
        if entry.size is None or entry.sha256 is None:
            raise Malformed(f"{entry.path!r:.200} has no content")
        found[entry.path] = Content(entry.size, entry.sha256)
    return found


def _check_names(paths: Iterable[str]) -> None:
    seen: dict[str, str] = {}
    for path in paths:
        _header(path, 0, 0)
        if (other := seen.setdefault(path.lower(), path)) != path:
            what = f"no kit can be made: {path} and {other} are one name on the system partition"
            raise StepFailed(STATUS_BUILD_FAILED, what)


def _content(path: Path) -> Content:
    return Content(path.stat().st_size, sha256_file(path))


def _write_archive(archive: Path, members: Mapping[str, Path], epoch: int) -> None:
    """Write files as a tar archive in the canonical form of kits."""
    with archive.open("wb") as out:
        for name, path in members.items():
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                out.write(_header(name, size, epoch))
                shutil.copyfileobj(file, out, PIECE)
            out.write(bytes(-size % BLOCK))
        out.write(bytes(2 * BLOCK))
        _pad(out)


def _pad(out: BinaryIO) -> None:
    out.write(bytes(-out.tell() % RECORD))


def _header(name: str, size: int, epoch: int) -> bytes:
    try:
        return ustar_header(name, size, epoch)
    except Malformed as error:
        raise StepFailed(STATUS_BUILD_FAILED, f"no kit can be made: {error}") from error
