# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys, an installed system on a disk image, and kits with signed descriptions beside them."""

import subprocess
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import pytest

from pipeline.base.openpgp import Gpg
from pipeline.documents.upgrade_description import Description, Offer, describe
from pipeline.kits.install.apply import Applied, apply_kit
from pipeline.kits.install.description import Trust
from pipeline.kits.make.sign import sign, sign_payload
from tests.gpg_home import GpgHome
from tests.installed import PARTITION_AT, KitParts, Release, make_disk, read_partition, switch
from tests.installed import sha256 as digest
from tests.releases import gpg_home as gpg_home

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
FIRST = Release("3.1", static={"boot/readme": b"one"})
SECOND = Release("3.2", kernel="B", static={"boot/readme": b"two" * 300})
THIRD = Release("3.3", static={"boot/readme": b"one"})  # as the first one, but for the version


@dataclass(frozen=True)
class Signer:
    """A release key and who trusts it."""

    home: GpgHome
    fingerprint: str

    @property
    def trust(self) -> Trust:
        return Trust(self.home.export(self.fingerprint), self.fingerprint)

    def sign(self, described: Description) -> bytes:
        return sign(described, Gpg({"GNUPGHOME": str(self.home.path)}), self.fingerprint)

    def sign_payload(self, payload: bytes) -> bytes:
        return sign_payload(payload, Gpg({"GNUPGHOME": str(self.home.path)}), self.fingerprint)

    def describe(
        self, parts: KitParts, packed: bytes, now: datetime = NOW, renewal_key: str | None = None
    ) -> bytes:
        old, new = parts.base.version, parts.new.version
        offer = Offer(parts.new.image, "amd64", old, new, len(packed), digest(packed))
        return self.state(old, new, offer, now, renewal_key)

    def state(
        self,
        start: str,
        newest: str,
        offer: Offer | None = None,
        now: datetime = NOW,
        renewal_key: str | None = None,
    ) -> bytes:
        """What there is for systems installed from `start`, signed; without an offer nothing."""
        return self.sign(
            describe(
                image=offer.image if offer else "mini",
                architecture="amd64",
                start=start,
                newest=newest,
                offer=offer,
                renewal_key=renewal_key,
                now=now,
            )
        )


@pytest.fixture(autouse=True)
def memory(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this test's commands remember what they knew."""
    state = tmp_path_factory.mktemp("state")
    monkeypatch.setenv("XDG_STATE_HOME", str(state))
    return state / "twinbuild" / "upgrades"


@pytest.fixture(scope="session")
def signer(gpg_home: GpgHome) -> Signer:
    return Signer(gpg_home, gpg_home.make("Release <release@example.org>", expires="never"))


@pytest.fixture(scope="session")
def stranger(gpg_home: GpgHome) -> Signer:
    return Signer(gpg_home, gpg_home.make("Other <other@example.org>", expires="never"))


class Kits(Protocol):
    """Writes a kit, or other bytes in its place, and a description beside it."""

    def __call__(
        self, parts: KitParts, packed: bytes | None = ..., described: bytes | None = ...
    ) -> Path: ...


@pytest.fixture(scope="session")
def kits(tmp_path_factory: pytest.TempPathFactory, signer: Signer) -> Kits:
    """Return what puts a kit and its description into a folder of its own."""

    def write(parts: KitParts, packed: bytes | None = None, described: bytes | None = None) -> Path:
        packed = packed or parts.pack()
        folder = tmp_path_factory.mktemp("kit")
        path = folder / f"mini-amd64-{parts.base.version}-to-{parts.new.version}.iuk"
        path.write_bytes(packed)
        path.with_name(f"{path.name}.json").write_bytes(described or signer.describe(parts, packed))
        return path

    return write


@pytest.fixture(scope="session")
def to_second(kits: Kits) -> Path:
    return kits(KitParts(FIRST, SECOND))


@pytest.fixture(scope="session")
def to_third(kits: Kits) -> Path:
    return kits(KitParts(FIRST, THIRD))


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    files = {**FIRST.files, "boot/grub/current.cfg": switch("3.1"), "mine/notes": b"my own"}
    return make_disk(tmp_path_factory.mktemp("disk") / "fresh.img", files)


@dataclass(frozen=True)
class Stick:
    """A disk image with an installed system."""

    path: Path
    trust: Trust

    def apply(self, kit: Path, trust: Trust | None = None, now: datetime = NOW) -> Applied:
        return apply_kit(kit, self.path, trust or self.trust, lambda *_: None, now)

    def files(self) -> dict[str, bytes]:
        with tempfile.TemporaryDirectory() as folder:
            into = Path(folder, "files")
            return read_partition(self.path, offset=PARTITION_AT, into=into)

    def check(self) -> None:
        """What fsck has to say of the partition: nothing."""
        with tempfile.NamedTemporaryFile() as part:
            argv = ["dd", f"if={self.path}", f"of={part.name}", "bs=1M", "conv=sparse"]
            skip = [f"skip={PARTITION_AT // 2**20}", "status=none"]
            subprocess.run([*argv, *skip], check=True)
            done = subprocess.run(["fsck.fat", "-n", part.name], capture_output=True, check=False)
            assert done.returncode == 0, done.stdout


@pytest.fixture
def stick(fresh: Path, tmp_path: Path, signer: Signer) -> Stick:
    path = tmp_path / "stick.img"
    subprocess.run(["cp", fresh, path], check=True)
    return Stick(path, signer.trust)
