# SPDX-License-Identifier: GPL-3.0-or-later
"""Kits applied to a real disk image, and everything that must be refused."""

import fcntl
import json
import mmap
import os
import struct
import tarfile
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from pipeline.base.errors import ExitStatus
from pipeline.documents.kit_control import BOOT
from pipeline.kits.install import apply as applying
from pipeline.kits.install.failure import Failure
from pipeline.kits.install.medium import Medium
from pipeline.kits.install.plan import Brought, Plan, make_plan
from pipeline.kits.install.rollback import roll_back
from pipeline.kits.install.system import Switch, System
from tests.installed import (
    PARTITION_AT,
    KitParts,
    Release,
    archive,
    make_disk,
    mtools,
    sha256,
    switch,
)
from tests.unit.kits.conftest import FIRST, NOW, SECOND, THIRD, Kits, Signer, Stick

pytestmark = pytest.mark.tools

SWITCH = "boot/grub/current.cfg"


@contextmanager
def unwritten(path: Path) -> Iterator[None]:
    """Check that nothing is written to a file while the block runs."""
    os.utime(path, (0, 0))
    yield
    assert path.stat().st_mtime_ns == 0


def patch(path: Path, old: bytes, new: bytes) -> None:
    """Change the one place where a target holds these bytes."""
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as content:
        at = content.find(old)
        assert at >= 0
        content[at : at + len(new)] = new


def holds(files: Mapping[str, bytes], expected: Mapping[str, bytes]) -> bool:
    return {path: files.get(path) for path in expected} == expected


def test_an_upgrade(stick: Stick, to_second: Path) -> None:
    applied = stick.apply(to_second)
    assert (applied.version, applied.before, applied.changed) == ("3.2", "3.1", True)
    files = stick.files()
    assert holds(files, KitParts(FIRST, SECOND).partition)
    assert files[SWITCH] == switch("3.2", "3.1")
    assert files["mine/notes"] == b"my own"
    assert holds(files, {p: c for p, c in FIRST.files.items() if p.startswith("live/")})
    stick.check()


def test_twice_says_so_and_writes_nothing(stick: Stick, to_second: Path) -> None:
    stick.apply(to_second)
    with unwritten(stick.path):
        applied = stick.apply(to_second)
    assert not applied.changed
    assert str(applied) == "3.2 is installed already: nothing to do"


def test_what_was_damaged_since_is_mended(stick: Stick, to_second: Path) -> None:
    stick.apply(to_second)
    patch(stick.path, KitParts(FIRST, SECOND).delta[:512], bytes(512))
    assert not holds(stick.files(), KitParts(FIRST, SECOND).partition)
    assert "repaired" in str(stick.apply(to_second))
    assert holds(stick.files(), KitParts(FIRST, SECOND).partition)
    stick.check()


def test_after_another_upgrade(stick: Stick, to_second: Path, to_third: Path) -> None:
    """The third release has files as the first had them: its kit brings none of those."""
    boot = KitParts(FIRST, THIRD).boot
    assert "boot/readme" not in boot
    assert not any("vmlinuz" in path for path in boot)
    stick.apply(to_second)
    stick.apply(to_third)
    files = stick.files()
    assert holds(files, KitParts(FIRST, THIRD).partition)
    assert files["live/3.2.squashfs"]
    assert files[SWITCH] == switch("3.3", "3.2")
    stick.check()


def test_a_delta_goes_with_the_upgrade_after_the_next(
    stick: Stick, to_second: Path, to_third: Path, kits: Kits
) -> None:
    fourth = KitParts(FIRST, Release("3.4", kernel="C"))
    stick.apply(to_second)
    stick.apply(to_third)
    stick.apply(kits(fourth))
    files = stick.files()
    assert holds(files, fourth.partition)
    assert not any(path.startswith("live/3.2") for path in files)
    assert not set(SECOND.boot) - set(FIRST.boot) - set(fourth.partition) & set(files)
    assert files["live/3.3.squashfs"]
    assert files["live/3.1.squashfs"]
    assert "boot/readme" not in files
    stick.check()


def test_back_and_forth(stick: Stick, to_second: Path) -> None:
    stick.apply(to_second)
    before = stick.path.read_bytes()
    assert roll_back(stick.path) == Switch("3.1", "3.2")
    assert stick.files()[SWITCH] == switch("3.1", "3.2")
    assert roll_back(stick.path) == Switch("3.2", "3.1")
    assert stick.path.read_bytes() == before


def test_an_upgrade_after_a_rollback_is_only_the_switch(stick: Stick, to_second: Path) -> None:
    stick.apply(to_second)
    before = stick.files()
    roll_back(stick.path)
    assert stick.apply(to_second).changed
    assert stick.files() == before


