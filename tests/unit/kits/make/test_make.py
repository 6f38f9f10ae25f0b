# SPDX-License-Identifier: GPL-3.0-or-later
"""A kit made again by an outsider, from two releases that are signed and published."""

import codecs
import json
import os
import re
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

import pytest

from pipeline.base import dsse
from pipeline.base.errors import Differs, InputsUnverified, SignatureInvalid, UsageError
from pipeline.base.store import Store
from pipeline.documents.kit_plan import Earlier, KitPlan, Later
from pipeline.guest.kits.kit import make_kit as make_in_the_machine
from pipeline.guest.kits.squashfs import unpack
from pipeline.kits.install.format import open_kit
from pipeline.kits.make.make import Made as Kit
from pipeline.kits.make.make import make_kit
from pipeline.published.published import Location
from pipeline.release.stage import run_release
from tests.installed import make_disk, switch
from tests.random_trees import Node, Tree, record, write
from tests.releases import (
    ENVIRONMENTS,
    EPOCH,
    FakeRun,
    kit_from,
    make_farm,
    publish_by_hand,
)
from tests.unit.kits.conftest import Signer

pytestmark = [
    pytest.mark.tools,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can make such trees"),
]
ENV = {"PATH": os.environ["PATH"], "LC_ALL": "C"}
KIT = "mini-amd64-3.1-to-3.3.iuk"
BASE: Tree = {
    b"etc": Node("dir", mode=0o755),
    b"etc/shadow": Node(content=b"root:*", mode=0o000),
    b"etc/null": Node("char"),
}
TREES: dict[str, Tree] = {
    "3.1": {**BASE, b"etc/version": Node(content=b"3.1"), b"etc/old": Node(content=b"old")},
    "3.3": {
        **BASE,
        b"etc/version": Node(content=b"3.3", owner=(7, 8), mode=0o4755),
        b"etc/secret": Node(content=b"hidden", mode=0o000, owner=(0, 42)),
        b"etc/one": Node(content=b"1" * 9000, inode=1),
        b"etc/two": Node(content=b"1" * 9000, inode=1, xattrs={"user.k": b"\xff"}),
    },
}
TOOLS = subprocess.run(["mksquashfs", "-version"], capture_output=True, check=False).stdout
FACT = TOOLS.decode().splitlines()[0]


class Made:
    """What one build of a release gives, made as the machine makes it."""

    def __init__(self, tag: str, folder: Path) -> None:
        self.tag, self.stem = tag, f"mini-amd64-{tag}"
        self.tree, self.files = folder / "tree", folder / "files"
        write(TREES[tag], self.tree)
        self.ledger = record(self.tree, folder / f"{self.stem}.ledger.jsonl.gz")
        (self.files / "live").mkdir(parents=True)
        squashfs = self.files / "live" / f"{tag}.squashfs"
        subprocess.run(["mksquashfs", self.tree, squashfs, "-quiet", "-no-progress"], check=True)
        texts = {f"{tag}.cfg": f"menu {tag}", f"{tag}.module": f"{tag}.squashfs\n", "same": "same"}
        for name, text in texts.items():
            (self.files / "live" / name).write_text(text)
        (self.files / "boot/grub").mkdir(parents=True)
        (self.files / "boot/grub/current.cfg").write_bytes(switch(tag))
        there = {
            path.relative_to(self.files).as_posix(): path.read_bytes()
            for path in sorted(self.files.rglob("*"))
            if path.is_file()
        }
        self.partition = folder / f"{self.stem}.partition"
        lines = [
            {"path": name, "type": "file", "size": len(data), "sha256": sha256(data).hexdigest()}
            for name, data in there.items()
        ]
        self.partition.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        self.image = folder / f"{self.stem}.img"
        make_disk(self.image, there)

    @property
    def artifacts(self) -> dict[str, bytes]:
        return {p.name: p.read_bytes() for p in (self.ledger, self.partition, self.image)}


class Publish(Protocol):
    """Publishes a release in a folder of the tree, another one than the fixture's if named."""

    def __call__(
        self, tag: str, artifacts: dict[str, bytes], fact: str = ..., to: str = ...
    ) -> Path: ...


