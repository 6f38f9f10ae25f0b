# SPDX-License-Identifier: GPL-3.0-or-later
"""Upgrade kits from real releases: built twice, identical, described, and applied."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from pipeline import flow
from pipeline.base import dsse
from pipeline.farm.config import Keys, TagPolicy
from pipeline.farm.run import Request, Run
from pipeline.farm.workspace import Workspace
from pipeline.guest.kits.lines import read_ledger, tree_digest
from pipeline.kits.install import description
from pipeline.kits.install.apply import apply_kit
from pipeline.kits.install.description import Trust
from tests.gpg_home import GpgHome, made_home
from tests.machine.conftest import Tiny, display, git

pytestmark = [pytest.mark.machine, pytest.mark.timeout(1500)]

KIT = "tiny-amd64-3.1-to-3.2.iuk"
IMAGE_YAML = """\
description: A test
suite: trixie
volume_id: TINY
upgrades: {from: same-major}
"""
HOOK = "hooks/normal/10-content.hook.chroot"
# perl is essential, setcap is not: CAP_NET_RAW permitted, as capabilities(7) lays it out.
CAPABILITY = r"""perl -e '
my ($path, $name) = ($ARGV[0], "security.capability");
my $value = pack("V5", 0x2000001, hex $ARGV[1]);
syscall(188, $path, $name, $value, 20, 0) == 0 or die $!;
'"""
FIRST = f"""#!/bin/sh
set -eu
mkdir -p /opt/gone/below /opt/kept
echo one >/opt/changed
echo one >/opt/gone/below/file
echo one >/opt/deleted
echo one >/opt/becomes-a-folder
mkdir /opt/becomes-a-file && echo one >/opt/becomes-a-file/inside
echo same >/opt/kept/same
echo one >/opt/link-a && ln /opt/link-a /opt/link-b
echo ping >/opt/ping && {CAPABILITY} /opt/ping 0x2000
"""
SECOND = f"""#!/bin/sh
set -eu
mkdir -p /opt/kept /opt/new
echo two >/opt/changed
mkdir /opt/becomes-a-folder && echo two >/opt/becomes-a-folder/inside
echo two >/opt/becomes-a-file
echo same >/opt/kept/same
echo two >/opt/link-a && ln /opt/link-a /opt/link-b && ln /opt/link-a /opt/new/link-c
echo ping >/opt/ping && {CAPABILITY} /opt/ping 0x3000
ln -s ../changed /opt/new/pointer
chown 7:8 /opt/new && chmod 2750 /opt/new
"""


@dataclass(frozen=True)
class Released:
    """A farm that has published 3.1 and 3.2 of tiny."""

    farm: Workspace
    trust: Trust
    gpg: GpgHome

    def file(self, tag: str, ending: str) -> Path:
        return self.farm.public / tag / f"tiny-amd64-{tag}.{ending}"

    @property
    def kit(self) -> Path:
        return self.farm.public / "3.2" / KIT


@pytest.fixture(scope="module")
def released(
    workspace: Workspace, tiny: Tiny, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Released]:
    with made_home() as gpg:
        yield from _released(workspace, tiny, gpg, tmp_path_factory)


