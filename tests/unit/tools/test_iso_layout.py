# SPDX-License-Identifier: GPL-3.0-or-later
"""What reading an ISO says of the files in its SquashFS, on ISOs of real tools."""

import os
from pathlib import Path

import pytest

from pipeline.base.errors import UsageError
from tests.live_iso import make_iso
from tools.iso_layout import Cost, IsoLayout, read_layout

pytestmark = pytest.mark.tools

KIB = 1024
FILES = {
    "big": os.urandom(300 * KIB),
    "etc/one": os.urandom(2000),
    "etc/two": os.urandom(3000),
    "etc/empty": b"",
    "holes": os.urandom(128 * KIB) + bytes(128 * KIB) + os.urandom(64 * KIB),
}
APART = ("-no-fragments", "-noD")
Reads = list[tuple[int, int]]


def sectors(*spans: tuple[int, int]) -> Reads:
    return [(start // 512 * 512, -(-end // 512) * 512) for start, end in spans]


def read(layout: IsoLayout, *paths: str) -> Reads:
    """Read all of these files, one after another."""
    return [span for path in paths for span in sectors(*layout.files[path])]


def content(iso: Path, layout: IsoLayout, path: str) -> bytes:
    whole = iso.read_bytes()
    return b"".join(whole[start:end] for start, end in layout.files[path])


def test_blocks_lie_where_it_says(tmp_path: Path) -> None:
    iso = make_iso(tmp_path, FILES, options=APART, links={"etc/link": "one"})
    layout = read_layout(iso)
    assert (layout.image, layout.squashfs, layout.block_size) == ("mini", "live/1.squashfs", 2**17)
    assert (
        iso.read_bytes()[slice(*layout.span)] == (tmp_path / "medium/live/1.squashfs").read_bytes()
    )
    assert set(layout.files) == set(FILES) - {"etc/empty"}
    for path in ("big", "etc/one", "etc/two"):
        assert content(iso, layout, path) == FILES[path]
    assert [end - start for start, end in layout.files["big"]] == [128 * KIB, 128 * KIB, 44 * KIB]
    assert [end - start for start, end in layout.files["holes"]] == [128 * KIB, 0, 64 * KIB]


def test_files_are_listed_in_the_order_of_their_reads(tmp_path: Path) -> None:
    layout = read_layout(make_iso(tmp_path, FILES, options=APART))
    found = layout.pieces(read(layout, "holes", "big"))
    assert found == [("holes", 0), ("holes", 2), ("big", 0), ("big", 1), ("big", 2)]
    found = layout.pieces(read(layout, "big", "holes", "big"))
    assert [path for path, _ in found] == ["big"] * 3 + ["holes"] * 2


def test_what_was_not_read_wholly_was_not_wanted(tmp_path: Path) -> None:
    layout = read_layout(make_iso(tmp_path, FILES, options=APART))
    first, second, _ = layout.files["big"]
    assert layout.pieces(sectors((first[0], first[1] - KIB), second)) == [("big", 1)]
    assert layout.pieces(sectors((first[0], first[1] - KIB))) == []
    both = sectors((first[1] - KIB, first[1]), (first[0], first[1] - KIB))
    assert layout.pieces(both) == [("big", 0)]
    assert layout.pieces([(0, layout.span[0] // 512 * 512)]) == []


def test_files_of_a_fragment_cannot_be_distinguished(tmp_path: Path) -> None:
    layout = read_layout(make_iso(tmp_path, FILES))
    assert layout.files["etc/one"] == layout.files["etc/two"]
    found = layout.pieces(read(layout, "etc/one"))
    assert found == [("etc/one", 0), ("etc/two", 0)]
    assert layout.cost(found).places == 1


def test_the_cost_counts_each_place_once() -> None:
    files = {"a": [(0, 10), (10, 20)], "b": [(50, 60)], "c": [(50, 60)], "d": [(20, 30), (5, 5)]}
    layout = IsoLayout("mini", "live/1.squashfs", (0, 100), 4096, files)
    assert layout.cost([]) == Cost(0, 0, 0)
    assert layout.cost([("a", 0), ("a", 1), ("d", 0), ("d", 1)]) == Cost(30, 1, 0)
    assert layout.cost([("a", 0), ("b", 0), ("c", 0), ("a", 1)]) == Cost(30, 3, 40 + 50)
    assert layout.cost([("gone", 0), ("a", 7)]) == Cost(0, 0, 0)


@pytest.mark.parametrize("what", ["a name", "a target"])
def test_a_line_break_is_refused(what: str, tmp_path: Path) -> None:
    """A line of what lists the tree for mksquashfs can name a program to run."""
    line = "x\ny f 644 0 0 touch /tmp/run"
    names = {line.replace("/", "_"): b"1", "a": b"2"} if what == "a name" else {"a": b"2"}
    iso = make_iso(tmp_path, names, links={"b": line} if what == "a target" else {})
    with pytest.raises(UsageError, match="has a line break") as caught:
        read_layout(iso)
    assert "\n" not in str(caught.value)


def test_what_is_no_such_iso_is_refused(tmp_path: Path) -> None:
    iso = make_iso(tmp_path, FILES)
    whole = iso.read_bytes()
    start, end = read_layout(iso).span
    damaged = {
        "empty": b"",
        "zeros": bytes(len(whole)),
        "cut short": whole[: (start + end) // 2],
        "another name": whole.replace(b"1.squashfs", b"1.squashfz"),
        "tables": whole[: end - 8 * KIB] + bytes(8 * KIB) + whole[end:],
    }
    for name, changed in damaged.items():
        (tmp_path / name).write_bytes(changed)
        with pytest.raises(UsageError, match="is no ISO of a live system"):
            read_layout(tmp_path / name)
    with pytest.raises(UsageError, match="cannot read"):
        read_layout(tmp_path / "gone")
