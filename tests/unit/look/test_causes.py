# SPDX-License-Identifier: GPL-3.0-or-later
"""Every cause is named where it is at work, and not where something like it is."""

import gzip
import io
import lzma
import random
import re
import struct
import tarfile
import zipfile
import zlib
import zoneinfo
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.look.causes import headers, known_lines
from pipeline.look.causes.classify import NAMES, find_causes, find_causes_of_values
from pipeline.look.causes.facts import Facts
from pipeline.look.causes.spots import find_spots

EPOCH = 1795372707
ALPHA_AT, BETA_AT = 1813776000, 1829760000  # 2027-06-23 18:40, 2027-12-25 18:40 UTC
OTHER = 1_600_000_000  # 2020: nobody built then
ALPHA = Facts(
    name="alpha",
    epoch=EPOCH,
    hours=(ALPHA_AT - 300, ALPHA_AT + 300),
    host_name="alpha-host",
    user="ada",
    build_path="/srv/alpha/twinbuild/work",
    package_path="/build/srv/alpha/twinbuild/work",
    locale="C.UTF-8",
    time_zone="Pacific/Kiritimati",
    kernel="6.12.117+deb13-cloud-amd64",
    cpus="2",
    umask=0o022,
    others={"machine type": "q35", "scratch filesystem": "ext4", "memory": "4096"},
)
BETA = Facts(
    name="beta",
    epoch=EPOCH,
    hours=(BETA_AT - 300, BETA_AT + 300),
    host_name="b",
    user="barbara",
    build_path="/b",
    package_path="/build/b",
    locale="C",
    time_zone="America/Anchorage",
    kernel="6.1.0-56-cloud-amd64",
    cpus="1",
    umask=0o027,
    others={"machine type": "pc", "scratch filesystem": "xfs", "memory": "3072"},
)
PAIR = (ALPHA, BETA)
BOTH = (ALPHA_AT, BETA_AT)
NOISE = random.Random(3).randbytes(4096)


def around(piece: bytes) -> bytes:
    return NOISE[:101] + piece + NOISE[101:300]


def made_gzip(at: int) -> bytes:
    return gzip.compress(b"same\n", mtime=at)


def made_zip(at: int) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in ("one", "two"):
            when = datetime.fromtimestamp(at, UTC).timetuple()[:6]
            archive.writestr(zipfile.ZipInfo(name, when), b"same")
    return out.getvalue()


