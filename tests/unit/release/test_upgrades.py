# SPDX-License-Identifier: GPL-3.0-or-later
"""Upgrade descriptions beside the releases: written, signed again, and never leading backwards."""

import json
import shutil
import stat
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import pytest
from securesystemslib.signer import CryptoSigner

from pipeline.base import openpgp
from pipeline.base.errors import Differs, InputsUnverified, SignatureInvalid, TwinbuildError
from pipeline.base.files import sha256_bytes
from pipeline.documents import upgrade_description
from pipeline.documents.fields import time_text
from pipeline.documents.upgrade_description import Description, Offer
from pipeline.farm.config import Farm
from pipeline.kits.install import description, failure
from pipeline.kits.install.description import Trust
from pipeline.kits.make.sign import sign
from pipeline.release import stage
from pipeline.release.stage import describe_again, run_release
from pipeline.release.upgrades import Signer
from tests.gpg_home import GpgHome
from tests.releases import FakeRun, FarmWith, Listing, MakeRun, kit_from, make_farm

pytestmark = pytest.mark.tools


def kits_from(tag: str, *earlier: str) -> dict[str, Any]:
    """Return what makes a fake run of `tag` have kits."""
    names = {old: f"mini-amd64-{old}-to-{tag}.iuk" for old in earlier}
    return {
        "artifacts": {name: f"kit {old} to {tag}".encode() for old, name in names.items()},
        "kits": [kit_from(old) for old in earlier],
    }


@pytest.fixture
def public(tmp_path: Path) -> Path:
    return tmp_path / "public"


class DoRelease(Protocol):
    """Releases a tag."""

    def __call__(self, tag: str, *earlier: str, fake: FakeRun | None = ...) -> list[str]: ...


@pytest.fixture
def release(make_run: MakeRun, farm: Farm, public: Path, caller: GpgHome) -> DoRelease:
    """Release a tag with kits from earlier ones; return its messages."""

    def run(tag: str, *earlier: str, fake: FakeRun | None = None) -> list[str]:
        messages: list[str] = []
        fake = fake or make_run(tag, **kits_from(tag, *earlier))
        run_release(fake.run, farm, public, fake.verified, notify=messages.append)
        return messages

    return run


