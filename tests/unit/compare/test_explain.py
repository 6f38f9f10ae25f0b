# SPDX-License-Identifier: GPL-3.0-or-later
"""Differences of real images, shown and explained; and images that would rather not be."""

import gzip
import struct
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.base.errors import UsageError
from pipeline.base.files import read_json
from pipeline.compare.built import Built, open_built
from pipeline.compare.explain import explain
from pipeline.compare.verdict import run_compare
from pipeline.farm.run import Run
from pipeline.look import contents
from pipeline.look.contents import read_contents
from pipeline.look.shown import show
from tests.differing_run import Tree, built_at, fail, make_run

SAME = {"etc/hostname": b"mini\n"}


def stamp(name: str) -> bytes:
    return b"\0" * 12 + struct.pack("<I", built_at(name)) + b"end of the cache\n\1"


def explained(run: Run) -> tuple[Mapping[str, Any], list[str]]:
    messages: list[str] = []
    path = explain(run, run_compare(run, notify=lambda _: None), notify=messages.append)
    assert path == run.folder / "explanation.json"
    assert all(line.isprintable() for line in messages)
    return read_json(path, failure=UsageError), messages


def pair(tmp_path: Path, left: Tree, right: Tree, **boots: Tree) -> Run:
    return make_run(tmp_path, {"alpha": {**SAME, **left}, "beta": {**SAME, **right}}, boots)


def test_a_time_in_a_binary_file(tmp_path: Path) -> None:
    path = "var/cache/fontconfig/x.cache-8"
    run = pair(tmp_path, {path: stamp("alpha")}, {path: stamp("beta")})
    document, messages = explained(run)
    (file,) = document["files"]
    assert (file["path"], file["step"], file["kinds"]) == (path, "40-hooks/10-stamp", ["content"])
    assert (file["offset"], file["bytes"]) == (12, 4)
    assert [cause["name"] for cause in file["causes"]] == ["time-binary"]
    (row,) = file["shown"]["rows"]
    assert (row["offset"], row["marks"]) == (0, [12, 13, 14, 15])
    assert row["left"] == stamp("alpha")[:16].hex(" ")
    assert "clock" in document["factors"]
    assert document["environments"] == ["alpha", "beta"]
    assert any("4 bytes from byte 12 on; looks like time-binary" in line for line in messages)
    assert any(
        line.startswith("explain: the environments differ in host name") for line in messages
    )


def test_a_file_that_is_named_by_its_content(tmp_path: Path) -> None:
    alpha = {"live/initrd-0123456789ab.img": b"an initramfs"}
    beta = {"live/initrd-ba9876543210.img": b"an Initramfs"}
    document, _ = explained(pair(tmp_path, {}, {}, alpha=alpha, beta=beta))
    (file,) = document["files"]
    assert (file["path"], file["step"], file["kinds"]) == (
        "live/initrd.img",
        "80-boot",
        ["content"],
    )
    assert (file["offset"], file["bytes"], file["note"]) == (3, 1, "")


def test_a_text_is_shown_line_by_line(tmp_path: Path) -> None:
    left, right = (
        b"".join(b"%d\n" % n for n in range(9)) + end for end in (b"on alpha-host\n", b"on b\n")
    )
    document, _ = explained(pair(tmp_path, {"etc/motd": left}, {"etc/motd": right}))
    (file,) = document["files"]
    assert file["shown"]["lines"] == [
        "@@ -7,4 +7,4 @@",
        " 6",
        " 7",
        " 8",
        "-on alpha-host",
        "+on b",
    ]
    assert [cause["name"] for cause in file["causes"]] == ["host-name"]


def test_a_file_of_the_iso(tmp_path: Path) -> None:
    boots = {name: {"boot/grub/x.img": stamp(name)} for name in ("alpha", "beta")}
    document, _ = explained(pair(tmp_path, {}, {}, **boots))
    (file,) = document["files"]
    assert (file["path"], file["step"]) == ("boot/grub/x.img", "80-boot")
    assert [cause["name"] for cause in file["causes"]] == ["time-binary"]


