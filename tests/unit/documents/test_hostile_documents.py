# SPDX-License-Identifier: GPL-3.0-or-later
"""Documents that mean harm: each reader returns what it can, or refuses in an error of ours.

The attacker holds a build's machine, a server, an archive with a key of its own, or a run's folder.
"""

import base64
import json
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.base import dsse
from pipeline.base.errors import (
    BuildFailed,
    InputsUnverified,
    TwinbuildError,
    UsageError,
)
from pipeline.base.files import read_json
from pipeline.cli import overview
from pipeline.compare import ledger
from pipeline.documents import lock
from pipeline.documents.dsse import IN_TOTO
from pipeline.documents.json_form import parse_json
from pipeline.documents.kit_control import read_control
from pipeline.documents.malformed import Malformed
from pipeline.documents.progress import Record
from pipeline.documents.upgrade_description import read_description
from pipeline.documents.upgrade_renewal import read_renewal
from pipeline.farm.run import Request, Run
from pipeline.inputs import packages_index, signed_release
from pipeline.kits.install import description, failure
from pipeline.kits.install.failure import Failure
from pipeline.machines import machine
from pipeline.published import published
from pipeline.release.statements import check_statement

HUGE = 10**4000
DEEP: Any = []
for _ in range(400):
    DEEP = [DEEP]
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 5),
    st.sampled_from([HUGE, -HUGE, 2**63, float("nan"), float("inf"), 1e300, DEEP, "9" * 5000]),
    st.sampled_from(["", "\ud800", "\0", "\x1b[31m", "../x", "a" * 300, "a" * 64, "0" * 40, "²"]),
    st.sampled_from(["mini", "amd64", "file", "2026-01-01T00:00:00Z", "step", "done", "%", "{}"]),
    st.text(max_size=5),
)
KEYS = [
    *("_type", "subject", "predicateType", "predicate", "buildDefinition", "internalParameters"),
    *("runDetails", "builder", "metadata", "startedOn", "finishedOn", "name", "digest", "sha256"),
    *("payload", "payloadType", "signatures", "sig", "keyid", "image", "architecture", "version"),
    *("epoch", "upgrade", "kits", "from", "local", "sources", "packages", "commit", "environments"),
    *("path", "type", "mode", "uid", "mtime", "size", "links", "xattrs", "device", "step", "facts"),
    *("artifact", "record", "verdict", "reasons", "differences", "tag", "signer", "status", "what"),
]
DOCUMENTS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.dictionaries(st.sampled_from(KEYS), inner, max_size=6), st.lists(inner, max_size=3)
    ),
    max_leaves=15,
)
NOW = datetime(2026, 11, 22, tzinfo=UTC)
TRUST = description.Trust(b"", None)


def envelope(document: Any) -> bytes:
    payload = base64.b64encode(json.dumps(document).encode()).decode()
    signatures = [{"sig": "eA==", "keyid": "x"}]
    fields = {"payload": payload, "payloadType": IN_TOTO, "signatures": signatures}
    return json.dumps(fields).encode()


READERS: dict[str, Callable[[Any], object]] = {
    "statement": check_statement,
    "envelope": lambda d: dsse.unverified_payload(d),
    "envelope, trusted": lambda d: dsse.verify(d, ["00" * 32]),
    "envelope's payload": lambda d: dsse.unverified_payload(json.loads(envelope(d))),
    "upgrade description": lambda d: description.check(json.dumps(d).encode(), TRUST, NOW),
    "signed description": lambda d: description.check(envelope(d), TRUST, NOW),
    "description's payload": lambda d: read_description(json.dumps(d).encode()),
    "renewal's payload": lambda d: read_renewal(json.dumps(d).encode()),
    "control of a kit": lambda d: read_control(json.dumps(d).encode()),
    "job": lambda d: published.describe("1", d if isinstance(d, dict) else {}, {}),
    "request": Request.of,
    "ledger": lambda d: ledger.parse(json.dumps(d).encode()),
    "facts": lambda d: machine.facts(Record("done", fields=d if isinstance(d, dict) else {})),
    "record": lambda d: list(machine._Records().feed(json.dumps(d).encode() + b"\n")),
}


@pytest.mark.parametrize("reader", READERS)
@given(document=DOCUMENTS)
@settings(max_examples=30)
def test_any_document_is_read_or_refused(reader: str, document: Any) -> None:
    with suppress(TwinbuildError, Failure, Malformed):
        READERS[reader](document)


@given(DOCUMENTS)
@settings(max_examples=20)
def test_any_run_can_be_shown(tmp_path_factory: pytest.TempPathFactory, document: Any) -> None:
    run = Run(tmp_path_factory.getbasetemp() / "20261122T000000Z-mini-12345678")
    (run.folder / "alpha").mkdir(parents=True, exist_ok=True)
    text = json.dumps(document)
    names = ("run.json", "source.json", "inputs.json", "verdict.json", "alpha/failure.json")
    for name in names:
        (run.folder / name).write_text(text)
    overview.describe(run)
    overview.list_lines([run])