def _released(
    workspace: Workspace, tiny: Tiny, gpg: GpgHome, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Released]:
    fingerprint = gpg.make("Release <release@example.org>", expires="never")
    folder = workspace.checkout / "keys"
    folder.mkdir(exist_ok=True)
    (folder / "release.asc").write_bytes(gpg.export(fingerprint, "--armor"))
    keys = Keys(release=fingerprint, environments=_public(workspace), tags=TagPolicy(signed=False))
    update = {"keys": keys, "publish": "public-with-kits"}
    farm = replace(workspace, farm=workspace.farm.model_copy(update=update))
    policy = tmp_path_factory.mktemp("policy")
    (policy / "farm.yaml").write_text(json.dumps(farm.farm.model_dump(mode="json")))
    (policy / "keys").mkdir()
    (policy / "keys" / "release.asc").write_bytes((folder / "release.asc").read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GNUPGHOME", str(gpg.path))
        patch.setenv("TWINBUILD_POLICY", os.fspath(policy))
        patch.delenv("TWINBUILD_RELEASE_KEY", raising=False)
        for tag, hook in (("3.1", FIRST), ("3.2", SECOND)):
            _release(farm, tiny, tag, {HOOK: hook, "image.yaml": IMAGE_YAML})
    yield Released(farm, Trust(gpg.export(fingerprint), fingerprint), gpg)
    (folder / "release.asc").unlink()


def _public(workspace: Workspace) -> dict[str, str]:
    names = workspace.farm.environments
    return {name: dsse.public_hex(dsse.load_key(dsse.key_path(name))) for name in names}


def _release(farm: Workspace, tiny: Tiny, tag: str, files: Mapping[str, str]) -> None:
    commit = tiny.commit(files)
    git(tiny.folder, "branch", "--force", "main", commit)
    git(tiny.folder, "tag", "--annotate", f"--message={tag}", tag, commit)
    flow.release(farm, _build(farm, tiny, tag), display())


def _build(farm: Workspace, tiny: Tiny, tag: str) -> Run:
    """Build a tag twice; raise if one kit differs."""
    request = Request(
        image="tiny",
        commit=tag,
        tag=tag,
        vary="all",
        source=os.fspath(tiny.folder),
        environments=tuple(farm.farm.environments),
    )
    run = flow.start(farm, request)
    flow.build(farm, run, display())
    return run


def test_both_environments_made_the_kit_alike(released: Released) -> None:
    manifest = (released.farm.public / "3.2" / "SHA256SUMS").read_text()
    assert f"  {KIT}\n" in manifest
    stated = []
    for name in released.farm.farm.environments:
        envelope = json.loads(
            (released.farm.public / "3.2" / "statements" / f"{name}.json").read_text()
        )
        payload: Any = dsse.unverified_payload(envelope)
        stated += [s["digest"]["sha256"] for s in payload["subject"] if s["name"] == KIT]
        job = payload["predicate"]["buildDefinition"]["internalParameters"]["job"]
        assert [kit["from"] for kit in job["kits"]] == ["3.1"]
        assert job["upgrade"] is True
    assert len(stated) == 2
    assert f"{stated[0]}  {KIT}\n" in manifest
    assert stated[0] == stated[1]


def test_the_upgrade_is_described(released: Released) -> None:
    content = (released.farm.public / "upgrades" / "3.1.json").read_bytes()
    offer = description.check(content, released.trust, datetime.now(UTC)).offer
    assert offer
    assert (offer.image, offer.from_, offer.to) == ("tiny", "3.1", "3.2")
    assert released.farm.public / offer.kit == released.kit
    assert offer.size == released.kit.stat().st_size
    newest = (released.farm.public / "upgrades" / "3.2.json").read_bytes()
    assert description.check(newest, released.trust, datetime.now(UTC)).offer is None


def test_plain_tools_read_it(released: Released, tmp_path: Path) -> None:
    output = _run("file", "--brief", released.kit)
    assert "POSIX tar archive" in output
    names = ["FORMAT", "control.json", "boot.tar", "3.2.squashfs"]
    assert _run("tar", "--list", "--file", released.kit).split() == names
    _run("tar", "--extract", "--file", released.kit, "--directory", tmp_path)
    assert (tmp_path / "FORMAT").read_text() == "twinbuild-kit/1\n"
    boot = _run("tar", "--list", "--file", tmp_path / "boot.tar").split()
    assert "live/3.2.module" in boot
    listed = _run("unsquashfs", "-lls", tmp_path / "3.2.squashfs").splitlines()
    lines = {line.partition("squashfs-root/")[2].partition(" -> ")[0]: line for line in listed}
    assert lines["opt/deleted"].startswith("c")
    assert lines["opt/gone"].startswith("c")
    assert lines["opt/new"].startswith("drwxr-s---")
    assert {"opt/changed", "opt/link-a", "opt/link-b", "opt/new/link-c", "opt/ping"} <= set(lines)
    assert {"opt/becomes-a-folder/inside", "opt/becomes-a-file"} <= set(lines)
    assert not {"opt/kept", "opt/kept/same", "bin/sh", "usr/bin/bash"} & set(lines)


def test_it_says_which_tree_results(released: Released, tmp_path: Path) -> None:
    _run("tar", "--extract", "--file", released.kit, "--directory", tmp_path, "control.json")
    control = json.loads((tmp_path / "control.json").read_text())
    ledger = read_ledger(released.file("3.2", "ledger.jsonl.gz"))
    assert control["tree_sha256"] == tree_digest(ledger)


def test_it_takes_the_usb_image_to_the_next_release(released: Released, tmp_path: Path) -> None:
    stick, kit = tmp_path / "stick.img", tmp_path / KIT
    shutil.copy(released.file("3.1", "img"), stick)
    shutil.copy(released.kit, kit)
    shutil.copy(released.farm.public / "upgrades" / "3.1.json", f"{kit}.json")
    assert _on(stick, "boot/grub/current.cfg").split() == ["set", "version=3.1", "set", "previous="]
    apply_kit(kit, stick, released.trust, lambda *_: None, datetime.now(UTC))
    switch = _on(stick, "boot/grub/current.cfg").split()
    assert switch == ["set", "version=3.2", "set", "previous=3.1"]
    assert _on(stick, "live/3.2.module").split() == ["3.1.squashfs", "3.2.squashfs"]
    assert _on(stick, "live/3.2.cfg") == _on(released.file("3.2", "img"), "live/3.2.cfg")


@pytest.mark.proof
def test_a_release_without_ledger_gives_the_same_kit(released: Released, tiny: Tiny) -> None:
    update = {"publish": "public-without-ledger"}
    farm = replace(released.farm, farm=released.farm.farm.model_copy(update=update))
    _publish_without_ledger(released, farm.public / "3.1")
    run = _build(farm, tiny, "3.2")
    for name in farm.farm.environments:
        job = json.loads((run.environment(name) / "job.json").read_text())
        assert job["kits"][0]["ledger_sha256"] is None
        kit = run.environment(name) / "artifacts" / KIT
        assert kit.read_bytes() == released.kit.read_bytes()


def _publish_without_ledger(released: Released, folder: Path) -> None:
    """Publish 3.1 as it would have been before there were ledgers: stated, signed, complete."""
    shutil.copytree(released.farm.public / "3.1", folder)
    gone = {f"tiny-amd64-3.1.{ending}" for ending in ("ledger.jsonl.gz", "partition")}
    for name in gone:
        (folder / name).unlink()
    for name in released.farm.farm.environments:
        path = folder / "statements" / f"{name}.json"
        payload: Any = dsse.unverified_payload(json.loads(path.read_text()))
        payload["subject"] = [s for s in payload["subject"] if s["name"] not in gone]
        path.write_text(json.dumps(dsse.sign(payload, dsse.load_key(dsse.key_path(name)))))
    files = sorted(os.fspath(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    listed = [name for name in files if not name.startswith("SHA256SUMS")]
    digests = {name: sha256((folder / name).read_bytes()).hexdigest() for name in listed}
    manifest = "".join(f"{digest}  {name}\n" for name, digest in digests.items()).encode()
    (folder / "SHA256SUMS").write_bytes(manifest)
    assert released.trust.fingerprint
    signature = released.gpg.sign(manifest, released.trust.fingerprint, "--detach-sign")
    (folder / "SHA256SUMS.asc").write_bytes(signature)


def _on(image: Path, path: str) -> str:
    """Return a file of the system partition, which begins at 2 MiB."""
    return _run("mtype", "-i", f"{image}@@2M", f"::{path}")


def _run(*argv: str | Path) -> str:
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    return done.stdout