def refused(
    status: ExitStatus,
    words: str,
    action: Callable[..., object],
    *arguments: object,
    **named: object,
) -> None:
    with pytest.raises(Failure) as caught:
        action(*arguments, **named)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.status == status


def test_no_way_back_from_the_first(stick: Stick) -> None:
    refused(ExitStatus.USAGE, "there is no release before 3.1", roll_back, stick.path)


@pytest.mark.parametrize("gone", ["live/3.1.module", "live/vmlinuz-", "live/3.1.squashfs"])
def test_no_way_back_to_what_is_gone(stick: Stick, to_second: Path, gone: str) -> None:
    stick.apply(to_second)
    (path,) = (path for path in FIRST.files if path.startswith(gone))
    erase(stick.path, path)
    with unwritten(stick.path):
        refused(ExitStatus.INFRASTRUCTURE, "3.1 does not boot any more", roll_back, stick.path)


def test_no_way_back_to_a_damaged_kernel(stick: Stick, to_second: Path) -> None:
    stick.apply(to_second)
    (kernel,) = (c for p, c in FIRST.files.items() if "vmlinuz" in p)
    patch(stick.path, kernel[:512], bytes(512))
    refused(ExitStatus.INFRASTRUCTURE, "vmlinuz", roll_back, stick.path)


def erase(disk: Path, path: str) -> None:
    mtools("mdel", "-i", f"{disk}@@{PARTITION_AT}", f"::{path}")


# --- kits and descriptions that must be refused, and leave the target as it is


def spoiled(parts: KitParts, **changes: object) -> bytes:
    document = parts.control(archive(dict(sorted(parts.boot.items()))))
    return parts.pack(control={**document, **changes})


def test_a_kit_for_another_base(stick: Stick, kits: Kits) -> None:
    parts = KitParts(Release("3.0"), SECOND)
    untouched(
        stick,
        kits(parts),
        ExitStatus.USAGE,
        "the kit is for systems installed as 3.0, and this one was installed as 3.1;"
        " get the other kit: ./farm kit.fetch --from 3.1",
    )


def untouched(stick: Stick, kit: Path, status: ExitStatus, words: str, **named: object) -> None:
    with unwritten(stick.path):
        refused(status, words, stick.apply, kit, **named)


def test_a_kit_that_leads_backwards(stick: Stick, to_second: Path, to_third: Path) -> None:
    stick.apply(to_third)
    untouched(stick, to_second, ExitStatus.USAGE, "the kit leads to 3.2, and 3.3 is installed")


def test_a_kit_for_another_product(stick: Stick, kits: Kits) -> None:
    parts = KitParts(Release("3.1", image="maxi"), Release("3.2", image="maxi"))
    untouched(stick, kits(parts), ExitStatus.USAGE, "for maxi amd64, and the target is mini amd64")


@pytest.mark.parametrize("size", [0, 100, 511, 3000, -10240, -1])
def test_a_kit_that_was_cut_off(stick: Stick, kits: Kits, signer: Signer, size: int) -> None:
    parts = KitParts(FIRST, SECOND)
    packed = parts.pack()
    kit = kits(parts, packed[:size], signer.describe(parts, packed))
    if not size:
        kit.write_bytes(b"")
    untouched(stick, kit, ExitStatus.INPUTS_UNVERIFIED, "not a sound kit")


@pytest.mark.parametrize("at", [0.3, 0.6, 0.99])
def test_a_kit_with_a_changed_bit(stick: Stick, kits: Kits, signer: Signer, at: float) -> None:
    parts = KitParts(FIRST, SECOND)
    packed = parts.pack()
    changed = bytearray(packed)
    changed[int(at * len(packed))] ^= 1
    kit = kits(parts, bytes(changed), signer.describe(parts, packed))
    untouched(stick, kit, ExitStatus.INPUTS_UNVERIFIED, "kit")


def test_another_kit_than_is_described(stick: Stick, kits: Kits, signer: Signer) -> None:
    """A sound kit, signed for by nobody."""
    parts = KitParts(FIRST, SECOND)
    other = spoiled(parts, tree_sha256="1" * 64)
    kit = kits(parts, other, signer.describe(parts, parts.pack()))
    untouched(stick, kit, ExitStatus.INPUTS_UNVERIFIED, "not the kit that its description names")


@pytest.mark.parametrize("name", ["../evil", "/evil", "boot/../../evil", "boot/grub/current.cfg"])
def test_a_kit_that_reaches_elsewhere(stick: Stick, kits: Kits, name: str) -> None:
    """Also when it is signed."""
    parts = KitParts(FIRST, SECOND)
    document = parts.control(archive(dict(sorted(parts.boot.items()))))
    document["partition"][name] = {"size": 4, "sha256": sha256(b"evil")}
    kit = kits(parts, parts.pack(boot={**parts.boot, name: b"evil"}, control=document))
    untouched(stick, kit, ExitStatus.INPUTS_UNVERIFIED, "is not a sound kit")


