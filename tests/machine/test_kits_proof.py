# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole proof: mini installed from 3.1, upgraded, booted, and looked at from inside.

It builds three releases twice and boots eleven times: about an hour without KVM. `./farm test
--level proof` runs it; no other level does.
"""

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from pipeline import flow
from pipeline.cli import demo as demonstration
from pipeline.cli.demo import IMAGE, TAG, Demo
from pipeline.documents.system_partition import SWITCH_SIZE, switch
from pipeline.farm.run import Request
from pipeline.farm.workspace import Workspace, open_workspace
from pipeline.guest.kits.lines import read_ledger, tree_digest
from pipeline.inputs.image_lock import lock_image
from pipeline.kits.install.apply import apply_kit
from pipeline.kits.install.description import Trust, load_trust
from pipeline.kits.install.medium import Medium
from pipeline.kits.install.rollback import roll_back
from pipeline.machines.boot import Announcement, boot_image
from pipeline.machines.plan import guest_files
from tests.machine.conftest import CHECKOUT, display, git
from tests.machine.test_kits import FIRST, SECOND

pytestmark = [pytest.mark.proof, pytest.mark.machine, pytest.mark.timeout(7200)]

HOOK = "hooks/normal/10-content.hook.chroot"
# Printed before the system says what it is, since a boot ends with those words.
LOOKS = """#!/bin/sh
set -eu
module=$(sed 's/.*module=\\([^ ]*\\).*/\\1/' /proc/cmdline)
lower=
for squashfs in $(tac "/run/live/medium/live/$module.module"); do
    lower="${lower:+$lower:}/run/live/rootfs/$squashfs"
done
case $lower in
*:*) mount -t overlay -o "ro,lowerdir=$lower" overlay /mnt ;;
*) mount --bind "$lower" /mnt ;;
esac
echo "twinbuild: tree=$(PYTHONPATH=/usr/lib/proof python3 -m look /mnt)" >/dev/console
umount /mnt
"""
LOOK = '''"""Prints the digest of a tree, by the farm's own ledger."""

import sys
import tempfile
from pathlib import Path

from pipeline.guest.kits.lines import read_ledger, tree_digest
from pipeline.guest.ledger import Ledger

with tempfile.TemporaryDirectory() as folder:
    ledger, final = Ledger(Path(sys.argv[1]), Path(folder, "steps")), Path(folder, "final")
    ledger.record("inside")
    with final.open("wb") as out:
        ledger.write_final(out)
    print(tree_digest(read_ledger(final)))