def test_what_no_ledger_names_is_found_in_the_iso(tmp_path: Path) -> None:
    run = pair(
        tmp_path, {}, {}, alpha={"boot/x": b"A" * 5000}, beta={"boot/x": b"A" * 4096 + b"B" * 904}
    )
    for name in ("alpha", "beta"):
        (run.environment(name) / "ledger.jsonl.gz").unlink()
    document, _ = explained(run)
    (file,) = document["files"]
    assert (file["path"], file["step"]) == ("mini-amd64-3.3.iso", "the artifacts")
    (inside,) = file["inside"]
    assert (inside["where"], inside["path"], inside["kind"]) == ("iso9660", "boot/x", "content")
    assert (inside["offset"], inside["shown"]["lines"][1][:5]) == (4096, "-AAAA")


def test_names_that_stand_for_one_another(tmp_path: Path) -> None:
    run = pair(tmp_path, {"etc/x-alpha-host.conf": b""}, {"etc/x-b.conf": b""})
    document, _ = explained(run)
    kinds = [file["kinds"] for file in document["files"]]
    assert kinds == [["only-in-alpha"], ["only-in-beta"]]
    assert {c["name"] for f in document["files"] for c in f["causes"]} == {"host-name"}


def test_only_what_differs_is_explained(tmp_path: Path) -> None:
    run = pair(tmp_path, {}, {})
    verdict = run_compare(run, notify=lambda _: None)
    assert verdict.verdict == "match"
    (run.folder / "explanation.json").write_text("of an earlier verdict")
    assert explain(run, verdict, notify=lambda _: None) is None
    assert not (run.folder / "explanation.json").exists()
    fail(run, "beta", "hook 10-stamp ended with status 1")
    assert explain(run, run_compare(run, notify=lambda _: None), notify=lambda _: None) is None


def test_many_differences_are_bounded(tmp_path: Path) -> None:
    left, right = ({f"etc/{n:03}": b"%d" % (n + m) for n in range(60)} for m in (0, 1))
    document, _ = explained(pair(tmp_path, left, right))
    assert len(document["files"]) == 40
    assert document["left_out"] == 20


HOSTILE = [
    "etc/\x1b[2Jevil",
    "etc/-cat",
    "-x",
    "etc/a b'c\"d$(touch x)`",
    "etc/*",
    "etc/[ab]?",
    "etc/back\\slash",
    "etc/new\nline",
    "etc/\udcff",
    "etc/<script>alert(1)<",
]


def test_hostile_names(tmp_path: Path) -> None:
    here = set(Path().iterdir())
    left, right = (dict.fromkeys(HOSTILE, content) for content in (b"one\x1b[31m\n", b"two\n"))
    document, _ = explained(pair(tmp_path, {**left, "etc/ab": b""}, {**right, "etc/ab": b""}))
    assert len(document["files"]) == len(HOSTILE)
    for file in document["files"]:
        assert file["path"].isprintable()
        assert file["shown"]["lines"][1:] == ["-one\\x1b[31m", "+two"]
    assert len(list(tmp_path.iterdir())) == 3  # two keys and the run
    assert set(Path().iterdir()) == here


def test_a_link_on_the_outside_is_not_followed(tmp_path: Path) -> None:
    run = pair(tmp_path, {"etc/x": b"1\n"}, {"etc/x": b"2\n"})
    secret = tmp_path / "secret"
    secret.write_text("secret")
    iso = run.environment("beta") / "artifacts" / "mini-amd64-3.3.iso"
    iso.unlink()
    iso.symlink_to(secret)
    verdict = run_compare(run, notify=lambda _: None)
    assert verdict.verdict == "failed"
    assert explain(run, verdict, notify=lambda _: None) is None


@pytest.fixture
def built(tmp_path: Path) -> Iterator[Built]:
    run = pair(tmp_path, {"etc/x": b"1\n", "etc/big": bytes(3_000_000)}, {})
    with ExitStack() as stack:
        yield open_built(run.environment("alpha") / "artifacts", stack)


