# SPDX-License-Identifier: GPL-3.0-or-later
"""Which parts of a live-build configuration tree are supported; all others are refused.

The error for a part that a build would ignore names its first file and what to do instead.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from pipeline.base.errors import UsageError
from pipeline.base.files import read_plain
from pipeline.documents.image_folder import IMAGE_PARTS

LISTS = (".list.chroot", ".list", ".list.chroot_install", ".list.chroot_live")
PINS = (".pref", ".pref.chroot")
ARCHIVE_LISTS = (".list.chroot", ".list")
ARCHIVE_KEYS = (".key.chroot", ".key")
TEXT_LIMIT = 1024 * 1024
OF_LB_CONFIG = "it holds what lb config wrote: set it in image.yaml and farm.yaml, then remove it"
OF_INSTALLER = "no installer is built: remove it"
# Parts that live-build supports and Twinbuild does not, with what to do instead.
REMEDIES = {
    "auto": "set what it says in image.yaml and farm.yaml, then remove it",
    "binary": OF_LB_CONFIG,
    "bootloaders": "put files of the boot menu into includes.binary/",
    "bootstrap": OF_LB_CONFIG,
    "build": OF_LB_CONFIG,
    "chroot": OF_LB_CONFIG,
    "common": OF_LB_CONFIG,
    "config": "move its content up, beside image.yaml",
    "debian-installer": OF_INSTALLER,
    "includes": "put its files into includes.chroot/ or includes.binary/",
    "includes.bootstrap": "put its files into includes.chroot/, or into a package in packages/",
    "includes.chroot_before_packages": "put its files into includes.chroot/, or, if packages need"
    " them while they are installed, into a package in packages/",
    "includes.installer": OF_INSTALLER,
    "includes.source": "the commit is the source: remove it",
    "packages.binary": "no pool is made on the medium: remove it",
    "preseed": "answer debconf in a package in packages/, or set it up in a hook",
    "rootfs": "the tree is a SquashFS: remove it",
    "source": OF_LB_CONFIG,
}
# The file name suffixes allowed in some parts, with the remedy for other names.
NAMES = {
    "apt": (("preferences",), "settings of apt go into includes.chroot/etc/apt/apt.conf.d/"),
    "archives": (
        (*ARCHIVE_LISTS, *ARCHIVE_KEYS, *PINS),
        (
            f"name it *{ARCHIVE_LISTS[0]}, *{ARCHIVE_KEYS[0]} or *{PINS[1]}; what apt asks in the"
            " finished system goes into includes.chroot/etc/apt/"
        ),
    ),
    "hooks": ((".chroot", ".binary"), "name a hook *.hook.chroot or *.hook.binary"),
    "package-lists": (LISTS, f"name it *{LISTS[0]}"),
    "preferences": (PINS, f"name it *{PINS[1]}"),
}


def refuse_unsupported(image: str, paths: Iterable[str]) -> None:
    """Raise UsageError for the first of `paths`, in the folder of `image`, that is not supported.

    `paths` are the files and links in that folder, relative to it. The error's detail lists all
    that are not supported.
    """
    faults = list(_faults(sorted(paths)))
    if faults:
        shown = [f"images/live/{image}/{path} is not supported" for path, _ in faults]
        lines = [f"{what}; {remedy}" for what, (_, remedy) in zip(shown, faults, strict=True)]
        raise UsageError(shown[0], remedy=faults[0][1], detail="\n".join(lines))


def files_in(folder: Path) -> Iterator[str]:
    """Yield the files and links below an image's folder, relative to it."""
    for path in folder.rglob("*"):
        if path.is_symlink() or not path.is_dir():
            yield path.relative_to(folder).as_posix()


def read_text(path: Path) -> str:
    """Return the text of a configuration file; raise UsageError as `read_small` does."""
    try:
        return read_small(path).decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"cannot read {path}: {error}") from error


def read_small(path: Path) -> bytes:
    """Return a file's content; raise UsageError if it is not a regular file, or too large."""
    try:
        return read_plain(path, TEXT_LIMIT)
    except OSError as error:
        what = f"{path} is not a plain file of at most {TEXT_LIMIT} bytes"
        raise UsageError(f"{what}: {error.strerror}") from error


def _faults(paths: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield, with remedies, the first path of each unknown part and all bad ones of known parts."""
    reported = set()
    for path in paths:
        part, _, below = path.partition("/")
        name = path.rpartition("/")[2]
        if name.startswith((".", "README")):
            continue
        if part not in IMAGE_PARTS and part not in reported:
            reported.add(part)
            yield path, REMEDIES.get(part, "remove it: a build would ignore it")
        elif part in NAMES and not _fits(part, below):
            yield path, NAMES[part][1]


def _fits(part: str, below: str) -> bool:
    """Tell whether a file has a name allowed in its part; only hooks may be in subfolders."""
    return below.endswith(NAMES[part][0]) and ("/" not in below or part == "hooks")
