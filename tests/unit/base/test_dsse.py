# SPDX-License-Identifier: GPL-3.0-or-later
"""Envelopes: what was signed comes back, and nothing else does."""

import base64
import copy
import hashlib
import stat
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from securesystemslib.signer import CryptoSigner

from pipeline.base import dsse
from pipeline.base.errors import SignatureInvalid, UsageError
from pipeline.documents import statement
from pipeline.documents.malformed import Malformed
from pipeline.release.statements import check_statement

DOCUMENT = {"a": 1, "text": "ä\n"}


@pytest.fixture
def key(tmp_path: Path) -> CryptoSigner:
    dsse.make_key(tmp_path / "key.pem")
    return dsse.load_key(tmp_path / "key.pem")


@pytest.fixture
def other(tmp_path: Path) -> CryptoSigner:
    dsse.make_key(tmp_path / "other.pem")
    return dsse.load_key(tmp_path / "other.pem")


def test_a_signed_document_comes_back(key: CryptoSigner, other: CryptoSigner) -> None:
    envelope = dsse.sign(DOCUMENT, key)
    before = copy.deepcopy(envelope)
    assert dsse.verify(envelope, [dsse.public_hex(other), dsse.public_hex(key)]) == DOCUMENT
    assert dsse.unverified_payload(envelope) == DOCUMENT
    assert envelope == before
    assert envelope["payloadType"] == "application/vnd.in-toto+json"


def test_a_key_is_named_by_the_digest_of_its_public_half(key: CryptoSigner) -> None:
    public = bytes.fromhex(dsse.public_hex(key))
    envelope: Any = dsse.sign(DOCUMENT, key)
    (signature,) = envelope["signatures"]
    assert signature["keyid"] == hashlib.sha256(public).hexdigest()


def test_a_key_file_is_private_and_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "new" / "key.pem"
    public = dsse.make_key(path)
    content = path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert content.startswith(b"-----BEGIN PRIVATE KEY-----")
    with pytest.raises(UsageError, match="already"):
        dsse.make_key(path)
    assert path.read_bytes() == content
    assert dsse.public_hex(dsse.load_key(path)) == public


def test_where_keys_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("TWINBUILD_KEY_ALPHA", raising=False)
    assert dsse.key_path("alpha") == tmp_path / "twinbuild/keys/alpha.pem"
    monkeypatch.setenv("TWINBUILD_KEY_ALPHA_2", "/k/a.pem")
    assert str(dsse.key_path("alpha-2")) == "/k/a.pem"


def test_a_file_that_is_no_key_is_refused(tmp_path: Path) -> None:
    rsa = generate_private_key(65537, 1024).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    for content in (None, b"", b"-----BEGIN PRIVATE KEY-----\nAAAA\n", rsa):
        path = tmp_path / "bad.pem"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(SignatureInvalid):
            dsse.load_key(path)


def test_an_unknown_key_is_refused_even_under_a_trusted_name(
    key: CryptoSigner, other: CryptoSigner
) -> None:
    envelope: Any = dsse.sign(DOCUMENT, other)
    theirs: Any = dsse.sign(DOCUMENT, key)
    with pytest.raises(SignatureInvalid, match="no trusted key"):
        dsse.verify(envelope, [dsse.public_hex(key)])
    envelope["signatures"][0]["keyid"] = theirs["signatures"][0]["keyid"]
    with pytest.raises(SignatureInvalid, match="no trusted key"):
        dsse.verify(envelope, [dsse.public_hex(key)])
    with pytest.raises(SignatureInvalid):
        dsse.verify(envelope, [])


