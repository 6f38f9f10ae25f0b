# SPDX-License-Identifier: GPL-3.0-or-later
"""What a hostile machine may hand back, and what becomes of it."""

import gzip
import hashlib
import io
import os
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.base.errors import InfrastructureFailed, UsageError
from pipeline.documents.artifact_names import artifact_names
from pipeline.guest.output_disk import hand_over
from pipeline.machines import output

LIMITS = {"artifacts/a.iso": 4096, "ledger.jsonl.gz": 1024, "timings.json": 16}
GOOD = {"artifacts/a.iso": b"i" * 1000, "ledger.jsonl.gz": b"", "timings.json": b"{}"}
END = bytes(2 * tarfile.BLOCKSIZE)


def member(
    name: str = "timings.json",
    content: bytes = b"{}",
    *,
    kind: bytes = tarfile.REGTYPE,
    target: str = "",
    size: int | None = None,
    form: Literal[0, 1, 2] = tarfile.GNU_FORMAT,
    pax: dict[str, str] | None = None,
) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    info.size = len(content) if size is None else size
    info.pax_headers = pax or {}
    return info.tobuf(form) + content + bytes(-len(content) % tarfile.BLOCKSIZE)


def archive(files: dict[str, bytes]) -> bytes:
    return b"".join(member(name, content) for name, content in files.items()) + END


