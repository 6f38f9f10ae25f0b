# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes a kit again from two published releases, as anyone can: without the farm or root.

The program that makes it is the same as in the machine. It runs as a process of its own, as the
machine's code is never imported outside of the machine; its input is a `KitPlan`.
"""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.base import command, places
from pipeline.base.disk_room import cannot_write
from pipeline.base.errors import (
    BuildFailed,
    Differs,
    InfrastructureFailed,
    InputsUnverified,
    UsageError,
    command_line,
)
from pipeline.base.files import put_in_place, write_json
from pipeline.base.plain import plain
from pipeline.base.store import Store
from pipeline.documents.digest import sha256_file
from pipeline.documents.dsse import IN_TOTO, read_envelope
from pipeline.documents.json_form import parse_json
from pipeline.documents.kit_plan import PROGRAM, Earlier, KitPlan, Later
from pipeline.documents.names import kit_name
from pipeline.documents.progress import STATUS_BUILD_FAILED, STATUS_INPUTS
from pipeline.documents.statement import read_statement
from pipeline.documents.system_partition import PARTITION_LIST_LIMIT
from pipeline.kits.install.fat import open_files
from pipeline.kits.install.partition import fat_partitions
from pipeline.kits.make.farm_errors import farm_errors
from pipeline.published.published import Location, Published

TOOL = "mksquashfs"  # name of the fact with the version of squashfs-tools
TIMEOUT_S = 12 * 3600.0
LEDGER_LIMIT = 1024**3
IMAGE_LIMIT = 64 * 1024**3
STATEMENT_LIMIT = 16 * 1024**2
UNPACK_LIMIT_S = 3600.0

Notify = Callable[[str], None]


@dataclass(frozen=True)
class Made:
    """A kit; `same` tells if it is identical to the published one, None if none is published."""

    path: Path
    sha256: str
    same: bool | None

    def __str__(self) -> str:
        published = {True: "as published", False: "not as published", None: "none is published"}
        return f"{self.path} {self.sha256} {published[self.same]}"


def make_kit(
    location: Location, start: str, to: str, folder: Path, store: Store, notify: Notify
) -> Made:
    """Make the kit from the release `start` to the release `to` in `folder`, created if needed.

    Both releases are verified by their manifests before anything of them is used. Raise Differs if
    the bytes are not the published ones although squashfs-tools has the version that the release
    names; another version is reported to `notify` and is not an error.
    """
    earlier, later = location.open(start), location.open(to)
    if start == to or (earlier.image, earlier.architecture) != (later.image, later.architecture):
        raise UsageError(f"no kit leads from {start} of {earlier.image} to {to} of {later.image}")
    alike = _tools_alike(location, later, notify)
    name = kit_name(later.image, later.architecture, start, to)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".kit-", dir=folder) as scratch:
        work = Path(scratch)
        plan = _plan(location, earlier, later, store, work, notify)
        _run(plan, work / "plan.json")
        put_in_place(plan.kit, folder / name)
    made = Made(folder / name, sha256_file(folder / name), None)
    if published := later.files.get(name):
        made = Made(made.path, made.sha256, made.sha256 == published)
    if made.same is False and alike:
        raise Differs(
            f"{made.path} is not the kit that {to} publishes",
            remedy=f"{command_line('locate')} shows where; "
            "tell who released it, unless zstd is another here",
        )
    return made


def _plan(
    location: Location,
    earlier: Published,
    later: Published,
    store: Store,
    work: Path,
    notify: Notify,
) -> KitPlan:
    """Bring everything that the kit is made from to disk; return the plan of the kit."""

    def kept(release: Published, name: str, limit: int) -> Path:
        if name not in release.files:
            what = f"the release {release.version} has no {name}, which its kits are made from"
            raise InputsUnverified(what, remedy="only the farm can make a kit from its image")
        notify(f"verify {name}")
        location.keep(release, name, store, limit)
        return store.path(release.files[name])

    old, new = earlier.names, later.names
    start = Earlier(
        version=earlier.version,
        ledger=kept(earlier, old.ledger, LEDGER_LIMIT),
        partition=kept(earlier, old.partition, PARTITION_LIST_LIMIT),
    )
    end = Later(
        image=later.image,
        architecture=later.architecture,
        version=later.version,
        epoch=later.job.epoch,
        compression=later.job.compression,
        ledger=kept(later, new.ledger, LEDGER_LIMIT),
        partition=kept(later, new.partition, PARTITION_LIST_LIMIT),
        tree=work / "tree",
        files=work / "files",
    )
    image = kept(later, new.usb_image, IMAGE_LIMIT)
    notify(f"unpack {new.usb_image}")
    _copy_out(image, end.files)
    _unpack(end.files / "live" / f"{later.version}.squashfs", end.tree)
    processors, proven = os.cpu_count() or 1, os.geteuid() == 0
    return KitPlan(start, end, work / "kit", work / "work", processors, proven)


def _run(plan: KitPlan, file: Path) -> None:
    """Write the plan to `file`, and run the program that makes kits."""
    write_json(file, plan.document())
    for program in ("sqfstar", "unsquashfs"):
        command.find(program)
    done = command.run(
        [sys.executable, "-m", PROGRAM, os.fspath(file)],
        timeout_s=TIMEOUT_S,
        cwd=places.PROGRAM,
        accept=(0, STATUS_BUILD_FAILED, STATUS_INPUTS),
    )
    *detail, what = done.stderr.decode(errors="replace").strip().splitlines() or [""]
    if done.status == STATUS_INPUTS:
        raise InputsUnverified(plain(what), detail="\n".join(map(plain, detail)))
    if done.status:
        raise BuildFailed(plain(what), detail="\n".join(map(plain, detail)))


@dataclass(frozen=True)
class _Image:
    """A USB image as a read-only medium."""

    descriptor: int

    def read(self, offset: int, length: int) -> bytes:
        return os.pread(self.descriptor, length, offset)

    read_back = read

    def write(self, offset: int, content: bytes) -> None:
        raise NotImplementedError

    def flush(self) -> None:
        raise NotImplementedError


def _copy_out(image: Path, folder: Path) -> None:
    """Copy the files of the image's system partition to a folder."""
    with farm_errors(), image.open("rb") as file:
        medium, size = _Image(file.fileno()), image.stat().st_size
        for start, length in fat_partitions(medium, size):
            if files := open_files(medium, start, length):
                for found in files.files():
                    _write(folder / found.path, files.pieces(found))


