# SPDX-License-Identifier: GPL-3.0-or-later
"""A power cut at any write, with any unflushed sectors lost: the old release boots, or the new."""

import io
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.documents.system_partition import SWITCH
from pipeline.documents.upgrade_description import Offer
from pipeline.kits.install.apply import carry_out, examine
from pipeline.kits.install.format import open_kit
from pipeline.kits.install.plan import Plan, check_brought, check_fits, make_plan
from pipeline.kits.install.system import Switch, find_system
from tests.installed import (
    SECTOR,
    KitParts,
    Release,
    make_partition,
    noise,
    read_partition,
    sha256,
    switch,
)

pytestmark = pytest.mark.tools

FIRST = Release("3.1", static={"boot/readme": b"one", "EFI/BOOT/mmx64.efi": noise("mm", 900)})
SECOND = Release("3.2", kernel="B", static={"boot/readme": b"two" * 300})
THIRD = Release(
    "3.3", kernel="C", static={"boot/readme": b"three" * 200, "boot/fonts/new/a.pf2": b"font"}
)
FOURTH = Release("3.4", kernel="B", static={"boot/readme": b"one"})
# What a cut may leave behind, in fsck's words, until the next upgrade takes it away.
HARMLESS = re.compile(
    r"fsck\.fat .*|Warning: .*|  but has only.*|  This may.*|.* files, \d+/\d+ clusters"
    r"|Reclaimed \d+ unused clusters? \(\d+ bytes\)\.?|FATs differ but appear to be intact\."
    r"|  ?Using first FAT\.|Use first FAT.*|Free cluster summary (?:wrong|uninitialized) .*"
    r"|  Auto-correcting\.|  Auto-setting\.|\s*|Leaving filesystem unchanged\."
)


Write = tuple[int, bytes]  # where, and what


class Disk:
    """A medium in memory, some sectors changed, that writes down each write and flush."""

    def __init__(self, before: bytes, changed: Mapping[int, bytes] | None = None) -> None:
        self.before = before
        self.changed = dict(changed or {})
        self.log: list[Write | None] = []

    @property
    def size(self) -> int:
        return len(self.before)

    def read(self, offset: int, length: int) -> bytes:
        assert offset % SECTOR == length % SECTOR == 0
        content = bytearray(self.before[offset : offset + length])
        for at, sector in self.changed.items():
            if offset <= at < offset + length:
                content[at - offset : at - offset + SECTOR] = sector
        return bytes(content)

    read_back = read

    def write(self, offset: int, content: bytes) -> None:
        assert offset % SECTOR == len(content) % SECTOR == 0
        self.log.append((offset, content))
        self.changed.update(sectors((offset, content)))

    def flush(self) -> None:
        self.log.append(None)

    def content(self) -> bytes:
        content = bytearray(self.before)
        for offset, sector in self.changed.items():
            content[offset : offset + SECTOR] = sector
        return bytes(content)


def sectors(write: Write) -> Iterator[Write]:
    offset, content = write
    for at in range(0, len(content), SECTOR):
        yield offset + at, content[at : at + SECTOR]


class History:
    """What an apply wrote, so that the medium can be had as it was at any moment of it."""

    def __init__(self, before: bytes, log: list[Write | None]) -> None:
        self.before = before
        self.log = log

    def after(
        self, count: int, keep: Callable[[tuple[int, int]], bool] = lambda _: True
    ) -> dict[int, bytes]:
        """The sectors changed by the first `count` events; of those not flushed only some."""
        flushed = max((n for n in range(count) if self.log[n] is None), default=0)
        changed = {}
        for number, event in enumerate(self.log[:count]):
            for offset, content in sectors(event) if event else ():
                if number < flushed or keep((number, offset)):
                    changed[offset] = content
        return changed

    def pending(self, count: int) -> list[tuple[int, int]]:
        flushed = max((n for n in range(count) if self.log[n] is None), default=0)
        events = enumerate(self.log[flushed:count], flushed)
        return [(n, offset) for n, event in events if event for offset, _ in sectors(event)]


def apply(disk: Disk, parts: KitParts) -> Plan:
    packed, start, to = parts.pack(), parts.base.version, parts.new.version
    offer = Offer("mini", "amd64", start, to, len(packed), sha256(packed))
    brought = examine(io.BytesIO(packed), offer, "a kit", lambda *_: None)
    check_brought(brought)
    system = find_system(disk, disk.size)
    check_fits(system, brought.control)
    plan = make_plan(system, brought, lambda _: None)
    if not plan.is_empty:
        kit = open_kit(io.BytesIO(packed), "a kit")
        carry_out(plan, system, brought.control, kit, lambda *_: None)
    return plan


@cache
def installed() -> bytes:
    """A fresh installation of the first release."""
    with tempfile.TemporaryDirectory() as folder:
        image = make_partition(Path(folder, "image"), {**FIRST.files, SWITCH: switch("3.1")})
        return image.read_bytes()


@cache
def upgraded() -> bytes:
    """The same after an upgrade to the second release and one to the third."""
    disk = Disk(installed())
    apply(disk, KitParts(FIRST, SECOND))
    apply(disk, KitParts(FIRST, THIRD))
    return disk.content()