def test_every_flipped_bit_of_the_payload_or_signature_is_found(key: CryptoSigner) -> None:
    good: Any = dsse.sign({"a": 1}, key)
    for where in ("payload", "sig"):
        raw = bytearray(base64.b64decode(good.get(where) or good["signatures"][0]["sig"]))
        for bit in range(len(raw) * 8):
            raw[bit // 8] ^= 1 << bit % 8
            bad = copy.deepcopy(good)
            place = bad if where == "payload" else bad["signatures"][0]
            place[where] = base64.b64encode(raw).decode()
            raw[bit // 8] ^= 1 << bit % 8
            with pytest.raises(SignatureInvalid):
                dsse.verify(bad, [dsse.public_hex(key)])


def test_another_payload_type_is_refused(key: CryptoSigner) -> None:
    envelope = dsse.sign(DOCUMENT, key)
    envelope["payloadType"] = "text/plain"
    with pytest.raises(SignatureInvalid):
        dsse.verify(envelope, [dsse.public_hex(key)])


def test_limits(key: CryptoSigner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dsse, "PAYLOAD_LIMIT", 100)
    with pytest.raises(SignatureInvalid, match="too large"):
        dsse.sign({"a": "x" * 100}, key)
    envelope: Any = dsse.sign(DOCUMENT, key)
    with pytest.raises(SignatureInvalid, match="17 signatures"):
        dsse.verify({**envelope, "signatures": envelope["signatures"] * 17}, ["00" * 32])
    with pytest.raises(SignatureInvalid, match="larger"):
        dsse.verify({**envelope, "payload": "A" * 200}, ["00" * 32])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@settings(max_examples=40)
@given(
    st.fixed_dictionaries(
        {"payload": json_values | st.just("e30="), "payloadType": json_values},
        optional={
            "signatures": json_values
            | st.lists(
                st.fixed_dictionaries({"keyid": json_values, "sig": json_values}), max_size=3
            )
        },
    )
    | json_values
)
def test_no_malformed_envelope_gets_through_or_breaks_anything(envelope: Any) -> None:
    with pytest.raises(SignatureInvalid):
        dsse.verify(envelope, ["00" * 32])


def a_statement() -> statement.Statement:
    job = {"commit": "c" * 40, "image": "mini", "compression": "strong", "lock_sha256": "1" * 64}
    return statement.Statement(
        environment="alpha",
        run_id="20261122T180000Z-mini-0000",
        repository="file:///srv/mini.git",
        commit="c" * 40,
        tag="3.3",
        image="mini",
        compression="strong",
        lock_sha256="1" * 64,
        job=job,
        machine={"cpus": 2},
        artifacts={"mini.iso": "a" * 64, "mini.packages": "b" * 64},
        byproducts=dict.fromkeys(statement.BYPRODUCTS, "d" * 64),
        started=datetime(2026, 11, 22, 18, tzinfo=UTC),
        finished=datetime(2026, 11, 22, 19, tzinfo=UTC),
    )


def test_a_statement_is_made_and_checked_in_one_shape() -> None:
    document = statement.make(a_statement())
    assert statement.check(document) == a_statement()
    assert [subject["name"] for subject in document["subject"]] == ["mini.iso", "mini.packages"]


def put(document: Any, path: Sequence[str | int], value: object) -> None:
    *before, last = path
    for key in before:
        document = document[key]
    document[last] = value


DEFINITION = ("predicate", "buildDefinition")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("_type",), "https://in-toto.io/Statement/v0.1"),
        (("subject",), []),
        (("subject", 0, "name"), "../mini.iso"),
        (("subject", 0, "name"), "mini.packages"),
        (("subject", 0, "digest", "sha256"), "A" * 64),
        (("subject", 0, "digest", "sha512"), "a" * 128),
        (("extra",), 1),
        ((*DEFINITION, "buildType"), "https://example.org/"),
        ((*DEFINITION, "externalParameters", "commit"), "e" * 40),
        ((*DEFINITION, "externalParameters", "tag"), "a\nb"),
        ((*DEFINITION, "internalParameters", "job", "lock_sha256"), "2" * 64),
        ((*DEFINITION, "internalParameters", "job"), None),
        ((*DEFINITION, "resolvedDependencies", 0, "uri"), "git+https://example.org"),
        (("predicate", "runDetails", "builder", "id"), "https://example.org/alpha"),
        (("predicate", "runDetails", "metadata", "startedOn"), "yesterday"),
        (("predicate", "runDetails", "byproducts"), []),
        (("predicate",), []),
    ],
)
def test_a_statement_in_another_shape_is_refused(path: Sequence[str | int], value: object) -> None:
    document = statement.make(a_statement())
    put(document, path, value)
    with pytest.raises(Malformed):
        statement.check(document)
    with pytest.raises(SignatureInvalid):
        check_statement(document)


@given(json_values)
def test_a_statement_of_anything_is_refused(document: Any) -> None:
    with pytest.raises(Malformed):
        statement.check(document)
    with pytest.raises(SignatureInvalid):
        check_statement(document)
