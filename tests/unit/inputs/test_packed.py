# SPDX-License-Identifier: GPL-3.0-or-later
"""Archives that a stranger packed: `.dsc` sources, `.deb` packages, indices of an image's archives.

The attacker writes the commit or holds the archive that it names; its key signs what it likes.
"""

import bz2
import gzip
import io
import lzma
import resource
import tarfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.base.errors import InputsUnverified, UsageError
from pipeline.base.store import Store
from pipeline.documents.job import SourceFile
from pipeline.documents.lock import Index
from pipeline.inputs.deb_control import read_control
from pipeline.inputs.debian_source import read_source
from pipeline.inputs.fetched_source import FetchedSource, read_debian
from pipeline.inputs.packages_index import paragraphs
from pipeline.inputs.tar_members import read_members
from pipeline.inputs.unpacked import Unpacked, Unreadable, unpacked

GIB = 1024**3
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "xz": lzma.compress,
    "bz2": bz2.compress,
    "": bytes,
}


def tar(*members: tuple[str, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=form) as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def claim(kind: bytes, size: int) -> bytes:
    """Return a header of a kind that claims so many bytes."""
    header = tarfile.TarInfo("x")
    header.type, header.size = kind, size
    return header.tobuf(tarfile.GNU_FORMAT)


def read(content: bytes) -> list[tuple[str, bool, bytes]]:
    members = read_members(Unpacked(io.BytesIO(content)))
    return [(m.name, m.is_file, m.read(1000) if m.is_file else b"") for m in members]


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
@pytest.mark.parametrize("packer", PACKERS)
def test_what_others_pack_is_read(form: int, packer: str) -> None:
    names = ["a", "d/ü", "e/" + "x" * 90] if form == tarfile.USTAR_FORMAT else ["y" * 300, "z"]
    content = tar(*((name, name.encode() * 2) for name in names), form=form)
    with unpacked(io.BytesIO(PACKERS[packer](content)), packer) as archive:
        found = [(m.name, m.read(1000)) for m in read_members(archive)]
    assert found == [(name, name.encode() * 2) for name in names]


def test_members_that_nobody_reads_are_passed_over() -> None:
    archive = Unpacked(io.BytesIO(tar(("a", b"x" * 5000), ("b", b"y" * 512), ("c", b""))))
    assert [(m.name, m.size) for m in read_members(archive)] == [("a", 5000), ("b", 512), ("c", 0)]


def test_several_streams_of_xz_are_one_file() -> None:
    packed = lzma.compress(b"ab") + bytes(8) + lzma.compress(b"cd")
    with unpacked(io.BytesIO(packed), "xz") as archive:
        assert archive.read(4) == b"abcd"
        with pytest.raises(Unreadable, match="breaks off"):
            archive.read(1)


@pytest.fixture(scope="module")
def gibibytes() -> bytes:
    """Four GiB of zeros, packed: 4 MiB."""
    one = gzip.compress(bytes(64 * 1024**2), compresslevel=1)
    return one * 48


@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K"])
def test_a_header_that_claims_3_gib_is_not_read(kind: bytes, gibibytes: bytes) -> None:
    packed = gzip.compress(claim(kind, 3 * GIB)) + gibibytes
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with (
        pytest.raises(Unreadable, match="a header has 3221225472 bytes"),
        unpacked(io.BytesIO(packed), "gz") as archive,
    ):
        list(read_members(archive))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024  # KiB


SPARSE = b"22 GNU.sparse.major=1\n19 GNU.sparse.x=1\n"


@pytest.mark.parametrize(
    "content",
    [
        claim(b"S", 512) + bytes(1024),
        claim(b"x", len(SPARSE)) + SPARSE.ljust(512, b"\0") + claim(b"0", 0),
        claim(b"x", 9) + b"9 a=bcdef".ljust(512, b"\0"),
        claim(b"x", 9) + b"99999 a=b".ljust(512, b"\0"),
        claim(b"x", 9) + b"3 a=bcde\n".ljust(512, b"\0"),
        claim(b"x", 9) + b"x a=bcde\n".ljust(512, b"\0"),
        claim(b"x", 10) + b"10 size=-\n".ljust(512, b"\0") + claim(b"0", 0),
        claim(b"x", 30) + (b"30 size=" + b"9" * 21 + b"\n").ljust(512, b"\0") + claim(b"0", 0),
        claim(b"0", 10**10) + bytes(512),
        claim(b"V", 0),
        claim(b"0", 0)[:124] + b"\xff" * 12 + claim(b"0", 0)[136:],
        b"x" * 512,
        b"x",
        b"",
    ],
)
def test_what_is_no_plain_archive_is_refused(content: bytes) -> None:
    with pytest.raises(Unreadable):
        read(content)


# One byte packed with `filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 1536 * 1024**2}]`, which
# takes gigabytes and seconds.
GREEDY_XZ = bytes.fromhex(
    "fd377a585a000004e6d6b44602002101250000003b787b41"
    "010000780000000045aeef83f8ee160a00011901a52c81cc1fb6f37d010000000004595a"
)


@pytest.mark.parametrize(
    "packed",
    [
        GREEDY_XZ,
        lzma.compress(b"x")[:-3],
        lzma.compress(b"x") + b"y",
        b"",
    ],
)
def test_xz_that_asks_for_too_much_or_is_broken(packed: bytes) -> None:
    with pytest.raises(Unreadable), unpacked(io.BytesIO(packed), "xz") as archive:
        archive.read(2)


@given(st.binary(max_size=200), st.integers(0, 3000), st.binary(max_size=20))
def test_any_bytes_are_read_or_refused(noise: bytes, at: int, piece: bytes) -> None:
    whole = tar(("y" * 120, b"content"), ("b", b"more"))
    for content in (noise, whole[:at] + piece + whole[at + len(piece) :], whole[:at]):
        with suppress(Unreadable):
            read(content)
        for kind in ("gz", "xz", "bz2", "zst", "7z"):
            with suppress(Unreadable), unpacked(io.BytesIO(content), kind) as archive:
                archive.read(1000)


def test_a_source_whose_archive_is_a_bomb(tmp_path: Path, gibibytes: bytes) -> None:
    store = Store(tmp_path / "store")
    digest = store.add_bytes(gzip.compress(claim(b"x", 3 * GIB)) + gibibytes)
    file = SourceFile("x_1.tar.gz", 1, digest)
    source = FetchedSource("x", "1", (), (file,), ())
    with pytest.raises(InputsUnverified, match=r"x_1\.tar\.gz cannot be read: a header has"):
        read_debian(source, store, "x.dsc")


def deb(path: Path, control: bytes, name: str = "control.tar.gz") -> Path:
    part = f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(control):<10}`\n".encode()
    path.write_bytes(b"!<arch>\n" + part + control)
    return path


def test_a_package_whose_control_part_is_a_bomb(tmp_path: Path, gibibytes: bytes) -> None:
    path = deb(tmp_path / "x.deb", gzip.compress(claim(b"L", 3 * GIB)) + gibibytes)
    with pytest.raises(Unreadable, match="a header has 3221225472 bytes"):
        read_control(path)


@pytest.mark.parametrize(
    "content",
    [
        b"!<arch>\n" + b"control.tar     " + b" " * 32 + "²".encode().ljust(10) + b"`\n",
        b"!<arch>\n" + b"x               " + b" " * 32 + b"9" * 10 + b"`\n",
        b"!<arch>\n" + b"x" * 59,
        b"!<arch>\n",
        b"",
    ],
)
def test_what_is_no_package_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.deb").write_bytes(content)
    with pytest.raises(Unreadable):
        read_control(tmp_path / "x.deb")


