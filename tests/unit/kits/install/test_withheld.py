# SPDX-License-Identifier: GPL-3.0-or-later
"""Upgrades that are withheld: what a server, a thief or a clock can do, and for how long."""

import base64
import json
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner

from pipeline.base import dsse
from pipeline.base.errors import ExitStatus
from pipeline.documents.dsse import make_envelope, signed_bytes
from pipeline.documents.fields import Fields
from pipeline.documents.json_form import json_bytes
from pipeline.documents.upgrade_description import DESCRIPTION_TYPE, Description, Renewable
from pipeline.documents.upgrade_renewal import RENEWAL_TYPE
from pipeline.kits.install import description, known
from pipeline.kits.install.check import check_upgrade
from pipeline.kits.install.failure import InfrastructureFailed, SignatureInvalid
from pipeline.kits.make.sign import with_renewal
from tests.archive_server import ArchiveServer, archive_server
from tests.unit.kits.conftest import NOW, Signer

DAY = timedelta(days=1)
Keys = dict[str, CryptoSigner]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """The renewal key, and another one that is nobody's."""
    folder = tmp_path_factory.mktemp("renewal")
    for name in ("own", "stranger"):
        dsse.make_key(folder / f"{name}.pem")
    return {name: dsse.load_key(folder / f"{name}.pem") for name in ("own", "stranger")}


def signs(key: CryptoSigner) -> Callable[[bytes], bytes]:
    return lambda signed: bytes.fromhex(key.sign(signed).signature)


@pytest.fixture(scope="module")
def newest(signer: Signer, keys: Keys, now: datetime) -> bytes:
    """What the release key says of 3.2: there is nothing newer; one key may renew that."""
    return signer.state("3.2", "3.2", now=now, renewal_key=dsse.public_hex(keys["own"]))


@pytest.fixture(scope="session")
def now() -> datetime:
    return NOW


@pytest.fixture
def server(tmp_path: Path, newest: bytes) -> Iterator[ArchiveServer]:
    (tmp_path / "public" / "upgrades").mkdir(parents=True)
    (tmp_path / "public" / "upgrades" / "3.2.json").write_bytes(newest)
    with archive_server(tmp_path / "public") as served:
        yield served


@pytest.fixture
def serve(server: ArchiveServer, tmp_path: Path) -> Callable[[bytes], int]:
    return (tmp_path / "public" / "upgrades" / "3.2.json").write_bytes


def ask(server: ArchiveServer, signer: Signer, now: datetime) -> Description:
    return check_upgrade(server.url, "3.2", "mini", signer.trust, now).description


def renewed(
    content: bytes, now: datetime, key: CryptoSigner, renewable: Renewable | None = None
) -> bytes:
    found = json.loads(base64.b64decode(json.loads(content)["payload"]))["renewal"]
    whose = Renewable(found["key"], found["days"], Fields(found).time("until"))
    return with_renewal(content, renewable or whose, now, signs(key))


# --- no answer


def test_no_answer_is_not_none(server: ArchiveServer, signer: Signer, now: datetime) -> None:
    """The attacker holds the server, and answers 404 to keep systems on an old release."""
    server.faults["3.2.json"] = "404"
    with pytest.raises(InfrastructureFailed, match=r"cannot tell .*ever known here") as first:
        ask(server, signer, now)
    assert first.value.status == ExitStatus.INFRASTRUCTURE
    del server.faults["3.2.json"]
    assert ask(server, signer, now).offer is None
    server.faults["3.2.json"] = "404"
    since = r"last known: nothing newer than 3\.2, as of 2026-11-22T12:00:00Z, until 2026-12-22"
    with pytest.raises(InfrastructureFailed, match=since):
        ask(server, signer, now + 40 * DAY)


def test_a_server_that_is_down(server: ArchiveServer, signer: Signer, now: datetime) -> None:
    """The attacker holds the network: the message names the host, and since when."""
    ask(server, signer, now)
    server.faults["3.2.json"] = "500"
    with pytest.raises(InfrastructureFailed, match=r"cannot tell.*127\.0\.0\.1.*last known"):
        ask(server, signer, now)


def test_an_old_description_for_ever(server: ArchiveServer, signer: Signer, now: datetime) -> None:
    """The attacker holds the server, and goes on serving what was signed: a freeze."""
    assert ask(server, signer, now + 29 * DAY).newest == "3.2"
    with pytest.raises(SignatureInvalid, match=r"from 3\.2 has expired on 2026-12-22"):
        ask(server, signer, now + 30 * DAY)


# --- renewals


def test_a_renewal_extends_what_was_signed(
    server: ArchiveServer,
    serve: Callable[[bytes], int],
    signer: Signer,
    newest: bytes,
    keys: Keys,
    now: datetime,
) -> None:
    later = now + 25 * DAY
    serve(renewed(newest, later, keys["own"]))
    found = ask(server, signer, later + 29 * DAY)
    assert (found.issued, found.as_of, found.expires) == (now, later, later + 30 * DAY)
    assert "as of 2026-12-17T12:00:00Z, until 2027-01-16T12:00:00Z" in str(found)
    with pytest.raises(SignatureInvalid, match="has expired"):
        ask(server, signer, later + 30 * DAY)


