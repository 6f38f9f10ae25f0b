# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs as the stages before would leave them, real keys, and a real web server."""

import hashlib
import http.server
import io
import json
import os
import re
import tarfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import pytest
from securesystemslib.signer import CryptoSigner

from pipeline.base import dsse
from pipeline.base.files import write_json
from pipeline.documents import statement
from pipeline.documents.artifact_names import artifact_names
from pipeline.documents.manifest import Manifest
from pipeline.farm.config import Farm, parse_image
from pipeline.farm.job import make_job
from pipeline.farm.run import Request, create
from pipeline.farm.run_documents import read_inputs, read_source
from pipeline.farm.tag import VerifiedTag
from pipeline.release.stage import run_release
from tests.gpg_home import GpgHome, made_home

# The fixtures, which the conftest.py of a folder takes over.
__all__ = [
    "caller",
    "environment_keys",
    "expired_key",
    "farm",
    "farm_with",
    "gpg_home",
    "keyring_file",
    "listing",
    "make_run",
    "other_key",
    "published",
    "release_key",
    "revoked_key",
    "serve",
]

COMMIT = "c0ffee" * 6 + "cafe"
EPOCH = 1766400000
ENVIRONMENTS = ("alpha", "beta")
LOCK = b"Format: twinbuild-lock/1\n"
IMAGE = b"description: A test\nvolume_id: TEST\n"
SIGNER = "5" * 40  # of tags


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


# --- OpenPGP keys


@pytest.fixture(scope="session")
def gpg_home() -> Iterator[GpgHome]:
    with made_home() as home:
        yield home


@pytest.fixture(scope="session")
def release_key(gpg_home: GpgHome) -> str:
    return gpg_home.make("Release <release@example.org>", expires="never")


@pytest.fixture(scope="session")
def keyring_file(
    tmp_path_factory: pytest.TempPathFactory, gpg_home: GpgHome, release_key: str
) -> Path:
    path = tmp_path_factory.mktemp("keyring") / "release.gpg"
    path.write_bytes(gpg_home.export(release_key))
    return path


@pytest.fixture(scope="session")
def other_key(gpg_home: GpgHome) -> str:
    return gpg_home.make("Other <other@example.org>", expires="never")


@pytest.fixture(scope="session")
def revoked_key(gpg_home: GpgHome) -> str:
    return gpg_home.make("Revoked <revoked@example.org>", expires="never")


@pytest.fixture(scope="session")
def expired_key(gpg_home: GpgHome) -> str:
    return gpg_home.make("Expired <expired@example.org>", expires="seconds=86400", days_ago=10)


@pytest.fixture
def caller(gpg_home: GpgHome, monkeypatch: pytest.MonkeyPatch) -> GpgHome:
    """A caller whose gpg home holds the keys."""
    monkeypatch.setenv("GNUPGHOME", str(gpg_home.path))
    monkeypatch.delenv("TWINBUILD_RELEASE_KEY", raising=False)
    monkeypatch.delenv("TWINBUILD_RELEASE_PASSPHRASE_FILE", raising=False)
    return gpg_home


# --- runs


@pytest.fixture(scope="session")
def environment_keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, CryptoSigner]:
    folder = tmp_path_factory.mktemp("keys")
    for name in (*ENVIRONMENTS, "stranger"):
        dsse.make_key(folder / f"{name}.pem")
    return {name: dsse.load_key(folder / f"{name}.pem") for name in (*ENVIRONMENTS, "stranger")}


def make_farm(keys: Mapping[str, CryptoSigner], release: str | None) -> Farm:
    return Farm.model_validate(
        {
            "environments": {name: {"memory_mib": 2048, "cpus": 1} for name in ENVIRONMENTS},
            "archives": {"debian": {"suites": ["x"], "components": ["main"], "keyring": "k.gpg"}},
            "keys": {
                "release": release,
                "tags": {"signers": [SIGNER]},
                "environments": {name: dsse.public_hex(keys[name]) for name in ENVIRONMENTS},
            },
        }
    )


@pytest.fixture
def farm(environment_keys: dict[str, CryptoSigner], release_key: str) -> Farm:
    return make_farm(environment_keys, release_key)


FarmWith = Callable[[str | None], Farm]


@pytest.fixture
def farm_with(environment_keys: dict[str, CryptoSigner]) -> FarmWith:
    """A farm with another release key, or none."""
    return lambda release: make_farm(environment_keys, release)