def test_a_kit_with_another_member(stick: Stick, kits: Kits) -> None:
    parts = KitParts(FIRST, SECOND)
    packed = parts.pack().rstrip(b"\0")
    packed += bytes(-len(packed) % 512)
    more = archive({"more": b"more"})
    kit = kits(parts, packed + more + bytes(-(len(packed) + len(more)) % 10240))
    untouched(stick, kit, ExitStatus.INPUTS_UNVERIFIED, "is not a sound kit")


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("live/3.2.module", b"3.2.squashfs\n"),
        ("live/3.2.module", b"3.1.squashfs\n3.2.squashfs\n../x.squashfs\n"),
        (
            "live/3.2.cfg",
            b"linux /live/vmlinuz-0123456789ab\ninitrd /live/initrd-0123456789ab.img\n",
        ),
        ("live/3.2.cfg", b"nothing\n"),
    ],
)
def test_a_kit_whose_release_cannot_boot(
    stick: Stick, kits: Kits, path: str, content: bytes
) -> None:
    class Parts(KitParts):
        @property
        def partition(self) -> dict[str, bytes]:
            return {**super().partition, path: content}

    untouched(
        stick, kits(Parts(FIRST, SECOND)), ExitStatus.INPUTS_UNVERIFIED, "does not bring a release"
    )


def test_no_description(stick: Stick, to_second: Path, kits: Kits) -> None:
    kit = kits(KitParts(FIRST, SECOND))
    kit.with_name(f"{kit.name}.json").unlink()
    untouched(stick, kit, ExitStatus.SIGNATURE, "kit.fetch gets kit and description")


def test_a_description_by_a_stranger(stick: Stick, kits: Kits, stranger: Signer) -> None:
    parts = KitParts(FIRST, SECOND)
    kit = kits(parts, described=stranger.describe(parts, parts.pack()))
    untouched(stick, kit, ExitStatus.SIGNATURE, "not signed by a trusted key")


def test_a_description_that_has_expired(stick: Stick, to_second: Path) -> None:
    late = NOW + timedelta(days=181)
    untouched(stick, to_second, ExitStatus.SIGNATURE, "expired on 2027-05-21", now=late)


def test_the_description_of_another_kit(stick: Stick, kits: Kits, signer: Signer) -> None:
    parts, other = KitParts(FIRST, SECOND), KitParts(FIRST, THIRD)
    kit = kits(parts, described=signer.describe(other, other.pack()))
    untouched(stick, kit, ExitStatus.INPUTS_UNVERIFIED, "its description is of mini amd64 3.1 3.3")


