# SPDX-License-Identifier: GPL-3.0-or-later
"""No class is named where something only looks like it; `test_catalogue.py` has the positives."""

from collections.abc import Callable

import pytest

from pipeline.documents.explanation import Cause
from pipeline.look.causes.classify import NAMES, find_causes, find_causes_of_values
from pipeline.look.causes.inside import find_causes_of_place
from pipeline.look.places import Place
from tests.unit.look.test_causes import (
    ALPHA_AT,
    BETA_AT,
    DIGESTS,
    NOISE,
    NOT_NAMED,
    OTHER,
    PAIR,
    TIMES,
    UUIDS,
    around,
)

Named = tuple[Cause, ...]


def content(path: str, left: bytes, right: bytes) -> Callable[[], Named]:
    return lambda: find_causes(path, (left, right), PAIR)


def value(kind: str, left: object, right: object) -> Callable[[], Named]:
    return lambda: find_causes_of_values(kind, (left, right), PAIR)


def place(where: str, path: str, kind: str, left: str, right: str) -> Callable[[], Named]:
    found = Place(where, path, kind, first=left, second=right)
    return lambda: find_causes_of_place(found, None, "x", PAIR)


def when(form: str) -> Callable[[], Named]:
    """A time in the right place, at which nobody built."""
    _, path, make = TIMES[form]
    return content(path, make(OTHER), make(OTHER + 5_000_000))


LINES = b"\n".join(b"item %d" % (n * 7919 % 101) for n in range(60))
BUILD_ID = b"\4\0\0\0\x14\0\0\0\3\0\0\0GNU\0"
# What must not be called so.
NEGATIVES: dict[str, Callable[[], Named]] = {
    "file-time": value("time", OTHER, OTHER + 9),
    "time-binary": when("32 le"),
    "time-text": when("ctime"),
    "time-zone": content("x", b"on 2020-11-22\n", b"on 2020-11-23\n"),
    "image-time": place("squashfs", "[time of making]", "time", "1600000000", "1600000009"),
    "gzip-time": when("gzip"),
    "zip-time": when("zip"),
    "tar-time": when("tar"),
    "cpio-time": when("cpio"),
    "ar-time": when("ar"),
    "png-time": when("png"),
    "po-date": when("po"),
    "pyc": when("pyc"),
    "shadow-day": content("etc/passwd", *(TIMES["shadow"][2](at) for at in (1813776000, OTHER))),
    **{name: content("x", *sides) for name, sides in NOT_NAMED.items()},
    "umask": value("mode", 0o755, 0o644),
    "owner": content("etc/owners", b"owner 0:0\n", b"owner 7:7\n"),
    "uuid": content("x", *(f"{UUIDS[0]} {end}\n".encode() for end in "ac")),
    "machine-id": content("etc/other-id", *(f"{d}\n".encode() for d in DIGESTS)),
    "random-identifier": content("x", b"key 1111111111111111\n", b"key 2222222222222222\n"),
    "build-id": content("x", *(around(BUILD_ID + NOISE[n : n + 20]) for n in (900, 1200))),
    "address": content("x", b"0x00001234\n", b"0x00004321\n"),
    "hash-order": content("x", b"one\ntwo\nthree\n", b"one\nzwei\ndrei\n"),
    "directory-order": content("x", b"zoo\nant\ncat\n", b"cat\nant\nzoo\n"),
    # all moved far: no jobs that end a little earlier or later do that
    "job-order": content("x", *(LINES, b"\n".join(reversed(LINES.split(b"\n"))))),
    # an account has another shell
    "account-order": content(
        "etc/passwd",
        b"a:x:998:998::/:/bin/sh\nb:x:997:997::/:/bin/sh\n",
        b"a:x:997:997::/:/bin/sh\nb:x:998:998::/:/bin/false\n",
    ),
    "set-time": value("time", ALPHA_AT, BETA_AT),
    "memory": content("x", b"limit 3900000 of 9\n", b"limit 3900004 of 9\n"),
    "file-system": content("x", b"text is fine\n", b"text is good\n"),
    "uptime": content("x", b"version 12.34 and 5.67\n", b"version 12.35 and 5.67\n"),
    "process-id": content("x", b"rapid 1234\n", b"rapid 1235\n"),
    "duration": content("x", b"sections 12\n", b"sections 13\n"),
    "environment": content("x", b"EDITOR=vi\n", b"EDITOR=ed\n"),
    "temporary-name": value("name", "opt/library-one", "opt/library-two"),
    "only-in-one": place("tar", "etc/x", "mode", "0644", "0600"),
    "extended-attribute": value("owner", "0:0", "7:7"),
    "hard-link": value("target", "etc/a", "etc/b"),
    "key": content("x", b"the key is one\n", b"the key is two\n"),
    "changing-number": content("x", b"of 1234 lines\n", b"of 1235 words\n"),
    # more than a few words differ: another text, not one with another word
    "changing-word": content("x", b"one fine day we saw it\n", b"two poor men who had him\n"),
    "set-mode": value("mode", 0o100755, 0o100750),
    "file-type": value("target", "etc/a", "etc/b"),
    "uninitialised": content("x", around(NOISE[300:305]), around(NOISE[400:405])),
}


@pytest.mark.parametrize("name", NEGATIVES)
def test_what_only_looks_like_it(name: str) -> None:
    assert name not in {cause.name for cause in NEGATIVES[name]()}


def test_every_class_has_one() -> None:
    assert NEGATIVES.keys() == NAMES


@pytest.mark.parametrize("kind", ["mode", "target", "size", "type", "links"])
def test_an_owner_is_a_property_of_its_own(kind: str) -> None:
    assert "owner" not in {cause.name for cause in value(kind, "0:0", "7:7")()}


@pytest.mark.parametrize(
    "found",
    [
        place("fat", "x", "time", "written=2020-01-01 00:00:00", "written=2020-01-02 00:00:00"),
        place("iso9660", "[MBR partition 1]", "structure", "00", "80"),
        place("iso9660", "[primary volume descriptor: publisher]", "identifier", "A", "B 7 C D"),
        place("cpio", "etc/x", "mode", "–", "0755"),
        place("squashfs", "etc/x", "only-in-alpha", "", ""),
    ],
)
def test_places_without_a_known_cause(found: Callable[[], Named]) -> None:
    assert found() == ()


def test_compiled_python_that_is_checked_in_two_ways() -> None:
    start = b"\xcb\r\r\n"
    timed, hashed, odd = (start + bytes([f, 0, 0, 0]) + NOISE[:99] for f in (0, 1, 7))
    (cause,) = find_causes("x.pyc", (timed, hashed), PAIR)
    assert cause.name == "pyc"
    assert "its source's time in alpha and a hash that is not checked in beta" in cause.evidence
    for path, left, right in (("x.pyc", timed, odd), ("x.bin", timed, hashed)):
        assert "pyc" not in {c.name for c in find_causes(path, (left, right), PAIR)}
