# SPDX-License-Identifier: GPL-3.0-or-later
"""`./farm profile-boot`: records the order in which a boot reads an image's files.

It writes the image's `squashfs.sort`. The ISO is booted in QEMU, which traces the reads. As one
block of a SquashFS has many small files, and a read does not tell which of them was wanted, a copy
is booted in which every file has blocks of its own; the system in it is the same. The image itself
is not changed.
"""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.base.command import run
from pipeline.base.display import Display
from pipeline.base.errors import InfrastructureFailed, UsageError, command_line
from pipeline.base.files import write_bytes
from pipeline.documents.image_folder import PRIORITIES, SORT_FILE, sort_line
from pipeline.documents.lock import NAME
from pipeline.farm.run import list_runs
from pipeline.farm.workspace import Workspace
from pipeline.machines.boot import watch_boot
from tools.iso_layout import IsoLayout, Piece, read_layout

PACK_S = 1800.0
HEAD = "# The files that a boot reads, the first first; `./farm profile-boot` writes this.\n"


def profile_boot(
    workspace: Workspace,
    image: str,
    display: Display,
    *,
    iso: Path | None = None,
    seconds: int | None = None,
    tree: Path | None = None,
) -> Path:
    """Boot an image's newest ISO, or `iso`, and write the image's `squashfs.sort`; return its path.

    The boot ends when the system announces itself, or after `seconds` instead. `tree` is the
    working tree of another repository that holds the image. An `iso` itself says which image it is.
    Raise InfrastructureFailed if it does not boot far enough to read a file.
    """
    iso = iso or newest_iso(workspace.runs, image)
    layout = read_layout(iso)
    folder = (tree or workspace.checkout) / "images" / "live" / layout.image
    if not NAME.fullmatch(layout.image) or not (folder / "image.yaml").is_file():
        remedy = "--source names the repository that holds it"
        raise UsageError(f"{iso} is of the image {layout.image!a}, not there", remedy=remedy)
    workspace.cache.mkdir(parents=True, exist_ok=True)
    log = workspace.cache / "profile-boot.log"
    with tempfile.TemporaryDirectory(prefix="profile-boot-", dir=workspace.cache) as scratch:
        display.say(f"packing {iso.name} again, so that a read tells which file was wanted")
        loose = loosened(iso, layout, Path(scratch))
        display.say(f"booting it; the console is in {log}")
        pieces = read_layout(loose).pieces(watch_boot(loose, log, seconds=seconds))
    if not pieces:
        remedy = f"see {log}; --seconds gives it another time"
        raise InfrastructureFailed("the boot read no file of the image", remedy=remedy)
    path = folder / SORT_FILE
    write_bytes(path, sort_file(pieces).encode("utf-8", "surrogateescape"))
    for line in describe(layout, pieces):
        display.say(line)
    return path


def newest_iso(runs: Path, image: str) -> Path:
    """Return an ISO from the newest run of the image that has one; raise UsageError if none has."""
    for candidate in list_runs(runs):
        request = candidate.request()
        if request.image == image:
            for name in request.environments:
                folder = candidate.environment(name) / "artifacts"
                if found := sorted(folder.glob(f"{image}-*.iso")):
                    return found[0]
    remedy = f"{command_line(f'build --image {image}')} makes one, or name one with --iso"
    raise UsageError(f"no run has an ISO of {image}", remedy=remedy)


def loosened(iso: Path, layout: IsoLayout, scratch: Path) -> Path:
    """Make a copy of an ISO whose SquashFS has the same files, none of which share a block.

    Nothing is compressed, so that small files share few of the sectors that are read at once. This
    needs no root, as unsquashfs passes the tree to mksquashfs as one pseudo file; `read_layout`
    refuses names that could be taken for commands in it.
    """
    listed, squashfs, copy = (scratch / name for name in ("tree", "squashfs", "iso"))
    offset = ["-offset", str(layout.span[0])]
    run(["unsquashfs", "-quiet", "-no-progress", *offset, "-pf", listed, iso], timeout_s=PACK_S)
    loose = ["-no-fragments", "-no-duplicates", "-noD", "-b", str(layout.block_size)]
    pack = ["mksquashfs", "-", str(squashfs), "-quiet", "-no-progress", "-noappend", *loose]
    run([*pack, "-pf", listed], timeout_s=PACK_S)
    listed.unlink()
    replace = ["-boot_image", "any", "replay", "-map", str(squashfs), f"/{layout.squashfs}"]
    copying = ["xorriso", "-abort_on", "FAILURE", "-indev", str(iso), "-outdev", str(copy)]
    run([*copying, *replace], timeout_s=PACK_S)
    squashfs.unlink()
    return copy


def sort_file(pieces: Sequence[Piece]) -> str:
    """Return the text of a `squashfs.sort` that puts these files first, in this order."""
    wanted = dict.fromkeys(path for path, _ in pieces)
    top = PRIORITIES[-1]
    return HEAD + "".join(sort_line(path, max(top - n, 1)) for n, path in enumerate(wanted))


def describe(layout: IsoLayout, pieces: Sequence[Piece]) -> Iterator[str]:
    """Yield lines for people: how much of this ISO a boot reads, and how far apart."""
    cost, whole = layout.cost(pieces), layout.span[1] - layout.span[0]
    files = len({path for path, _ in pieces})
    yield f"a boot reads {files} of {len(layout.files)} files"
    yield (
        f"as this ISO is, these are {cost.size / 1e6:.1f} of {whole / 1e6:.1f} MB of its SquashFS,"
        f" in {cost.places} places that are {cost.distance / 1e6:.0f} MB apart in all"
    )