@dataclass(frozen=True)
class Public:
    """What is published, and how to publish more beside it."""

    publish: Publish
    made: dict[str, Made]
    kit: Path
    folder: Path
    trust: Location


class Make(Protocol):
    """Makes the kit again; `trust` are fields of the location that are other than the true ones."""

    def __call__(self, start: str = ..., to: str = ..., tree: str = ..., **trust: Any) -> Kit: ...


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory, signer: Signer) -> Public:
    """Publish 3.1 and 3.3 with its kit."""
    folder = tmp_path_factory.mktemp("public")
    gpg_home, fingerprint = signer.home, signer.fingerprint
    keys = {}
    for name in ENVIRONMENTS:
        dsse.make_key(folder / f"{name}.pem")
        keys[name] = dsse.load_key(folder / f"{name}.pem")

    def publish(
        tag: str, artifacts: dict[str, bytes], fact: str = FACT, to: str = "public"
    ) -> Path:
        """Publish a release; one that lacks an artifact is of a farm without a gate."""
        if to != "public":  # a tree of its own, with the other release as it was
            (other,) = {"3.1", "3.3"} - {tag}
            (folder / to).mkdir()
            subprocess.run(["cp", "-rl", folder / "public" / other, folder / to], check=True)
        kits = [kit_from("3.1")] if KIT in artifacts else []
        fake = FakeRun(folder / "runs", keys, tag, artifacts=artifacts, kits=kits)
        for name in ENVIRONMENTS:
            facts = {"mksquashfs": fact}
            fake.write_statement(name, machine={**fake.machine(name), "facts": facts})
        if not artifacts.keys() >= {f"mini-amd64-{tag}.partition"}:
            fake.artifacts.pop(f"mini-amd64-{tag}.partition")
            for name in ENVIRONMENTS:
                fake.write_statement(name)
            publish_by_hand(folder / to, fake, gpg_home, fingerprint)
            return folder / to
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("GNUPGHOME", str(gpg_home.path))
            patch.delenv("TWINBUILD_RELEASE_KEY", raising=False)
            run_release(
                fake.run,
                make_farm(keys, fingerprint),
                folder / to,
                fake.verified,
                notify=lambda _: None,
            )
        return folder / to

    for tag in TREES:
        (folder / tag).mkdir()
    made = {tag: Made(tag, folder / tag) for tag in TREES}
    old, new = made["3.1"], made["3.3"]
    kit = folder / KIT
    start = Earlier("3.1", old.ledger, old.partition)
    end = Later(
        "mini", "amd64", "3.3", EPOCH, "strong",
        new.ledger, new.partition, new.tree, new.files,
    )  # fmt: skip
    make_in_the_machine(KitPlan(start, end, kit, folder / "work", processors=1), ENV)
    publish("3.1", old.artifacts)
    publish("3.3", {**new.artifacts, KIT: kit.read_bytes()})
    trust = Location("", gpg_home.export(fingerprint), fingerprint)
    return Public(publish, made, kit, folder, trust)


@pytest.fixture
def messages() -> list[str]:
    return []


@pytest.fixture
def make(public: Public, tmp_path: Path, messages: list[str]) -> Make:
    def call(start: str = "3.1", to: str = "3.3", tree: str = "public", **trust: Any) -> Kit:
        location = replace(public.trust, address=str(public.folder / tree), **trust)
        store = Store(tmp_path / "store")  # kit.make makes its folder, as kit.fetch does
        return make_kit(location, start, to, tmp_path / "out", store, messages.append)

    return call


def test_an_outsider_makes_the_same_kit(
    public: Public, make: Make, tmp_path: Path, messages: list[str]
) -> None:
    made = make()
    assert made.path.read_bytes() == public.kit.read_bytes()
    assert made.same is True
    assert [path.name for path in (tmp_path / "out").iterdir()] == [KIT]
    assert not any("differs" in line for line in messages)
    with made.path.open("rb") as stream:
        assert len(list(open_kit(stream, KIT).files())) == 3