def test_a_kit_that_changes_while_it_is_read(
    stick: Stick, kits: Kits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read twice: to verify it, and to write it."""
    parts = KitParts(FIRST, SECOND)
    kit = kits(parts)
    packed, other = bytearray(kit.read_bytes()), bytes(range(100))

    def swap(system: System, brought: Brought, notify: Callable[[int], None]) -> Plan:
        document = parts.control(archive(dict(sorted(parts.boot.items()))))
        delta = other.ljust(len(parts.delta), b"\1")
        entry = {"size": len(delta), "sha256": sha256(delta)}
        document["members"]["3.2.squashfs"] = entry
        document["partition"]["live/3.2.squashfs"] = entry
        changed = parts.pack(control=document).replace(parts.delta, delta)
        assert len(changed) == len(packed)
        kit.write_bytes(changed)
        return make_plan(system, brought, notify)

    monkeypatch.setattr(applying, "make_plan", swap)
    refused(ExitStatus.INPUTS_UNVERIFIED, "changed while it was read", stick.apply, kit)
    files = stick.files()
    assert holds(files, FIRST.files)
    assert files[SWITCH] == switch("3.1")
    assert "live/3.2.squashfs" not in files


# --- targets


def test_a_damaged_base(stick: Stick, to_second: Path) -> None:
    patch(stick.path, FIRST.squashfs[512:1024], bytes(512))
    untouched(stick, to_second, ExitStatus.INPUTS_UNVERIFIED, "is not the SquashFS of 3.1")


def test_something_else_of_the_base_is_damaged(stick: Stick, to_third: Path) -> None:
    """The kit does not bring it, because nothing of it has changed."""
    (kernel,) = (c for p, c in FIRST.files.items() if "vmlinuz" in p)
    patch(stick.path, kernel[:512], bytes(512))
    untouched(stick, to_third, ExitStatus.INFRASTRUCTURE, "the kit does not bring it")


def test_no_space(stick: Stick, kits: Kits, tmp_path: Path) -> None:
    files = {**FIRST.files, SWITCH: switch("3.1"), "mine/big": bytes(33_550_000)}
    full = Stick(make_disk(tmp_path / "full.img", files), stick.trust)
    kit = kits(KitParts(FIRST, Release("3.2", kernel="B", static={"new": bytes(300_000)})))
    untouched(
        full, kit, ExitStatus.INFRASTRUCTURE, "of space and the upgrade takes 1; remove files"
    )


def test_what_has_no_system(stick: Stick, to_second: Path, tmp_path: Path) -> None:
    for name, content in (("zeros", bytes(100_000)), ("empty", b""), ("short", b"x" * 700)):
        path = tmp_path / name
        path.write_bytes(content)
        untouched(Stick(path, stick.trust), to_second, ExitStatus.USAGE, "no partition table")
    other = Stick(make_disk(tmp_path / "other.img", {"readme": b"a stick"}), stick.trust)
    untouched(other, to_second, ExitStatus.USAGE, "no system partitions")


def test_what_is_no_target(stick: Stick, to_second: Path, tmp_path: Path) -> None:
    for path, words in (
        (tmp_path, "neither an image file nor a device"),
        (tmp_path / "nothing", "cannot open"),
    ):
        refused(ExitStatus.USAGE, words, Stick(path, stick.trust).apply, to_second)


def test_a_damaged_partition_table(stick: Stick, to_second: Path) -> None:
    with stick.path.open("r+b") as file:
        file.seek(1024 + 32)
        file.write(b"\xff")
    untouched(stick, to_second, ExitStatus.USAGE, "partition table is damaged")


@pytest.mark.parametrize("text", [b"set version=\n", b"set version=3.1; halt\nset previous=\n"])
def test_a_switch_that_is_none(stick: Stick, to_second: Path, text: bytes) -> None:
    patch(stick.path, switch("3.1"), text.ljust(512, b"\n"))
    untouched(stick, to_second, ExitStatus.INFRASTRUCTURE, "is not of the expected form")


def test_a_file_system_with_two_owners_of_a_cluster(stick: Stick, to_second: Path) -> None:
    with stick.path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as content:
        reserved = struct.unpack_from("<H", content, PARTITION_AT + 14)[0]
        table = PARTITION_AT + reserved * 512
        entries = struct.unpack_from("<200I", content, table)
        chain = [n for n in range(3, 200) if entries[n] == n + 1]
        struct.pack_into("<I", content, table + 4 * chain[0], chain[-1])
    untouched(stick, to_second, ExitStatus.INFRASTRUCTURE, "file system of the target is damaged")


def test_another_apply_at_work(stick: Stick, to_second: Path) -> None:
    with stick.path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        untouched(stick, to_second, ExitStatus.INFRASTRUCTURE, "another process is at work")
    assert stick.apply(to_second).changed


def test_a_medium_that_keeps_nothing(
    stick: Stick, to_second: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written reads back as something else: the old release stays."""
    monkeypatch.setattr(
        "pipeline.kits.install.medium.Medium.read_back", lambda _, __, length: bytes(length)
    )
    refused(ExitStatus.INFRASTRUCTURE, "reads back", stick.apply, to_second)
    files = stick.files()
    assert holds(files, FIRST.files)
    assert files[SWITCH] == switch("3.1")


@pytest.mark.parametrize("after", [3, 10, 20])
def test_ctrl_c(stick: Stick, to_second: Path, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    write, done = Medium.write, []

    def interrupted(medium: Medium, offset: int, content: bytes) -> None:
        done.append(offset)
        if len(done) == after:
            raise KeyboardInterrupt
        write(medium, offset, content)

    with monkeypatch.context() as patch:
        patch.setattr(Medium, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            stick.apply(to_second)
    assert holds(stick.files(), FIRST.files)
    assert stick.apply(to_second).changed
    assert holds(stick.files(), KitParts(FIRST, SECOND).partition)
    stick.check()


def test_a_kit_is_never_in_memory(stick: Stick, kits: Kits) -> None:
    class Parts(KitParts):
        @property
        def delta(self) -> bytes:
            return bytes(range(256)) * 100_000

    kit = kits(Parts(FIRST, SECOND))
    tracemalloc.start()
    try:
        stick.apply(kit)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 12 * 1024 * 1024 < kit.stat().st_size


def test_the_kit_is_what_the_documents_say(to_second: Path) -> None:
    """The helper of these tests makes kits as the farm does: names, order, one form."""
    with tarfile.open(to_second) as packed:
        assert packed.getnames() == ["FORMAT", "control.json", BOOT, "3.2.squashfs"]
        file = packed.extractfile("control.json")
        assert file is not None
        control = json.load(file)
    assert control["base"]["file"] == "3.1.squashfs"
