# SPDX-License-Identifier: GPL-3.0-or-later
"""The ledger of a real tree, changed in every way that a step may change it."""

import base64
import gzip
import io
import json
import os
import socket
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from pipeline.compare.ledger import parse, read_blocks
from pipeline.guest import ledger as module
from pipeline.guest.ledger import Ledger
from pipeline.guest.tree import settle_times
from tests.random_trees import Change, replaced

EPOCH = 1_700_000_000
Lines = list[dict[str, Any]]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "etc").mkdir(parents=True)
    (root / "etc/hostname").write_text("mini\n")
    (root / "etc/other").write_text("other\n")
    (root / "usr").mkdir()
    return root


class Recorder:
    """A ledger, and how to see what each step put into it."""

    def __init__(self, tree: Path, out: Path, settled: Callable[[int], int]) -> None:
        self.ledger = Ledger(tree, out, settled)
        self._out = out
        self._steps = 0

    def record(self) -> Lines:
        """Record a step and return its lines."""
        self._steps += 1
        self.ledger.record(f"{self._steps}")
        self.ledger._lines.flush()
        self.ledger._file.flush()
        return after(read(self._out), f"{self._steps}")


def read(path: Path) -> Lines:
    with path.open("rb") as file:
        packed = gzip.GzipFile(fileobj=io.BytesIO(file.read()))
        lines = b""
        while piece := read_some(packed):
            lines += piece
    return [json.loads(line) for line in lines.splitlines()]


def read_some(packed: gzip.GzipFile) -> bytes:
    try:
        return packed.read1()
    except EOFError:  # it goes on
        return b""


def after(lines: Lines, step: str) -> Lines:
    return lines[lines.index({"step": step}) + 1 :]