@pytest.mark.skipif(not Path("/usr/bin/python3").exists(), reason="needs a Python for everybody")
def test_an_outsider_needs_no_root(public: Public, monkeypatch: pytest.MonkeyPatch) -> None:
    """As nobody: unreadable files, devices and attributes are in the ledger, not in the tree."""
    monkeypatch.setattr("sys.executable", "/usr/bin/python3")
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name)
        subprocess.run(["cp", "-r", public.folder / "public", folder], check=True)
        subprocess.run(["chown", "-R", "65534:65534", folder], check=True)
        monkeypatch.setattr(tempfile, "tempdir", name)
        location = replace(public.trust, address=str(folder / "public"))
        for encoding in ("cp437", "utf-16-le"):  # nobody may not read what Python loads late
            codecs.lookup(encoding)
        process = os.fork()
        if process == 0:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            try:
                with suppress(Differs):  # sqfstar 4.5 gives the root directory to who runs it
                    make_kit(location, "3.1", "3.3", folder, Store(folder / "s"), lambda _: None)
            finally:
                os._exit(0)
        os.waitpid(process, 0)
        assert carried(folder / KIT, folder / "a") == carried(public.kit, folder / "b")


def carried(kit: Path, folder: Path) -> tuple[bytes, bytes]:
    """Return boot.tar, and what the ledger of the delta's tree says."""
    folder.mkdir()
    subprocess.run(["tar", "-xf", kit, "-C", folder], check=True)
    unpack(folder / "3.3.squashfs", folder / "tree", ENV)
    return (folder / "boot.tar").read_bytes(), record(folder / "tree", folder / "l").read_bytes()


def test_another_version_of_the_tools_is_reported(
    public: Public, make: Make, messages: list[str]
) -> None:
    new = public.made["3.3"]
    other = {**new.artifacts, KIT: b"made by another version"}
    public.publish("3.3", other, fact="mksquashfs version 9.9", to="other-tools")
    assert make(tree="other-tools").same is False
    assert any("here mksquashfs version 4" in s and "version 9.9" in s for s in messages)


def test_other_bytes_by_the_same_tools_are_an_error(public: Public, make: Make) -> None:
    new = public.made["3.3"]
    public.publish("3.3", {**new.artifacts, KIT: b"something else"}, to="other-bytes")
    with pytest.raises(Differs, match=rf"{KIT} is not the kit that 3\.3 publishes"):
        make(tree="other-bytes")


def test_a_release_that_publishes_no_kit_gets_one(public: Public, make: Make) -> None:
    public.publish("3.3", public.made["3.3"].artifacts, to="no-kit")
    made = make(tree="no-kit")
    assert made.same is None
    assert made.path.read_bytes() == public.kit.read_bytes()


@pytest.mark.parametrize(
    ("artifacts", "words"),
    [
        ({}, "the release 3.1 has no mini-amd64-3.1.partition"),
        ({"mini-amd64-3.1.partition": b""}, "is not the ledger of a tree"),
    ],
)
def test_an_earlier_release_without_what_is_needed_is_named(
    artifacts: dict[str, bytes], words: str, public: Public, make: Make, tmp_path: Path
) -> None:
    tree = tmp_path.name
    public.publish("3.1", artifacts, to=tree)
    with pytest.raises(InputsUnverified, match=re.escape(words)):
        make(tree=tree)
    assert not list((tmp_path / "out").iterdir())


def test_nothing_unverified_is_used(public: Public, make: Make, tmp_path: Path) -> None:
    with pytest.raises(SignatureInvalid):
        make(keyring=b"")
    with pytest.raises(InputsUnverified):
        make(start="2.0")
    with pytest.raises(UsageError, match="no kit leads from"):
        make(start="3.3")
    spoilt = tmp_path / "spoilt"
    subprocess.run(["cp", "-r", public.folder / "public", spoilt], check=True)
    ledger = spoilt / "3.1" / "mini-amd64-3.1.ledger.jsonl.gz"
    ledger.chmod(0o644)
    ledger.write_bytes(ledger.read_bytes()[:-1] + b"x")
    with pytest.raises(InputsUnverified, match="not what its manifest says"):
        make(tree=str(spoilt))