@pytest.fixture(scope="session")
def released_once(
    tmp_path_factory: pytest.TempPathFactory,
    environment_keys: dict[str, CryptoSigner],
    gpg_home: GpgHome,
    release_key: str,
) -> Path:
    """A public tree with the release 3.3 and its kits; to be copied, not changed."""
    folder = tmp_path_factory.mktemp("described")
    fake = FakeRun(folder / "runs", environment_keys, "3.3", **kits_from("3.3", "3.1", "3.2"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GNUPGHOME", str(gpg_home.path))
        patch.delenv("TWINBUILD_RELEASE_KEY", raising=False)
        farm = make_farm(environment_keys, release_key)
        run_release(fake.run, farm, folder / "public", fake.verified, notify=lambda _: None)
    return folder / "public"


@pytest.fixture
def released(released_once: Path, public: Path, caller: GpgHome) -> Path:
    """The same, to be changed."""
    shutil.copytree(released_once, public)
    return public


@pytest.fixture
def describe(
    released: Path, gpg_home: GpgHome, trust: Trust, release_key: str
) -> Callable[[], None]:
    """Do what a release does last, without making it anew."""

    def run() -> None:
        signer = Signer(openpgp.Gpg({"GNUPGHOME": str(gpg_home.path)}), release_key, trust.keyring)
        stage._describe(released, "3.3", signer, again=False, notify=lambda _: None)

    return run


@pytest.fixture
def trust(gpg_home: GpgHome, release_key: str) -> Trust:
    return Trust(gpg_home.export(release_key), release_key)


@pytest.fixture(autouse=True)
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where what was renewed is remembered."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def read(public: Path, trust: Trust, old: str) -> Offer:
    """Return the kit that leads on from a release."""
    offer = state(public, trust, old).offer
    assert offer is not None
    return offer


def state(public: Path, trust: Trust, old: str) -> Description:
    now = datetime.now(UTC)
    return description.check((public / "upgrades" / f"{old}.json").read_bytes(), trust, now)


def test_every_kit_is_described(released: Path, trust: Trust) -> None:
    public = released
    assert sorted(path.name for path in (public / "upgrades").iterdir()) == [
        "3.1.json",
        "3.2.json",
        "3.3.json",
    ]
    for old in ("3.1", "3.2"):
        content = f"kit {old} to 3.3".encode()
        offer = read(public, trust, old)
        assert (offer.image, offer.architecture, offer.from_, offer.to) == (
            "mini",
            "amd64",
            old,
            "3.3",
        )
        assert (public / offer.kit).read_bytes() == content
        assert (offer.size, offer.sha256) == (len(content), sha256_bytes(content))
        left = state(public, trust, old).expires - datetime.now(UTC)
        assert timedelta(days=179, hours=23) < left < timedelta(days=180, minutes=1)
    assert stat.S_IMODE((public / "upgrades").stat().st_mode) == 0o755
    assert stat.S_IMODE((public / "upgrades/3.1.json").stat().st_mode) == 0o644


def test_the_newest_release_is_described_too(
    release: DoRelease, public: Path, trust: Trust
) -> None:
    """No answer must not mean that there is nothing newer: the release key says so."""
    release("3.1")
    first = state(public, trust, "3.1")
    assert (first.offer, first.newest) == (None, "3.1")
    release("3.2", "3.1")
    assert read(public, trust, "3.1").to == "3.2"
    assert state(public, trust, "3.2").newest == "3.2"


def test_every_release_knows_the_newest_though_no_kit_leads_to_it(
    released: Path, release: DoRelease, trust: Trust, gpg_home: GpgHome, release_key: str
) -> None:
    """The attacker can write into the public tree, and puts back what was signed before."""
    old = state(released, trust, "3.1")
    old = replace(old, newest="3.2", offer=replace(read(released, trust, "3.1"), to="3.2"))
    gpg = openpgp.Gpg({"GNUPGHOME": str(gpg_home.path)})
    (released / "upgrades/3.1.json").write_bytes(sign(old, gpg, release_key))
    release("4.0")
    found = {tag: state(released, trust, tag) for tag in ("3.1", "3.2", "3.3", "4.0")}
    assert {one.newest for one in found.values()} == {"4.0"}
    assert [one.offer and one.offer.to for one in found.values()] == ["3.3", "3.3", None, None]


def test_another_images_releases_are_another_matter(
    release: DoRelease, public: Path, trust: Trust, make_run: MakeRun
) -> None:
    release("3.1")
    release("9.9", fake=make_run("9.9", image="maxi"))
    assert state(public, trust, "3.1").newest == "3.1"
    assert (state(public, trust, "9.9").image, state(public, trust, "9.9").newest) == (
        "maxi",
        "9.9",
    )


def test_a_later_release_leads_further(release: DoRelease, public: Path, trust: Trust) -> None:
    release("3.2", "3.1")
    assert read(public, trust, "3.1").to == "3.2"
    release("3.10", "3.1", "3.2")
    assert read(public, trust, "3.1").to == "3.10"
    assert read(public, trust, "3.2").to == "3.10"


def test_a_fix_of_an_old_release_leads_nobody_back(
    release: DoRelease, public: Path, trust: Trust, caller: GpgHome, farm: Farm
) -> None:
    release("3.10", "3.1")
    before = (public / "upgrades/3.1.json").read_bytes()
    messages = release("3.2", "3.1")
    assert any("leads to 3.10 already, which is newer" in line for line in messages)
    assert (public / "upgrades/3.1.json").read_bytes() == before
    describe_again("3.2", farm, public, notify=messages.append)
    assert read(public, trust, "3.1").to == "3.10"


def test_an_expired_one_is_kept_from_going_back(
    make_run: MakeRun,
    farm: Farm,
    public: Path,
    caller: GpgHome,
    trust: Trust,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(upgrade_description, "VALID_DAYS", -1)
        fake = make_run("3.10", **kits_from("3.10", "3.1"))
        run_release(fake.run, farm, public, fake.verified, notify=lambda _: None)
    with pytest.raises(failure.SignatureInvalid, match="expired"):
        read(public, trust, "3.1")
    fake_of_old = make_run("3.2", **kits_from("3.2", "3.1"))
    run_release(fake_of_old.run, farm, public, fake_of_old.verified, notify=lambda _: None)
    assert read(public, trust, "3.1").to == "3.10"


def test_the_second_time_nothing_changes(
    make_run: MakeRun, release: DoRelease, public: Path, listing: Listing
) -> None:
    fake = make_run("3.3", **kits_from("3.3", "3.1"))
    release("3.3", fake=fake)
    before = listing(public)
    release("3.3", fake=fake)
    assert listing(public) == before


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"{}"),
        lambda path: path.write_bytes(path.read_bytes().replace(b'"sig": "', b'"sig": "AAAA')),
        lambda path: path.write_bytes(bytes(1024 * 1024)),
    ],
)
def test_what_a_crash_or_somebody_else_left_is_mended(
    released: Path, describe: Callable[[], None], trust: Trust, spoil: Callable[[Path], object]
) -> None:
    spoil(released / "upgrades/3.1.json")
    untouched = (released / "upgrades/3.2.json").read_bytes()
    describe()
    assert read(released, trust, "3.1").to == "3.3"
    assert (released / "upgrades/3.2.json").read_bytes() == untouched


