# SPDX-License-Identifier: GPL-3.0-or-later
import contextlib
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.base.errors import InputsUnverified, UsageError
from pipeline.documents.lock import (
    Index,
    Lock,
    LockedPackage,
    Package,
    PackageLocation,
    Suite,
    dump,
    load,
    lock_path,
)
from pipeline.documents.malformed import Malformed
from pipeline.inputs.lock_file import read

PACKAGE = Package(
    name="adduser",
    version="1:3.152+b1~x",
    architecture="all",
    size=191048,
    sha256="a" * 64,
    used_by=("builder", "image"),
)
PLACE = PackageLocation("debian", "trixie", "pool/main/a/adduser/adduser_3.152+b1~x_all.deb")
LOCK = Lock(
    image="mini",
    architecture="amd64",
    request_sha256="b" * 64,
    suites=(
        Suite(
            archive="debian",
            suite="trixie",
            date=datetime(2026, 9, 12, 7, 55, 41, tzinfo=UTC),
            inrelease_sha256="c" * 64,
            indices=(Index("main/binary-amd64/Packages.xz", 9678380, "d" * 64),),
        ),
    ),
    locked=(LockedPackage(PACKAGE, PLACE),),
)


def test_a_lock_is_read_as_it_was_written() -> None:
    assert load(dump(LOCK)) == LOCK
    assert dump(LOCK).decode().splitlines()[0] == "Format: twinbuild-lock/1"


def test_the_order_of_things_does_not_matter() -> None:
    other = replace(PACKAGE, name="zlib1g", used_by=("image",))
    both = LockedPackage(PACKAGE, PLACE), LockedPackage(other, PLACE)
    one = replace(LOCK, locked=both)
    two = replace(LOCK, locked=both[::-1])
    assert dump(one) == dump(two)
    assert load(dump(one)).used_by("builder") == (PACKAGE,)


def test_the_file_name_is_apts() -> None:
    assert PACKAGE.file_name == "adduser_1%3a3.152+b1~x_all.deb"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("twinbuild-lock/1", "twinbuild-lock/2"),
        ("Size: 191048", "Size: 0"),
        ("Size: 191048", "Size: -1"),
        ("Size: 191048", "Size: 99999999999999"),
        ("Size: 191048", "Size: 0191048"),
        ("Package: adduser", "Package: ../adduser"),
        ("Architecture: all", "Architecture: a/b"),
        ("Archive: debian\nSuite: trixie\nFilename", "Archive: ..\nSuite: trixie\nFilename"),
        ("Archive: debian\nSuite: trixie\nFilename", "Archive: debian\nSuite: ..\nFilename"),
        ("Suite: trixie\nDate", "Suite: /etc\nDate"),
        ("Filename: pool/main", "Filename: /pool/main"),
        ("Filename: pool/main", "Filename: pool/../main"),
        ("Filename: pool/main", "Filename: pool//main"),
        ("main/binary-amd64", "../binary-amd64"),
        ("Version: 1:3.152", "Version: 1:3/152"),
        ("SHA256: a", "SHA256: A"),
        ("SHA256: a", "SHA256: "),
        ("Used-By: builder image", "Used-By: image builder"),
        ("Used-By: builder image", "Used-By: somebody"),
        ("Used-By: builder image", "Used-By:"),
        ("Image: mini", "Image: ../mini"),
        ("Date: Sat, 12 Sep 2026 07:55:41 GMT", "Date: yesterday"),
        ("Date: Sat, 12 Sep 2026 07:55:41 GMT", "Date: Sat, 12 Sep 2026 07:55:41 +0200"),
        ("Used-By", "Extra: field\nUsed-By"),
        ("Format", "\nFormat"),
    ],
)
def test_anything_else_is_refused(old: str, new: str) -> None:
    text = dump(LOCK).decode()
    assert old in text
    with pytest.raises(Malformed):
        load(text.replace(old, new, 1).encode())


def test_a_package_of_an_unlocked_suite_is_refused() -> None:
    with pytest.raises(Malformed):
        load(dump(replace(LOCK, locked=(LockedPackage(PACKAGE, PLACE._replace(suite="sid")),))))


def test_a_package_stands_in_it_once() -> None:
    again = replace(PACKAGE, version="4", used_by=("image",))
    both = LockedPackage(PACKAGE, PLACE), LockedPackage(again, PLACE)
    twice = replace(LOCK, locked=both)
    with pytest.raises(Malformed, match="twice"):
        load(dump(twice))


@given(st.binary(max_size=300))
def test_no_bytes_do_more_than_be_refused(content: bytes) -> None:
    with pytest.raises(Malformed):
        load(content)


@given(st.integers(0, len(dump(LOCK)) - 1), st.integers(0, 255))
def test_a_changed_byte_is_refused_or_read_exactly(position: int, byte: int) -> None:
    content = bytearray(dump(LOCK))
    content[position] = byte
    with contextlib.suppress(Malformed):
        assert dump(load(bytes(content))) == bytes(content)


def test_no_lock_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\./farm lock --image mini"):
        read(lock_path(tmp_path, "mini"))


def test_an_error_names_paragraph_and_field() -> None:
    with pytest.raises(Malformed, match=r"'Package: adduser': Size: bad size '0'"):
        load(dump(LOCK).replace(b"Size: 191048", b"Size: 0"))


@pytest.mark.parametrize("content", [b"", dump(LOCK) + b"\n"])
def test_a_damaged_file_is_unverified_and_to_be_written_anew(
    content: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "mini" / "lock"
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(InputsUnverified, match="the lock is") as caught:
        read(path)
    assert caught.value.remedy.endswith(" lock --image mini writes a new one")
