# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes trees and images with the real tools, in pairs that differ by one cause."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from pipeline.base import command
from pipeline.look.locate import locate_files
from pipeline.look.places import Place

EPOCH = 1_766_400_000
STAMP = "2025122210400000"

Change = Callable[[Path], object]


def nothing(_: Path) -> None:
    """No cause: what is made must be the same."""


def run(*argv: str | Path, **env: str) -> None:
    command.run([os.fspath(word) for word in argv], timeout_s=60, env=env)


def settle(tree: Path) -> None:
    """Give everything in a tree one time and, except where it was changed, one mode."""
    for path in [*tree.rglob("*"), tree]:
        if path.lstat().st_mtime > EPOCH + 10_000:
            os.utime(path, (EPOCH, EPOCH), follow_symlinks=False)


def make_tree(folder: Path) -> Path:
    """Make a small system."""
    for name, content in {
        "etc/hostname": b"mini\n",
        "etc/os-release": b"NAME=Mini\nVERSION=3.3\n",
        "usr/bin/tool": bytes(range(256)) * 64,
        "usr/lib/big": b"".join(number.to_bytes(4, "big") for number in range(80_000)),
        "usr/share/doc/copyright": b"all rights\n" * 40,
        "var/empty/.keep": b"",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / "usr/bin/tool").chmod(0o755)
    (folder / "etc/alias").symlink_to("hostname")
    for path in sorted([folder, *folder.rglob("*")]):
        os.utime(path, (EPOCH, EPOCH), follow_symlinks=False)
    return folder


def changed_tree(folder: Path, change: Change) -> Path:
    """Make a system with a change; times that the change did not set are settled."""
    tree = make_tree(folder)
    change(tree)
    settle(tree)
    return tree


def trees(folder: Path, change: Change) -> tuple[Path, Path]:
    """Make a system, and one with a change."""
    return make_tree(folder / "tree-1"), changed_tree(folder / "tree-2", change)


def squashfs(tree: Path, image: Path, *options: str) -> Path:
    compression = [] if "-comp" in options else ["-comp", "zstd", "-Xcompression-level", "3"]
    run(
        *("mksquashfs", tree, image, "-noappend", "-no-progress", "-quiet", "-mkfs-time", "0"),
        *("-all-root", "-processors", "1", *compression, *options),
    )
    return image


def fat(tree: Path, image: Path, *, serial: str = "54574230", size_kib: int = 1024) -> Path:
    with image.open("wb") as file:
        file.truncate(size_kib * 1024)
    now = {"SOURCE_DATE_EPOCH": str(EPOCH)}
    run("mformat", "-i", image, "-v", "EFI", "-N", serial, "::", **now)
    for path in sorted(tree.iterdir()):
        run("mcopy", "-i", image, "-s", "-m", path, "::", **now)
    return image


def iso(tree: Path, image: Path, *options: str) -> Path:
    run(
        *("xorriso", "-as", "mkisofs", "-quiet", "-o", str(image), "-R", "-J", "-V", "MINI"),
        *("-uid", "0", "-gid", "0", f"--modification-date={STAMP}"),
        *("--set_all_file_dates", STAMP, *options, str(tree)),
    )
    return image


def cpio(tree: Path, archive: Path, *, sort: bool = True) -> Path:
    """Make an archive as initramfs-tools does; its order is that of the names, or the opposite."""
    names = sorted(
        (os.fspath(path.relative_to(tree)) for path in tree.rglob("*")), reverse=not sort
    )
    completed = command.run(
        ["cpio", "--quiet", "-o", "-H", "newc", "--reproducible", "--null", "-R", "0:0"],
        timeout_s=60,
        cwd=tree,
        stdin="".join(f"{name}\0" for name in names).encode(),
    )
    archive.write_bytes(completed.stdout)
    return archive


def copy_of(tree: Path, folder: Path) -> Path:
    shutil.copytree(tree, folder, symlinks=True)
    return folder


def located(folder: Path, first: bytes, second: bytes) -> list[Place]:
    """Return the places where two contents differ, as files in `folder`."""
    (folder / "first").write_bytes(first)
    (folder / "second").write_bytes(second)
    return list(locate_files(folder / "first", folder / "second").places)
