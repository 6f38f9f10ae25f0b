# SPDX-License-Identifier: GPL-3.0-or-later
"""Upgrade descriptions: believed only if the release key signed these bytes, and in time."""

import base64
import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.base import errors
from pipeline.base.openpgp import Gpg
from pipeline.documents.dsse import signed_bytes
from pipeline.documents.json_form import json_bytes
from pipeline.documents.upgrade_description import DESCRIPTION_TYPE
from pipeline.kits.install import description
from pipeline.kits.install.description import Trust, load_trust
from pipeline.kits.install.failure import InputsUnverified, SignatureInvalid
from pipeline.kits.make.sign import sign
from tests.gpg_home import GpgHome
from tests.installed import KitParts
from tests.unit.kits.conftest import FIRST, NOW, SECOND, Signer

PACKED = b"a kit"


@pytest.fixture(scope="session")
def envelope(signer: Signer) -> bytes:
    return signer.describe(KitParts(FIRST, SECOND), PACKED)


def payload(envelope: bytes) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(base64.b64decode(json.loads(envelope)["payload"]))
    return document


def test_what_was_signed_is_read(envelope: bytes, signer: Signer) -> None:
    found = description.check(envelope, signer.trust, NOW)
    offer = found.offer
    assert offer is not None
    assert (offer.image, offer.architecture, offer.from_, offer.to) == (
        "mini",
        "amd64",
        "3.1",
        "3.2",
    )
    assert offer.kit == "3.2/mini-amd64-3.1-to-3.2.iuk"
    assert offer.size == len(PACKED)
    assert (found.from_, found.newest, found.issued, found.as_of) == ("3.1", "3.2", NOW, NOW)
    assert found.expires == datetime(2027, 5, 21, 12, tzinfo=UTC)


def test_the_envelope_is_what_the_documents_say(
    envelope: bytes, signer: Signer, gpg_home: GpgHome, tmp_path: Path
) -> None:
    document = json.loads(envelope)
    assert document["payloadType"] == "application/vnd.twinbuild.upgrade+json"
    (signature,) = document["signatures"]
    assert signature["keyid"] == signer.fingerprint
    content = base64.b64decode(document["payload"])
    kind = document["payloadType"]
    (tmp_path / "signed").write_bytes(
        f"DSSEv1 {len(kind)} {kind} {len(content)} ".encode() + content
    )
    (tmp_path / "signature").write_bytes(base64.b64decode(signature["sig"]))
    gpg_home.gpg("--verify", tmp_path / "signature", tmp_path / "signed")
    assert content == json_bytes(json.loads(content))


KIT = {"to": "3.2", "kit": "3.2/mini-amd64-3.1-to-3.2.iuk", "size": 5, "sha256": "0" * 64}
FIELDS = {
    "format": "twinbuild-upgrade/2",
    "image": "mini",
    "architecture": "amd64",
    "from": "3.1",
    "newest": "3.2",
    "upgrade": KIT,
    "issued": "2026-11-22T12:00:00Z",
    "expires": "2027-05-21T12:00:00Z",
    "renewal": None,
}
RENEWAL = {"key": "0" * 64, "days": 30, "until": "2027-11-22T12:00:00Z"}


def signed(signer: Signer, **changes: Any) -> bytes:
    """A description with other fields, properly signed; those of the kit by their names, too."""
    kit = {name: changes.pop(name) for name in KIT.keys() & changes.keys()}
    fields = {**FIELDS, "upgrade": {**KIT, **kit}, **changes}
    return signer.sign_payload(json_bytes(fields))


@pytest.mark.parametrize(
    "changes",
    [
        {"to": "3.0", "kit": "3.0/mini-amd64-3.1-to-3.0.iuk"},
        {"to": "3.2-rc1", "from": "3.2", "kit": "3.2-rc1/mini-amd64-3.2-to-3.2-rc1.iuk"},
        {"kit": "../../etc/passwd"},
        {"kit": "http://example.org/3.2/mini-amd64-3.1-to-3.2.iuk"},
        {"kit": "3.2/other-amd64-3.1-to-3.2.iuk"},
        {"to": "../3.2"},
        {"newest": "3.1"},
        {"newest": None},
        {"upgrade": None, "newest": "3.0"},
        {"upgrade": {}},
        {"size": 0},
        {"size": "5"},
        {"size": 2**60},
        {"sha256": "0" * 63},
        {"expires": "2027-13-21T12:00:00Z"},
        {"expires": "never"},
        {"expires": "0000-01-01T00:00:00Z"},
        {"issued": "2026-11-31T12:00:00Z"},
        {"renewal": RENEWAL | {"days": 31}},
        {"renewal": RENEWAL | {"days": 0}},
        {"renewal": RENEWAL | {"key": "0"}},
        {"renewal": RENEWAL | {"until": "never"}},
        {"format": "twinbuild-upgrade/3"},
        {"more": 1},
    ],
)
def test_what_is_signed_and_makes_no_sense(signer: Signer, changes: dict[str, Any]) -> None:
    with pytest.raises(InputsUnverified):
        description.check(signed(signer, **changes), signer.trust, NOW)