def _write(path: Path, pieces: Iterator[bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as out:
        for piece in pieces:
            try:
                out.write(piece)
            except OSError as error:
                raise cannot_write(error, path) from error


def _unpack(squashfs: Path, tree: Path) -> None:
    """Unpack a SquashFS; without root, as far as possible: the ledger has the missing metadata."""
    argv = ["unsquashfs", "-quiet", "-no-progress", "-d", os.fspath(tree)]
    argv += [] if os.geteuid() == 0 else ["-no-xattrs", "-ignore-errors", "-no-exit-code"]
    command.run([*argv, squashfs], timeout_s=UNPACK_LIMIT_S)


def _tools_alike(location: Location, later: Published, notify: Notify) -> bool:
    """Return whether squashfs-tools has the version that built a release; report if not."""
    versions = {_tool_version(location, later, name) for name in later.files if _is_statement(name)}
    here = command.run([TOOL, "-version"], timeout_s=60, accept=(0, 1)).text.splitlines()[:1]
    if versions == set(here):
        return True
    theirs = " and ".join(sorted(plain(text) or "an unknown one" for text in versions))
    notify(f"squashfs-tools differs: here {plain(''.join(here))}; for {later.version} {theirs}")
    notify("the kit will work as well, but its bytes need not be the published ones")
    return False


def _is_statement(name: str) -> bool:
    return name.startswith("statements/") and name.endswith(".json")


def _tool_version(location: Location, release: Published, name: str) -> str:
    """Return the version of squashfs-tools in a statement, which `Location.open` has checked."""
    content = location.read(release.version, name, STATEMENT_LIMIT)
    try:
        envelope = read_envelope(parse_json(content), IN_TOTO)
        machine = read_statement(parse_json(envelope.payload)).machine
    except ValueError as error:
        raise InfrastructureFailed(f"{name} of {release.version} changed meanwhile") from error
    facts = machine.get("facts")
    return str(facts.get(TOOL, "")) if isinstance(facts, Mapping) else ""
