# SPDX-License-Identifier: GPL-3.0-or-later
"""Feeds locate's readers what a coverage-guided fuzzer makes of small real images.

    python -m tests.fuzz.fuzz_formats FORMAT CORPUS [options of libFuzzer]

FORMAT is one of SEEDS. CORPUS is a folder that keeps what reached new code; it begins with files
that the real tools make. Whatever a content is, comparing it with the original must end with an
answer that fits, in bounded time and memory. What breaks that becomes a case of
`tests/unit/look/formats/test_hostile.py`. Needs the package atheris.
"""

import gzip
import io
import lzma
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import atheris

with atheris.instrument_imports(include=["pipeline.look", "tarfile", "zipfile"]):
    from pipeline.look.formats.source import Memory
    from pipeline.look.locate import locate_contents

from backports import zstd

from tests import image_pairs as pairs

WORK = 256 * 1024 * 1024
INNER = b"etc/hostname\0one\ntwo\n" * 40


def _tree(folder: Path) -> Path:
    for name, content in (("a/one.txt", b"one\n"), ("a/b/big", INNER), ("z", b"")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    pairs.settle(folder)
    return folder


def _linked(folder: Path) -> Path:
    tree = _tree(folder)
    (tree / "link").symlink_to("a/one.txt")
    (tree / "hard").hardlink_to(tree / "z")
    pairs.settle(tree)
    return tree


def _squashfs(folder: Path) -> Iterator[bytes]:
    plain = ("-noI", "-noD", "-noF", "-noX", "-nopad", "-b", "4K")
    tree = _linked(folder / "tree")
    for number, options in enumerate((("-comp", "gzip", *plain), ("-nopad",), ("-comp", "xz"))):
        yield pairs.squashfs(tree, folder / f"{number}", *options).read_bytes()


def _iso9660(folder: Path) -> Iterator[bytes]:
    tree = _linked(folder / "tree")
    yield pairs.iso(tree, folder / "plain", "-no-pad").read_bytes()
    boot = ("-e", "a/b/big", "-no-emul-boot", "-isohybrid-gpt-basdat")
    yield pairs.iso(tree, folder / "boot", "-no-pad", *boot).read_bytes()


def _fat(folder: Path) -> Iterator[bytes]:
    yield pairs.fat(_tree(folder / "tree"), folder / "12", size_kib=160).read_bytes()
    large = folder / "32"
    with large.open("wb") as file:
        file.truncate(34 * 1024 * 1024)
    pairs.run("mkfs.vfat", "-F", "32", "-s", "1", "--invariant", large)
    yield large.read_bytes()[: 1024 * 1024]


def _disk(folder: Path) -> Iterator[bytes]:
    (image := folder / "disk").write_bytes(bytes(128 * 1024))
    pairs.run("sgdisk", "-a", "1", "-n", "1:40:60", "-n", "2:70:90", image)
    yield image.read_bytes()


def _cpio(folder: Path) -> Iterator[bytes]:
    archive = pairs.cpio(_linked(folder / "tree"), folder / "cpio").read_bytes()
    yield archive
    yield archive + bytes(64) + gzip.compress(archive, mtime=0)


def _tar(folder: Path) -> Iterator[bytes]:
    tree = _linked(folder / "tree")
    for form in ("gnu", "pax", "ustar"):
        pairs.run("tar", "-C", tree, f"--format={form}", "-cf", folder / form, ".")
        yield (folder / form).read_bytes()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("ä" * 120)
        member.pax_headers = {"SCHILY.xattr.user.x": "1"}
        archive.addfile(member)
    yield out.getvalue()


def _zip(folder: Path) -> Iterator[bytes]:
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", method) as archive:
            archive.writestr("a/one", INNER)
            archive.writestr("z", b"")
        yield out.getvalue()


def _ar(folder: Path) -> Iterator[bytes]:
    names = [folder / "one", folder / "a-name-of-more-than-fifteen-letters"]
    for path in names:
        path.write_bytes(b"one\n")
    pairs.run("ar", "rcD", folder / "ar", *names)
    yield (folder / "ar").read_bytes()


def _packed(folder: Path) -> Iterator[bytes]:
    header = b"\x1f\x8b\x08\x1c" + bytes(6) + b"\4\0abcd" + b"name\0" + b"comment\0"
    yield gzip.compress(INNER, mtime=1)
    yield header + gzip.compress(INNER, mtime=1)[10:]
    yield lzma.compress(INNER)
    yield zstd.compress(INNER)
    (folder / "1").write_bytes(INNER)
    pairs.run("bzip2", folder / "1")
    yield (folder / "1.bz2").read_bytes()


SEEDS: dict[str, Callable[[Path], Iterator[bytes]]] = {
    "squashfs": _squashfs,
    "iso9660": _iso9660,
    "fat": _fat,
    "disk": _disk,
    "cpio": _cpio,
    "tar": _tar,
    "zip": _zip,
    "ar": _ar,
    "packed": _packed,
}


def _check(originals: list[bytes], data: bytes) -> None:
    """Compare a content with the original that it begins most like, both ways."""
    original = next((o for o in originals if o[:6] == data[:6]), originals[0])
    for left, right in ((original, data), (data, original)):
        compared = locate_contents((Memory(left), Memory(right)), work=WORK, look=_look)
        assert compared.equal == (original == data)
        assert all(str(place).isprintable() for place in compared.places)


def _look(place: object, sides: object) -> None:
    """Read what differs, as the explanation does."""
    if isinstance(sides, tuple):
        for side in sides:
            side.read(0, min(side.size, 65536))


def main(argv: list[str]) -> None:
    """Make the first contents of the corpus, and fuzz."""
    name, corpus = argv[1], Path(argv[2])
    with TemporaryDirectory() as folder:
        originals = list(SEEDS[name](Path(folder)))
    corpus.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(originals):
        (corpus / f"seed-{number}").write_bytes(content)
    limits = ["-timeout=20", "-rss_limit_mb=1024", f"-max_len={max(map(len, originals)) + 4096}"]
    atheris.Setup([argv[0], *limits, *argv[2:]], lambda data: _check(originals, data))
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv)