@pytest.mark.parametrize("control", [b"\xff", b"x" * 5 * 1024**2])
def test_a_control_file_that_is_none(tmp_path: Path, control: bytes) -> None:
    path = deb(tmp_path / "x.deb", tar(("./control", control)), "control.tar")
    with pytest.raises(Unreadable):
        read_control(path)


def test_a_broken_index_is_reported(tmp_path: Path) -> None:
    """zlib's own error is neither of the operating system nor the end of the file."""
    store = Store(tmp_path / "store")
    broken = bytearray(gzip.compress(b"Package: x\n" * 1000))
    broken[20:30] = b"\xff" * 10
    for content, suffix in ((bytes(broken), "gz"), (b"x", "xz"), (b"x", "zip")):
        index = Index(f"main/binary-amd64/Packages.{suffix}", 1, store.add_bytes(content))
        with pytest.raises(InputsUnverified, match="cannot be unpacked"):
            list(paragraphs(store, index))


DATE = b"Tue, 14 Nov 2023 22:13:20 +0000"
CHANGELOG = b"xy (1) unstable; urgency=low\n\n  * x\n\n -- A <a@b>  " + DATE + b"\n"
CONTROL = b"Source: xy\nBuild-Depends: %s\n\nPackage: xy\nArchitecture: all\n"


def test_the_line_of_a_need_is_known() -> None:
    control = CONTROL.replace(b": %s", b": ab,\n bc (>= 1) | de,\n libc6:any")
    source = read_source(control, CHANGELOG, "amd64", "x")
    assert [(need.relation, need.line) for need in source.needs] == [
        ("ab", 2),
        ("bc (>= 1) | de", 3),
        ("libc6:any", 4),
    ]


def test_many_needs_take_no_longer_than_their_number() -> None:
    """Each need's line was searched for from the beginning: hours for a control file of 4 MiB."""
    needs = ", ".join(f"a{n:06}" for n in range(20_000)).encode()
    began = time.process_time()
    source = read_source(CONTROL % needs, CHANGELOG, "amd64", "x")
    assert len(source.needs) == 20_000
    assert time.process_time() - began < 5


@pytest.mark.parametrize("filling", ["<", ">", "<>", "> ", " "])
def test_a_trailer_takes_no_longer_than_its_length(filling: str) -> None:
    changelog = CHANGELOG.replace(b" -- A <", b" -- <" + filling.encode() * 200_000)
    began = time.process_time()
    with suppress(UsageError):
        read_source(CONTROL % b"ab", changelog, "amd64", "x")
    assert time.process_time() - began < 5


DATES = ["", "9" * 5000, "Mon, 1 Jan 99999 00:00:00 +0000", "Mon, 99 Jan 2020 00:00:00 +9999"]


@pytest.mark.parametrize("date", [*DATES, "1 2 3 4 5 6", ",,,", "²"])
def test_a_date_that_is_none(date: str) -> None:
    changelog = CHANGELOG.replace(DATE, date.encode())
    with pytest.raises(UsageError, match="no date that can be read"):
        read_source(CONTROL % b"ab", changelog, "amd64", "x")
