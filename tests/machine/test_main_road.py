# SPDX-License-Identifier: GPL-3.0-or-later
"""The main road on the real image: release, what outsiders do with it, and how it boots."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline import flow
from pipeline.base import dsse
from pipeline.base.errors import Differs, TwinbuildError
from pipeline.cli import demo as demonstration
from pipeline.cli.demo import IMAGE, TAG, Demo
from pipeline.documents.digest import sha256_file
from pipeline.farm.run import list_runs
from pipeline.farm.workspace import Workspace, open_workspace
from pipeline.inputs.image_lock import write_tagged_snapshot
from pipeline.machines.boot import MACHINE, Firmware, boot_image, medium_arguments, uefi
from tests.machine.conftest import CHECKOUT, display

BEEP_S = 300.0
WAV_HEADER = 44  # bytes

pytestmark = [pytest.mark.machine, pytest.mark.timeout(2400)]


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("TWINBUILD_RELEASE_KEY", "TWINBUILD_KEY_ALPHA", "TWINBUILD_KEY_BETA"):
            patch.setenv(name, "")
        folder = tmp_path_factory.mktemp("road") / "demo"
        demo = demonstration.prepare(open_workspace(CHECKOUT), folder, display())
        demonstration.release(demo, display())
        yield demo


@pytest.fixture
def farm(released: Demo) -> Workspace:
    return open_workspace(released.farm)


@pytest.fixture
def published(farm: Workspace) -> Path:
    return farm.public / TAG


def test_an_outsider_verifies_and_boots_it(released: Demo, farm: Workspace) -> None:
    with demonstration.served(farm.public) as url:
        demonstration.check(released, url, display())
    announced = demonstration.boot(released, display())
    assert announced.squashfs == 1


def test_it_boots_by_uefi_from_a_disk(published: Path, tmp_path: Path) -> None:
    iso = published / f"{IMAGE}-amd64-{TAG}.iso"
    announced = boot_image(iso, tmp_path / "log", firmware="uefi", medium="disk")
    assert (announced.image, announced.version) == (IMAGE, TAG)


@pytest.mark.parametrize("firmware", ["bios", "uefi"])
def test_its_usb_image_boots_and_stays_as_it_was(
    firmware: Firmware, published: Path, tmp_path: Path
) -> None:
    stick = tmp_path / "stick.img"
    shutil.copy(published / f"{IMAGE}-amd64-{TAG}.img", stick)
    before = sha256_file(stick)
    announced = boot_image(stick, tmp_path / "log", firmware=firmware, medium="disk", writable=True)
    assert (announced.image, announced.version, announced.squashfs) == (IMAGE, TAG, 1)
    assert sha256_file(stick) == before


@pytest.mark.parametrize("firmware", ["bios", "uefi"])
def test_its_menu_beeps(firmware: Firmware, published: Path, tmp_path: Path) -> None:
    sound, iso = tmp_path / "sound.wav", published / f"{IMAGE}-amd64-{TAG}.iso"
    argv = [*MACHINE, "-audiodev", f"wav,id=sound,path={sound}"]
    argv += ["-machine", "pcspk-audiodev=sound", *medium_arguments(iso, "cdrom", writable=False)]
    argv += uefi(tmp_path) if firmware == "uefi" else ()
    with (tmp_path / "log").open("wb") as log, subprocess.Popen(argv, stdout=log) as machine:
        deadline = time.monotonic() + BEEP_S
        try:
            while not any(heard(sound)) and time.monotonic() < deadline:
                time.sleep(1)
        finally:
            machine.kill()
    assert any(heard(sound))


def heard(sound: Path) -> bytes:
    """Return what the speaker has played: QEMU records only while there is something to play."""
    return sound.read_bytes()[WAV_HEADER:] if sound.exists() else b""


def test_plain_tools_verify_it(released: Demo, published: Path, tmp_path: Path) -> None:
    subprocess.run(
        ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=published, check=True
    )
    home = tmp_path / "g"
    home.mkdir(mode=0o700)
    gpg = ["gpg", "--batch", "--homedir", os.fspath(home)]
    subprocess.run([*gpg, "--quiet", "--import", released.public_key], check=True)
    subprocess.run([*gpg, "--verify", "SHA256SUMS.asc", "SHA256SUMS"], cwd=published, check=True)


def test_plain_apt_installs_from_the_snapshot(farm: Workspace, tmp_path: Path) -> None:
    snapshot = write_tagged_snapshot(farm, TAG, IMAGE)
    assert write_tagged_snapshot(farm, TAG, IMAGE) == snapshot  # there already: left alone
    options = "check-valid-until=no signed-by"
    sources = [
        f"deb [{options}={archive.keyring}] copy:{snapshot}/{name} {suite} main"
        for name, archive in farm.farm.archives.items()
        for suite in archive.suites
    ]
    tree = tmp_path / "tree"
    argv = ["mmdebstrap", "--variant=essential", "--include=live-boot,systemd-sysv", "trixie"]
    subprocess.run([*argv, tree, *sources], check=True, capture_output=True)
    status = (tree / "var/lib/dpkg/status").read_text()
    assert "\nPackage: live-boot\n" in status


def test_debootstrap_trusts_the_snapshot(farm: Workspace, tmp_path: Path) -> None:
    snapshot = write_tagged_snapshot(farm, TAG, IMAGE)
    keyring = farm.farm.archives["debian"].keyring
    argv = ["debootstrap", "--print-debs", f"--keyring={keyring}", "--variant=minbase", "trixie"]
    archive = (snapshot / "debian").as_uri()
    done = subprocess.run(
        [*argv, tmp_path / "tree", archive], check=True, capture_output=True, text=True
    )
    assert "libc6" in done.stdout.split()


def test_what_was_published_is_not_replaced(farm: Workspace, published: Path) -> None:
    run = next(run for run in list_runs(farm.runs) if run.verdict_json.exists())
    before = {path: path.read_bytes() for path in published.glob("SHA256SUMS*")}
    flow.release(farm, run, display())  # byte-identical: nothing happens
    assert {path: path.read_bytes() for path in before} == before


def test_an_artifact_changed_after_its_build_is_refused(farm: Workspace, tmp_path: Path) -> None:
    run = next(run for run in list_runs(farm.runs) if run.verdict_json.exists())
    iso = next((run.environment("beta") / "artifacts").glob("*.iso"))
    kept = tmp_path / "kept.iso"
    shutil.copy(iso, kept)
    content = bytearray(iso.read_bytes())
    content[len(content) // 2] ^= 1
    iso.write_bytes(content)
    try:
        with pytest.raises(TwinbuildError) as caught:
            flow.release(farm, run, display())
        assert isinstance(caught.value, Differs)
    finally:
        shutil.copy(kept, iso)


def test_the_statements_tell_what_was_varied(farm: Workspace, published: Path) -> None:
    machines = []
    for name in farm.farm.environments:
        envelope = json.loads((published / "statements" / f"{name}.json").read_text())
        payload: Any = dsse.unverified_payload(envelope)
        definition = payload["predicate"]["buildDefinition"]
        machines.append(definition["internalParameters"]["machine"])
    alpha, beta = machines
    for factor in alpha["varied"].keys() | {"clock", "cpus", "memory_mib", "builder", "facts"}:
        one, other = (m.get(factor, m["varied"].get(factor)) for m in machines)
        assert one != other, factor
    assert alpha["facts"]["kernel"] != beta["facts"]["kernel"]
    assert alpha["facts"]["mksquashfs"] == beta["facts"]["mksquashfs"]