@pytest.mark.parametrize(
    ("key", "first"),
    [("from", '"3.0"'), ("upgrade", "null"), ("expires", '"2099-01-01T00:00:00Z"')],
)
def test_a_signed_payload_with_a_key_twice(signer: Signer, key: str, first: str) -> None:
    """Two readers would understand two things, and the release key has signed both."""
    payload = b'{"%b": %b, ' % (key.encode(), first.encode()) + json_bytes(FIELDS).lstrip()[1:]
    with pytest.raises(InputsUnverified, match=f"the key '{key}' twice"):
        description.check(signer.sign_payload(payload), signer.trust, NOW)


FIRST_FORMAT = {
    "format": "twinbuild-upgrade/1",
    "image": "mini",
    "architecture": "amd64",
    "from": "3.1",
    **KIT,
    "expires": "2027-05-21T12:00:00Z",
}


def test_the_format_before_is_read(signer: Signer) -> None:
    found = description.check(
        signer.sign_payload(json_bytes(FIRST_FORMAT)), signer.trust, NOW + timedelta(days=1)
    )
    assert found.offer is not None
    assert (found.offer.to, found.newest, found.renewable) == ("3.2", "3.2", None)
    assert (found.issued, found.expires) == (NOW, NOW + timedelta(days=180))


@pytest.mark.parametrize(
    "changes", [{"kit": "x"}, {"expires": "0001-01-01T00:00:00Z"}, {"renewal": None}, {"to": "3.0"}]
)
def test_the_format_before_that_makes_no_sense(signer: Signer, changes: dict[str, Any]) -> None:
    content = signer.sign_payload(json_bytes({**FIRST_FORMAT, **changes}))
    with pytest.raises(InputsUnverified):
        description.check(content, signer.trust, NOW)


def test_there_is_nothing_newer(signer: Signer) -> None:
    found = description.check(signer.state("3.2", "3.2"), signer.trust, NOW)
    assert found.offer is None
    assert str(found) == (
        "nothing newer than 3.2, as of 2026-11-22T12:00:00Z, until 2027-05-21T12:00:00Z"
    )


def test_there_is_something_newer_and_no_way_to_it(signer: Signer) -> None:
    found = description.check(signer.state("3.1", "4.0"), signer.trust, NOW)
    assert str(found).startswith("no upgrade from 3.1, and 4.0 is the newest release, as of")


def test_a_description_from_the_future(signer: Signer) -> None:
    """Whoever sets this machine's clock back makes what has expired seem to hold."""
    content = signer.state("3.1", "3.1")
    description.check(content, signer.trust, NOW - timedelta(minutes=5))
    with pytest.raises(SignatureInvalid, match=r"from the future, 2026-11-22.*clock"):
        description.check(content, signer.trust, NOW - timedelta(minutes=6))


def test_it_expires_to_the_second(envelope: bytes, signer: Signer) -> None:
    end = description.check(envelope, signer.trust, NOW).expires
    description.check(envelope, signer.trust, end - timedelta(seconds=1))
    with pytest.raises(SignatureInvalid, match="has expired on 2027-05-21"):
        description.check(envelope, signer.trust, end)


def test_a_key_that_is_not_trusted(envelope: bytes, signer: Signer, stranger: Signer) -> None:
    with pytest.raises(SignatureInvalid, match="not in the keyring"):
        description.check(envelope, stranger.trust, NOW)
    both = signer.trust.keyring + stranger.trust.keyring
    description.check(envelope, Trust(both), NOW)
    with pytest.raises(SignatureInvalid, match="not by"):
        description.check(envelope, Trust(both, stranger.fingerprint), NOW)