def test_what_a_crash_has_half_written_is_removed(
    make_run: MakeRun, release: DoRelease, public: Path
) -> None:
    fake = make_run("3.3", **kits_from("3.3", "3.1"))
    release("3.3", fake=fake)
    (public / "upgrades/.3.1.json.abc").write_bytes(b"half")
    release("3.3", fake=fake)
    assert sorted(p.name for p in (public / "upgrades").iterdir()) == ["3.1.json", "3.3.json"]


def test_a_description_by_another_key_counts_for_nothing(
    released: Path, describe: Callable[[], None], trust: Trust, gpg_home: GpgHome, other_key: str
) -> None:
    before = state(released, trust, "3.1")
    strange = replace(before, newest="9.9", offer=replace(read(released, trust, "3.1"), to="9.9"))
    gpg = openpgp.Gpg({"GNUPGHOME": str(gpg_home.path)})
    (released / "upgrades/3.1.json").write_bytes(sign(strange, gpg, other_key))
    describe()
    assert read(released, trust, "3.1").to == "3.3"


# --- signed again


def test_they_can_be_signed_again(
    released: Path, trust: Trust, farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(upgrade_description, "VALID_DAYS", 1)
        describe_again("3.3", farm, released, notify=lambda _: None)
    before = state(released, trust, "3.1")
    messages: list[str] = []
    written = describe_again("3.3", farm, released, notify=messages.append)
    assert [path.name for path in written] == ["3.1.json", "3.2.json", "3.3.json"]
    after = state(released, trust, "3.1")
    assert after.expires - before.expires >= timedelta(days=178)
    assert (after.offer, after.newest) == (before.offer, before.newest)
    assert any(time_text(after.expires) in line for line in messages)


def spoil_manifest(folder: Path) -> None:
    manifest = folder / "SHA256SUMS"
    manifest.write_bytes(manifest.read_bytes().replace(b"lock", b"Lock"))


REFUSED = {
    "not published": (InputsUnverified, lambda folder: shutil.rmtree(folder)),
    "bad manifest": (SignatureInvalid, spoil_manifest),
    "kit missing": (Differs, lambda folder: (folder / "mini-amd64-3.1-to-3.3.iuk").unlink()),
}


@pytest.mark.parametrize(("kind", "spoil"), REFUSED.values(), ids=REFUSED)
def test_only_what_is_published_is_described(
    released: Path, farm: Farm, kind: type[TwinbuildError], spoil: Callable[[Path], object]
) -> None:
    before = (released / "upgrades/3.1.json").read_bytes()
    spoil(released / "3.3")
    with pytest.raises(TwinbuildError, match=r"3\.3") as caught:
        describe_again("3.3", farm, released, notify=lambda _: None)
    assert type(caught.value) is kind
    assert (released / "upgrades/3.1.json").read_bytes() == before


def test_no_description_without_the_release_key(released: Path, farm_with: FarmWith) -> None:
    with pytest.raises(SignatureInvalid, match="names no release key"):
        describe_again("3.3", farm_with(None), released, notify=lambda _: None)
    with pytest.raises(SignatureInvalid, match="no public key"):
        describe_again("3.3", farm_with("A" * 40), released, notify=lambda _: None)


def test_the_envelope_is_what_the_documents_say(released: Path, release_key: str) -> None:
    envelope = json.loads((released / "upgrades/3.1.json").read_text())
    assert set(envelope) == {"payload", "payloadType", "signatures"}
    assert envelope["payloadType"] == "application/vnd.twinbuild.upgrade+json"
    assert [signature["keyid"] for signature in envelope["signatures"]] == [release_key]
