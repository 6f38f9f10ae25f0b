# SPDX-License-Identifier: GPL-3.0-or-later
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pipeline.base.files import write_json
from pipeline.base.store import Store
from pipeline.base.transfer import Client, Patience
from pipeline.documents.digest import sha256_file
from pipeline.documents.lock import Lock
from pipeline.documents.source import Source
from pipeline.farm.config import Farm
from pipeline.farm.run import Request, Run, create
from pipeline.inputs.lock_file import read
from pipeline.inputs.locking import make_lock, write_lock
from pipeline.inputs.stage import run_inputs
from pipeline.published.published import Location
from tests.archive_server import ArchiveServer, archive_server
from tests.debian_archive import DebianArchive, SigningKey, make_key

IMAGE_YAML = "description: a test\nsuite: trixie\nvolume_id: TEST\n"


@pytest.fixture(scope="session")
def keys() -> Iterator[dict[str, SigningKey]]:
    """Keys: of the archive, of somebody else, and one that has expired."""
    folder = Path(tempfile.mkdtemp(prefix="tb-"))
    then = "20200101T000000!"
    made = {
        "archive": make_key(folder / "a"),
        "stranger": make_key(folder / "s"),
        "expired": make_key(folder / "e", "--faked-system-time", then, expires="1d"),
    }
    yield made
    for key in made.values():
        key.stop()
    shutil.rmtree(folder, ignore_errors=True)  # the agents take their sockets away too


@pytest.fixture(scope="session")
def first_archive(
    tmp_path_factory: pytest.TempPathFactory, keys: dict[str, SigningKey]
) -> DebianArchive:
    """An archive as most tests need it; they work on copies."""
    archive = DebianArchive(tmp_path_factory.mktemp("archive") / "debian", keys["archive"])
    archive.add("base-files", Essential="yes")
    archive.add("dash", Essential="yes", Pre_Depends="libc6")
    archive.add("libc6", "1:2.41+b1", Architecture="amd64")
    archive.add("apt", Depends="libc6")
    archive.add("mmdebstrap", Depends="apt")
    archive.add("live-boot", Depends="live-tools | other-tools", Recommends="unwanted")
    archive.add("live-tools", Provides="tools")
    archive.add("unwanted")
    archive.publish()
    return archive


@pytest.fixture(scope="session", autouse=True)
def _direct_and_hasty() -> Iterator[None]:
    hasty = Patience(silence_s=5, attempts=2, pause_s=0.001)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("no_proxy", "127.0.0.1")
        patch.setattr("pipeline.inputs.archive_files.Client", partial(Client, patience=hasty))
        yield


def write_source(run: Run) -> None:
    """Write what the source stage says of the run's `source.tar`, as it is now."""
    source = Source(
        repository="file:///srv/mini.git",
        ref="HEAD",
        commit="c" * 40,
        tree="7" * 40,
        epoch=1_766_400_000,
        version="3.3",
        tag=None,
        dirty=False,
        tar_sha256=sha256_file(run.source_tar),
    )
    write_json(run.source_json, source.document())


@dataclass
class Workshop:
    """A source tree with an image, an archive behind a server, and a store."""

    tree: Path
    archive: DebianArchive
    server: ArchiveServer
    store: Store
    farm: Farm
    prepared: Path  # a lock of all this, and the store that making it filled

    @property
    def lock_file(self) -> Path:
        return self.tree / "images/live/mini/lock"

    @property
    def builder_lists(self) -> Path:
        return self.tree / "images/builder/package-lists"

    def ask_for(self, *names: str) -> None:
        lists = self.tree / "images/live/mini/package-lists"
        lists.mkdir(parents=True, exist_ok=True)
        (lists / "mini.list.chroot").write_text("".join(f"{name}\n" for name in names))

    def make(self) -> Lock:
        cache = self.tree.parent / 'it\'s a "50%" cache'
        return make_lock(
            self.tree, "mini", self.farm, self.store, cache, self.builder_lists, lambda _: None
        )

    def lock(self) -> Lock:
        lock = self.make()
        write_lock(self.tree, lock)
        return lock

    def locked(self) -> Lock:
        """Do what `lock` does, quicker, while the archive is still as it was at first."""
        shutil.copytree(self.prepared / "store", self.store.root)
        shutil.copyfile(self.prepared / "lock", self.lock_file)
        return read(self.lock_file)[0]

    def run(self, tag: str | None = None) -> Run:
        """Return a new run whose source stage is complete."""
        asked = {"tag": tag, "vary": "all"} if tag else {}
        request = Request(image="mini", commit="HEAD", environments=("alpha", "beta"), **asked)
        run = create(self.tree.parent / "runs", request)
        subprocess.run(["tar", "-C", self.tree, "-cf", run.source_tar, "images"], check=True)
        write_source(run)
        return run

    def stage(self, run: Run, **more: object) -> list[str]:
        """Run the stage; return its messages."""
        messages: list[str] = []
        usual: dict[str, Any] = {
            "builder_lists": self.builder_lists,
            "snapshots": self.tree.parent / "snapshots",
            "locate": lambda: Location(str(self.tree.parent / "public"), b""),
            "notify": messages.append,
        }
        run_inputs(run, self.farm, self.store, **{**usual, **more})
        return messages

    def stored(self) -> set[str]:
        """Return the digests of all that the store holds."""
        return {path.name for path in self.store.root.glob("sha256/*/*")}


def _workshop(
    prepared: Path, server: ArchiveServer, archive: DebianArchive, folder: Path
) -> Workshop:
    tree = folder / "tree"
    (tree / "images/builder/package-lists").mkdir(parents=True)
    (tree / "images/builder/package-lists/tools.list").write_text("# tools\nmmdebstrap\n")
    farm = farm_of(server, archive)
    made = Workshop(tree, archive, server, Store(folder / "store"), farm, prepared)
    made.ask_for("live-boot")
    (tree / "images/live/mini/image.yaml").write_text(IMAGE_YAML)
    return made


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory, first_archive: DebianArchive) -> Path:
    """A folder with a lock of the first archive, and the store that making it filled."""
    folder = tmp_path_factory.mktemp("prepared")
    with archive_server(first_archive.root.parent) as server:
        made = _workshop(folder, server, first_archive, folder)
        made.lock()
        made.lock_file.rename(folder / "lock")
    return folder


@pytest.fixture
def workshop(tmp_path: Path, first_archive: DebianArchive, prepared: Path) -> Iterator[Workshop]:
    served = tmp_path / "served"
    shutil.copytree(first_archive.root, served / "debian")
    archive = DebianArchive(
        served / "debian", first_archive.key, paragraphs=dict(first_archive.paragraphs)
    )
    with archive_server(served) as server:
        yield _workshop(prepared, server, archive, tmp_path)


def farm_of(server: ArchiveServer, archive: DebianArchive, **more: object) -> Farm:
    """Return a farm whose only archive is the served one."""
    entry = {
        "suites": [archive.suite],
        "components": ["main"],
        "keyring": archive.key.keyring,
        "urls": [f"{server.url}/debian"],
        **more,
    }
    environment = {"memory_mib": 2048, "cpus": 1}
    return Farm.model_validate(
        {"environments": {"alpha": environment, "beta": environment}, "archives": {"debian": entry}}
    )