def kit_from(tag: str) -> dict[str, str | None]:
    """Return what the inputs say of an upgrade kit."""
    digests = {"ledger_sha256": sha256(b"ledger"), "partition_sha256": sha256(b"partition")}
    return {"from": tag, **digests, "image_sha256": None}


def artifacts_of(job: Mapping[str, Any]) -> dict[str, bytes]:
    """Return content for each artifact of a job."""
    names = artifact_names(job)
    return {
        **{name: f"{name} ".encode() * 100 for name in names.all()},
        names.iso: b"iso " * 4096 + job["version"].encode(),
        names.ledger: b"\x1f\x8b ledger",
    }


class FakeRun:
    """A run whose documents can be changed and signed again."""

    def __init__(
        self,
        runs: Path,
        keys: Mapping[str, CryptoSigner],
        tag: str,
        image: str = "mini",
        epoch: int = EPOCH,
        artifacts: Mapping[str, bytes] | Iterable[tuple[str, bytes]] = (),
        kits: Iterable[Mapping[str, object]] = (),
        local: object = None,
        environments: tuple[str, ...] = ENVIRONMENTS,
    ) -> None:
        self.tag, self.image, self.keys, self.epoch = tag, image, keys, epoch
        self.kits, self.local = list(kits), local
        self.environments = environments
        self.run = create(
            runs,
            Request(
                image=image,
                commit=tag,
                tag=tag,
                compression="strong",
                vary="all",
                environments=environments,
            ),
        )
        self.write_source()
        self.write_inputs()
        self.artifacts = {**artifacts_of(self.job()), **dict(artifacts)}
        for name in environments:
            self.write_build(name)
        self.write_verdict()

    @property
    def verified(self) -> VerifiedTag:
        """The tag, as verifying it now finds it."""
        return VerifiedTag(self.tag, "8" * 40, COMMIT, SIGNER)

    def write_source(self, **changes: Any) -> None:
        with tarfile.open(self.run.source_tar, "w") as tar:
            for name, content in {"lock": LOCK, "image.yaml": IMAGE}.items():
                member = tarfile.TarInfo(f"images/live/{self.image}/{name}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        document = {
            "format": "twinbuild-source/1",
            "repository": "file:///srv/mini.git",
            "ref": self.tag,
            "commit": COMMIT,
            "tree": "7" * 40,
            "epoch": self.epoch,
            "version": self.tag,
            "tag": {"name": self.tag, "object": "8" * 40, "signer": SIGNER},
            "tar_sha256": sha256(self.run.source_tar.read_bytes()),
            "dirty": False,
        }
        write_json(self.run.source_json, document | changes)

    def write_inputs(self, **changes: Any) -> None:
        document = {
            "format": "twinbuild-inputs/1",
            "image": self.image,
            "lock_sha256": sha256(LOCK),
            "snapshot": None,
            "packages": [],
            "index_sha256": "9" * 64,
            "kits": self.kits,
            "local": self.local,
        }
        write_json(self.run.inputs_json, document | changes)

    def write_build(self, name: str) -> None:
        folder = self.run.environment(name)
        (folder / "artifacts").mkdir(parents=True, exist_ok=True)
        for file, content in self.artifacts.items():
            (folder / "artifacts" / file).write_bytes(content)
        for file in statement.BYPRODUCTS:
            (folder / file).write_bytes(f"{file} of {name}\n".encode())
        write_json(folder / "job.json", self.job())
        self.write_statement(name)

    def job(self) -> dict[str, Any]:
        source, inputs = read_source(self.run), read_inputs(self.run)
        image = parse_image(IMAGE, "image.yaml")
        job = make_job(source, inputs, image, compression="strong", guest_sha256="2" * 64)
        return job.document()

    def machine(self, name: str) -> dict[str, Any]:
        varied = {"host_name": name, "directory_seed": name}
        return {"cpus": len(name), "kept_trees": [], "vary": "all", "varied": varied}

    def write_statement(self, name: str, *, key: str | None = None, **changes: Any) -> None:
        """Sign what an environment states, with some of it changed."""
        folder = self.run.environment(name)
        source = json.loads(self.run.source_json.read_bytes())
        values = {
            "environment": name,
            "run_id": self.run.id,
            "repository": source["repository"],
            "commit": source["commit"],
            "tag": self.tag,
            "image": self.image,
            "compression": "strong",
            "lock_sha256": sha256(LOCK),
            "job": self.job(),
            "machine": self.machine(name),
            "artifacts": {file: sha256(content) for file, content in self.artifacts.items()},
            "byproducts": {f: sha256((folder / f).read_bytes()) for f in statement.BYPRODUCTS},
            "started": self.run.started,
            "finished": self.run.started + timedelta(seconds=1),
        }
        document = statement.make(statement.Statement(**(values | changes)))
        write_json(folder / "statement.json", dsse.sign(document, self.keys[key or name]))

    def write_verdict(self, **changes: Any) -> None:
        artifacts = [
            {"name": name, "size": len(content), "sha256": sha256(content)}
            for name, content in sorted(self.artifacts.items())
        ]
        document = {
            "format": "twinbuild-verdict/1",
            "verdict": "match",
            "environments": list(self.environments),
            "artifacts": artifacts,
            "reasons": [],
            "differences": [],
            "expected": [],
            "only_expected": False,
        }
        write_json(self.run.verdict_json, document | changes)