def test_keys_that_were_revoked_or_have_expired(gpg_home: GpgHome) -> None:
    revoked = Signer(gpg_home, gpg_home.make("Revoked <revoked@example.org>", expires="never"))
    content = revoked.describe(KitParts(FIRST, SECOND), PACKED)
    description.check(content, revoked.trust, NOW)
    gpg_home.revoke(revoked.fingerprint)
    with pytest.raises(SignatureInvalid, match="revoked"):
        description.check(content, revoked.trust, NOW)
    with pytest.raises(errors.SignatureInvalid):
        revoked.describe(KitParts(FIRST, SECOND), PACKED)


def changed(envelope: bytes, **fields: object) -> bytes:
    return json.dumps({**json.loads(envelope), **fields}).encode()


def test_a_second_signature(envelope: bytes, signer: Signer, stranger: Signer) -> None:
    """While one release key follows another, both may sign; one that is trusted is enough."""
    other = json.loads(stranger.describe(KitParts(FIRST, SECOND), PACKED))["signatures"]
    own = json.loads(envelope)["signatures"]
    description.check(changed(envelope, signatures=other + own), signer.trust, NOW)
    with pytest.raises(SignatureInvalid):
        description.check(changed(envelope, signatures=other), signer.trust, NOW)


@pytest.mark.parametrize(
    "change",
    [
        {"payloadType": "application/vnd.in-toto+json"},
        {"signatures": []},
        {"signatures": [{"sig": ""}]},
        {"signatures": [{"sig": "!"}]},
        {"signatures": [{"keyid": "A" * 40}]},
        {"signatures": {"sig": "A"}},
        {"payload": None},
        {"payload": "e30="},
        {"payload": "é"},
    ],
)
def test_forged_envelopes(envelope: bytes, signer: Signer, change: dict[str, Any]) -> None:
    with pytest.raises(SignatureInvalid):
        description.check(changed(envelope, **change), signer.trust, NOW)


def test_too_many_signatures(envelope: bytes, signer: Signer) -> None:
    many = json.loads(envelope)["signatures"] * 5
    with pytest.raises(SignatureInvalid, match="too many"):
        description.check(changed(envelope, signatures=many), signer.trust, NOW)


def test_a_signed_message_in_the_place_of_a_signature(
    envelope: bytes, signer: Signer, gpg_home: GpgHome
) -> None:
    content = base64.b64decode(json.loads(envelope)["payload"])
    message = gpg_home.gpg(
        *("--local-user", signer.fingerprint, "--sign"),
        stdin=signed_bytes(DESCRIPTION_TYPE, content),
    )
    forged = [{"sig": base64.b64encode(message).decode()}]
    with pytest.raises(SignatureInvalid, match="what should be a signature is none"):
        description.check(changed(envelope, signatures=forged), signer.trust, NOW)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff", b"[" * 60_000, b"1" * 70_000])
def test_what_is_no_envelope(signer: Signer, content: bytes) -> None:
    with pytest.raises(SignatureInvalid):
        description.check(content, signer.trust, NOW)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.floats(0, 0.9999), bit=st.integers(0, 7))
def test_no_bit_can_be_changed(envelope: bytes, signer: Signer, at: float, bit: int) -> None:
    """But for those that say nothing: the key's name, blanks."""
    content = bytearray(envelope)
    content[int(at * len(content))] ^= 1 << bit
    checked = None
    with suppress(SignatureInvalid, InputsUnverified):
        checked = description.check(bytes(content), signer.trust, NOW)
    assert checked in (None, description.check(envelope, signer.trust, NOW))


def test_keyrings(signer: Signer, tmp_path: Path, gpg_home: GpgHome) -> None:
    armoured = tmp_path / "key.asc"
    armoured.write_bytes(gpg_home.export(signer.fingerprint, "--armor"))
    assert load_trust(armoured, None).keyring == signer.trust.keyring
    (tmp_path / "none").write_bytes(b"no key")
    for path in (None, tmp_path / "missing", tmp_path / "none"):
        with pytest.raises(SignatureInvalid):
            load_trust(path, None)


def test_a_key_that_gpg_does_not_have(signer: Signer, gpg_home: GpgHome) -> None:
    state = description.check(signer.state("3.1", "3.1"), signer.trust, NOW)
    with pytest.raises(errors.SignatureInvalid, match="is missing"):
        sign(state, Gpg({"GNUPGHOME": str(gpg_home.path)}), "F" * 40)
