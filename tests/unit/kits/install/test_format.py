# SPDX-License-Identifier: GPL-3.0-or-later
"""Kits that are damaged or made to do harm, and the reader that must not believe them."""

import hashlib
import io
import tarfile
from collections.abc import Callable
from typing import Any, BinaryIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.documents.json_form import json_bytes
from pipeline.documents.ustar import ustar_header
from pipeline.kits.install.failure import InputsUnverified
from pipeline.kits.install.format import open_kit

EPOCH = 1_700_000_000
Document = dict[str, Any]
BOOT = {"EFI/BOOT/grubx64.efi": b"loader" * 300, "live/3.3.cfg": b"menu", "live/empty": b""}
DELTA = b"hsqs" + b"delta" * 5000


def content(data: bytes) -> Document:
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def archive(members: dict[str, bytes]) -> bytes:
    out = b"".join(
        ustar_header(name, len(data), EPOCH) + data + bytes(-len(data) % 512)
        for name, data in members.items()
    )
    out += bytes(1024)
    return out + bytes(-len(out) % 10240)


def document(boot: bytes, delta: bytes = DELTA) -> Document:
    base = content(b"base")
    return {
        "format": "twinbuild-kit/1",
        "name": "mini",
        "architecture": "amd64",
        "from": "3.1",
        "to": "3.3",
        "epoch": EPOCH,
        "members": {"boot.tar": content(boot), "3.3.squashfs": content(delta)},
        "base": {"file": "3.1.squashfs", **base},
        "delete": ["live/3.1.cfg"],
        "partition": {
            **{path: content(data) for path, data in BOOT.items()},
            "live/kept": content(b"kept"),
            "live/3.1.squashfs": base,
            "live/3.3.squashfs": content(delta),
        },
        "tree_sha256": "0" * 64,
    }


def kit_of(boot: bytes, control: Document, delta: bytes = DELTA, **more: bytes) -> bytes:
    members = {"FORMAT": b"twinbuild-kit/1\n", "control.json": json_bytes(control)}
    return archive({**members, "boot.tar": boot, "3.3.squashfs": delta, **more})


SOUND = kit_of(archive(BOOT), document(archive(BOOT)))


def read(kit: bytes, stream: Callable[[bytes], BinaryIO] = io.BytesIO) -> dict[str, bytes]:
    return {file.path: b"".join(file.pieces) for file in open_kit(stream(kit), "k.iuk").files()}


def refused(kit: bytes, words: str = "") -> None:
    with pytest.raises(InputsUnverified, match=f"k.iuk is not a sound kit: .*{words}"):
        read(kit)