TWICE = b'{"payload": "x", "payload": "y"}'


@pytest.mark.parametrize(
    "content",
    [
        TWICE,
        b'{"a": {"b": 1, "b": 1}}',
        b'{"a": 1, "\\u0061": 2}',
        b'{"a": NaN}',
        b"-Infinity",
        b"9" * 5000,
        b"[" * 100_000,
        b'{"a":' * 100_000,
        '{"a": 1}'.encode("utf-16"),
        b'"\xff"',
        b"",
        b"{} {}",
    ],
)
def test_json_that_can_be_read_two_ways_or_not_at_all(content: bytes, tmp_path: Path) -> None:
    with pytest.raises((ValueError, RecursionError)):
        parse_json(content)
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(UsageError, match="is not a JSON document") as caught:
        read_json(tmp_path / "x", failure=UsageError)
    assert "\n" not in str(caught.value)


def test_an_object_of_many_keys_with_one_twice_takes_no_longer_than_its_length() -> None:
    content = json.dumps({str(n): n for n in range(20_000)}).encode()[:-1] + b', "19999": 1}'
    with pytest.raises(ValueError, match="'19999' twice"):
        parse_json(content)


def test_a_line_of_a_ledger_with_two_paths_is_none() -> None:
    """The attacker holds a build's machine: readers of the ledger would see different files."""
    line = b'{"path":"etc/a","type":"dir","mode":493,"path":"etc/b"}'
    with pytest.raises(BuildFailed, match="a line of a ledger is malformed"):
        ledger.parse(line)


def test_an_envelope_with_two_payloads_is_none() -> None:
    with pytest.raises(failure.SignatureInvalid):
        description.check(TWICE, TRUST, NOW)


LOCK = """Format: twinbuild-lock/1
Image: mini
Architecture: amd64
Request-SHA256: {digest}

Archive: debian
Suite: trixie
Date: {date}
InRelease-SHA256: {digest}
Indices:
 {digest} {size} main/binary-amd64/Packages.xz

Package: bash
Version: 1
Architecture: amd64
Archive: debian
Suite: trixie
Filename: pool/bash.deb
Size: {size}
SHA256: {digest}
Used-By: image
"""
GOOD = {"digest": "a" * 64, "date": "Sun, 22 Nov 2026 00:00:00 GMT", "size": "5"}
NUMBERS = ["9" * 5000, "-1", "²", "1e9", "0x1", "", "5 5", "٣", "1_0", "nan"]
DATES = ["", "x", "Fri, 31 Dec 9999 23:59:59 -2359", "9" * 5000]
DATES += ["Sun, 22 Nov 2026 00:00:00 +9999999999", "Sun, 22 Nov 2026", "Sun, 31 Feb 2026 1:1:1 GMT"]


def test_the_lock_of_this_test_is_one() -> None:
    assert lock.load(LOCK.format(**GOOD).encode()).packages[0].size == 5


@pytest.mark.parametrize(
    ("key", "value"), [("size", n) for n in NUMBERS] + [("date", d) for d in DATES]
)
def test_a_lock_with_an_impossible_number_or_date(key: str, value: str) -> None:
    with pytest.raises(Malformed):
        lock.load(LOCK.format(**{**GOOD, key: value}).encode())


RELEASE = "Suite: trixie\nCodename: trixie\nDate: {date}\nSHA256:\n {digest} {size} main/x\n"


@pytest.mark.parametrize(("key", "value"), [("size", "9" * 5000)] + [("date", d) for d in DATES])
def test_an_inrelease_with_an_impossible_number_or_date(key: str, value: str) -> None:
    """The archive's own key has signed it."""
    with pytest.raises(InputsUnverified):
        signed_release._parse(RELEASE.format(**{**GOOD, key: value}).encode())


@given(st.binary(max_size=200))
def test_any_signed_text_and_any_lock_is_read_or_refused(content: bytes) -> None:
    for read in (lock.load, signed_release._parse):
        for text in (content, LOCK.format(**GOOD).encode() + content):
            with suppress(TwinbuildError, Malformed):
                read(text)


def test_spaces_in_an_index_take_no_longer_than_their_number() -> None:
    """Two neighbouring `*` in one pattern: hours for a paragraph of 1 MiB."""
    paragraph = (
        b"Package: x\nProvides: a" + b" " * 10**6 + b"b\nFilename: c" + b" " * 10**6 + b"d\n"
    )
    assert len(packages_index.FIELD.findall(paragraph)) == 2
    assert packages_index.FILENAME.search(paragraph)
