# SPDX-License-Identifier: GPL-3.0-or-later
"""InRelease files, signed by real keys that will do and that will not."""

import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipeline.base.errors import InputsUnverified, UsageError
from pipeline.inputs.signed_release import read_release, verified_text
from tests.debian_archive import DebianArchive, SigningKey

NOW = datetime.now(UTC)


def inrelease(archive: DebianArchive, *options: str, key: SigningKey | None = None) -> bytes:
    archive.publish(key=key, sign_options=options)
    return (archive.dists / "InRelease").read_bytes()


def merged(first: bytes, second: bytes) -> bytes:
    """Return the first document, signed by the signers of both."""
    head, mark, signature = first.partition(b"-----BEGIN PGP SIGNATURE-----")
    argv = ["gpg", "--batch", "--quiet", "--dearmor"]
    packets = b"".join(
        subprocess.run(argv, input=mark + part, capture_output=True, check=True).stdout
        for part in (signature, second.partition(b"-----BEGIN PGP SIGNATURE-----")[2])
    )
    argv = ["gpg", "--batch", "--quiet", "--enarmor"]
    armoured = subprocess.run(argv, input=packets, capture_output=True, check=True).stdout
    return head + armoured.replace(b"PGP ARMORED FILE", b"PGP SIGNATURE")


def test_one_good_signature_is_enough(tmp_path: Path, keys: dict[str, SigningKey]) -> None:
    key, other = keys["archive"], keys["stranger"]
    text = b"Suite: trixie\n"
    both = merged(key.clearsign(text), other.clearsign(text))
    assert verified_text(both, key.keyring) == text
    assert verified_text(both, other.keyring) == text
    both_keys = tmp_path / "both.gpg"
    both_keys.write_bytes(key.keyring.read_bytes() + other.keyring.read_bytes())
    spoilt = merged(key.clearsign(text), other.clearsign(b"other\n"))
    with pytest.raises(InputsUnverified, match="bad signature"):
        verified_text(spoilt, both_keys)


def test_an_unknown_key_is_named(keys: dict[str, SigningKey]) -> None:
    document = keys["stranger"].clearsign(b"Suite: trixie\n")
    with pytest.raises(InputsUnverified, match=keys["stranger"].fingerprint) as caught:
        verified_text(document, keys["archive"].keyring)
    assert "not signed by a known key" in str(caught.value)
    assert "NO_PUBKEY" in caught.value.detail


def test_a_weak_digest_is_refused(keys: dict[str, SigningKey]) -> None:
    document = keys["archive"].clearsign(b"Suite: trixie\n", "--digest-algo", "SHA1")
    with pytest.raises(InputsUnverified, match="weak digest SHA-1"):
        verified_text(document, keys["archive"].keyring)


def test_what_is_no_keyring(tmp_path: Path, keys: dict[str, SigningKey]) -> None:
    document = keys["archive"].clearsign(b"Suite: trixie\n")
    (tmp_path / "keyring.gpg").write_bytes(b"no key")
    with pytest.raises(UsageError, match="is not a keyring"):
        verified_text(document, tmp_path / "keyring.gpg")
    with pytest.raises(UsageError, match="no keyring"):
        verified_text(document, tmp_path / "absent.gpg")


def test_a_real_inrelease(first_archive: DebianArchive, tmp_path: Path) -> None:
    archive = DebianArchive(tmp_path, first_archive.key)
    keyring = first_archive.key.keyring
    release = read_release(inrelease(archive), keyring=keyring, suite="trixie", now=NOW)
    assert release.codename == "trixie"