def test_a_renewal_can_be_renewed_after_it_has_expired(
    signer: Signer, newest: bytes, keys: Keys, now: datetime
) -> None:
    content = renewed(newest, now + 50 * DAY, keys["own"])
    again = renewed(content, now + 100 * DAY, keys["own"])
    assert description.check(again, signer.trust, now + 129 * DAY).expires == now + 130 * DAY


def test_a_stolen_renewal_key_ends_where_the_release_key_says(
    signer: Signer, newest: bytes, keys: Keys, now: datetime
) -> None:
    """The attacker holds the renewal key and the server: old news for a year, and no longer."""
    last = renewed(newest, now + 364 * DAY, keys["own"])
    found = description.check(last, signer.trust, now + 364 * DAY)
    assert found.expires == now + 365 * DAY
    with pytest.raises(SignatureInvalid, match="has expired"):
        description.check(last, signer.trust, now + 365 * DAY)
    assert found.renewable is not None
    further = Renewable(found.renewable.key, 30, now + 1000 * DAY)
    for when in (now + 364 * DAY, now + 400 * DAY):
        forged = renewed(newest, when, keys["own"], further)
        with pytest.raises(SignatureInvalid, match="goes beyond what its key may state"):
            description.check(forged, signer.trust, when)


def forge(newest: bytes, key: CryptoSigner, /, **fields: object) -> bytes:
    """A renewal with other fields, properly signed."""
    payload = base64.b64decode(json.loads(newest)["payload"])
    written = {
        "format": "twinbuild-renewal/1",
        "description_sha256": sha256(payload).hexdigest(),
        "issued": "2026-11-23T12:00:00Z",
        "expires": "2026-12-23T12:00:00Z",
    }
    return seal(newest, key, json_bytes({**written, **fields}))


def seal(newest: bytes, key: CryptoSigner, payload: bytes) -> bytes:
    signature = signs(key)(signed_bytes(RENEWAL_TYPE, payload))
    made = make_envelope(RENEWAL_TYPE, payload, "x", signature)
    return json_bytes({**json.loads(newest), "renewal": made})


def test_the_renewal_that_these_tests_change_counts(
    signer: Signer, newest: bytes, keys: Keys, now: datetime
) -> None:
    found = description.check(forge(newest, keys["own"]), signer.trust, now + DAY)
    assert found.as_of == now + DAY


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"expires": "2026-12-23T12:00:01Z"}, "goes beyond what its key may state"),
        ({"expires": "9999-12-31T23:59:59Z"}, "goes beyond what its key may state"),
        ({"issued": "2026-11-22T11:59:59Z"}, "goes beyond what its key may state"),
        ({"description_sha256": "0" * 64}, "is for another one"),
        ({"format": "twinbuild-upgrade/2"}, "malformed"),
        ({"newest": "9.9"}, "malformed"),
        ({"upgrade": None}, "malformed"),
        ({"expires": "2026-02-30T00:00:00Z"}, "malformed"),
        ({"issued": 5}, "malformed"),
    ],
)
def test_a_stolen_renewal_key_can_say_nothing_else(
    signer: Signer, newest: bytes, keys: Keys, now: datetime, fields: dict[str, Any], why: str
) -> None:
    """The attacker holds the renewal key."""
    content = forge(newest, keys["own"], **fields)
    with pytest.raises(SignatureInvalid, match=why):
        description.check(content, signer.trust, now + DAY)


def test_a_renewal_from_the_future(
    signer: Signer, newest: bytes, keys: Keys, now: datetime
) -> None:
    """The attacker holds the renewal key and makes renewals in advance, to use them later."""
    content = renewed(newest, now + 100 * DAY, keys["own"])
    with pytest.raises(SignatureInvalid, match="from the future, 2027-03-02"):
        description.check(content, signer.trust, now + DAY)


@pytest.mark.parametrize(
    "payload", [b"[]", b"{}", b"\xff", b'{"expires": 1, "expires": 2}', b"[" * 9000]
)
def test_a_renewal_that_is_none(
    signer: Signer, newest: bytes, keys: Keys, now: datetime, payload: bytes
) -> None:
    """The attacker holds the renewal key."""
    with pytest.raises(SignatureInvalid, match="malformed"):
        description.check(seal(newest, keys["own"], payload), signer.trust, now)


@pytest.mark.parametrize("beside", [[], "x", {"payload": ""}, {"signatures": []}, 0])
def test_what_is_beside_a_description_and_no_envelope(
    signer: Signer, newest: bytes, now: datetime, beside: object
) -> None:
    """The attacker holds the server."""
    content = json_bytes({**json.loads(newest), "renewal": beside})
    with pytest.raises(SignatureInvalid, match="renewal"):
        description.check(content, signer.trust, now)