def publish_by_hand(public: Path, fake: FakeRun, gpg_home: GpgHome, fingerprint: str) -> None:
    """Publish a run as somebody who has all the keys and no gate: whatever it states."""
    folder = public / fake.tag
    for path in ("statements", *fake.environments):
        (folder / path).mkdir(parents=True)
    files = {"lock": LOCK, "verdict.json": fake.run.verdict_json.read_bytes(), **fake.artifacts}
    for name in fake.environments:
        built = fake.run.environment(name)
        files[f"statements/{name}.json"] = (built / "statement.json").read_bytes()
        files |= {f"{name}/{file}": (built / file).read_bytes() for file in statement.BYPRODUCTS}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    manifest = Manifest({name: sha256(content) for name, content in files.items()}).content()
    (folder / "SHA256SUMS").write_bytes(manifest)
    signature = gpg_home.sign(manifest, fingerprint, "--detach-sign")
    (folder / "SHA256SUMS.asc").write_bytes(signature)


class MakeRun(Protocol):
    """Makes a run; the options are those of FakeRun."""

    def __call__(self, tag: str = ..., **options: Any) -> FakeRun: ...


@pytest.fixture
def make_run(tmp_path: Path, environment_keys: dict[str, CryptoSigner]) -> MakeRun:
    def make(tag: str = "3.3", **options: Any) -> FakeRun:
        return FakeRun(tmp_path / "runs", environment_keys, tag, **options)

    return make


@pytest.fixture(scope="session")
def published(
    tmp_path_factory: pytest.TempPathFactory,
    environment_keys: dict[str, CryptoSigner],
    gpg_home: GpgHome,
    release_key: str,
) -> Path:
    """A public tree with the release 3.3; to be copied, not changed."""
    folder = tmp_path_factory.mktemp("published")
    fake = FakeRun(folder / "runs", environment_keys, "3.3")
    farm = make_farm(environment_keys, release_key)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GNUPGHOME", str(gpg_home.path))
        patch.delenv("TWINBUILD_RELEASE_KEY", raising=False)
        run_release(fake.run, farm, folder / "public", fake.verified, notify=lambda _: None)
    return folder / "public"


# --- a web server


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder with ranges, and misbehaves as `server.behaviour` says."""

    protocol_version = "HTTP/1.1"
    server: "Server"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        offset = self._offset()
        self.server.seen.append((self.path, offset))
        if not path.is_file():
            self.send_error(404)
            return
        content, total = path.read_bytes(), path.stat().st_size
        if offset is not None and offset >= total:
            self.send_response(416)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if offset is not None:
            content = content[offset:]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {offset}-{total - 1}/{total}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        cuts = self.server.cuts
        if cuts and path.suffix == self.server.cut_suffix:
            content = content[: cuts.pop(0)]
            self.close_connection = True
        self.wfile.write(content)

    def _offset(self) -> int | None:
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        return int(asked[1]) if asked and self.server.ranges else None


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), lambda *a: Handler(*a, directory=os.fspath(folder)))
        self.seen: list[tuple[str, int | None]] = []
        self.cuts: list[int] = []
        self.ranges, self.cut_suffix = True, ".iso"
        self.url = f"http://127.0.0.1:{self.server_port}"


Serve = Callable[[Path], Server]


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers: list[Server] = []

    def start(folder: Path) -> Server:
        server = Server(folder)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


Listing = Callable[[Path], dict[str, bytes | None]]


@pytest.fixture
def listing() -> Listing:
    """Everything in a folder with its content, to compare before and after."""

    def read(folder: Path) -> dict[str, bytes | None]:
        return {
            str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
            for path in folder.rglob("*")
        }

    return read