class Dripping(io.BytesIO):
    """A stream that gives a few bytes at a time, as a socket does."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(min(size or 0, 7) if size else size)


def test_a_sound_kit_is_read_in_order() -> None:
    assert read(SOUND) == {**BOOT, "live/3.3.squashfs": DELTA}
    assert list(read(SOUND)) == [*BOOT, "live/3.3.squashfs"]


def test_a_kit_is_read_from_a_stream_that_cannot_seek() -> None:
    assert read(SOUND, Dripping) == read(SOUND)


def test_what_the_caller_leaves_is_checked_all_the_same() -> None:
    assert [file.path for file in open_kit(io.BytesIO(SOUND), "k").files()][-1] == (
        "live/3.3.squashfs"
    )
    spoiled = SOUND.replace(b"deltadelta", b"deltaDELTA", 1)
    with pytest.raises(InputsUnverified, match=r"3\.3\.squashfs is not the one"):
        list(open_kit(io.BytesIO(spoiled), "k").files())


def test_the_archive_is_what_tarfile_writes_and_reads() -> None:
    with tarfile.open(fileobj=io.BytesIO(SOUND)) as tar:
        members = list(tar)
    assert [m.name for m in members] == ["FORMAT", "control.json", "boot.tar", "3.3.squashfs"]
    assert {(m.mode, m.uid, m.gid, m.uname, m.gname, m.mtime) for m in members} == {
        (0o644, 0, 0, "", "", EPOCH)
    }


@settings(max_examples=150)
@given(at=st.integers(0, len(SOUND) - 1), bit=st.integers(0, 7))
def test_no_bit_of_a_kit_can_be_another(at: int, bit: int) -> None:
    spoiled = bytearray(SOUND)
    spoiled[at] ^= 1 << bit
    try:
        again = read(bytes(spoiled))
    except InputsUnverified:
        return
    # control.json itself is vouched for by the signed description; here it vouches for the rest
    control = open_kit(io.BytesIO(SOUND), "k").control
    assert again == read(SOUND)
    assert open_kit(io.BytesIO(bytes(spoiled)), "k").control != control


@settings(max_examples=40)
@given(st.integers(0, len(SOUND) - 1))
def test_a_kit_that_is_cut_off_is_refused(length: int) -> None:
    refused(SOUND[:length], "cut off")


def test_nothing_may_follow_a_kit() -> None:
    refused(SOUND + bytes(512), "data follow")


def test_more_members_are_refused() -> None:
    boot = archive(BOOT)
    refused(kit_of(boot, document(boot), more=b"x"), "more members")


def test_boot_files_that_control_has_not_are_refused() -> None:
    for path in ("live/other", "boot/grub/current.cfg", "live/3.1.squashfs", "live/3.3.squashfs"):
        boot = archive({**BOOT, path: b"x"} if path > "live/empty" else {path: b"x"})
        refused(kit_of(boot, document(boot)), "which is not in control.json")


def test_boot_files_out_of_order_or_twice_are_refused() -> None:
    boot = archive(dict(reversed(BOOT.items())))
    refused(kit_of(boot, document(boot)), "which is not in control.json")
    one = ustar_header("live/3.3.cfg", 4, EPOCH) + b"menu" + bytes(508)
    boot = one + archive({"live/3.3.cfg": b"menu"})
    boot += bytes(-len(boot) % 10240)
    refused(kit_of(boot, document(boot)), "which is not in control.json")


@pytest.mark.parametrize(
    "path",
    [
        *("../etc/passwd", "/etc/passwd", "live/../../x", "live/./x", "live//x", "live/x/", ""),
        *("live/x.", "live/x ", " live/x", "live/a\0b", "live\\x", "live/a:b", "live/ä", "x" * 300),
        *("live/a\n", "boot/grub/current.cfg", "BOOT/GRUB/CURRENT.CFG", "LIVE/3.3.CFG"),
    ],
)
@pytest.mark.parametrize("where", ["delete", "partition"])
def test_paths_that_lead_elsewhere_or_are_another_files_are_refused(path: str, where: str) -> None:
    boot = archive(BOOT)
    control = document(boot)
    control["delete"] = [path] if where == "delete" else []
    if where == "partition":
        control["partition"][path] = content(b"")
    refused(kit_of(boot, control), "control.json is malformed")


CHANGES: dict[str, Document] = {
    "another format": {"format": "twinbuild-kit/0"},
    "from is to": {"from": "3.3"},
    "a version that is a path": {"to": "../3.3"},
    "a base by another name": {"base": {"file": "../3.1.squashfs", **content(b"base")}},
    "a base that partition has not": {"base": {"file": "3.1.squashfs", **content(b"other")}},
    "members with another name": {"members": {"boot.tar": content(b""), "x": content(b"")}},
    "members without boot.tar": {"members": {"3.3.squashfs": content(DELTA)}},
    "a negative size": {"members": {"boot.tar": {"size": -1, "sha256": "0" * 64}}},
    "a size that is a text": {"base": {"file": "3.1.squashfs", "size": "4", "sha256": "0" * 64}},
    "a size beyond FAT": {"base": {"file": "3.1.squashfs", "size": 2**32, "sha256": "0" * 64}},
    "a digest that is none": {"tree_sha256": "x" * 64},
    "another epoch": {"epoch": EPOCH + 1},
    "an epoch that is true": {"epoch": True},
    "a field too many": {"more": 1},
    "the base is deleted": {"delete": ["live/3.1.squashfs"]},
    "delete out of order": {"delete": ["live/b", "live/a"]},
    "delete twice": {"delete": ["live/a", "live/a"]},
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_control_that_does_not_fit_is_refused(name: str) -> None:
    boot = archive(BOOT)
    refused(kit_of(boot, {**document(boot), **CHANGES[name]}))


@pytest.mark.parametrize("key", sorted(document(b"")))
def test_a_control_that_lacks_a_field_is_refused(key: str) -> None:
    boot = archive(BOOT)
    control = document(boot)
    del control[key]
    refused(kit_of(boot, control), "control.json is malformed")


TWICE = json_bytes(document(archive(BOOT))).replace(b"{", b'{"from": "3.2",', 1)


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"null", b"{" * 100_000, b'{"a": NaN}', b"\xff", b"1" * 5000, TWICE]
)
def test_a_control_that_is_no_document_is_refused(text: bytes) -> None:
    members = {"FORMAT": b"twinbuild-kit/1\n", "control.json": text}
    refused(archive(members), "control.json is malformed")


def test_a_control_in_another_form_is_refused() -> None:
    boot = archive(BOOT)
    written = json_bytes(document(boot))
    for other in (written.rstrip(), written.replace(b"  ", b" ")):
        members = {"FORMAT": b"twinbuild-kit/1\n", "control.json": other}
        refused(archive(members), "not in the one form")


def test_a_control_beyond_the_limit_is_not_read() -> None:
    members = {"FORMAT": b"twinbuild-kit/1\n", "control.json": b" " * (4 * 1024 * 1024 + 1)}
    refused(archive(members), "control.json does not follow FORMAT")


@pytest.mark.parametrize("first", [{"x": b""}, {"FORMAT": b"other"}, {"control.json": b"{}"}])
def test_what_does_not_begin_as_a_kit_is_refused(first: dict[str, bytes]) -> None:
    refused(archive(first))


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (156, b"2"),  # a symbolic link
        (156, b"5"),  # a directory
        (156, b"x"),  # a PAX header, by which tar would give the next member another name
        (156, b"L"),
        (100, b"0004755\0"),
        (108, b"0000001\0"),
        (265, b"root"),
        (124, b"\x80" + bytes(11)),  # a size as GNU tar writes large ones
        (124, b"-0000000001\0"),
        (257, b"ustar  \0"),
    ],
)
def test_only_one_header_is_a_members(at: int, value: bytes) -> None:
    header = bytearray(ustar_header("live/3.3.cfg", 4, EPOCH))
    header[at : at + len(value)] = value
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    boot = bytes(header) + b"menu" + bytes(508 + 1024)
    boot += bytes(-len(boot) % 10240)
    refused(kit_of(boot, document(boot)), "header of a member is malformed")


def test_boot_tar_that_ends_elsewhere_is_refused() -> None:
    boot = archive({"live/3.3.cfg": b"menu"})
    for other in (boot + bytes(10240), boot[:-512]):
        refused(kit_of(other, document(other)))


def test_the_headers_of_the_maker_and_the_reader_are_the_same() -> None:
    from pipeline.guest.kits.kit import _header

    for name in ("FORMAT", "a" * 100, "b" * 100 + "/" + "a" * 100, "d/" * 70 + "file"):
        assert _header(name, 12345, EPOCH) == ustar_header(name, 12345, EPOCH)