def test_only_files_of_the_image_are_read(built: Built) -> None:
    hostile = ["etc", "etc/y", "../../etc/passwd", "etc/../../../../etc/passwd", "/etc/passwd", ""]
    found = built.tree({"etc/x", *hostile})
    assert found.keys() == {"etc/x"}
    assert found["etc/x"].read(0, 2) == b"1\n"
    assert not any(map(built.find, hostile))


def test_large_files_are_cut(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "CONTENT_LIMIT", 10_000)
    big = built.tree({"etc/big"})["etc/big"]
    for near, start in ((0, 0), (4096, 0), (100_000, 94_208), (2_999_999, 2_994_176)):
        (content, _) = read_contents((big, big), near)
        assert (content.start, len(content.data)) == (start, min(10_000, 3_000_000 - start))
        assert content.cut == (start + 10_000 < 3_000_000)


def test_a_late_difference_of_a_large_file_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "CONTENT_LIMIT", 10_000)
    left, right = (bytes(90_000) + stamp(name) for name in ("alpha", "beta"))
    document, _ = explained(pair(tmp_path, {"x": left}, {"x": right}))
    (file,) = document["files"]
    assert (file["offset"], file["bytes"], file["note"]) == (90_012, 4, "only a part was looked at")
    assert file["shown"]["rows"][0]["offset"] == 90_000
    assert [cause["name"] for cause in file["causes"]] == ["time-binary"]


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "no squashfs"])
def test_damaged_images_are_reported(damage: str, tmp_path: Path) -> None:
    run = pair(tmp_path, {"etc/x": b"1\n"}, {"etc/x": b"2\n"})
    iso = run.environment("beta") / "artifacts" / "mini-amd64-3.3.iso"
    content = iso.read_bytes()
    damaged = {
        "empty": b"",
        "text": b"no ISO at all" * 1000,
        "cut": content[:40_000],
        "no squashfs": content.replace(b"hsqs", b"HSQS"),
    }[damage]
    iso.write_bytes(damaged)
    document, _ = explained(run)
    (file,) = document["files"]
    assert file["note"]
    assert file["shown"] is None


def test_shown_is_bounded_and_says_so() -> None:
    assert show(b"a\n" * 9, b"b\n" * 9).cut is False
    shown = show(b"a\n" * 500, b"b\n" * 500)
    assert (len(shown.lines), shown.cut) == (60, True)
    assert max(map(len, show(b"x" * 10**6, b"y").lines)) == 300
    shown = show(bytes(10**6), b"\1" * 10**6)
    assert (len(shown.rows), shown.cut) == (24, True)
    assert show(b"a\n", b"a\r\n").lines[0].startswith("the lines are equal")
    late = show(b"a\n" * 2000 + b"b", b"a\n" * 2000 + b"c")
    assert late.lines == ("@@ -1998,4 +1998,4 @@", " a", " a", " a", "-b", "+c")


def test_bytes_of_two_lengths() -> None:
    shown = show(b"\0" * 20 + b"ab", b"\0" * 20 + b"xabc")
    (row,) = shown.rows
    assert (row.offset, row.marks) == (16, (4, 5, 6, 7))


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_whatever_differs_can_be_shown(left: bytes, right: bytes) -> None:
    shown = show(left, right)
    assert bool(shown.lines or shown.rows) or left == right
    assert all(line.isprintable() for line in shown.lines)


def test_a_file_that_is_named_by_its_content_is_looked_into(tmp_path: Path) -> None:
    """As kernel and initramfs are: only one side has each name, and what differs is inside."""
    boots = {
        name: {f"live/initrd-{digest}.img": gzip.compress(b"made on " + host, mtime=0)}
        for name, digest, host in (("alpha", "0a1b", b"alpha-host\n"), ("beta", "2c3d", b"b\n"))
    }
    document, _ = explained(pair(tmp_path, {}, {}, **boots))
    assert [file["kinds"] for file in document["files"]] == [["only-in-alpha"], ["only-in-beta"]]
    for file in document["files"]:
        (inside,) = file["inside"]
        assert (inside["where"], inside["path"], inside["kind"]) == ("gzip", "content", "content")
        assert inside["shown"]["lines"][1:] == ["-made on alpha-host", "+made on b"]
        assert [cause["name"] for cause in file["causes"]][:1] == ["host-name"]
