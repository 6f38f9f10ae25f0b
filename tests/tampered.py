# SPDX-License-Identifier: GPL-3.0-or-later
"""Pairs of small files that differ by one changed file, and what an attacker does beside it."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

from pipeline.look.formats.container import Container
from pipeline.look.formats.known import recognise
from pipeline.look.formats.ranges import Span
from pipeline.look.formats.source import ByteSource, Memory, Spool
from pipeline.look.locate import locate_contents
from tests import image_pairs as pairs
from tests import real_pairs

CHANGED = "c"
WORK = 2**40
Maker = Callable[[Path, Path], Path]


def tree(folder: Path, *, changed: bool) -> Path:
    for name, content in {
        "a/one.txt": b"one\n",
        "a/b/big": bytes(range(256)) * 20,
        CHANGED: bytes(range(97, 120)) * 40 if changed else b"short",
        "d": b"behind\n" * 30,
        "z": b"",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / "link").symlink_to("a/one.txt")
    pairs.settle(folder)
    return folder


def real(name: str) -> Maker:
    """Return a maker of `tests.real_pairs`."""

    def make(tree: Path, out: Path) -> Path:
        real_pairs.MAKERS[name].pack(tree, out)
        return out

    return make


def ar(tree: Path, archive: Path) -> Path:
    pairs.run("ar", "rcD", archive, *(tree / name for name in ("a/one.txt", CHANGED, "d")))
    return archive


def package(tree: Path, archive: Path) -> Path:
    (tree / "DEBIAN").mkdir()
    control = "Package: p\nVersion: 1\nArchitecture: all\nMaintainer: p <p@example.org>\n"
    (tree / "DEBIAN/control").write_text(f"{control}Description: p\n")
    build = ("dpkg-deb", "--root-owner-group", "-Zgzip", "-b", tree, archive)
    pairs.run(*build, SOURCE_DATE_EPOCH=str(pairs.EPOCH + 20_000))
    return archive


def floppy(tree: Path, image: Path) -> Path:
    (tree / "link").unlink()
    return pairs.fat(tree, image, size_kib=160)


def disk(tree: Path, image: Path) -> Path:
    image.write_bytes(bytes(512 * 1024))
    unique = [f"0000000{number}-0000-4000-8000-000000000000" for number in (1, 2)]
    pairs.run(
        "sgdisk", "-a", "1", "-U", unique[0], "-n", "1:64:+160K", "-u", f"1:{unique[1]}", image
    )
    raw, fat = bytearray(image.read_bytes()), floppy(tree, image.with_suffix(".fat")).read_bytes()
    raw[64 * 512 : 64 * 512 + len(fat)] = fat
    image.write_bytes(raw)
    return image


def plain_squashfs(tree: Path, image: Path) -> Path:
    plain = ("-comp", "gzip", "-noI", "-noD", "-noF", "-noX", "-nopad", "-b", "4K")
    return pairs.squashfs(tree, image, *plain)


def hybrid(tree: Path, image: Path) -> Path:
    return pairs.iso(tree, image, "-e", "a/b/big", "-no-emul-boot", "-isohybrid-gpt-basdat")


MAKERS: dict[str, Maker] = {
    "squashfs": pairs.squashfs,
    "squashfs, plain": plain_squashfs,
    "iso": lambda tree, image: pairs.iso(tree, image, "-no-pad"),
    "iso, padded": pairs.iso,
    "iso, hybrid": hybrid,
    "fat": floppy,
    "disk": disk,
    "cpio": pairs.cpio,
    "ar": ar,
    "deb": package,
    **{
        name: real(maker)
        for name, maker in {
            "squashfs, gzip": "squashfs gzip",
            "squashfs, without fragments": "squashfs no fragments",
            "iso, joliet": "iso joliet",
            "cpio, portable": "cpio odc",
            "cpio, binary": "cpio bin",
            "cpio, sums": "cpio crc",
            "tar": "tar gnu",
            "tar, pax": "tar pax",
            "tar, v7": "tar v7",
            "tar, oldgnu": "tar oldgnu",
            "zip": "zip deflate",
            "zip, stored": "zip store",
            "gzip": "packed gzip",
            "xz": "packed xz",
            "zstd": "packed zstd",
            "bzip2": "packed bzip2",
            "lzma": "packed lzma",
            "lz4": "packed lz4",
            "lz4-legacy": "packed lz4-legacy",
        }.items()
    },
}


def make_pair(name: str, folder: Path) -> tuple[bytes, bytes]:
    """Make two files of a kind; in the second one file is longer."""
    made = []
    for number, changed in enumerate((False, True)):
        inside = folder / str(number)
        inside.mkdir(parents=True)
        made.append(
            MAKERS[name](tree(inside / "tree", changed=changed), inside / "it").read_bytes()
        )
    shutil.rmtree(folder)
    return made[0], made[1]


def read(source: ByteSource, spool: Spool) -> Container:
    known = recognise(source)
    assert known is not None
    container = known.read(source, spool)
    for _ in (container.taken_down or container.entries)():
        pass
    return container


def of_the_change(content: bytes) -> list[Span]:
    """Return where the changed file and its record lie, in the outermost container."""
    with Spool([WORK]).nested() as spool:
        found: list[Span] = []
        for entry in read(Memory(content), spool).entries():
            if entry.path.lower() in (CHANGED, "content", "data.tar.gz", "partition 1"):
                found += entry.content.stored() if entry.content else ()
                found += [entry.record] if entry.record else []
        return found


def places(first: bytes, second: bytes) -> set[tuple[str, str, str]]:
    """Return where two files differ: container, path and kind of each place."""
    compared = locate_contents((Memory(first), Memory(second)), work=WORK)
    return {(place.where, place.path, place.kind) for place in compared.places}


def tamper(content: bytes, chance: random.Random) -> tuple[int, bytes]:
    """Flip, write, insert, append, remove or move bytes; return the offset and the result."""
    changed, length = bytearray(content), chance.choice((1, 4, 512, 2048))
    ends = chance.randrange(min(len(content), 3000)), -1 - chance.randrange(min(len(content), 1500))
    at = chance.choice((chance.randrange(len(content)), *ends)) % len(content)
    match chance.choice(("flip", "flip", "write", "insert", "append", "zeros", "remove", "move")):
        case "flip":
            changed[at] ^= 1 << chance.randrange(8)
        case "write":
            changed[at : at + 4] = b"EVIL"[: len(content) - at]
        case "insert":
            changed[at:at] = chance.randbytes(length)
        case "append":
            changed += chance.randbytes(length)
        case "zeros":
            changed += bytes(length)
        case "remove":
            del changed[at : at + length]
        case _:
            moved, to = changed[at : at + length], chance.randrange(len(content))
            del changed[at : at + length]
            changed[to:to] = moved
    return at, bytes(changed)
