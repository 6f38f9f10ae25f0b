# SPDX-License-Identifier: GPL-3.0-or-later
"""Pairs of archives and images, each with one known difference, made with the real tools.

A maker packs a tree; a change makes one difference in it, and says as what `locate` must tell it:
that and nothing else. `tests.unit.look.test_real_pairs` compares them all.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pipeline.base import command
from tests import image_pairs as pairs
from tests.image_pairs import EPOCH, Change

TOOL = bytes(range(256)) * 16
LINES = b"".join(b"line %d of a text\n" % number for number in range(600))
FAT, ZIP, PLAIN = "fat", "zip", "plain"  # what keeps less than all that a tree has


@dataclass(frozen=True)
class Maker:
    """Packs a tree into a file; `where` is what locate calls the place, `keeps` what is kept."""

    pack: Callable[[Path, Path], object]
    where: str
    keeps: str = ""


@dataclass(frozen=True)
class Made:
    """A change of a tree: the paths and kinds that must be reported where a format keeps it."""

    change: Change
    places: frozenset[tuple[str, str]]
    lost_by: frozenset[str] = frozenset()


def make_tree(folder: Path) -> Path:
    """Make a small system, with a hard link and a symbolic one."""
    for name, content in {
        "etc/hostname": b"mini\n",
        "usr/bin/tool": TOOL,
        "usr/share/doc/copyright": b"all rights\n" * 40,
        "usr/share/text": LINES,
        "var/empty/.keep": b"",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / "usr/bin/tool").chmod(0o755)
    (folder / "etc/alias").symlink_to("hostname")
    for path in sorted([folder, *folder.rglob("*")]):
        os.utime(path, (EPOCH, EPOCH), follow_symlinks=False)
    return folder


def write(name: str, content: bytes, at: int = 0) -> Change:
    """Return what writes these bytes into a file of a tree."""

    def change(tree: Path) -> None:
        with (tree / name).open("r+b") as file:
            file.seek(at)
            file.write(content)

    return change


def _relink(tree: Path) -> None:
    (tree / "etc/alias").unlink()
    (tree / "etc/alias").symlink_to("machine-id")


def _places(*found: tuple[str, str]) -> frozenset[tuple[str, str]]:
    return frozenset(found)


CHANGES: dict[str, Made] = {
    "content": Made(write("usr/bin/tool", b"?", 77), _places(("usr/bin/tool", "content"))),
    "a late byte": Made(
        write("usr/share/text", b"X", 9000), _places(("usr/share/text", "content"))
    ),
    "longer": Made(
        lambda tree: (tree / "usr/share/text").write_bytes(LINES + b"more\n" * 500),
        _places(("usr/share/text", "content")),
    ),
    "emptied": Made(
        lambda tree: (tree / "usr/bin/tool").write_bytes(b""), _places(("usr/bin/tool", "content"))
    ),
    "mode": Made(
        lambda tree: (tree / "usr/bin/tool").chmod(0o700),
        _places(("usr/bin/tool", "mode")),
        frozenset({FAT}),
    ),
    "time": Made(
        lambda tree: os.utime(tree / "usr/bin/tool", (EPOCH - 2**23,) * 2),
        _places(("usr/bin/tool", "time")),
    ),
    "more": Made(
        lambda tree: (tree / "etc/machine-id").write_bytes(b"7\n"),
        _places(("etc/machine-id", "only-in-second")),
    ),
    "less": Made(
        lambda tree: (tree / "usr/share/doc/copyright").unlink(),
        _places(("usr/share/doc/copyright", "only-in-first")),
    ),
    "target": Made(_relink, _places(("etc/alias", "target")), frozenset({FAT})),
}


def _names(tree: Path) -> list[str]:
    return sorted(os.fspath(path.relative_to(tree)) for path in tree.rglob("*"))


def _tar(form: str, tree: Path, out: Path) -> None:
    kept = ["--pax-option=delete=atime,delete=ctime"] if form == "pax" else []
    options = ["--sort=name", "--numeric-owner", f"--format={form}", *kept]
    pairs.run("tar", "-C", tree, *options, "-cf", out, ".")


def _cpio(form: str, tree: Path, out: Path) -> None:
    options = ["--quiet", "-o", "-H", form, "--reproducible", "--null", "-R", "0:0"]
    names = "".join(f"{name}\0" for name in _names(tree)).encode()
    completed = command.run(["cpio", *options], timeout_s=60, cwd=tree, stdin=names)
    out.write_bytes(completed.stdout)


def _zip(options: list[str], tree: Path, out: Path) -> None:
    argv = ["zip", "-q", "-y", *options, f"{out}.zip", *_names(tree)]
    command.run(argv, timeout_s=60, cwd=tree)
    Path(f"{out}.zip").rename(out)


def _squashfs(options: list[str], tree: Path, out: Path) -> None:
    pairs.squashfs(tree, out, *options)


def _iso(options: list[str], tree: Path, out: Path) -> None:
    pairs.run(
        *("xorriso", "-as", "mkisofs", "-quiet", "-o", str(out), "-R", "-V", "MINI"),
        *("-uid", "0", "-gid", "0", f"--modification-date={pairs.STAMP}"),
        *("--set_all_file_dates", "set_to_mtime", *options, str(tree)),
    )


def _fat(bits: int, tree: Path, out: Path) -> None:
    with out.open("wb") as file:
        file.truncate({12: 1, 16: 9, 32: 34}[bits] * 1024 * 1024)
    clusters = ["-s", "1"] if bits > 12 else []
    pairs.run("mkfs.fat", "-F", str(bits), *clusters, "-i", "12345678", "--invariant", out)
    now = {"SOURCE_DATE_EPOCH": str(EPOCH)}
    for path in sorted(tree.iterdir()):
        if path.name != "etc":
            pairs.run("mcopy", "-i", out, "-s", "-m", path, "::", **now)
    pairs.run("mmd", "-i", out, "::etc", **now)
    for path in sorted((tree / "etc").iterdir()):  # there are no links in a FAT
        if not path.is_symlink():
            pairs.run("mcopy", "-i", out, "-m", path, "::etc", **now)


def _deb(compression: str, tree: Path, out: Path) -> None:
    control = tree / "DEBIAN/control"
    control.parent.mkdir()
    control.write_text(
        "Package: p\nVersion: 1\nArchitecture: all\nMaintainer: p <p@example.org>\nDescription: p\n"
    )
    pairs.settle(tree)
    pairs.run(
        *("dpkg-deb", "--root-owner-group", f"-Z{compression}", "-b", tree, out),
        SOURCE_DATE_EPOCH=str(EPOCH),
    )
    control.unlink()
    control.parent.rmdir()
    pairs.settle(tree)


def _packed(argv: list[str], tree: Path, out: Path) -> None:
    archive = out.with_suffix(".tar")
    _tar("gnu", tree, archive)
    completed = command.run([*argv, archive], timeout_s=60)
    if not out.exists():
        out.write_bytes(completed.stdout)


def _pzstd(tree: Path, out: Path) -> None:
    _tar("gnu", tree, out.with_suffix(".tar"))
    pairs.run("pzstd", "-q", "-f", out.with_suffix(".tar"), "-o", out)


def _disk(tree: Path, out: Path) -> None:
    """Make a disk with a GPT, in whose partition a FAT lies."""
    with out.open("wb") as file:
        file.truncate(4 * 1024 * 1024)
    guids = [f"0000000{number}-0000-4000-8000-000000000000" for number in (1, 2)]
    options = ("-n", "1:2048:+1M", "-u", f"1:{guids[0]}", "-U", guids[1])
    pairs.run("sgdisk", *options, out)
    _fat(12, tree, out.with_suffix(".fat"))
    with out.open("r+b") as file:
        file.seek(2048 * 512)
        file.write(out.with_suffix(".fat").read_bytes())


_DATA = "ar data.tar{} > {} content > tar"
MAKERS: dict[str, Maker] = {
    **{f"tar {f}": Maker(partial(_tar, f), "tar") for f in ("v7", "oldgnu", "gnu", "ustar", "pax")},
    **{
        f"cpio {form}": Maker(partial(_cpio, form), "tar" if "tar" in form else "cpio")
        for form in ("bin", "odc", "newc", "crc", "tar", "ustar")
    },
    "zip deflate": Maker(partial(_zip, ["-X"]), "zip", ZIP),
    "zip store": Maker(partial(_zip, ["-X", "-0"]), "zip", ZIP),
    "zip bzip2": Maker(partial(_zip, ["-X", "-Z", "bzip2"]), "zip", ZIP),
    **{
        f"squashfs {name}": Maker(partial(_squashfs, ["-comp", name]), "squashfs")
        for name in ("gzip", "lzma", "xz", "lz4", "zstd")
    },
    "squashfs plain": Maker(partial(_squashfs, ["-noI", "-noD", "-noF", "-noX"]), "squashfs"),
    "squashfs 4K": Maker(partial(_squashfs, ["-b", "4K"]), "squashfs"),
    "squashfs no fragments": Maker(partial(_squashfs, ["-no-fragments"]), "squashfs"),
    "squashfs tail-ends": Maker(partial(_squashfs, ["-tailends", "-no-exports"]), "squashfs"),
    "squashfs no pad": Maker(partial(_squashfs, ["-nopad", "-no-xattrs"]), "squashfs"),
    "iso": Maker(partial(_iso, []), "iso9660"),
    "iso joliet": Maker(partial(_iso, ["-J", "-iso-level", "3"]), "iso9660"),
    "iso no pad": Maker(partial(_iso, ["-no-pad"]), "iso9660"),
    "iso partition": Maker(
        partial(_iso, ["-partition_offset", "16", "--mbr-force-bootable"]), "iso9660"
    ),
    "fat12": Maker(partial(_fat, 12), "fat", FAT),
    "fat16": Maker(partial(_fat, 16), "fat", FAT),
    "disk": Maker(_disk, "disk partition 1 > fat", FAT),
    "deb gzip": Maker(partial(_deb, "gzip"), _DATA.format(".gz", "gzip")),
    "deb xz": Maker(partial(_deb, "xz"), _DATA.format(".xz", "xz")),
    "deb zstd": Maker(partial(_deb, "zstd"), _DATA.format(".zst", "zstd")),
    "deb none": Maker(partial(_deb, "none"), "ar data.tar > tar"),
    **{
        f"packed {name}": Maker(partial(_packed, argv), f"{name.split()[0]} content > tar")
        for name, argv in {
            "gzip": ["gzip", "-nc"],
            "xz": ["xz", "-c"],
            "xz in blocks": ["xz", "-c", "-T2", "--block-size=4096"],
            "zstd": ["zstd", "-qc"],
            "bzip2": ["bzip2", "-c"],
            "lzma": ["lzma", "-c"],
            "lz4": ["lz4", "-qc"],
            "lz4-legacy": ["lz4", "-qcl"],
        }.items()
    },
    "packed pzstd": Maker(_pzstd, "zstd content > tar"),
}