def made_tar(at: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name in ("one", "two"):
            member = tarfile.TarInfo(name)
            member.mtime, member.size = at, 600
            archive.addfile(member, io.BytesIO(b"x" * 600))
    return out.getvalue()


def made_cpio(at: int) -> bytes:
    fields = [1, 0o100644, 0, 0, 1, at, 4, 0, 0, 0, 0, 2, 0]
    return b"070701" + b"".join(b"%08X" % f for f in fields) + b"a\0same" + NOISE[:32]


def made_ar(at: int) -> bytes:
    return b"!<arch>\n" + b"%-16s%-12d%-6d%-6d%-8o%-10d`\n" % (b"a", at, 0, 0, 0o644, 4) + b"same"


def made_png(at: int) -> bytes:
    when = struct.pack(">H5B", *datetime.fromtimestamp(at, UTC).timetuple()[:6])
    chunks = ((b"IHDR", bytes(13)), (b"tIME", when), (b"IEND", b""))
    parts = [
        struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def made_pyc(at: int) -> bytes:
    return b"\xcb\r\r\n" + struct.pack("<III", 0, at, 500) + NOISE[:200]


def made_po(at: int) -> bytes:
    when = datetime.fromtimestamp(at, UTC)
    return f'msgid ""\nmsgstr ""\n"POT-Creation-Date: {when:%Y-%m-%d %H:%M}+0000\\n"\n'.encode()


def made_mo(at: int) -> bytes:
    return b"\xde\x12\x04\x95" + NOISE[:24] + b"\0" + made_po(at)[20:] + b"\0"


def made_shadow(at: int) -> bytes:
    return f"root:*:{at // 86400}:0:99999:7:::\nuser:!:19000:0:99999:7:::\n".encode()


def made_iso_record(at: int) -> bytes:
    fields = datetime.fromtimestamp(at, UTC).timetuple()[:6]
    return around(struct.pack("6Bb", fields[0] - 1900, *fields[1:], 0))


def made_dos(at: int) -> bytes:
    y, mo, d, h, mi, s = datetime.fromtimestamp(at, UTC).timetuple()[:6]
    return around(struct.pack("<HH", h << 11 | mi << 5 | s // 2, (y - 1980) << 9 | mo << 5 | d))


def text_of(form: str) -> Any:
    return lambda at: datetime.fromtimestamp(at, UTC).strftime(f"built {form} here\n").encode()


def binary_of(code: str, scale: float = 1, shift: int = 0) -> Any:
    kind = float if code[-1] == "d" else int
    return lambda at: around(struct.pack(code, kind((at + shift) * scale)))


TIMES: dict[str, tuple[str, str, Any]] = {
    "gzip": ("gzip-time", "usr/share/doc/x.gz", made_gzip),
    "zip": ("zip-time", "x.jar", made_zip),
    "tar": ("tar-time", "x.tar", made_tar),
    "cpio": ("cpio-time", "x.cpio", made_cpio),
    "ar": ("ar-time", "x.a", made_ar),
    "png": ("png-time", "x.png", made_png),
    "pyc": ("pyc", "x.pyc", made_pyc),
    "po": ("po-date", "x.po", made_po),
    "mo": ("po-date", "x.mo", made_mo),
    "shadow": ("shadow-day", "etc/shadow", made_shadow),
    "iso record": ("time-binary", "x", made_iso_record),
    "dos": ("time-binary", "x", made_dos),
    "32 le": ("time-binary", "x", binary_of("<I")),
    "32 be": ("time-binary", "x", binary_of(">I")),
    "64 le": ("time-binary", "x", binary_of("<q")),
    "64 be": ("time-binary", "x", binary_of(">q")),
    "ms": ("time-binary", "x", binary_of("<q", 1e3)),
    "ms be": ("time-binary", "x", binary_of(">q", 1e3)),
    "us": ("time-binary", "x", binary_of("<q", 1e6)),
    "ns": ("time-binary", "x", binary_of("<q", 1e9)),
    "ns be": ("time-binary", "x", binary_of(">q", 1e9)),
    "double": ("time-binary", "x", binary_of("<d")),
    "filetime": ("time-binary", "x", binary_of("<Q", 1e7, 11644473600)),
    "1904": ("time-binary", "x", binary_of(">I", 1, 2082844800)),
    "iso 8601": ("time-text", "x", text_of("%Y-%m-%dT%H:%M:%SZ")),
    "iso zoned": ("time-text", "x", text_of("%Y-%m-%d %H:%M:%S+00:00")),
    "iso date": ("time-text", "x", text_of("%Y-%m-%d")),
    "slashes": ("time-text", "x", text_of("%Y/%m/%d")),
    "american": ("time-text", "x", text_of("%m/%d/%Y %H:%M")),
    "german": ("time-text", "x", text_of("%d.%m.%Y")),
    "ctime": ("time-text", "x", text_of("%a %b %e %H:%M:%S %Y")),
    "date(1)": ("time-text", "x", text_of("%a %b %e %H:%M:%S UTC %Y")),
    "rfc 2822": ("time-text", "x", text_of("%a, %d %b %Y %H:%M:%S +0000")),
    "__DATE__": ("time-text", "x", text_of("%b %d %Y")),
    "american words": ("time-text", "x", text_of("%B %d, %Y")),
    "words": ("time-text", "x", text_of("%d %B %Y")),
    "compact": ("time-text", "x", text_of("%Y%m%d%H%M%S")),
    "iso 9660 volume": ("time-text", "x", text_of("%Y%m%d%H%M%S00")),
    "basic": ("time-text", "x", text_of("%Y%m%dT%H%M%SZ")),
    "syslog": ("time-text", "x", text_of("%b %e %H:%M:%S")),
    "epoch": ("time-text", "x", text_of("%s")),
    "epoch ms": ("time-text", "x", lambda at: f"at {at}123\n".encode()),
    "epoch fraction": ("time-text", "x", lambda at: f"at {at}.123456\n".encode()),
    "in a binary string": ("time-text", "x", lambda at: around(b"\0" + text_of("%F %T")(at))),
}


def names_of(path: str, left: bytes, right: bytes) -> list[str]:
    causes = find_causes(path, (left, right), PAIR)
    assert {cause.name for cause in causes} <= NAMES
    mirrored = find_causes(path, (right, left), (BETA, ALPHA))
    assert {cause.name for cause in mirrored} == {cause.name for cause in causes}
    return [cause.name for cause in causes]


@pytest.mark.parametrize("form", TIMES)
def test_a_time_of_the_build_is_named(form: str) -> None:
    name, path, make = TIMES[form]
    assert names_of(path, make(ALPHA_AT), make(BETA_AT)) == [name]


@pytest.mark.parametrize("form", TIMES)
def test_a_time_beside_the_commits_is_named(form: str) -> None:
    name, path, make = TIMES[form]
    assert names_of(path, make(ALPHA_AT), make(EPOCH)) == [name]


@pytest.mark.parametrize("form", TIMES)
@pytest.mark.parametrize("times", [(OTHER, OTHER + 5_000_000), (BETA_AT, ALPHA_AT)])
def test_a_time_when_nobody_built_is_not(form: str, times: tuple[int, int]) -> None:
    name, path, make = TIMES[form]
    assert name not in names_of(path, make(times[0]), make(times[1]))


def test_times_say_what_they_are() -> None:
    left, right = (b"\0" * 12 + struct.pack("<I", at) + b"\0" * 12 for at in BOTH)
    (cause,) = find_causes("x.cache", (left, right), PAIR)
    assert "2027-06-23 18:40:00 in alpha, 2027-12-25 18:40:00 in beta" in cause.evidence
    assert "both are within the builds' hours" in cause.evidence


def test_times_of_day_without_a_date() -> None:
    assert names_of("x", b"compiled at 18:38:01\n", b"compiled at 18:43:59\n") == ["time-text"]
    assert names_of("x", b"compiled at 03:58:01\n", b"compiled at 03:03:59\n") == []


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (b"on 2026-11-23 08:38:27 +1400\n", b"on 2026-11-22 09:38:27 -0900\n"),
        (b"on 2026-11-23\n", b"on 2026-11-22\n"),
        (b"in Pacific/Kiritimati\n", b"in America/Anchorage\n"),
        (b"Nov 23 08:38:27 2026\n", b"Nov 22 09:38:27 2026\n"),
    ],
)
def test_one_moment_in_two_time_zones(left: bytes, right: bytes) -> None:
    assert names_of("x", left, right) == ["time-zone"]


def test_time_zones_are_known_where_the_system_has_no_database_of_them() -> None:
    """A small Debian lacks the package tzdata: Python's own serves then."""
    zoneinfo.reset_tzpath(to=())
    zoneinfo.ZoneInfo.clear_cache()
    try:
        left, right = b"on 2026-11-23 08:38:27\n", b"on 2026-11-22 09:38:27\n"
        assert names_of("x", left, right) == ["time-zone"]
    finally:
        zoneinfo.reset_tzpath()
        zoneinfo.ZoneInfo.clear_cache()


def test_days_that_are_not_the_commits_are_no_time_zones() -> None:
    assert names_of("x", b"on 2020-11-22\n", b"on 2020-11-23\n") == []
    assert names_of("x", b"on 2020-11-24\n", b"on 2020-11-22\n") == []
    # a day that is one further where the sun rises earlier may be one moment
    found = find_causes("x", (b"on 2020-11-23\n", b"on 2020-11-22\n"), PAIR)
    assert [(cause.name, cause.weak) for cause in found] == [("time-zone", True)]
    assert names_of("x", b"in Europe/Berlin\n", b"in Europe/Paris\n") == ["changing-word"]


NAMED = {
    "host-name": (b"built on alpha-host, thanks\n", b"built on b, thanks\n"),
    "user": (b"owner = ada\n", b"owner = barbara\n"),
    "build-path": (b"-I/srv/alpha/twinbuild/work/lib x\n", b"-I/b/lib x\n"),
    "locale": (b"LANG=C.UTF-8\n", b"LANG=C\n"),
    "kernel": (b"Linux 6.12.117+deb13-cloud-amd64 x\n", b"Linux 6.1.0-56-cloud-amd64 x\n"),
    "cpu-count": (b"make -j 2 stage 1\n", b"make -j 1 stage 1\n"),
    "machine": (b"Hardware: q35 machine\n", b"Hardware: pc machine\n"),
}
NOT_NAMED = {
    "host-name": (b"alpha-host has 17 files\n", b"b has 18 files\n"),
    "user": (b"adamant and ada\n", b"barbarian and ada\n"),
    "build-path": (b"/srv/alpha/twinbuild/working/x\n", b"/bin/x\n"),
    "locale": (b"vitamin C\n", b"vitamin D\n"),
    "kernel": (b"version 6.12.1170\n", b"version 6.1.05\n"),
    "cpu-count": (b"cpus: 4\n", b"cpus: 8\n"),
    "machine": (b"q35x\n", b"pcx\n"),
}


@pytest.mark.parametrize("name", NAMED)
def test_what_an_environment_is_called(name: str) -> None:
    left, right = NAMED[name]
    assert names_of("x", left, right) == [name]
    assert names_of("x", around(b"\0" + left), around(b"\0" + right)) == [name]
    assert name not in names_of("x", *NOT_NAMED[name])


def test_the_path_in_the_tree_that_builds_packages() -> None:
    left, right = b"/build/srv/alpha/twinbuild/work/greeter-1.2\n", b"/build/b/greeter-1.2\n"
    assert names_of("x", left, right) == ["build-path"]


def test_two_facts_in_one_line() -> None:
    left, right = b"ada@alpha-host:/srv/alpha/twinbuild/work\n", b"barbara@b:/b\n"
    assert set(names_of("x", left, right)) == {"host-name", "user", "build-path"}


def test_a_number_alone_is_a_weak_sign_of_the_cpu_count() -> None:
    (cause,) = find_causes("x", (b"value 2\n", b"value 1\n"), PAIR)
    assert (cause.name, cause.weak) == ("cpu-count", True)


@pytest.mark.parametrize("other", [b"na?ve\n", b"na??ve\n", b"na\\xc3\\xafve\n", b"na_ve\n"])
def test_letters_that_a_locale_lacks(other: bytes) -> None:
    assert names_of("x", "naïve\n".encode(), other) == ["locale"]


def test_other_words_are_no_locale() -> None:
    assert names_of("x", "naïve\n".encode(), b"wise\n") == ["changing-word"]


UUIDS = ("0d3f1b52-6c2e-4f6a-9b0e-3a8f21d7c944", "f19c8a70-51d4-4be3-8f27-9de0a1b2c3d4")
DIGESTS = ("9f2c47d1e05ab386", "30b8d6e29c4f71a5")


@pytest.mark.parametrize(
    ("name", "left", "right"),
    [
        ("uuid", *(f"id={u}\n".encode() for u in UUIDS)),
        ("uuid", *(around(bytes.fromhex(u.replace("-", ""))) for u in UUIDS)),
        ("random-identifier", *(f"key {d}\n".encode() for d in DIGESTS)),
        ("temporary-name", b"/tmp/tmp.Xk29fQaZ01\n", b"/tmp/tmp.p0Lm4RtYcc\n"),
        ("address", b"object at 0x7f31c2a45d90>\n", b"object at 0x7fa09b1c3e20>\n"),
        (
            "address",
            *(around(struct.pack("<Q", n)) for n in (0x7F31C2A45D90, 0x7FA09B1C3E20)),
        ),
    ],
)
def test_identifiers(name: str, left: bytes, right: bytes) -> None:
    assert names_of("x", left, right) == [name]


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (f"id={UUIDS[0]} a\n".encode(), f"id={UUIDS[0]} c\n".encode()),
        (b"key 1111111111111111\n", b"key 2222222222222222\n"),
        (b"key 9f2c47d1e05a\n", b"key 30b8d6e29c4f71a5bb\n"),
        (around(NOISE[500:516]), around(NOISE[700:716])),
        (b"tmp\n", b"tmpfs\n"),
        (b"0x00001234\n", b"0x00004321\n"),
    ],
)
def test_what_looks_like_identifiers_is_none(left: bytes, right: bytes) -> None:
    named = set(names_of("x", left, right))
    assert not named & {"uuid", "random-identifier", "address", "machine-id"}