@pytest.fixture
def recorder(tree: Path, tmp_path: Path) -> Iterator[Recorder]:
    made = Recorder(tree, tmp_path / "ledger.jsonl.gz", lambda mtime: min(mtime // 10**9, EPOCH))
    yield made
    made.ledger.close()


def paths(lines: Lines) -> list[str]:
    return [line["path"] for line in lines]


def test_the_first_step_made_everything(tree: Path, recorder: Recorder) -> None:
    os.chown(tree / "etc/other", 3, 4)
    os.utime(tree / "usr", (1, 2))
    lines = recorder.record()
    assert paths(lines) == ["etc", "etc/hostname", "etc/other", "usr"]
    other, usr = lines[2], lines[3]
    assert other == {
        "path": "etc/other",
        "type": "file",
        "mode": stat.S_IMODE((tree / "etc/other").stat().st_mode),
        "uid": 3,
        "gid": 4,
        "size": 6,
        "mtime": EPOCH,
        "sha256": sha256(b"other\n").hexdigest(),
    }
    assert (usr["type"], usr["mtime"]) == ("dir", 2)
    assert "size" not in usr


def test_a_step_that_changes_nothing_has_no_lines(recorder: Recorder) -> None:
    recorder.record()
    assert recorder.record() == []


CHANGES: dict[str, tuple[Change, dict[str, Any]]] = {
    "content": (lambda p: p.write_text("inim\n"), {"size": 5}),
    "mode": (lambda p: p.chmod(0o4751), {"mode": 0o4751}),
    "owner": (lambda p: os.chown(p, 1, 2), {"uid": 1, "gid": 2}),
    "time": (lambda p: os.utime(p, (5, 5)), {"mtime": 5}),
    "xattr": (lambda p: os.setxattr(p, "user.a", b"\xff"), {"xattrs": {"user.a": "/w=="}}),
    "to link": (replaced(lambda p: p.symlink_to("x")), {"type": "link", "target": "x"}),
    "to folder": (replaced(Path.mkdir), {"type": "dir"}),
    "to pipe": (replaced(os.mkfifo), {"type": "fifo"}),
}


@pytest.mark.parametrize(("change", "seen"), CHANGES.values(), ids=CHANGES.keys())
def test_a_change_is_seen(
    change: Change, seen: dict[str, Any], tree: Path, recorder: Recorder
) -> None:
    os.utime(tree / "etc", (0, 0))
    recorder.record()
    change(tree / "etc/hostname")
    os.utime(tree / "etc", (0, 0))
    (line,) = recorder.record()
    assert line["path"] == "etc/hostname"
    assert line.items() >= seen.items()


def test_what_has_gone_is_absent(tree: Path, recorder: Recorder) -> None:
    recorder.record()
    (tree / "etc/other").unlink()
    (tree / "usr").rmdir()
    lines = recorder.record()
    assert lines[-2:] == [{"path": p, "type": "absent"} for p in ("etc/other", "usr")]
    (tree / "usr").mkdir()
    assert "usr" in paths(recorder.record())


def test_a_folder_that_becomes_a_file_takes_its_files_along(tree: Path, recorder: Recorder) -> None:
    recorder.record()
    for name in ("hostname", "other"):
        (tree / "etc" / name).unlink()
    (tree / "etc").rmdir()
    (tree / "etc").write_text("a file now")
    found = {line["path"]: line["type"] for line in recorder.record()}
    assert found == {"etc": "file", "etc/hostname": "absent", "etc/other": "absent"}


def test_hard_links_name_the_first(tree: Path, recorder: Recorder) -> None:
    os.link(tree / "etc/hostname", tree / "usr/name")
    os.link(tree / "etc/hostname", tree / "a")
    lines = {line["path"]: line for line in recorder.record()}
    assert "links" not in lines["a"]
    assert lines["etc/hostname"]["links"] == lines["usr/name"]["links"] == "a"
    assert len({lines[p]["sha256"] for p in ("a", "etc/hostname", "usr/name")}) == 1


def test_a_first_link_that_goes_leaves_another_one_first(tree: Path, recorder: Recorder) -> None:
    os.link(tree / "etc/hostname", tree / "a")
    recorder.record()
    (tree / "a").unlink()
    lines = {line["path"]: line for line in recorder.record()}
    assert lines["a"]["type"] == "absent"
    assert "links" not in lines["etc/hostname"]


def test_a_new_first_link_is_seen_at_the_others(tree: Path, recorder: Recorder) -> None:
    recorder.record()
    os.link(tree / "etc/hostname", tree / "a")
    lines = {line["path"]: line for line in recorder.record()}
    assert lines["etc/hostname"]["links"] == "a"


def test_links_to_files_that_are_equal_are_not_hard_links(tree: Path, recorder: Recorder) -> None:
    (tree / "etc/same").write_text("mini\n")
    lines = {line["path"]: line for line in recorder.record()}
    assert "links" not in lines["etc/same"]


def test_every_kind_of_file_is_recorded(tree: Path, recorder: Recorder) -> None:
    os.mkfifo(tree / "pipe")
    os.mknod(tree / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(tree / "disk", stat.S_IFBLK | 0o660, os.makedev(8, 300))
    (tree / "link").symlink_to("/absolute/nowhere")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.fspath(tree / "socket"))
    lines = {line["path"]: line for line in recorder.record()}
    assert lines["pipe"]["type"] == "fifo"
    assert (lines["null"]["type"], lines["null"]["device"]) == ("char", [1, 3])
    assert (lines["disk"]["type"], lines["disk"]["device"]) == ("block", [8, 300])
    assert (lines["link"]["type"], lines["link"]["target"]) == ("link", "/absolute/nowhere")
    assert lines["socket"]["type"] == "socket"


def test_attributes_of_the_file_system_are_left_out(tree: Path, recorder: Recorder) -> None:
    os.setxattr(tree / "etc", "trusted.overlay", b"x")
    os.setxattr(tree / "usr", "security.capability", bytes.fromhex("0100000200200000" + "0" * 24))
    lines = {line["path"]: line for line in recorder.record()}
    assert "xattrs" not in lines["etc"]
    assert list(lines["usr"]["xattrs"]) == ["security.capability"]


STRANGE = [b"\xff\xfe", b"a\nb", b'q"uote', "ünï".encode(), b"\xed\xa0\x80", b" ", b"\\x"]


def test_names_of_any_bytes_stay_apart_and_are_sorted(tree: Path, recorder: Recorder) -> None:
    for name in STRANGE:
        Path(os.fsdecode(os.fsencode(tree) + b"/" + name)).write_bytes(name)
    found = [os.fsencode(path) for path in paths(recorder.record())]
    assert set(STRANGE) <= set(found)
    assert found == sorted(found)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that the ledger reads."""
    paths: list[str] = []

    really = module._sha256

    def watching(path: bytes, size: int) -> str:
        paths.append(os.fsdecode(path))
        return really(path, size)

    monkeypatch.setattr(module, "_sha256", watching)
    return paths


def test_only_what_changed_is_read_again(
    tree: Path, recorder: Recorder, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    later = time.time_ns() + 10**9
    monkeypatch.setattr(time, "time_ns", lambda: later)
    recorder.record()
    opened.clear()
    (tree / "etc/hostname").write_text("inim\n")
    recorder.record()
    assert opened == [str(tree / "etc/hostname")]


def test_a_large_file_is_read_in_pieces(
    tree: Path, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SMALL", 4)
    content = b"0123456789" * 100_000
    (tree / "etc/large").write_bytes(content)
    (line,) = [line for line in recorder.record() if line.get("path") == "etc/large"]
    assert line["sha256"] == sha256(content).hexdigest()


def test_a_step_after_the_last_change_of_the_tree_is_named(
    tree: Path, recorder: Recorder, tmp_path: Path
) -> None:
    recorder.record()
    (tree / "etc/late").write_text("after the SquashFS was made\n")
    recorder.ledger.pass_over("85-iso")
    recorder.ledger.close()
    with gzip.open(tmp_path / "ledger.jsonl.gz") as file:
        lines = [json.loads(line) for line in file]
    assert lines[-1] == {"step": "85-iso"}
    assert "etc/late" not in {line.get("path") for line in lines}


def test_a_hidden_change_is_seen(tree: Path, recorder: Recorder) -> None:
    """Same size, same time, same inode: only the kernel's change time tells."""
    path = tree / "etc/hostname"
    os.utime(path, (7, 7))
    recorder.record()
    with path.open("r+") as file:
        file.write("inim")
    os.utime(path, (7, 7))
    (line,) = recorder.record()
    assert line["sha256"] == sha256(b"inim\n").hexdigest()


def test_what_changed_in_the_tick_of_a_look_is_read_again(
    tree: Path, recorder: Recorder, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel gives another change in that tick the same time."""
    changed = (tree / "etc/hostname").stat().st_ctime_ns
    monkeypatch.setattr(time, "time_ns", lambda: changed)
    recorder.record()
    opened.clear()
    assert recorder.record() == []
    assert str(tree / "etc/hostname") in opened


def test_a_time_that_the_build_settled_is_no_reason_to_read(
    tree: Path, recorder: Recorder, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only where nothing else has happened to the file since it was recorded."""
    (tree / "etc/changed").write_text("one\n")
    os.link(tree / "etc/other", tree / "etc/other-name")
    later = time.time_ns() + 10**9
    monkeypatch.setattr(time, "time_ns", lambda: later)
    recorder.record()
    opened.clear()
    (tree / "etc/changed").write_text("two\n")
    (tree / "etc/new").write_text("new\n")
    settle_times(tree, lambda ns: min(ns // 10**9, EPOCH), recorder.ledger.retimed)
    assert (tree / "etc/hostname").stat().st_mtime == EPOCH
    lines = {line["path"]: line for line in recorder.record()}
    assert lines["etc/changed"]["sha256"] == sha256(b"two\n").hexdigest()
    assert str(tree / "etc/changed") in opened
    assert str(tree / "etc/new") in opened
    assert str(tree / "etc/hostname") not in opened
    (tree / "etc/hostname").write_text("inim\n")
    (line,) = recorder.record()
    assert line["sha256"] == sha256(b"inim\n").hexdigest()


def test_a_time_that_could_not_be_settled_is_recorded(tree: Path, recorder: Recorder) -> None:
    os.utime(tree / "etc/hostname", (5, 5))
    time.sleep(2 * module.TICK_NS / 10**9)
    recorder.record()
    settle_times(tree, lambda _: 7, recorder.ledger.retimed)  # not the time the ledger has
    assert {line["mtime"] for line in recorder.record()} == {7}


@given(
    st.binary(min_size=1, max_size=20).filter(lambda name: not {0, 47} & set(name)),
    st.dictionaries(st.sampled_from(["user.a", "user.b"]), st.binary(max_size=5)),
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_line_is_json_with_sorted_keys(
    tmp_path: Path, name: bytes, xattrs: dict[str, bytes]
) -> None:
    """Lines are put together as text: they must be what a JSON encoder makes of their content."""
    assume(name not in (b".", b".."))
    with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
        there = os.fsencode(folder) + b"/" + name
        Path(os.fsdecode(there)).write_bytes(name)
        for key, value in xattrs.items():
            os.setxattr(there, key, value)
        os.link(there, Path(folder) / ("z" * 22))
        (Path(folder) / ("y" * 22)).symlink_to(os.fsdecode(name))
        made, final = Ledger(Path(folder), tmp_path / "steps.gz"), io.BytesIO()
        made.record("1")
        made.write_final(final)
        made.close()
    lines = gzip.decompress(final.getvalue()).splitlines()
    assert len(lines) == 3
    for line in lines:
        entry = json.loads(line)
        assert json.dumps(entry, sort_keys=True, separators=(",", ":")).encode() == line
        assert entry["path"].encode("utf-8", "surrogateescape")
    first = {entry["path"]: entry for entry in map(json.loads, lines)}[os.fsdecode(name)]
    assert {n: base64.b64decode(v) for n, v in first.get("xattrs", {}).items()} == xattrs


def test_touching_a_file_that_stays_the_same_is_no_change(tree: Path, recorder: Recorder) -> None:
    recorder.record()
    os.utime(tree / "etc/hostname")  # after the epoch, as before
    assert recorder.record() == []


def test_the_outside_understands_all_of_it(tree: Path, recorder: Recorder, tmp_path: Path) -> None:
    for name in STRANGE:
        path = Path(os.fsdecode(os.fsencode(tree) + b"/" + name))
        path.write_bytes(name)
        os.link(path, tree / f"link to {len(name)} {sum(name)}")
    os.utime(tree / "usr", (-5.5, -5.5))
    os.mknod(tree / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    lines = recorder.record()
    (tree / "etc/other").unlink()
    lines += recorder.record()
    recorder.ledger.artifact("x", tree / "etc/hostname")
    recorder.ledger.close()
    blocks = read_blocks(tmp_path / "ledger.jsonl.gz")
    assert len([parse(line) for block in blocks for line in block]) == len(lines) + 3


def test_equal_trees_have_equal_ledgers(tmp_path: Path) -> None:
    written = []
    for name in ("first", "second"):
        tree, out = tmp_path / name, tmp_path / f"{name}.gz"
        files = ["b/c", "a", "b/d"] if name == "first" else ["b/d", "b/c", "a"]
        tree.mkdir()
        (tree / "b").mkdir()
        for file in files:
            (tree / file).write_text(file)
        os.link(tree / "a", tree / "z")
        ledger = Ledger(tree, out, lambda _: EPOCH)
        ledger.record("one")
        ledger.artifact("image", tree / "a")
        final = io.BytesIO()
        ledger.write_final(final)
        ledger.close()
        written.append((out.read_bytes(), final.getvalue()))
    assert written[0] == written[1]
    assert written[0][0][4:8] == bytes(4)  # gzip's own time


def test_the_final_ledger_is_the_tree_as_it_is(tree: Path, recorder: Recorder) -> None:
    recorder.record()
    (tree / "etc/other").unlink()
    last = {line["path"] for line in recorder.record()}
    final = io.BytesIO()
    recorder.ledger.write_final(final)
    lines = [json.loads(line) for line in gzip.decompress(final.getvalue()).splitlines()]
    assert paths(lines) == ["etc", "etc/hostname", "usr"]
    assert "etc/other" in last


def test_an_artifact_is_recorded_by_hash(tree: Path, tmp_path: Path) -> None:
    ledger = Ledger(tree, tmp_path / "out.gz", lambda _: EPOCH)
    ledger.record("one")
    ledger.artifact("filesystem.squashfs", tree / "etc/other")
    ledger.close()
    digest = sha256(b"other\n").hexdigest()
    assert read(tmp_path / "out.gz")[-1] == {
        "artifact": "filesystem.squashfs",
        "sha256": digest,
        "size": 6,
    }


def test_a_delivered_artifact_is_not_hashed(tree: Path, tmp_path: Path) -> None:
    ledger = Ledger(tree, tmp_path / "out.gz", lambda _: EPOCH)
    ledger.record("one")
    ledger.artifact("mini.iso", tree / "etc/other", delivered=True)
    ledger.close()
    assert read(tmp_path / "out.gz")[-1] == {"artifact": "mini.iso", "size": 6}


def test_a_file_that_leaves_the_tree_is_hashed_once(tree: Path, tmp_path: Path) -> None:
    ledger = Ledger(tree, tmp_path / "out.gz", lambda _: EPOCH)
    recorded = sha256((tree / "etc/other").read_bytes()).hexdigest()
    ledger.record("one")
    (tree / "etc/other").write_text("OTHER\n")  # hashed again, this would show
    ledger.artifact("live/vmlinuz", tree / "etc/other")
    ledger.close()
    assert read(tmp_path / "out.gz")[-1]["sha256"] == recorded


def test_what_a_step_changed_is_returned(tree: Path, recorder: Recorder) -> None:
    first = recorder.ledger.record("1")
    assert set(first.changed) == {b"etc", b"etc/hostname", b"etc/other", b"usr"}
    assert first.removed == ()
    os.link(tree / "etc/other", tree / "usr/same")
    (tree / "etc/hostname").unlink()
    (tree / "etc/hostname").mkdir()
    (tree / "etc/new").symlink_to("other")
    second = recorder.ledger.record("2")
    # All names of the inode that has a new one: a link cannot be made to what is not there.
    assert set(second.changed) == {b"etc/hostname", b"etc/new", b"etc/other", b"usr/same"}
    assert second.removed == (b"etc/hostname",)
    (tree / "etc/new").unlink()
    assert recorder.ledger.record("3").removed == (b"etc/new",)


def test_the_digest_is_of_the_content_not_of_its_times(tmp_path: Path) -> None:
    def digest(name: str, content: str, mtime: int, file_name: str = "file") -> str:
        (tmp_path / name).mkdir()
        path = tmp_path / name / file_name
        path.write_text(content)
        os.utime(path, (mtime, mtime))
        made = Ledger(tmp_path / name, tmp_path / f"{name}.gz")
        made.record("1")
        made.close()
        return made.digest

    one = digest("a", "x", 1)
    assert digest("b", "x", -2) == one
    assert digest("c", "y", 1) != one
    odd = '"mtime":1,'  # a name that looks like a time is none
    assert digest("d", "x", 1, odd) != digest("e", "x", 1, '"mtime":2,') != one