def test_a_renewal_by_another_key(signer: Signer, newest: bytes, keys: Keys, now: datetime) -> None:
    """The attacker holds the server and a key of his own."""
    content = renewed(newest, now + DAY, keys["stranger"])
    with pytest.raises(SignatureInvalid, match="not by the key that may renew it"):
        description.check(content, signer.trust, now + DAY)


def test_a_renewal_of_another_description(
    signer: Signer, newest: bytes, keys: Keys, now: datetime
) -> None:
    """The attacker holds the server: the renewal of the new one, beside the old one."""
    key = dsse.public_hex(keys["own"])
    old = signer.state("3.2", "3.2", now=now - DAY, renewal_key=key)
    beside = json.loads(renewed(newest, now + DAY, keys["own"]))["renewal"]
    with pytest.raises(SignatureInvalid, match="is for another one"):
        description.check(json_bytes({**json.loads(old), "renewal": beside}), signer.trust, now)


def test_a_renewal_where_the_release_key_lets_nobody_renew(
    signer: Signer, newest: bytes, keys: Keys, now: datetime
) -> None:
    """The attacker holds the server and a renewal key that no longer counts."""
    content = signer.state("3.2", "3.2", now=now)
    beside = json.loads(renewed(newest, now + DAY, keys["own"]))["renewal"]
    with pytest.raises(SignatureInvalid, match="allows no renewal"):
        description.check(json_bytes({**json.loads(content), "renewal": beside}), signer.trust, now)


def test_the_renewal_key_signs_no_description(signer: Signer, keys: Keys, now: datetime) -> None:
    """The attacker holds the renewal key, and signs in the place of the release key."""
    content = json.loads(signer.state("3.2", "3.2", now=now))
    payload = base64.b64decode(content["payload"]).replace(b'"3.2"', b'"9.9"')
    made = signs(keys["own"])(signed_bytes(DESCRIPTION_TYPE, payload))
    forged = make_envelope(DESCRIPTION_TYPE, payload, signer.fingerprint, made)
    with pytest.raises(SignatureInvalid, match="not signed by a trusted key"):
        description.check(json_bytes(forged), signer.trust, now)


# --- going back


def test_an_older_description_within_its_time(
    server: ArchiveServer,
    serve: Callable[[bytes], int],
    signer: Signer,
    newest: bytes,
    now: datetime,
) -> None:
    """The attacker holds the server: what was signed before the last release still holds."""
    old = newest
    serve(signer.state("3.2", "3.3", now=now + DAY))
    assert ask(server, signer, now + DAY).newest == "3.3"
    serve(old)
    with pytest.raises(SignatureInvalid, match=r"of 2026-11-22.* one of 2026-11-23.* was known"):
        ask(server, signer, now + 2 * DAY)


def test_a_renewal_of_an_older_description(
    server: ArchiveServer,
    serve: Callable[[bytes], int],
    signer: Signer,
    newest: bytes,
    keys: Keys,
    now: datetime,
) -> None:
    """The attacker holds the server and the renewal key."""
    serve(signer.state("3.2", "3.3", now=now + DAY))
    ask(server, signer, now + DAY)
    serve(renewed(newest, now + 2 * DAY, keys["own"]))
    with pytest.raises(SignatureInvalid, match="goes back in time"):
        ask(server, signer, now + 2 * DAY)


def test_a_clock_that_was_set_back(
    server: ArchiveServer,
    serve: Callable[[bytes], int],
    signer: Signer,
    newest: bytes,
    keys: Keys,
    now: datetime,
) -> None:
    """The attacker holds the server and this machine's time server, to revive what has expired."""
    serve(renewed(newest, now + 25 * DAY, keys["own"]))
    ask(server, signer, now + 25 * DAY)
    serve(newest)
    with pytest.raises(SignatureInvalid, match="clock says 2026-11-23T12:00:00Z"):
        ask(server, signer, now + DAY)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff" * 100_000])
def test_a_memory_that_was_damaged_is_none(
    server: ArchiveServer, signer: Signer, now: datetime, memory: Path, content: bytes
) -> None:
    ask(server, signer, now)
    (file,) = memory.rglob("*.json")
    file.write_bytes(content)
    assert ask(server, signer, now).newest == "3.2"
    assert known.recall("mini", "3.2", signer.trust)


def test_the_memory_of_another_key_is_not_believed(
    server: ArchiveServer, signer: Signer, stranger: Signer, now: datetime
) -> None:
    """The attacker is another project, whose image has the same name."""
    ask(server, signer, now)
    assert known.recall("mini", "3.2", stranger.trust) is None
    assert known.recall("mini", "3.1", signer.trust) is None


def test_a_memory_that_cannot_be_written(
    server: ArchiveServer,
    signer: Signer,
    now: datetime,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    with pytest.raises(InfrastructureFailed, match="let XDG_STATE_HOME name"):
        ask(server, signer, now)
