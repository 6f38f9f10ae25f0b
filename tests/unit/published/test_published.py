# SPDX-License-Identifier: GPL-3.0-or-later
"""Published releases are verified by their manifests before anything of them is used."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import pytest

from pipeline.base import transfer
from pipeline.base.errors import (
    InfrastructureFailed,
    InputsUnverified,
    SignatureInvalid,
    TwinbuildError,
)
from pipeline.base.store import Store
from pipeline.base.transfer import Patience
from pipeline.cli import doctor
from pipeline.documents.job import Job, KitRequest
from pipeline.farm.config import Farm
from pipeline.farm.workspace import Workspace
from pipeline.published import published
from pipeline.published.published import Location, Published, of_farm
from tests.gpg_home import GpgHome
from tests.releases import FarmWith, MakeRun, Serve, publish_by_hand
from tests.unit.farm.test_job import WRITTEN

pytestmark = pytest.mark.tools

LEDGER = "mini-amd64-3.3.ledger.jsonl.gz"


@pytest.fixture
def public(published_once: Path, tmp_path: Path) -> Path:
    """A public tree with the release 3.3, to be spoilt."""
    shutil.copytree(published_once, tmp_path / "public")
    return tmp_path / "public"


@pytest.fixture(name="published_once")
def _published(published: Path) -> Path:
    return published


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    patience = Patience(silence_s=5, attempts=2, pause_s=0.001)
    client = transfer.Client
    monkeypatch.setattr(transfer, "Client", lambda: client(patience=patience))


class Locate(Protocol):
    """Gives a public tree as a location."""

    def __call__(self, public: Path, **more: Any) -> Location: ...


ReleasedBy = Callable[[str, str], None]


@pytest.fixture(params=["folder", "address"])
def locate(
    request: pytest.FixtureRequest, serve: Serve, gpg_home: GpgHome, release_key: str
) -> Locate:
    """Give a public tree as a location, as a folder and as an address."""

    def of(public: Path, **more: Any) -> Location:
        address = str(public) if request.param == "folder" else serve(public).url
        trust = {"keyring": gpg_home.export(release_key), "fingerprint": release_key}
        return Location(address, **{**trust, **more})

    return of


def test_a_release_is_opened(locate: Locate, public: Path, release_key: str) -> None:
    location = locate(public)
    assert [listed.tag for listed in location.releases()] == ["3.3"]
    found = location.open("3.3")
    assert (found.image, found.architecture, found.version) == ("mini", "amd64", "3.3")
    assert found.job.upgrade is True  # the job of an earlier version did not state it
    assert found.names.ledger == LEDGER
    assert found.names.usb_image in found.files


def test_its_files_come_into_the_store(locate: Locate, public: Path, tmp_path: Path) -> None:
    location, store = locate(public), Store(tmp_path / "store")
    found = location.open("3.3")
    for _ in range(2):
        location.keep(found, LEDGER, store, limit=1000)
        content = store.path(found.files[LEDGER]).read_bytes()
        assert content == (public / "3.3" / LEDGER).read_bytes()
    store.path(found.files[LEDGER]).unlink()
    (public / "3.3" / LEDGER).write_bytes(b"\x1f\x8b Ledger")
    with pytest.raises(InputsUnverified):
        location.keep(found, LEDGER, store, limit=1000)
    assert not store.has(found.files[LEDGER])


def test_what_the_store_has_is_hashed_again(locate: Locate, public: Path, tmp_path: Path) -> None:
    location, store = locate(public), Store(tmp_path / "store")
    found = location.open("3.3")
    location.keep(found, LEDGER, store, limit=1000)
    path = store.path(found.files[LEDGER])
    path.chmod(0o644)
    path.write_bytes(b"\x1f\x8b LEDGER")
    location.keep(found, LEDGER, store, limit=1000)
    assert path.read_bytes() == (public / "3.3" / LEDGER).read_bytes()


def test_a_file_that_the_server_lost(locate: Locate, public: Path, tmp_path: Path) -> None:
    location = locate(public)
    found = location.open("3.3")
    (public / "3.3" / LEDGER).unlink()
    with pytest.raises((InputsUnverified, InfrastructureFailed), match=LEDGER):
        location.keep(found, LEDGER, Store(tmp_path / "store"), limit=1000)


def spoil(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))


SPOILT = {
    "missing": (InputsUnverified, lambda r: shutil.rmtree(r)),
    "no manifest": (InputsUnverified, lambda r: (r / "SHA256SUMS").unlink()),
    "no signature": (SignatureInvalid, lambda r: (r / "SHA256SUMS.asc").unlink()),
    "manifest changed": (SignatureInvalid, lambda r: spoil(r / "SHA256SUMS", b"lock", b"Lock")),
    "manifest endless": (
        InputsUnverified,
        lambda r: (r / "SHA256SUMS").write_bytes(bytes(17 * 1024 * 1024)),
    ),
    "signature empty": (SignatureInvalid, lambda r: (r / "SHA256SUMS.asc").write_bytes(b"")),
    "statement changed": (
        InputsUnverified,
        lambda r: spoil(r / "statements/beta.json", b'"payload"', b'"payload" '),
    ),
    "statement missing": (InputsUnverified, lambda r: (r / "statements/beta.json").unlink()),
}


@pytest.mark.parametrize(("kind", "change"), SPOILT.values(), ids=SPOILT)
def test_a_spoilt_release_is_refused(
    locate: Locate, public: Path, kind: type[TwinbuildError], change: Callable[[Path], object]
) -> None:
    location = locate(public)
    change(public / "3.3")
    with pytest.raises(TwinbuildError) as caught:
        location.open("3.3")
    assert type(caught.value) is kind
    assert "3.3" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_release_under_another_name_is_refused(locate: Locate, public: Path) -> None:
    (public / "3.3").rename(public / "3.2")
    with pytest.raises(SignatureInvalid, match=r"is of the release '3.3'"):
        locate(public).open("3.2")


def test_a_release_by_another_key_is_refused(
    locate: Locate, public: Path, gpg_home: GpgHome, other_key: str, release_key: str
) -> None:
    with pytest.raises(SignatureInvalid, match="not in the keyring"):
        locate(public, keyring=gpg_home.export(other_key)).open("3.3")
    with pytest.raises(SignatureInvalid, match=f"not by {other_key}"):
        locate(public, fingerprint=other_key).open("3.3")
    with pytest.raises(SignatureInvalid, match="no key is known"):
        locate(public, keyring=b"").open("3.3")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": "3.2"}, "says that it is '3.2'"),
        ({"architecture": "../../x"}, "malformed"),
        ({"epoch": "1766400000"}, "malformed"),
        ({"upgrade": "yes"}, "malformed"),
        ({"kits": [{"from": "../3.1"}]}, "malformed"),
        ({"local": {"packages": [{"name": "greeter"}]}}, "malformed"),
    ],
)
def test_a_job_of_another_form_is_refused(
    make_run: MakeRun,
    gpg_home: GpgHome,
    release_key: str,
    tmp_path: Path,
    locate: Locate,
    change: dict[str, Any],
    message: str,
) -> None:
    """As by somebody who has all the keys: the gate lets none of these through."""
    fake = make_run("3.3")
    for name in ("alpha", "beta"):
        fake.write_statement(name, job={**fake.job(), **change})
    publish_by_hand(tmp_path / "by-hand", fake, gpg_home, release_key)
    with pytest.raises(InputsUnverified, match=message):
        locate(tmp_path / "by-hand").open("3.3")


def test_a_folder_lists_what_its_index_does_not_know_yet(public: Path, tmp_path: Path) -> None:
    shutil.copytree(public / "3.3", public / "3.4")
    (public / "upgrades").mkdir(exist_ok=True)
    listed = Location(str(public), b"").releases()
    assert [release.tag for release in listed] == ["3.3", "3.4"]
    assert Location(str(tmp_path / "none"), b"").releases() == ()


@pytest.mark.parametrize(
    "index",
    [
        b"",
        b"[]",
        b"{}",
        b'{"releases": 1}',
        b'{"releases": [{"tag": "../x", "image": "mini"}]}',
        b'{"releases": [{"tag": "3.3"}]}',
        b'{"releases": [{"tag": 3.3, "image": "mini"}]}',
        b"[" * 100_000,
    ],
)
def test_a_list_of_releases_that_is_none(public: Path, serve: Serve, index: bytes) -> None:
    (public / "index.json").write_bytes(index)
    with pytest.raises(InputsUnverified, match="no list of releases"):
        Location(serve(public).url, b"").releases()


def test_no_list_of_releases(public: Path, serve: Serve) -> None:
    (public / "index.json").unlink()
    with pytest.raises(InputsUnverified, match="does not exist") as caught:
        Location(serve(public).url, b"").releases()
    assert "published" in caught.value.remedy


def test_an_index_that_is_too_long(
    public: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(published, "INDEX_LIMIT", 100)
    with pytest.raises(InputsUnverified, match="wrong bytes"):
        Location(serve(public).url, b"").releases()


def test_the_index_says_of_which_image_a_release_is(public: Path, serve: Serve) -> None:
    document = json.loads((public / "index.json").read_text())
    assert document["releases"][0]["image"] == "mini"
    (listed,) = Location(serve(public).url, b"").releases()
    assert (listed.tag, listed.image) == ("3.3", "mini")


def test_a_published_release_knows_its_kits() -> None:
    job = Job.of(json.loads(WRITTEN))
    made = Published(replace(job, version="3.3", kits=(KitRequest("3.1", None, None, None),)), {})
    assert made.names.kits == ("mini-amd64-3.1-to-3.3.iuk",)


# --- where a farm publishes, and whom it believes


def workspace(folder: Path, farm: Farm, **changes: object) -> Workspace:
    return Workspace(folder, farm.model_copy(update=changes))


def test_a_farm_believes_its_own_release_key_alone(
    farm: Farm,
    released_by: ReleasedBy,
    public: Path,
    tmp_path: Path,
    gpg_home: GpgHome,
    release_key: str,
    other_key: str,
) -> None:
    keys = tmp_path / "keys"
    keys.mkdir()
    for name, key in (("other", other_key), ("release", release_key)):
        (keys / f"{name}.asc").write_bytes(gpg_home.export(key, "--armor"))
    location = of_farm(workspace(tmp_path, farm))
    assert location.address == str(public)
    assert location.open("3.3").version == "3.3"
    released_by(other_key, "3.4")  # whose key may sign tags, say, and no release
    with pytest.raises(SignatureInvalid, match=f"not by {release_key}"):
        location.open("3.4")


def test_a_farm_without_its_key_opens_nothing(
    farm: Farm, farm_with: FarmWith, public: Path, tmp_path: Path
) -> None:
    for unable in (farm, farm_with(None)):
        location = of_farm(workspace(tmp_path, unable))
        assert [listed.tag for listed in location.releases()] == ["3.3"]
        with pytest.raises(SignatureInvalid, match="no key is known") as caught:
            location.open("3.3")
        assert "./farm keys" in caught.value.remedy


def test_a_key_file_that_holds_none(farm: Farm, tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "release.asc").write_text("to do\n")
    with pytest.raises(SignatureInvalid, match=r"release\.asc is not a public key"):
        of_farm(workspace(tmp_path, farm))


def test_a_farm_may_be_far_from_where_it_publishes(farm: Farm, tmp_path: Path) -> None:
    location = of_farm(workspace(tmp_path, farm, published="https://example.org/releases"))
    assert location.address == "https://example.org/releases"


def test_the_doctor_sees_what_a_release_with_kits_would(
    farm: Farm, public: Path, tmp_path: Path, gpg_home: GpgHome, release_key: str
) -> None:
    its = workspace(tmp_path, farm)
    with pytest.raises(SignatureInvalid, match="no key is known"):
        doctor.earlier_releases(its, its.checkout / "keys")
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys/release.asc").write_bytes(gpg_home.export(release_key, "--armor"))
    line = doctor.earlier_releases(its, its.checkout / "keys")
    assert line == f"1 at {public}; the last of them, 3.3, verifies"
    (public / "3.3" / "SHA256SUMS").write_bytes(b"")
    with pytest.raises(SignatureInvalid):
        doctor.earlier_releases(its, its.checkout / "keys")
    empty = workspace(tmp_path, farm, publish="none")
    assert doctor.earlier_releases(empty, empty.checkout / "keys") == "there are none yet"


@pytest.fixture
def released_by(public: Path, gpg_home: GpgHome) -> ReleasedBy:
    """Publish the release 3.3 a second time, signed by another key."""

    def sign(key: str, tag: str) -> None:
        shutil.copytree(public / "3.3", public / tag)
        manifest = public / tag / "SHA256SUMS"
        signature = gpg_home.sign(manifest.read_bytes(), key, "--detach-sign")
        manifest.with_name("SHA256SUMS.asc").write_bytes(signature)

    return sign
