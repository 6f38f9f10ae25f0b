# SPDX-License-Identifier: GPL-3.0-or-later
"""The renewal key, as a schedule holds it: it keeps what is published fresh, and no more."""

import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any, Protocol, Self

import pytest
from invoke.context import Context
from invoke.exceptions import Exit
from securesystemslib.signer import CryptoSigner

from pipeline.base import dsse
from pipeline.base.errors import ExitStatus, SignatureInvalid, TwinbuildError, UsageError
from pipeline.cli import kit_tasks
from pipeline.documents.upgrade_description import Description
from pipeline.farm.config import Farm
from pipeline.farm.workspace import Workspace
from pipeline.kits.install import description
from pipeline.kits.install.description import Trust
from pipeline.release import renewals
from pipeline.release.stage import describe_again, run_release
from tests.gpg_home import GpgHome
from tests.releases import FakeRun, kit_from, make_farm

NOW = datetime.now(UTC)
DAY = timedelta(days=1)
KIT = "mini-amd64-3.1-to-3.2.iuk"


def at(time: datetime) -> type[datetime]:
    """Return a clock that stands, for what signs descriptions."""

    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return cls.fromtimestamp(time.timestamp(), tz)

    return Clock


def with_renewal(farm: Farm, key: str | None) -> Farm:
    keys = farm.keys.model_copy(update={"renewal": key})
    return farm.model_copy(update={"keys": keys})