def test_machine_id() -> None:
    contents = [f"{d}{d}\n".encode() for d in DIGESTS]
    assert names_of("etc/machine-id", *contents) == ["machine-id"]
    assert names_of("etc/other-id", *contents) == ["random-identifier"]


def test_build_id() -> None:
    note = b"\4\0\0\0\x14\0\0\0\3\0\0\0GNU\0"
    left, right = (b"\x7fELF" + around(note + NOISE[at : at + 20]) for at in (900, 1200))
    assert names_of("usr/bin/x", left, right) == ["build-id"]
    assert names_of("usr/bin/x", left[4:], right[4:]) == []


FILES = [f"usr/lib/{name}.so" for name in ("zoo", "ant", "cat", "dog", "bee")]
WORDS = ["zoo", "ant", "cat", "dog", "bee"]


@pytest.mark.parametrize(
    ("name", "left", "right"),
    [
        ("directory-order", "\n".join(FILES), "\n".join(FILES[::-1])),
        ("hash-order", "\n".join(WORDS), "\n".join(WORDS[::-1])),
        ("hash-order", "{" + ", ".join(WORDS), "{" + ", ".join(WORDS[::-1])),
    ],
)
def test_another_order(name: str, left: str, right: str) -> None:
    assert names_of("x", f"{left}\n".encode(), f"{right}\n".encode()) == [name]


