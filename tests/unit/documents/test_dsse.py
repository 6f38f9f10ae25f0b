# SPDX-License-Identifier: GPL-3.0-or-later
"""The form of DSSE envelopes: the specification's own example, another implementation, damage."""

import base64
from typing import Any

import pytest
from securesystemslib.dsse import Envelope as OtherEnvelope
from securesystemslib.signer import Signature

from pipeline.documents.dsse import (
    ENVELOPE_SIGNATURES_LIMIT,
    IN_TOTO,
    make_envelope,
    read_envelope,
    signed_bytes,
)
from pipeline.documents.malformed import Malformed

KIND = "http://example.com/HelloWorld"  # protocol.md of the specification
PAYLOAD = b"hello world"


def test_the_encoding_is_that_of_the_specification() -> None:
    assert signed_bytes(KIND, PAYLOAD) == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    assert signed_bytes("ä", b"") == b"DSSEv1 2 \xc3\xa4 0 "


def test_another_implementation_has_the_same_form() -> None:
    other = OtherEnvelope(PAYLOAD, KIND, {"k": Signature("k", b"\1\2".hex())})
    made = make_envelope(KIND, PAYLOAD, "k", b"\1\2")
    assert made == other.to_dict()
    assert signed_bytes(KIND, PAYLOAD) == other.pae()
    read = read_envelope(made, KIND)
    assert read.payload == PAYLOAD
    assert [(each.keyid, each.signature) for each in read.signatures] == [("k", b"\1\2")]


def test_a_key_id_is_optional() -> None:
    made = {**make_envelope(IN_TOTO, PAYLOAD, "", b"x"), "signatures": [{"sig": "eA=="}] * 2}
    assert [each.keyid for each in read_envelope(made, IN_TOTO).signatures] == ["", ""]


@pytest.mark.parametrize("field", ["payload", "payloadType", "signatures"])
def test_a_field_that_is_missing_is_named(field: str) -> None:
    made = make_envelope(IN_TOTO, PAYLOAD, "", b"x")
    del made[field]
    with pytest.raises(Malformed, match=f"{field} is missing"):
        read_envelope(made, IN_TOTO)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"payload": None}, "payload is no text"),
        ({"payload": "e30"}, "payload is no base64"),
        ({"payload": "-_8="}, "payload is no base64"),
        ({"payload": "é30="}, "payload is no base64"),
        ({"payload": ["e30="]}, "payload is no text"),
        ({"payload": "A" * 2000}, "payload is larger than 1000 bytes"),
        ({"payloadType": KIND}, "payloadType is"),
        ({"payloadType": "application/vnd.in-toto"}, "payloadType is"),
        ({"payloadType": None}, "payloadType is None"),
        ({"signatures": None}, "signatures is no list"),
        ({"signatures": {}}, "signatures is no list"),
        ({"signatures": {"sig": "eA=="}}, "signatures is no list"),
        ({"signatures": []}, "it has 0 signatures"),
        ({"signatures": [{"sig": "eA=="}] * (ENVELOPE_SIGNATURES_LIMIT + 1)}, "17 signatures"),
        ({"signatures": [{"keyid": "a"}]}, "sig"),
        ({"signatures": [{"sig": "e"}]}, "sig is no base64"),
        ({"signatures": [{"keyid": "a\n", "sig": "eA=="}]}, "keyid is"),
        ({"signatures": [{"keyid": 1, "sig": "eA=="}]}, "keyid is 1"),
        ({"signatures": [{"keyid": "a" * 201, "sig": "eA=="}]}, "keyid is"),
        ({"signatures": [{"keyid": "a", "sig": "eA=="}] * 2}, "keyid: two"),
    ],
)
def test_damage_is_named(change: dict[str, Any], field: str) -> None:
    whole = make_envelope(IN_TOTO, b"{}", "a", b"x")
    assert read_envelope(whole, IN_TOTO, 1000).payload == base64.b64decode("e30=")
    with pytest.raises(Malformed, match=field):
        read_envelope({**whole, **change}, IN_TOTO, 1000)


def test_a_caller_may_allow_fewer_signatures() -> None:
    made = {**make_envelope(IN_TOTO, PAYLOAD, "", b"x"), "signatures": [{"sig": "eA=="}] * 5}
    assert len(read_envelope(made, IN_TOTO).signatures) == 5
    with pytest.raises(Malformed, match="it has 5 signatures, which is too many"):
        read_envelope(made, IN_TOTO, signatures_limit=4)


@pytest.mark.parametrize("document", [None, 1, "x", [], {}, {"payload": "e30="}])
def test_what_is_no_envelope_is_malformed(document: Any) -> None:
    with pytest.raises(Malformed):
        read_envelope(document, IN_TOTO)
