# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys, an installed system on a disk image, and kits with signed descriptions beside them."""

import io
import subprocess
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from rich.console import Console

from pipeline.base.display import Display
from pipeline.base.openpgp import Gpg
from pipeline.kits.install import description
from pipeline.kits.install.apply import apply_kit
from pipeline.kits.install.description import Offer, Trust
from tests.installed import PARTITION_AT, KitParts, Release, make_disk, read_partition, switch
from tests.installed import sha256 as digest
from tests.releases import GpgHome

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
FIRST = Release("3.1", static={"boot/readme": b"one"})
SECOND = Release("3.2", kernel="B", static={"boot/readme": b"two" * 300})
THIRD = Release("3.3", static={"boot/readme": b"one"})  # as the first one, but for the version


@pytest.fixture(scope="session")
def gpg_home():
    with GpgHome.made() as home:
        yield home


@dataclass(frozen=True)
class Signer:
    """A release key and who trusts it."""

    home: GpgHome
    fingerprint: str

    @property
    def trust(self):
        return Trust(self.home.export(self.fingerprint), self.fingerprint)

    def sign(self, described):
        return description.sign(described, Gpg({"GNUPGHOME": self.home.path}), self.fingerprint)

    def sign_payload(self, payload):
        return description.sign_payload(
            payload, Gpg({"GNUPGHOME": self.home.path}), self.fingerprint
        )

    def describe(self, parts, packed, now=NOW, renewal_key=None):
        old, new = parts.base.version, parts.new.version
        offer = Offer(parts.new.image, "amd64", old, new, len(packed), digest(packed))
        return self.state(old, new, offer, now, renewal_key)

    def state(self, start, newest, offer=None, now=NOW, renewal_key=None):
        """What there is for systems installed from `start`, signed; without an offer nothing."""
        return self.sign(
            description.describe(
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
def memory(tmp_path_factory, monkeypatch):
    """Where this test's commands remember what they knew."""
    state = tmp_path_factory.mktemp("state")
    monkeypatch.setenv("XDG_STATE_HOME", str(state))
    return state / "twinbuild" / "upgrades"


@pytest.fixture(scope="session")
def signer(gpg_home):
    return Signer(gpg_home, gpg_home.make("Release <release@example.org>"))


@pytest.fixture(scope="session")
def stranger(gpg_home):
    return Signer(gpg_home, gpg_home.make("Other <other@example.org>"))


@pytest.fixture(scope="session")
def kits(tmp_path_factory, signer):
    """Return what puts a kit and its description into a folder of its own."""

    def write(parts, packed=None, described=None):
        packed = packed or parts.pack()
        folder = tmp_path_factory.mktemp("kit")
        path = folder / f"mini-amd64-{parts.base.version}-to-{parts.new.version}.iuk"
        path.write_bytes(packed)
        path.with_name(f"{path.name}.json").write_bytes(described or signer.describe(parts, packed))
        return path

    return write


@pytest.fixture(scope="session")
def to_second(kits):
    return kits(KitParts(FIRST, SECOND))


@pytest.fixture(scope="session")
def to_third(kits):
    return kits(KitParts(FIRST, THIRD))


@pytest.fixture(scope="session")
def fresh(tmp_path_factory):
    files = {**FIRST.files, "boot/grub/current.cfg": switch("3.1"), "mine/notes": b"my own"}
    return make_disk(tmp_path_factory.mktemp("disk") / "fresh.img", files)


@dataclass(frozen=True)
class Stick:
    """A disk image with an installed system."""

    path: object
    trust: Trust

    def apply(self, kit, trust=None, now=NOW):
        shown = Display(Console(file=io.StringIO()))
        return apply_kit(kit, self.path, trust or self.trust, shown, now)

    def files(self):
        with tempfile.TemporaryDirectory() as folder:
            into = type(self.path)(folder, "files")
            return read_partition(self.path, offset=PARTITION_AT, into=into)

    def check(self):
        """What fsck has to say of the partition: nothing."""
        with tempfile.NamedTemporaryFile() as part:
            argv = ["dd", f"if={self.path}", f"of={part.name}", "bs=1M", "conv=sparse"]
            skip = [f"skip={PARTITION_AT // 2**20}", "status=none"]
            subprocess.run([*argv, *skip], check=True)
            done = subprocess.run(["fsck.fat", "-n", part.name], capture_output=True, check=False)
            assert done.returncode == 0, done.stdout


@pytest.fixture
def stick(fresh, tmp_path, signer):
    path = tmp_path / "stick.img"
    subprocess.run(["cp", fresh, path], check=True)
    return Stick(path, signer.trust)