def test_another_order_in_binary_files() -> None:
    left, right = (b"\0\1".join(f.encode() for f in files) for files in (FILES, FILES[::-1]))
    assert names_of("x", left + NOISE[:9], right + NOISE[:9]) == ["directory-order"]
    table = [NOISE[at : at + 8] for at in range(0, 80, 8)]
    contents = [NOISE[80:160] + b"".join(t) + NOISE[160:240] for t in (table, table[::-1])]
    assert names_of("x", *contents) == ["hash-order"]


def test_other_lines_are_no_order() -> None:
    lines = b"one\ntwo\nthree\n", b"one\nzwei\ndrei\n"
    assert names_of("x", *lines) == ["changing-word"]
    assert names_of("x", b"a b c\n", b"a b d\n") == ["changing-word"]
    assert names_of("x", b"a\nb\n", b"a\nb\nb\n") == ["only-in-one"]


def test_uninitialised_is_a_guess_about_padding() -> None:
    left, right = (NOISE[:64] + bytes(8) + NOISE[at : at + 5] + bytes(8) for at in (300, 400))
    (cause,) = find_causes("x", (left, right), PAIR)
    assert (cause.name, cause.weak) == ("uninitialised", True)
    assert names_of("x", around(NOISE[300:305]), around(NOISE[400:405])) == []
    assert names_of("x", b"text a\n", b"text b\n") == ["changing-word"]