@dataclass(frozen=True)
class Upgrade:
    """An upgrade: the versions that the switch names before and after, and what there is then."""

    before: Callable[[], bytes]
    new: Release
    old_switch: bytes
    new_switch: bytes
    old: dict[str, bytes]

    @property
    def kit(self) -> KitParts:
        return KitParts(FIRST, self.new)


# The later one also removes the second release, and finds what the kit lacks as the first had it.
UPGRADES = {
    "first": Upgrade(installed, SECOND, switch("3.1"), switch("3.2", "3.1"), FIRST.files),
    "later": Upgrade(
        upgraded,
        FOURTH,
        switch("3.3", "3.2"),
        switch("3.4", "3.3"),
        KitParts(FIRST, THIRD).partition,
    ),
}


@cache
def history(which: str) -> History:
    upgrade = UPGRADES[which]
    disk = Disk(upgrade.before())
    apply(disk, upgrade.kit)
    return History(disk.before, disk.log)


BOOTED = re.compile(r"live/(3\.\d\.(cfg|module|squashfs)|vmlinuz-.*|initrd-.*)")


def check_boots(upgrade: Upgrade, files: Mapping[str, bytes]) -> None:
    """Check that what the switch names is complete, and as it was before or as it will be."""
    new = upgrade.kit.partition
    if files[SWITCH] == upgrade.new_switch:
        assert new.items() <= files.items()
        return
    version = upgrade.old_switch[12:15].decode()
    assert files[SWITCH] in (upgrade.old_switch, switch(version))
    for path, content in upgrade.old.items():
        # what boots any release may be the new one's already
        others = () if BOOTED.fullmatch(path) else (new.get(path),)
        assert files[path] in (content, *others), path


def as_we_read(disk: Disk) -> dict[str, bytes]:
    system = find_system(disk, disk.size)
    files = {file.path: b"".join(system.files.pieces(file)) for file in system.files.files()}
    assert system.missing(system.switch.version) == []
    return files


@pytest.mark.parametrize("which", UPGRADES)
def test_at_every_write(which: str, tmp_path: Path) -> None:
    """As strangers read it: mtools, and fsck.fat with nothing to complain of but waste."""
    past = history(which)
    image = tmp_path / "image"
    image.write_bytes(past.before)
    seen = set()
    writes = [event for event in past.log if event]
    for count, write in enumerate([None, *writes]):
        if write:
            with image.open("r+b") as file:
                for offset, sector in sectors(write):
                    file.seek(offset)
                    file.write(sector)
        files = read_partition(image, into=tmp_path / f"files-{count}")
        check_boots(UPGRADES[which], files)
        seen.add(files[SWITCH][:16])
        fsck = subprocess.run(
            ["fsck.fat", "-n", image], capture_output=True, text=True, check=False
        )
        assert fsck.returncode in (0, 1)
        odd = [line for line in fsck.stdout.splitlines() if not HARMLESS.fullmatch(line)]
        assert odd == []
    assert fsck.returncode == 0, fsck.stdout
    assert len(seen) == 2


@pytest.mark.parametrize("which", UPGRADES)
def test_with_all_that_was_not_flushed_lost(which: str) -> None:
    past = history(which)
    for count in range(0, len(past.log) + 1, 2):
        check_boots(
            UPGRADES[which], as_we_read(Disk(past.before, past.after(count, lambda _: False)))
        )


@given(st.data())
@settings(max_examples=60)
def test_with_any_of_it_lost(data: st.DataObject) -> None:
    which = data.draw(st.sampled_from(sorted(UPGRADES)))
    past = history(which)
    count = data.draw(st.integers(0, len(past.log)))
    pending = past.pending(count)
    kept = data.draw(st.sets(st.sampled_from(pending)) if pending else st.just(set()))
    check_boots(
        UPGRADES[which], as_we_read(Disk(past.before, past.after(count, kept.__contains__)))
    )


@given(st.data())
@settings(max_examples=15)
def test_an_upgrade_that_was_cut_goes_on(data: st.DataObject) -> None:
    which = data.draw(st.sampled_from(sorted(UPGRADES)))
    past = history(which)
    count = data.draw(st.integers(0, len(past.log)))
    pending = past.pending(count)
    kept = data.draw(st.sets(st.sampled_from(pending)) if pending else st.just(set()))
    disk = Disk(past.before, past.after(count, kept.__contains__))
    apply(disk, UPGRADES[which].kit)
    files = as_we_read(disk)
    assert files[SWITCH] == UPGRADES[which].new_switch
    finished = as_we_read(Disk(past.before, past.after(len(past.log))))
    assert files == finished


def test_no_byte_is_written_twice() -> None:
    """But for tables, folders and the switch: what names things, not what they hold."""
    past = history("first")
    content = UPGRADES["first"].kit.partition
    wanted = sum(len(data) for p, data in content.items() if FIRST.files.get(p) != data)
    written = sum(len(event[1]) for event in past.log if event)
    table = SECTOR * 2 * 12
    names = SECTOR * 40
    assert wanted <= written <= wanted + len(content) * SECTOR + table + names


def test_the_switch_is_one_sector() -> None:
    past = history("first")
    disk = Disk(past.before)
    system = find_system(disk, disk.size)
    system.turn(Switch("3.1", "3.0"))
    assert [len(event[1]) for event in disk.log if event] == [SECTOR]