@pytest.fixture(scope="session")
def renewal_key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("renewal") / "renewal.pem"
    dsse.make_key(path)
    return path


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renewal_key: Path) -> None:
    """A machine that has the renewal key and no other."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("TWINBUILD_RENEWAL_KEY", str(renewal_key))
    monkeypatch.setenv("GNUPGHOME", "/nonexistent")


@pytest.fixture(scope="session")
def farm(environment_keys: dict[str, CryptoSigner], release_key: str, renewal_key: Path) -> Farm:
    found = make_farm(environment_keys, release_key)
    return with_renewal(found, dsse.public_hex(dsse.load_key(renewal_key)))


@pytest.fixture(scope="session")
def released(
    tmp_path_factory: pytest.TempPathFactory,
    environment_keys: dict[str, CryptoSigner],
    gpg_home: GpgHome,
    farm: Farm,
) -> Path:
    """3.1 and 3.2 with a kit, described so that the renewal key may renew."""
    folder = tmp_path_factory.mktemp("renewable")
    kits: dict[str, Any] = {"artifacts": {KIT: b"a kit"}, "kits": [kit_from("3.1")]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GNUPGHOME", str(gpg_home.path))
        patch.delenv("TWINBUILD_RELEASE_KEY", raising=False)
        patch.setattr("pipeline.release.stage.datetime", at(NOW))
        first: dict[str, Any] = {}
        for tag, options in (("3.1", first), ("3.2", kits)):
            fake = FakeRun(folder / "runs", environment_keys, tag, **options)
            run_release(fake.run, farm, folder / "public", fake.verified, notify=lambda _: None)
    return folder / "public"


@pytest.fixture
def public(released: Path, tmp_path: Path) -> Path:
    return shutil.copytree(released, tmp_path / "public")


@pytest.fixture
def keyring(gpg_home: GpgHome, release_key: str) -> bytes:
    return gpg_home.export(release_key)


class Renew(Protocol):
    """Renews what is described."""

    def __call__(
        self, now: datetime = ..., farm: Farm = ..., messages: list[str] | None = ...
    ) -> list[Path]: ...


class State(Protocol):
    """Reads what is described from a release on."""

    def __call__(self, tag: str, now: datetime = ...) -> Description: ...


@pytest.fixture
def renew(public: Path, keyring: bytes, farm: Farm) -> Renew:
    def run(
        now: datetime = NOW, farm: Farm = farm, messages: list[str] | None = None
    ) -> list[Path]:
        notify = (messages if messages is not None else []).append
        return renewals.renew(farm, keyring, public, now=now, notify=notify)

    return run


@pytest.fixture
def state(public: Path, keyring: bytes, release_key: str) -> State:
    def read(tag: str, now: datetime = NOW) -> Description:
        content = (public / "upgrades" / f"{tag}.json").read_bytes()
        return description.check(content, Trust(keyring, release_key), now)

    return read


def test_what_is_described_holds_for_30_days_and_for_longer_once_renewed(
    renew: Renew, state: State
) -> None:
    later = NOW + 20 * DAY
    assert state("3.1").expires == NOW.replace(microsecond=0) + 30 * DAY
    assert [path.name for path in renew(later)] == ["3.1.json", "3.2.json"]
    for tag in ("3.1", "3.2"):
        assert state(tag, later).expires - later > 29 * DAY
    offer = state("3.1", later).offer
    assert offer is not None
    assert offer.to == "3.2"
    assert state("3.2", later).offer is None


def test_it_can_be_renewed_once_it_has_expired_and_not_for_ever(renew: Renew, state: State) -> None:
    renew(NOW + 200 * DAY)
    assert state("3.1", NOW + 229 * DAY)
    with pytest.raises(SignatureInvalid, match=r"2 upgrade .*could be renewed until .*describe"):
        renew(NOW + 366 * DAY)


def test_a_release_replaces_what_was_renewed(
    renew: Renew,
    state: State,
    public: Path,
    farm: Farm,
    caller: GpgHome,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    later = NOW + 2 * DAY
    renew(NOW + DAY)
    monkeypatch.setattr("pipeline.release.stage.datetime", at(later))
    describe_again("3.2", farm, public, notify=lambda _: None)
    assert state("3.1", later).as_of == state("3.1", later).issued == later.replace(microsecond=0)


def test_an_older_description_is_not_kept_fresh(
    renew: Renew, state: State, public: Path, farm: Farm, caller: GpgHome
) -> None:
    """The attacker can write into the public tree: an old one, for the schedule to renew."""
    path = public / "upgrades" / "3.1.json"
    old = path.read_bytes()
    issued = state("3.1").issued
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.release.stage.datetime", at(NOW + DAY))
        describe_again("3.2", farm, public, notify=lambda _: None)
    renew(NOW + 2 * DAY)
    path.write_bytes(old)
    messages: list[str] = []
    with pytest.raises(SignatureInvalid, match=r"1 upgrade descriptions could not .* goes back"):
        renew(NOW + 3 * DAY, messages=messages)
    assert path.read_bytes() == old
    assert state("3.2", NOW + 3 * DAY).issued > issued


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: b"",
        lambda content: content.replace(b'"sig": "', b'"sig": "AAAA', 1),
        lambda content: content * 100,
    ],
)
def test_what_the_release_key_has_not_signed_is_not_renewed(
    renew: Renew, public: Path, state: State, spoil: Callable[[bytes], bytes]
) -> None:
    """The attacker can write into the public tree; the others are renewed all the same."""
    path = public / "upgrades" / "3.1.json"
    path.write_bytes(spoil(path.read_bytes()))
    spoiled = path.read_bytes()
    with pytest.raises(SignatureInvalid, match="1 upgrade descriptions"):
        renew(NOW + DAY)
    assert path.read_bytes() == spoiled
    assert state("3.2", NOW + DAY).as_of > NOW


def test_the_description_of_another_release_is_not_renewed(renew: Renew, public: Path) -> None:
    shutil.copy(public / "upgrades" / "3.1.json", public / "upgrades" / "3.0.json")
    with pytest.raises(SignatureInvalid, match=r"3\.0\.json is the description of 3\.1"):
        renew(NOW + DAY)


def test_a_clock_that_is_behind(renew: Renew) -> None:
    with pytest.raises(SignatureInvalid, match="from the future"):
        renew(NOW - DAY)


def test_a_key_that_the_farm_does_not_name(
    renew: Renew, farm: Farm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dsse.make_key(tmp_path / "keys" / "other.pem")
    monkeypatch.setenv("TWINBUILD_RENEWAL_KEY", str(tmp_path / "keys" / "other.pem"))
    with pytest.raises(SignatureInvalid, match="not the renewal key that farm"):
        renew()
    other = dsse.public_hex(dsse.load_key(tmp_path / "keys" / "other.pem"))
    with pytest.raises(SignatureInvalid, match="allows renewal by another key"):
        renew(farm=with_renewal(farm, other))
    with pytest.raises(SignatureInvalid, match="names no renewal key"):
        renew(farm=with_renewal(farm, None))
    monkeypatch.setenv("TWINBUILD_RENEWAL_KEY", str(tmp_path / "none.pem"))
    with pytest.raises(SignatureInvalid, match=r"kit\.keygen"):
        renew()


def test_nothing_to_renew(renew: Renew, public: Path) -> None:
    shutil.rmtree(public / "upgrades")
    with pytest.raises(UsageError, match="there is no upgrade description"):
        renew()


def test_an_environments_key_renews_nothing(
    environment_keys: dict[str, CryptoSigner], release_key: str
) -> None:
    """One key that leaks would be two: what signs builds is not what a schedule holds."""
    document = make_farm(environment_keys, release_key).model_dump(mode="json")
    document["keys"]["renewal"] = document["keys"]["environments"]["alpha"]
    with pytest.raises(ValueError, match="renewal is the key of alpha"):
        Farm.model_validate(document)


def test_a_renewal_leaves_nothing_but_the_file(renew: Renew, public: Path) -> None:
    before = sorted(public.rglob("*"))
    renew(NOW + DAY)
    assert sorted(public.rglob("*")) == before


def test_the_command(
    public: Path,
    tmp_path: Path,
    keyring: bytes,
    farm: Farm,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`kit.renew`, in a checkout that has the public half of the release key."""
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "release.asc").write_bytes(keyring)
    monkeypatch.setattr(kit_tasks, "open_farm", lambda: Workspace(tmp_path, farm))
    kit_tasks.renew(Context())
    renewed = [str(public / "upgrades" / f"{tag}.json") for tag in ("3.1", "3.2")]
    assert capsys.readouterr().out.splitlines()[-2:] == renewed
    (tmp_path / "keys" / "release.asc").unlink()
    with pytest.raises(Exit) as caught:
        kit_tasks.renew(Context())
    assert caught.value.code == ExitStatus.SIGNATURE


def test_every_refusal_is_a_line(renew: Renew, public: Path) -> None:
    (public / "upgrades" / "3.1.json").write_bytes(b"\x1b[31m")
    with pytest.raises(TwinbuildError) as caught:
        renew()
    assert "\n" not in str(caught.value)