@pytest.mark.parametrize("compress", [lambda c: gzip.compress(c, mtime=0), lzma.compress])
def test_compressed_contents_are_looked_into(compress: Any) -> None:
    make = text_of("%Y-%m-%d %H:%M")
    assert names_of("x", compress(make(ALPHA_AT)), compress(make(BETA_AT))) == ["time-text"]
    assert names_of("x", compress(b"one\n"), compress(b"two\n")) == ["changing-word"]


def test_properties() -> None:
    assert [c.name for c in find_causes_of_values("time", BOTH, PAIR)] == ["file-time"]
    assert [c.name for c in find_causes_of_values("time", (OTHER, EPOCH), PAIR)] == ["set-time"]
    assert [c.name for c in find_causes_of_values("mode", (0o644, 0o640), PAIR)] == ["umask"]
    for modes in ((0o755, 0o644), (0o640, 0o644)):
        assert [c.name for c in find_causes_of_values("mode", modes, PAIR)] == ["set-mode"]
    assert [c.name for c in find_causes_of_values("owner", ("0:0", "7:7"), PAIR)] == ["owner"]
    paths = ("/srv/alpha/twinbuild/work/x", "/b/x")
    assert [c.name for c in find_causes_of_values("target", paths, PAIR)] == ["build-path"]
    assert find_causes_of_values("content", (None, "x"), PAIR) == ()


