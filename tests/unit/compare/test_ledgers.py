# SPDX-License-Identifier: GPL-3.0-or-later
"""Where builds began to differ, found from their two ledgers."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.base.errors import BuildFailed
from pipeline.compare import ledger
from pipeline.compare import ledgers as module
from pipeline.compare.ledgers import ComparedLedgers, compare_ledgers
from pipeline.documents.verdict import Difference
from pipeline.guest.ledger import Ledger

ROOT = Path(__file__).parents[3]
NAMES = ("alpha", "beta")
Document = dict[str, Any]


def digest(content: str) -> str:
    return content.encode().hex().ljust(64, "0")[:64]


def file(path: str, content: str = "x", **changed: Any) -> Document:
    entry = {"path": path, "type": "file", "mode": 420, "uid": 0, "gid": 0, "mtime": 7}
    return {**entry, "size": len(content), "sha256": digest(content), **changed}


def absent(path: str) -> Document:
    return {"path": path, "type": "absent"}


def made(name: str, content: str) -> Document:
    return {"artifact": name, "size": len(content), "sha256": digest(content)}


def step(name: str) -> Document:
    return {"step": name}


def found(
    folder: Path, left: list[Document], right: list[Document], *delivered: str
) -> ComparedLedgers:
    paths = folder / "alpha.gz", folder / "beta.gz"
    for path, documents in zip(paths, (left, right), strict=True):
        lines = [json.dumps(d, sort_keys=True, separators=(",", ":")) + "\n" for d in documents]
        path.write_bytes(gzip.compress("".join(lines).encode(), compresslevel=1))
    return compare_ledgers(NAMES, paths, set(delivered))


BOOT = [step("20-bootstrap"), *(file(f"usr/{number:03d}") for number in range(50))]
HOOK = step("40-hooks/10-stamp.hook.chroot")


def test_a_stamp_is_named_with_its_step(tmp_path: Path) -> None:
    left = [*BOOT, HOOK, file("etc/stamp", "one"), step("60-clean"), step("70-squashfs")]
    right = [*BOOT, HOOK, file("etc/stamp", "two"), step("60-clean"), step("70-squashfs")]
    result = found(tmp_path, left, right)
    assert result.differences == (
        Difference("40-hooks/10-stamp.hook.chroot", "etc/stamp", "content"),
    )
    assert result.reasons == ("step 40-hooks/10-stamp.hook.chroot: etc/stamp differs in content",)


@pytest.mark.parametrize(
    ("changed", "kinds"),
    [
        ({"mode": 0o600}, ["mode"]),
        ({"uid": 1}, ["owner"]),
        ({"gid": 1}, ["owner"]),
        ({"mtime": 8}, ["time"]),
        ({"sha256": digest("y")}, ["content"]),
        ({"sha256": digest("y"), "size": 9, "mtime": 8}, ["content", "size", "time"]),
        ({"xattrs": {"user.a": "AA=="}}, ["xattr"]),
        ({"links": "a"}, ["links"]),
        ({"type": "dir"}, ["type"]),
        ({"type": "char", "device": [1, 3]}, ["type"]),
        ({"type": "absent"}, ["only-in-alpha"]),
    ],
)
def test_every_kind_is_reported(tmp_path: Path, changed: Document, kinds: list[str]) -> None:
    left, right = file("etc/x"), {**file("etc/x"), **changed}
    result = found(tmp_path, [HOOK, left], [HOOK, right])
    assert [d.kind for d in result.differences] == kinds
    assert {d.path for d in result.differences} == {"etc/x"}


def test_targets_and_devices_are_reported(tmp_path: Path) -> None:
    left = [HOOK, {"path": "a", "type": "char", "device": [1, 3]}]
    right = [HOOK, {"path": "a", "type": "char", "device": [1, 5]}]
    assert found(tmp_path, left, right).differences[0].kind == "content"
    left = [HOOK, {"path": "a", "type": "link", "target": "b"}]
    right = [HOOK, {"path": "a", "type": "link", "target": "c"}]
    assert found(tmp_path, left, right).differences[0].kind == "target"


def test_paths_of_one_side_are_reported(tmp_path: Path) -> None:
    left = [*BOOT, HOOK, file("a"), file("c"), file("d")]
    right = [*BOOT, HOOK, file("b"), file("c"), file("e")]
    result = found(tmp_path, left, right)
    assert [(d.path, d.kind) for d in result.differences] == [
        ("a", "only-in-alpha"),
        ("b", "only-in-beta"),
        ("d", "only-in-alpha"),
        ("e", "only-in-beta"),
    ]
    assert result.reasons[0] == "step 40-hooks/10-stamp.hook.chroot: a is only in alpha"


def test_what_one_side_alone_changed_is_compared_with_what_was_there(tmp_path: Path) -> None:
    left = [*BOOT, HOOK, file("usr/007", "new")]
    result = found(tmp_path, left, [*BOOT, HOOK])
    assert [(d.path, d.kind) for d in result.differences] == [
        ("usr/007", "content"),
        ("usr/007", "size"),
    ]


def test_what_one_side_alone_removed_is_only_in_the_other(tmp_path: Path) -> None:
    result = found(tmp_path, [*BOOT, HOOK, absent("usr/007")], [*BOOT, HOOK])
    assert result.differences == (Difference(HOOK["step"], "usr/007", "only-in-beta"),)


def test_what_is_equal_in_the_end_made_no_difference(tmp_path: Path) -> None:
    """Logs that are removed and times that are clamped differ in every pair of builds."""
    end = [step("60-clean"), file("etc/machine-id", mtime=5)]
    gone = absent("var/log/dpkg.log")
    real = file("etc/stamp", "alpha"), file("etc/stamp", "beta")
    left = [*BOOT, file("var/log/dpkg.log", "10:00"), file("etc/machine-id", mtime=8)]
    right = [*BOOT, file("var/log/dpkg.log", "11:00"), file("etc/machine-id", mtime=9)]
    left += [HOOK, real[0], *end, gone]
    right += [HOOK, real[1], *end, gone]
    result = found(tmp_path, left, right)
    assert {(d.step, d.path) for d in result.differences} == {(HOOK["step"], "etc/stamp")}


def test_a_file_that_one_side_had_for_a_while_made_no_difference(tmp_path: Path) -> None:
    left = [*BOOT, file("tmp/x"), HOOK, absent("tmp/x"), step("70"), made("iso", "a")]
    right = [*BOOT, HOOK, step("70"), made("iso", "b")]
    result = found(tmp_path, left, right)
    assert result.differences == (Difference("70", "iso", "content"),)


def test_a_time_that_one_side_alone_had_to_clamp_made_no_difference(tmp_path: Path) -> None:
    left = [*BOOT, file("etc/x", mtime=9), step("60-clean"), file("etc/x", mtime=7)]
    right = [*BOOT, file("etc/x", mtime=7), step("60-clean")]
    assert found(tmp_path, left, right).differences == ()


def test_a_difference_is_dated_from_the_step_since_which_it_stays(tmp_path: Path) -> None:
    left = [step("1"), file("a", "p"), step("2"), file("a", "q", mtime=1), step("3"), file("b")]
    right = [step("1"), file("a", "r"), step("2"), file("a", "s", mtime=2), step("3"), file("c")]
    result = found(tmp_path, left, right)
    assert [(d.step, d.path, d.kind) for d in result.differences] == [
        ("1", "a", "content"),
        ("2", "a", "time"),
        ("3", "b", "only-in-alpha"),
        ("3", "c", "only-in-beta"),
    ]
    assert "2 more paths differ since later steps" in result.reasons


def test_equal_trees_leave_the_step_that_made_the_file(tmp_path: Path) -> None:
    left = [
        *BOOT,
        step("70-squashfs"),
        made("filesystem.squashfs", "a"),
        step("85-iso"),
        made("iso", "a"),
    ]
    right = [
        *BOOT,
        step("70-squashfs"),
        made("filesystem.squashfs", "b"),
        step("85-iso"),
        made("iso", "b"),
    ]
    result = found(tmp_path, left, right)
    assert result.differences[0] == Difference("70-squashfs", "filesystem.squashfs", "content")
    expected = "the difference arises in 70-squashfs (filesystem.squashfs)"
    assert result.reasons == (f"the trees are equal after every step: {expected}",)


def test_a_delivered_file_that_differs_is_dated_by_its_step(tmp_path: Path) -> None:
    iso, image = {"artifact": "x.iso", "size": 9}, {"artifact": "x.img", "size": 9}
    both = [*BOOT, step("70-squashfs"), step("85-iso"), iso, step("86-usb-image"), image]
    result = found(tmp_path, both, both, "x.img", "x.iso", "x.packages")
    assert result.differences == (
        Difference("85-iso", "x.iso", "content"),
        Difference("86-usb-image", "x.img", "content"),
    )
    assert result.reasons == (
        "the trees are equal after every step: the difference arises in 85-iso (x.iso)",
    )


def test_a_delivered_file_is_not_the_reason_where_what_is_in_it_differs(tmp_path: Path) -> None:
    end = [step("85-iso"), {"artifact": "x.iso", "size": 9}]
    left = [*BOOT, step("70-squashfs"), made("live/1.squashfs", "a"), *end]
    right = [*BOOT, step("70-squashfs"), made("live/1.squashfs", "b"), *end]
    result = found(tmp_path, left, right, "x.iso")
    assert result.differences[0] == Difference("70-squashfs", "live/1.squashfs", "content")
    assert "arises in 70-squashfs (live/1.squashfs)" in result.reasons[0]


def test_files_made_from_a_tree_that_differs_are_not_the_reason(tmp_path: Path) -> None:
    left = [HOOK, file("a", "x"), step("70-squashfs"), made("filesystem.squashfs", "a")]
    right = [HOOK, file("a", "y"), step("70-squashfs"), made("filesystem.squashfs", "b")]
    assert {d.path for d in found(tmp_path, left, right).differences} == {"a"}


def test_equal_ledgers_are_reported(tmp_path: Path) -> None:
    result = found(tmp_path, BOOT, BOOT)
    assert result == ComparedLedgers(
        (), ("the ledgers are equal: the difference arises after the last step",)
    )


def test_a_long_shared_start_is_passed_with_its_steps(tmp_path: Path) -> None:
    shared = [
        d
        for n in range(40)
        for d in (step(f"{n}"), *(file(f"{n}/{i}", str(i)) for i in range(200)))
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger, "PIECE", 1000)
        result = found(tmp_path, [*shared, file("x", "a")], [*shared, file("x", "b")])
        assert result.differences == (Difference("39", "x", "content"),)
        result = found(tmp_path, [*shared, step("40"), file("0/7", "new")], [*shared, step("40")])
        assert result.differences == (
            Difference("40", "0/7", "content"),
            Difference("40", "0/7", "size"),
        )


def test_different_steps_are_reported(tmp_path: Path) -> None:
    result = found(tmp_path, [*BOOT, step("30-a"), file("x")], [*BOOT, step("30-b"), file("y")])
    assert result.reasons == ("alpha continues with the step 30-a where beta has 30-b",)
    result = found(tmp_path, [*BOOT, step("30-a")], BOOT)
    assert result.reasons == ("the ledger of beta ends before the step 30-a",)
    result = found(tmp_path, BOOT, [*BOOT, step("30-a")])
    assert result.reasons == ("the ledger of alpha ends before the step 30-a",)


def test_many_differences_are_cut_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OPEN_LIMIT", 1500)
    left = [HOOK, *(file(f"{n:05d}", "a") for n in range(3000))]
    right = [HOOK, *(file(f"{n:05d}", "b") for n in range(3000))]
    result = found(tmp_path, left, right)
    assert len(result.differences) == 1000
    assert len(result.reasons) == 12
    assert "and 1491 more paths" in result.reasons[-2]
    assert "over 1500 paths differ" in result.reasons[-1]


def test_names_from_the_guest_do_not_reach_the_terminal_raw(tmp_path: Path) -> None:
    evil = "etc/\x1b]0;pwned\x07\n\u202e\udcff"
    result = found(tmp_path, [step("\x1b[2J"), file(evil, "a")], [step("\x1b[2J"), file(evil, "b")])
    assert result.differences[0].path == evil
    assert all(reason.isprintable() for reason in result.reasons)


def test_paths_with_quotes_and_backslashes_are_distinct(tmp_path: Path) -> None:
    paths = ['a","b', 'a"', "a\\", 'a\\","c']
    left = [step("1"), *(file(path, "l") for path in sorted(paths)), step("2"), file('a"', "same")]
    right = [step("1"), *(file(path, "r") for path in sorted(paths)), step("2"), file('a"', "same")]
    result = found(tmp_path, left, right)
    assert {d.path for d in result.differences} == set(paths) - {'a"'}


def test_an_unreadable_ledger_is_refused(tmp_path: Path) -> None:
    found(tmp_path, BOOT, BOOT)
    (tmp_path / "beta.gz").write_bytes((tmp_path / "alpha.gz").read_bytes()[:-9])
    with pytest.raises(BuildFailed, match="cut off"):
        compare_ledgers(NAMES, (tmp_path / "alpha.gz", tmp_path / "beta.gz"))


IN_LITTLE_MEMORY = """
import sys
from pathlib import Path
from pipeline.compare.ledgers import compare_ledgers
found = compare_ledgers(("alpha", "beta"), (Path(sys.argv[1]), Path(sys.argv[2]))).differences
peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(len(found), int(peak) // 1024)
"""


def test_memory_does_not_grow_with_the_ledgers(tmp_path: Path) -> None:
    large = {"user.large": "A" * 100_000}
    for name, first, last in (("alpha", "a", "x"), ("beta", "b", "y")):
        with gzip.open(tmp_path / name, "wt", compresslevel=1) as out:
            out.writelines(
                json.dumps(document, sort_keys=True, separators=(",", ":")) + "\n"
                for document in (
                    step("1"),
                    file("a", first),
                    *(file(f"usr/{n:04d}", xattrs=large) for n in range(600)),
                    step("2"),
                    file("b", last),
                )
            )
    argv = [sys.executable, "-c", IN_LITTLE_MEMORY, str(tmp_path / "alpha"), str(tmp_path / "beta")]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, check=True, text=True)
    differences, mebibytes = map(int, done.stdout.split())
    assert differences == 2
    assert mebibytes < 50  # of 60 in each


# A history: for each step, what each side writes (a content), removes (None) or leaves alone.
Change = tuple[str, str | None]
CHANGES = st.lists(
    st.dictionaries(st.sampled_from("abcdef"), st.sampled_from([None, "1", "2"])), max_size=4
)


def written(
    history: list[dict[str, str | None]], steps: int
) -> tuple[list[Document], dict[str, str]]:
    """Return the ledger that the guest would write of a history, and the tree in the end."""
    tree: dict[str, str] = {}
    documents: list[Document] = []
    for number in range(steps):
        changes = history[number] if number < len(history) else {}
        documents.append(step(str(number)))
        before = dict(tree)
        tree.update({path: content for path, content in changes.items() if content is not None})
        for path in (path for path, content in changes.items() if content is None):
            tree.pop(path, None)
        documents += [file(p, c) for p, c in sorted(tree.items()) if before.get(p) != c]
        documents += [absent(path) for path in sorted(before.keys() - tree.keys())]
    return documents, tree


@settings(max_examples=40)
@given(CHANGES, CHANGES, CHANGES, st.sampled_from([3, 50, 300]))
def test_what_is_reported_is_what_differs_in_the_end(
    tmp_path_factory: pytest.TempPathFactory,
    start: list[dict[str, str | None]],
    left: list[dict[str, str | None]],
    right: list[dict[str, str | None]],
    piece: int,
) -> None:
    steps = len(start) + max(len(left), len(right))
    (ours, here), (theirs, there) = written(start + left, steps), written(start + right, steps)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger, "PIECE", piece)
        patch.setattr(module, "WINDOW", 2)
        result = found(tmp_path_factory.getbasetemp(), ours, theirs)
    expected = {
        path: "content" if path in here and path in there else f"only-in-{NAMES[path in there]}"
        for path in here.keys() | there.keys()
        if here.get(path) != there.get(path)
    }
    assert {d.path: d.kind for d in result.differences} == expected


def test_the_guests_own_ledgers_are_compared(tmp_path: Path) -> None:
    """The one that writes and the one that reads are of one mind."""
    for name, content in zip(NAMES, ("one", "two"), strict=True):
        tree = tmp_path / name
        (tree / "etc").mkdir(parents=True)
        (tree / "etc/plain").write_text("same")
        (tree / "etc/link").symlink_to("plain")
        writer = Ledger(tree, tmp_path / f"{name}.gz")
        writer.record("20-bootstrap")
        (tree / "etc/stamp").write_text(content)
        (tree / os.fsdecode(b"etc/\xff")).write_text(content)
        (tree / "etc/hard").hardlink_to(tree / "etc/plain")
        for path in (*tree.rglob("*"), tree / "etc"):
            os.utime(path, (7, 7), follow_symlinks=False)
        writer.record("40-hooks/10-stamp")
        writer.artifact("stamp.img", tree / "etc/stamp")
        writer.close()
    result = compare_ledgers(NAMES, (tmp_path / "alpha.gz", tmp_path / "beta.gz"))
    assert result.differences == (
        Difference("40-hooks/10-stamp", "etc/stamp", "content"),
        Difference("40-hooks/10-stamp", "etc/\udcff", "content"),
    )