'''
TREE = re.compile(rb"twinbuild: tree=([0-9a-f]{64})")


@dataclass(frozen=True)
class Proof:
    """A farm that has published 3.1, 3.2 and 3.3 of mini."""

    farm: Workspace
    trust: Trust

    def file(self, tag: str, ending: str) -> Path:
        return self.farm.public / tag / f"{IMAGE}-amd64-{tag}.{ending}"

    def tree(self, tag: str) -> str:
        return tree_digest(read_ledger(self.file(tag, "ledger.jsonl.gz")))

    def installed(self, tag: str, folder: Path) -> Path:
        """Return a copy of a release's USB image, as on a stick."""
        stick = folder / "stick.img"
        shutil.copy(self.file(tag, "img"), stick)
        return stick

    def upgrade(self, stick: Path, start: str, to: str, folder: Path) -> None:
        kit = folder / f"{IMAGE}-amd64-{start}-to-{to}.iuk"
        shutil.copy(self.farm.public / to / kit.name, kit)
        # what leads from `start` now leads to the newest; the older kit's own words are gone
        shutil.copy(self.farm.public / f"upgrades-{to}" / f"{start}.json", f"{kit}.json")
        apply_kit(kit, stick, self.trust, lambda *_: None, datetime.now(UTC))


@pytest.fixture(scope="module")
def proof(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proof]:
    with pytest.MonkeyPatch.context() as patch:
        demo = demonstration.prepare(
            open_workspace(CHECKOUT), tmp_path_factory.mktemp("proof") / "demo", display()
        )
        patch.setenv("TWINBUILD_RELEASE_KEY", f"{demo.folder}/release-secret-key.asc")
        for name in demo.environment_keys:
            patch.setenv(f"TWINBUILD_KEY_{name.upper()}", f"{demo.folder}/{name}.pem")
        farm = _prepare(demo)
        for tag, hook, packages in (
            ("3.1", FIRST, "python3"),
            ("3.2", SECOND, "python3"),
            ("3.3", SECOND.replace("two", "three"), "python3 bc"),
        ):
            _release(farm, tag, hook, packages)
        yield Proof(farm, load_trust(demo.public_key, demo.fingerprint))


def _prepare(demo: Demo) -> Workspace:
    """Let the clone's image look at itself, and have kits; its tags need no signature."""
    git(demo.farm, "tag", "--delete", TAG)
    configured = demo.farm / "farm.yaml"
    document = yaml.safe_load(configured.read_text())
    document["keys"]["tags"]["signed"] = False
    configured.write_text(yaml.safe_dump(document))
    image = demo.farm / "images/live" / IMAGE
    settings = yaml.safe_load((image / "image.yaml").read_text())
    (image / "image.yaml").write_text(
        yaml.safe_dump({**settings, "upgrades": {"from": "same-major"}})
    )
    proof = image / "includes.chroot/usr/lib/proof"
    for name, path in guest_files().items():
        (proof / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, proof / name)
    (proof / "look.py").write_text(LOOK)
    announce = image / "includes.chroot/usr/local/sbin/announce"
    announce.with_name("look-inside").write_text(LOOKS)
    announce.with_name("look-inside").chmod(0o755)
    head, _, rest = announce.read_text().partition("set -eu\n")
    announce.write_text(f"{head}set -eu\n/usr/local/sbin/look-inside\n{rest}")
    return open_workspace(demo.farm)


def _release(farm: Workspace, tag: str, hook: str, packages: str) -> None:
    image = farm.checkout / "images/live" / IMAGE
    (image / HOOK).parent.mkdir(parents=True, exist_ok=True)
    (image / HOOK).write_text(hook)
    (image / "package-lists/proof.list.chroot").write_text(f"{packages}\n")
    lock_image(farm, IMAGE, display().say)
    git(farm.checkout, "add", "--all")
    git(farm.checkout, "commit", "--quiet", f"--message={tag}")
    git(farm.checkout, "tag", "--annotate", f"--message={tag}", tag)
    names = tuple(farm.farm.environments)
    request = Request(image=IMAGE, commit=tag, tag=tag, vary="all", environments=names)
    run = flow.start(farm, request)
    flow.build(farm, run, display())
    flow.release(farm, run, display())
    if (farm.public / "upgrades").exists():
        shutil.copytree(farm.public / "upgrades", farm.public / f"upgrades-{tag}")


def _boots(image: Path, folder: Path, **how: str) -> tuple[Announcement, str]:
    """Boot; return what the system announces, and the digest of its tree from inside."""
    log = folder / "boot.log"
    announced = boot_image(image, log, **how)  # type: ignore[arg-type]
    seen = TREE.search(log.read_bytes())
    assert seen, log.read_text(errors="replace")[-2000:]
    return announced, seen[1].decode()


def test_the_first_release_is_what_its_ledger_says(proof: Proof, tmp_path: Path) -> None:
    announced, tree = _boots(proof.installed("3.1", tmp_path), tmp_path, medium="disk")
    assert (announced.version, announced.squashfs) == ("3.1", 1)
    assert tree == proof.tree("3.1")


@pytest.mark.parametrize("firmware", ["bios", "uefi"])
def test_a_kit_leads_to_the_newest_release(proof: Proof, tmp_path: Path, firmware: str) -> None:
    stick = proof.installed("3.1", tmp_path)
    proof.upgrade(stick, "3.1", "3.3", tmp_path)
    announced, tree = _boots(stick, tmp_path, medium="disk", firmware=firmware)
    assert (announced.version, announced.squashfs) == ("3.3", 2)
    assert tree == proof.tree("3.3")


def test_one_kit_after_another_and_back(proof: Proof, tmp_path: Path) -> None:
    stick = proof.installed("3.1", tmp_path)
    proof.upgrade(stick, "3.1", "3.2", tmp_path)
    announced, tree = _boots(stick, tmp_path, medium="disk")
    assert (announced.version, announced.squashfs, tree) == ("3.2", 2, proof.tree("3.2"))
    proof.upgrade(stick, "3.1", "3.3", tmp_path)
    announced, tree = _boots(stick, tmp_path, medium="disk")
    assert (announced.version, announced.squashfs, tree) == ("3.3", 2, proof.tree("3.3"))
    roll_back(stick)
    announced, tree = _boots(stick, tmp_path, medium="disk")
    assert (announced.version, announced.squashfs, tree) == ("3.2", 2, proof.tree("3.2"))


class PowerCutError(Exception):
    """Nothing more reaches the medium."""


class Supply:
    """The power of a medium: it fails before the write with the number `until`."""

    def __init__(self, patch: pytest.MonkeyPatch, until: int | None = None) -> None:
        self.written: list[bytes] = []
        self._until, self._write = until, Medium.write
        patch.setattr(Medium, "write", lambda *arguments: self.write(*arguments))

    def write(self, medium: Medium, offset: int, content: bytes) -> None:
        if len(self.written) == self._until:
            raise PowerCutError
        self.written.append(content[:SWITCH_SIZE])
        self._write(medium, offset, content)


def test_a_system_boots_wherever_its_upgrade_was_cut(proof: Proof, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        supply = Supply(patch)
        proof.upgrade(proof.installed("3.1", tmp_path), "3.1", "3.3", tmp_path)
    turning = supply.written.index(switch("3.3", "3.1"))
    for cut, version in ((turning + 1, "3.3"), (turning, "3.1"), (turning // 2, "3.1")):
        stick = proof.installed("3.1", tmp_path)
        with pytest.MonkeyPatch.context() as patch:
            Supply(patch, cut)
            with pytest.raises(PowerCutError):
                proof.upgrade(stick, "3.1", "3.3", tmp_path)
        announced, tree = _boots(stick, tmp_path, medium="disk")
        assert (announced.version, tree) == (version, proof.tree(version)), (
            f"cut before write {cut}"
        )
    proof.upgrade(stick, "3.1", "3.3", tmp_path)
    announced, tree = _boots(stick, tmp_path, medium="disk")
    assert (announced.version, announced.squashfs, tree) == ("3.3", 2, proof.tree("3.3"))


def test_the_iso_has_the_same_tree(proof: Proof, tmp_path: Path) -> None:
    announced, tree = _boots(proof.file("3.3", "iso"), tmp_path)
    assert (announced.version, announced.squashfs, tree) == ("3.3", 1, proof.tree("3.3"))


def test_the_newest_kits_are_described(proof: Proof) -> None:
    described = {path.name for path in (proof.farm.public / "upgrades").glob("*.json")}
    assert described == {"3.1.json", "3.2.json"}