@pytest.mark.parametrize("letters", [bytes(range(256)), b"abcdef klmno 0123456789.:-/\n"])
def test_chance_has_no_cause(letters: bytes) -> None:
    chance = random.Random(7)
    for _ in range(100):
        contents = [bytearray(chance.choices(letters, k=400))] * 2
        at, length = chance.randrange(350), chance.randrange(1, 40)
        left, right = (
            bytes(c[:at]) + bytes(chance.choices(letters, k=length)) + bytes(c[at + length :])
            for c in contents
        )
        assert [c for c in find_causes("x", (left, right), PAIR) if not c.weak] == []


def test_equal_contents_have_no_cause() -> None:
    assert find_causes("x", (NOISE, NOISE), PAIR) == ()


def entries() -> dict[str, str]:
    text = (Path(__file__).parents[3] / "docs" / "causes.md").read_text()
    found = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    return {entry.partition("\n")[0].strip(): entry for entry in found}


def test_what_tables_name_is_a_cause() -> None:
    assert headers.FORMATS.keys() <= NAMES
    assert {form.cause for form in (*known_lines.FORMS, *known_lines.NUMBERS)} <= NAMES


def test_every_cause_has_its_entry_and_every_entry_its_cause() -> None:
    assert set(entries()) == NAMES
    for name, entry in entries().items():
        for part in ("**Symptom.**", "**At the cause.**", "**By a hook.**"):
            assert entry.count(part) == 1, (name, part)
        assert entry.count("\n") < 25, name


@given(st.binary(max_size=600), st.binary(max_size=600), st.sampled_from(["x", "a.pyc", "shadow"]))
def test_no_content_breaks_it(left: bytes, right: bytes, path: str) -> None:
    heads = (b"", b"\x1f\x8b\x08", b"PK\3\4", b"!<arch>\n", b"\x89PNG\r\n\x1a\n", b"070701")
    for head in heads:
        contents = (head + left, head + right)
        assert len(find_causes(path, contents, PAIR)) <= 8
        for spot in find_spots(*contents):
            one, other = (c[a:] for c, a in zip(contents, spot.offsets, strict=True))
            assert one.startswith(spot.left)
            assert other.startswith(spot.right)


@given(st.text(max_size=300), st.text(max_size=300))
def test_no_text_breaks_it(left: str, right: str) -> None:
    find_causes("x", (left.encode(), right.encode()), PAIR)


def test_large_contents_take_no_time() -> None:
    lines = [f"{n} {n * 7919 % 10007}\n".encode() for n in range(60_000)]
    find_causes("x", (b"".join(lines), b"".join(reversed(lines))), PAIR)
    find_causes("x", (b"a" * 4_000_000, b"a" * 2_000_000 + b"b" + b"a" * 1_999_999), PAIR)
    find_causes("x", (gzip.compress(bytes(1 << 24)), gzip.compress(bytes(1 << 25))), PAIR)


@pytest.mark.parametrize("name", ["gzip", "zip", "tar", "cpio", "ar"])
@pytest.mark.parametrize("length", [3, 9, 40, 100, 300, 600, 1100])
def test_headers_are_read_as_far_as_they_go(name: str, length: int) -> None:
    _, path, make = TIMES[name]
    contents = make(ALPHA_AT)[:length], make(BETA_AT)[:length]
    found = [cause.name for cause in headers.in_headers(path, contents, PAIR)]
    assert found in ([], [f"{name}-time"])