def with_size(field: bytes) -> bytes:
    """A header whose size is this field, with the right checksum."""
    block = bytearray(member("timings.json", b"")[: tarfile.BLOCKSIZE])
    block[124:136] = field.ljust(12, b"\0")
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder in another one, which shows what gets out of it."""
    return tmp_path / "outside" / "inside"


def content_of(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if not path.is_dir()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_what_was_asked_for_is_taken(folder: Path) -> None:
    digests = output.receive(io.BytesIO(archive(GOOD)), LIMITS, folder)
    assert digests == {name: hashlib.sha256(c).hexdigest() for name, c in GOOD.items()}
    assert content_of(folder) == GOOD
    assert (folder / "timings.json").stat().st_mode & 0o777 == 0o644


def test_what_the_guest_writes_is_taken(folder: Path, tmp_path: Path) -> None:
    made = tmp_path / "output.raw"
    made.touch()
    os.truncate(made, 1 << 30)
    for name, content in GOOD.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    hand_over(made, tmp_path, GOOD)
    with made.open("rb") as device:
        output.receive(device, LIMITS, folder)
        assert device.tell() < 1 << 20  # the rest of the disk is not read
    assert content_of(folder) == GOOD


def test_holes_are_handed_over(folder: Path, tmp_path: Path) -> None:
    made, image = tmp_path / "output.raw", tmp_path / "artifacts/a.iso"
    made.touch()
    os.truncate(made, 1 << 30)
    image.parent.mkdir()
    contents = {1 << 20: b"start", (9 << 20) - 1: b"in the middle"}
    with image.open("wb") as file:
        for at, content in contents.items():
            file.seek(at)
            file.write(content)
        file.truncate((20 << 20) + 1)
    (tmp_path / "timings.json").write_bytes(b"{}")
    limits = {"artifacts/a.iso": 1 << 30, "timings.json": 16}
    hand_over(made, tmp_path, limits)
    assert made.stat().st_blocks * 512 < 1 << 20
    with made.open("rb") as device:
        output.receive(device, limits, folder)
    assert content_of(folder) == {n: (tmp_path / n).read_bytes() for n in limits}
    with tarfile.open(made) as tar:
        assert tar.getnames() == [*limits]


ELSEWHERE = [
    "/etc/passwd",
    "../timings.json",
    "artifacts/../../timings.json",
    "./timings.json",
    "timings.json/",
    "timings.json/.",
    "artifacts//a.iso",
    "artifacts/b.iso",
    "artifacts",
    ".",
    "",
    "TIMINGS.JSON",
    "timings.json\n",
    "statement.json",
    "job.json",
    "x" * 5000,
]
LINKS = {
    "a symlink": tarfile.SYMTYPE,
    "a hard link": tarfile.LNKTYPE,
    "a character device": tarfile.CHRTYPE,
    "a block device": tarfile.BLKTYPE,
    "a pipe": tarfile.FIFOTYPE,
    "a folder": tarfile.DIRTYPE,
    "a contiguous file": tarfile.CONTTYPE,
    "a sparse file": tarfile.GNUTYPE_SPARSE,
    "an unknown type": b"Z",
    "a long name": tarfile.GNUTYPE_LONGNAME,
    "a long link": tarfile.GNUTYPE_LONGLINK,
    "a pax header": tarfile.XHDTYPE,
    "a global pax header": tarfile.XGLTYPE,
}
SIZES = {
    "one too many": b"%011o" % (LIMITS["timings.json"] + 1),
    "the largest octal": b"7" * 11,
    "terabytes": b"\x80\0\0\0" + (1 << 45).to_bytes(8, "big"),
    "the largest": b"\x80" + b"\xff" * 11,
    "minus one": b"\xff" * 12,
    "very negative": b"\xff\x80" + bytes(10),
    "a negative octal": b"-0000000001",
    "no number": b"not a number",
    "a base-256 mark in the middle": b"1\x8000000000",
}


@pytest.mark.parametrize("name", ELSEWHERE)
def test_no_other_name_is_taken(name: str, folder: Path) -> None:
    refused(member(name) + archive(GOOD), folder)


@pytest.mark.parametrize("kind", LINKS.values(), ids=LINKS.keys())
def test_nothing_but_plain_files_is_taken(kind: bytes, folder: Path) -> None:
    refused(member(kind=kind, content=b"", target="/etc/passwd") + archive(GOOD), folder)


@pytest.mark.parametrize("field", SIZES.values(), ids=SIZES.keys())
def test_no_absurd_size_is_believed(field: bytes, folder: Path) -> None:
    refused(with_size(field) + bytes(8192), folder)


def test_a_size_in_base_256_is_understood(folder: Path) -> None:
    two = b"\x80" + (2).to_bytes(11, "big")
    files = archive({name: c for name, c in GOOD.items() if name != "timings.json"})
    sent = with_size(two) + b"{}".ljust(tarfile.BLOCKSIZE, b"\0") + files
    assert output.receive(io.BytesIO(sent), LIMITS, folder).keys() == GOOD.keys()


WHOLE: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "only the end": lambda: END,
    "a missing file": lambda: archive({k: v for k, v in GOOD.items() if k != "timings.json"}),
    "a file twice": lambda: member() + archive(GOOD),
    "no tar": lambda: b"no tar archive at all".ljust(4096, b"."),
    "compressed": lambda: gzip.compress(archive(GOOD)),
    "noise": lambda: os.urandom(8192),
    "a wrong checksum": lambda: b"T" + archive(GOOD)[1:],
    "a pax path": lambda: (
        member(form=tarfile.PAX_FORMAT, pax={"path": "../../evil"}) + archive(GOOD)
    ),
    "a pax size": lambda: member(form=tarfile.PAX_FORMAT, pax={"size": "9" * 30}) + archive(GOOD),
    "a pax sparse file": lambda: (
        member(form=tarfile.PAX_FORMAT, pax={"GNU.sparse.realsize": "9" * 15}) + archive(GOOD)
    ),
    "a name that is not UTF-8": lambda: b"\xff" + archive(GOOD)[1:],
}


@pytest.mark.parametrize("sent", WHOLE.values(), ids=WHOLE.keys())
def test_no_other_archive_is_taken(sent: Callable[[], bytes], folder: Path) -> None:
    refused(sent(), folder)


def test_an_archive_that_breaks_off_is_refused(folder: Path) -> None:
    whole = archive(GOOD)[: -len(END)]
    for length in range(0, len(whole), 100):
        refused(whole[:length], folder)


def test_a_link_that_waits_in_the_folder_is_replaced(folder: Path) -> None:
    folder.mkdir(parents=True)
    other = folder.parent / "other"
    other.write_text("untouched")
    (folder / "timings.json").symlink_to(other)
    output.receive(io.BytesIO(archive(GOOD)), LIMITS, folder)
    assert other.read_text() == "untouched"


@settings(max_examples=150, deadline=None)
@given(
    blocks=st.lists(
        st.one_of(
            st.builds(
                member,
                st.sampled_from([*LIMITS, "other", "../x"]),
                st.binary(max_size=40),
                kind=st.sampled_from([tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.SYMTYPE]),
                size=st.one_of(st.none(), st.integers(-5, 5000), st.just(1 << 60)),
            ),
            st.binary(max_size=1024),
            st.just(bytes(tarfile.BLOCKSIZE)),
        ),
        max_size=6,
    ),
    flip=st.one_of(st.none(), st.tuples(st.integers(0, 4000), st.integers(1, 255))),
)
def test_whatever_comes_nothing_gets_out(
    blocks: list[bytes], flip: tuple[int, int] | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / "whatever" / "inside"
    sent = bytearray(b"".join(blocks) or archive(GOOD))
    if flip and flip[0] < len(sent):
        sent[flip[0]] ^= flip[1]
    try:
        digests = output.receive(io.BytesIO(bytes(sent)), LIMITS, folder)
    except InfrastructureFailed:
        pass
    else:
        assert digests.keys() == LIMITS.keys()
    assert [path.name for path in folder.parent.iterdir()] in ([], ["inside"])
    assert content_of(folder).keys() <= LIMITS.keys()
    assert all(len(c) <= LIMITS[name] for name, c in content_of(folder).items())


class Zeros(io.RawIOBase):
    """An endless stream behind a header."""

    def __init__(self, start: bytes) -> None:
        self._start = start

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        target = memoryview(buffer)  # type: ignore[arg-type]
        piece = self._start[: len(target)] or bytes(len(target))
        self._start = self._start[len(target) :]
        target[: len(piece)] = piece
        return len(piece)


def test_memory_stays_small(folder: Path) -> None:
    size = 64 * 1024 * 1024
    stream: BinaryIO = io.BufferedReader(Zeros(member("artifacts/a.iso", b"", size=size)))
    tracemalloc.start()
    with pytest.raises(InfrastructureFailed, match="did not hand back ledger"):
        output.receive(stream, {**LIMITS, "artifacts/a.iso": size}, folder)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (folder / "artifacts/a.iso").stat().st_size == size
    assert peak < 8 * 1024 * 1024


@pytest.mark.parametrize("end", [b"", b"end", bytes(1000)])
def test_zeros_take_no_room(end: bytes, folder: Path) -> None:
    image = b"start".ljust(1 << 20, b"\0") + bytes(20 << 20) + end
    limits = {**LIMITS, "artifacts/a.iso": len(image)}
    sent = archive({**GOOD, "artifacts/a.iso": image})
    digests = output.receive(io.BytesIO(sent), limits, folder)
    written = folder / "artifacts/a.iso"
    assert written.read_bytes() == image
    assert digests["artifacts/a.iso"] == hashlib.sha256(image).hexdigest()
    assert written.stat().st_blocks * 512 < 2 << 20


def refused(sent: bytes, folder: Path) -> None:
    """It is refused with the status of the infrastructure, and nothing else is written."""
    with pytest.raises(InfrastructureFailed) as caught:
        output.receive(io.BytesIO(sent), LIMITS, folder)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
    assert content_of(folder.parent).keys() <= {f"inside/{name}" for name in LIMITS}
    assert not [path for path in folder.parent.rglob("*") if path.is_symlink()]


def job(version: str = "3.3", *earlier: str) -> dict[str, object]:
    kits = [{"from": version} for version in earlier]
    return {"image": "a", "architecture": "amd64", "version": version, "kits": kits}


def test_the_names_and_limits_are_those_of_the_job() -> None:
    names = artifact_names(job("3.3", "3.1", "3.2"))
    limits = output.expected(names)
    assert limits["artifacts/a-amd64-3.3.iso"] == 16 * 1024**3
    assert names.kits == ("a-amd64-3.1-to-3.3.iuk", "a-amd64-3.2-to-3.3.iuk")
    within = {f"artifacts/{name}" for name in names.all()}
    assert set(limits) == within | {"ledger.jsonl.gz", "timings.json"}


@pytest.mark.parametrize(("version", "earlier"), [("x" * 80, ()), ("x" * 40, ("y" * 40,))])
def test_a_name_that_no_header_holds_is_refused_before_a_build(
    version: str, earlier: tuple[str, ...]
) -> None:
    with pytest.raises(UsageError, match="too long"):
        output.expected(artifact_names(job(version, *earlier)))
