# SPDX-License-Identifier: GPL-3.0-or-later
"""verify.py against real signatures and a real web server: what it accepts, and all it refuses."""

import base64
import contextlib
import hashlib
import json
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from securesystemslib.signer import CryptoSigner

import verify
from pipeline.base import dsse
from pipeline.farm.config import Farm
from pipeline.release.publish import VERIFIER
from tests.gpg_home import GpgHome
from tests.releases import Serve, Server

pytestmark = pytest.mark.tools

ISO = "mini-amd64-3.3.iso"


@pytest.fixture(scope="session")
def keyrings(
    tmp_path_factory: pytest.TempPathFactory,
    gpg_home: GpgHome,
    release_key: str,
    other_key: str,
    expired_key: str,
) -> Path:
    """The keys as people have them: armoured, binary, keybox, and files that will not do."""
    folder = tmp_path_factory.mktemp("keyrings")
    (folder / "release.asc").write_bytes(gpg_home.export(release_key, "--armor"))
    (folder / "release.gpg").write_bytes(gpg_home.export(release_key))
    (folder / "other.asc").write_bytes(gpg_home.export(other_key, "--armor"))
    (folder / "expired.asc").write_bytes(gpg_home.export(expired_key, "--armor"))
    both = (folder / "other.asc").read_bytes() + b"\n" + (folder / "release.asc").read_bytes()
    (folder / "both.asc").write_bytes(both)
    with tempfile.TemporaryDirectory(prefix="tw-", dir="/tmp") as home:
        argv = ["gpg", "--homedir", home, "--quiet", "--batch", "--import"]
        subprocess.run([*argv, folder / "release.gpg"], check=True)
        shutil.copy(Path(home, "pubring.kbx"), folder / "release.kbx")
    return folder


@pytest.fixture
def public(tmp_path: Path, published: Path) -> Path:
    return Path(shutil.copytree(published, tmp_path / "public"))


@pytest.fixture
def server(serve: Serve, public: Path) -> Server:
    return serve(public)


class Check(Protocol):
    """Runs verify.py."""

    def __call__(
        self,
        *arguments: str | Path,
        keyring: str | None = ...,
        tag: str = ...,
        url: str | None = ...,
    ) -> tuple[int, dict[str, Any]]: ...


class Sign(Protocol):
    """Signs the manifest."""

    def __call__(
        self,
        content: bytes | None = ...,
        key: str = ...,
        options: tuple[str, ...] = ...,
        **how: Any,
    ) -> None: ...


Rewrite = Callable[[Callable[[bytes], bytes]], None]


class Restate(Protocol):
    """Changes what an environment states."""

    def __call__(self, change: Callable[[dict[str, Any]], object], key: str = ...) -> None: ...


@pytest.fixture
def check(server: Server, keyrings: Path, capsys: pytest.CaptureFixture[str]) -> Check:
    """Run `verify.main` with --json; returns its exit status and what it printed, parsed."""

    def run(
        *arguments: str | Path,
        keyring: str | None = "release.asc",
        tag: str = "3.3",
        url: str | None = None,
    ) -> tuple[int, dict[str, Any]]:
        argv = ["--url", url or server.url, "--tag", tag, "--json", *map(str, arguments)]
        argv += ["--keyring", str(keyrings / keyring)] if keyring else []
        capsys.readouterr()
        status = verify.main(argv)
        answer = json.loads(capsys.readouterr().out)
        assert answer["ok"] == (status == 0)
        assert answer["status"] == status
        assert bool(answer["errors"]) == (status != 0)
        return status, answer

    return run


@pytest.fixture
def sign(public: Path, gpg_home: GpgHome, release_key: str) -> Sign:
    """Sign what stands in the manifest now, or something else."""

    def run(
        content: bytes | None = None,
        key: str = release_key,
        options: tuple[str, ...] = ("--detach-sign",),
        **how: Any,
    ) -> None:
        manifest = (public / "3.3/SHA256SUMS").read_bytes() if content is None else content
        signature = gpg_home.sign(manifest, key, *options, **how)
        (public / "3.3/SHA256SUMS.asc").write_bytes(signature)

    return run


def environment_keys_of(farm: Farm) -> list[str]:
    return [f"--environment-key={name}={key}" for name, key in farm.keys.environments.items()]


# --- what holds


@pytest.mark.parametrize("keyring", ["release.asc", "release.gpg", "release.kbx", "both.asc"])
def test_a_good_release(check: Check, public: Path, release_key: str, keyring: str) -> None:
    status, answer = check("--file", public / "3.3" / ISO, keyring=keyring)
    assert status == 0
    assert answer["signer"] == release_key
    assert answer["commit"] == "c0ffee" * 6 + "cafe"
    assert answer["tag"] == "3.3"
    assert ISO in answer["verified"]
    assert "--environment-key" in " ".join(answer["not_proven"])


def test_every_environment_key_is_checked(check: Check, farm: Farm, public: Path) -> None:
    status, answer = check(*environment_keys_of(farm))
    assert status == 0
    assert "--environment-key" not in " ".join(answer["not_proven"])
    alpha, beta = farm.keys.environments["alpha"], farm.keys.environments["beta"]
    status, answer = check(f"--environment-key=alpha={beta}")
    assert status == 6
    assert "not signed by the key" in answer["errors"][0]
    status, answer = check(f"--environment-key=gamma={alpha}")
    assert (status, answer["errors"]) == (6, ["there is no statement of gamma"])


def test_it_says_that_no_file_was_checked(check: Check) -> None:
    status, answer = check()
    assert status == 0
    assert answer["not_proven"][-1].startswith("any file: none was checked")


def test_it_says_which_files_were_not_built_twice(check: Check, public: Path) -> None:
    status, answer = check("--file", public / "3.3/beta/console.log")
    assert status == 0
    assert "beta/console.log" in answer["verified"]
    assert "alpha/console.log" not in answer["verified"]
    assert any("other than the artifacts" in line for line in answer["not_proven"])


def test_downloads(check: Check, tmp_path: Path, public: Path) -> None:
    status, _ = check("--download", ISO, "--directory", tmp_path / "d")
    assert status == 0
    assert (tmp_path / "d" / ISO).read_bytes() == (public / "3.3" / ISO).read_bytes()
    status, answer = check("--all", "--directory", tmp_path / "d")
    assert status == 0
    subprocess.run(
        ["sha256sum", "--quiet", "-c", public / "3.3/SHA256SUMS"], cwd=tmp_path / "d", check=True
    )
    assert len(answer["verified"]) == 18


def test_a_folder_instead_of_a_server(check: Check, public: Path) -> None:
    status, _ = check("--file", public / "3.3" / ISO, url=public.as_uri())
    assert status == 0
    status, _ = check(tag="3.9", url=public.as_uri())
    assert status == 4


def test_the_report_for_people_fits_in_ten_lines(
    server: Server, keyrings: Path, public: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keyring = str(keyrings / "release.asc")
    common = ["--url", server.url, "--tag", "3.3", "--keyring", keyring]
    assert verify.main([*common, "--file", str(public / "3.3" / ISO)]) == 0
    text = capsys.readouterr().out
    assert len(text.splitlines()) <= 10
    assert text.startswith("3.3: verified\n  proven: ")
    assert "not proven: " in text
    bad = [f"--download=x{number}" for number in range(20)]
    assert verify.main([*common, *bad]) == 1
    text = capsys.readouterr().out
    assert len(text.splitlines()) <= 10
    assert text.startswith("3.3: NOT VERIFIED (status 1)\n  error: 'x0' is not in the manifest")


def test_as_a_program_of_its_own(server: Server, keyrings: Path, public: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-I", str(public / "verify.py"), "--url", server.url, "--tag", "3.3"]
        + ["--keyring", str(keyrings / "release.asc"), "--file", str(public / "3.3" / ISO)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("3.3: verified")
    assert done.stderr == ""


def test_an_older_python_ends_with_one_line() -> None:
    """Not with a traceback, and not with status 1, which says that something differs."""
    code = "import sys; sys.version_info = (3, 8); exec(open(sys.argv[1]).read())"
    done = subprocess.run(
        [sys.executable, "-c", code, verify.__file__], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: verify.py needs Python 3.9 or later\n"


def test_with_gpg_where_there_is_no_gpgv(
    check: Check, sign: Sign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other_key: str
) -> None:
    (tmp_path / "bin").mkdir()
    gpg = shutil.which("gpg")
    assert gpg
    (tmp_path / "bin/gpg").symlink_to(gpg)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert check()[0] == 0
    assert check(keyring="release.kbx")[0] == 0
    assert check(keyring="other.asc")[0] == 6
    (tmp_path / "bin/gpg").unlink()
    status, answer = check()
    assert status == 2
    assert "install the package gpgv" in answer["errors"][0]


# --- signatures


def test_without_a_keyring_nothing_is_verified(check: Check) -> None:
    status, answer = check(keyring=None)
    assert status == 6
    assert "no keyring" in answer["errors"][0]
    assert answer["verified"] == []


def test_a_keyring_offered_by_the_server_is_of_no_use(
    check: Check, public: Path, keyrings: Path, sign: Sign, other_key: str
) -> None:
    sign(key=other_key)
    shutil.copy(keyrings / "other.asc", public / "3.3/release.asc")
    shutil.copy(keyrings / "other.asc", public / "release.asc")
    assert check()[0] == 6


def test_a_keyring_that_is_none(check: Check, keyrings: Path) -> None:
    (keyrings / "empty").write_bytes(b"")
    assert check(keyring="empty")[0] == 2
    assert check(keyring="absent")[0] == 2


def test_a_pinned_fingerprint(check: Check, release_key: str, other_key: str) -> None:
    assert check("--fingerprint", release_key, keyring="both.asc")[0] == 0
    spaced = " ".join(release_key[i : i + 4] for i in range(0, 40, 4)).lower()
    assert check("--fingerprint", spaced, keyring="both.asc")[0] == 0
    status, answer = check("--fingerprint", other_key, keyring="both.asc")
    assert status == 6
    assert release_key in answer["errors"][0]


def test_a_key_that_is_not_in_the_keyring(check: Check) -> None:
    status, answer = check(keyring="other.asc")
    assert status == 6
    assert "not in the keyring" in answer["errors"][0]


def test_a_missing_signature(check: Check, public: Path) -> None:
    (public / "3.3/SHA256SUMS.asc").unlink()
    assert check()[0] == 6


def test_a_changed_manifest(check: Check, public: Path) -> None:
    manifest = public / "3.3/SHA256SUMS"
    content = bytearray(manifest.read_bytes())
    content[0] ^= 1
    manifest.write_bytes(content)
    status, answer = check()
    assert status == 6
    assert "bad" in answer["errors"][0]
    assert answer["signer"] is None


def test_a_signature_over_other_text(check: Check, sign: Sign) -> None:
    sign(b"something else\n")
    assert check()[0] == 6


def test_an_expired_key(check: Check, sign: Sign, expired_key: str) -> None:
    sign(key=expired_key, days_ago=9.9)
    status, answer = check(keyring="expired.asc")
    assert status == 6
    assert "has expired" in answer["errors"][0]


def test_an_expired_signature(check: Check, sign: Sign, gpg_home: GpgHome, keyrings: Path) -> None:
    key = gpg_home.make("Old <old@example.org>", days_ago=10, expires="never")
    (keyrings / "old.asc").write_bytes(gpg_home.export(key, "--armor"))
    for days, expected in ((20, 0), (1, 6)):
        options = ("--detach-sign", "--default-sig-expire", f"{days}d")
        sign(key=key, options=options, days_ago=5)
        assert check(keyring="old.asc")[0] == expected


def test_a_revoked_key(check: Check, sign: Sign, gpg_home: GpgHome, keyrings: Path) -> None:
    key = gpg_home.make("Gone <gone@example.org>", expires="never")
    sign(key=key)
    gpg_home.revoke(key)
    (keyrings / "gone.asc").write_bytes(gpg_home.export(key, "--armor"))
    status, answer = check(keyring="gone.asc")
    assert status == 6
    assert "was revoked" in answer["errors"][0]


def test_a_second_signature_that_is_not_good_spoils_it(
    check: Check, sign: Sign, public: Path, other_key: str
) -> None:
    first = verify.dearmour((public / "3.3/SHA256SUMS.asc").read_bytes())
    sign(key=other_key)
    second = verify.dearmour((public / "3.3/SHA256SUMS.asc").read_bytes())
    (public / "3.3/SHA256SUMS.asc").write_bytes(first + second)
    assert check()[0] == 6
    assert check(keyring="both.asc")[0] == 0


@pytest.mark.parametrize("how", [("--sign",), ("--clear-sign",), ("--store",)])
def test_a_signed_message_is_not_a_detached_signature(
    check: Check, sign: Sign, public: Path, how: tuple[str, ...]
) -> None:
    good = (public / "3.3/SHA256SUMS").read_bytes()
    sign(good, options=how)
    (public / "3.3/SHA256SUMS").write_bytes(b"0" * 64 + b"  evil.iso\n")
    assert check()[0] == 6


def test_a_text_signature_over_bytes_that_differ_in_line_ends(
    check: Check, sign: Sign, public: Path
) -> None:
    manifest = public / "3.3/SHA256SUMS"
    sign(options=("--textmode", "--detach-sign"))
    status, answer = check()
    assert status == 6
    assert "not over the exact bytes" in answer["errors"][0]
    manifest.write_bytes(manifest.read_bytes().replace(b"\n", b"\r\n"))
    assert check()[0] == 6


def test_a_weak_digest(check: Check, sign: Sign) -> None:
    sign(options=("--digest-algo", "RIPEMD160", "--detach-sign"))
    assert check()[0] == 6


EVIL = "[GNUPG:] VALIDSIG {0} 2026-11-22 1795370885 0 4 0 22 8 00 {0}"


def fingerprints(home: GpgHome) -> set[str]:
    listed = home.gpg("--with-colons", "--list-keys")
    return {match.decode() for match in re.findall(rb"^fpr:+([0-9A-F]{40}):", listed, re.M)}


@pytest.mark.parametrize("separator", ["\u2028", "\x85", "\x0b", "\x1d", "\r", ""])
def test_a_user_name_that_looks_like_status_lines(
    check: Check, sign: Sign, gpg_home: GpgHome, release_key: str, keyrings: Path, separator: str
) -> None:
    spoof = separator + "[GNUPG:] GOODSIG " + separator + EVIL.format(release_key) + separator
    user = f"E{len(spoof)}{ord(separator or '0')} {spoof}"
    argv = ["--quick-gen-key", user, "ed25519", "sign", "never"]
    before = fingerprints(gpg_home)
    gpg_home.gpg("--allow-freeform-uid", "--passphrase", "", *argv)
    (key,) = fingerprints(gpg_home) - before
    sign(key=key)
    (keyrings / "evil.asc").write_bytes(gpg_home.export(key, "--armor"))
    status, answer = check("--fingerprint", release_key, keyring="evil.asc")
    assert status == 6
    assert answer["signer"] is None


def test_a_complaint_of_gpgv_counts_even_with_good_lines(
    check: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpgv = tmp_path / "bin/gpgv"
    gpgv.parent.mkdir()
    gpgv.write_text('#!/bin/sh\n/usr/bin/gpgv "$@" || exit\necho "something odd" >&2; exit 1\n')
    gpgv.chmod(0o755)
    monkeypatch.setenv("PATH", str(gpgv.parent))
    status, answer = check()
    assert status == 6
    assert "something odd" in answer["errors"][0]


LITERAL = bytes([0xCB, 8]) + b"b\0" + bytes(4) + b"hi"


def test_what_comes_with_signatures_must_be_signatures(gpg_home: GpgHome, release_key: str) -> None:
    packets = verify.dearmour(gpg_home.sign(b"hi", release_key, "--detach-sign"))
    verify.check_only_signatures(packets * verify.SIGNATURES_LIMIT)
    inline = verify.dearmour(gpg_home.sign(b"hi", release_key, "--sign"))
    too_many = packets * (verify.SIGNATURES_LIMIT + 1)
    for bad in (packets + LITERAL, LITERAL + packets, packets[:-1], inline, too_many, b""):
        with pytest.raises(ValueError, match="it is"):
            verify.check_only_signatures(bad)


@given(st.binary(max_size=300))
def test_only_signature_packets_pass(content: bytes) -> None:
    try:
        verify.check_only_signatures(content)
    except ValueError:
        return
    assert content[0] in (0x88, 0x89, 0x8A, 0xC2)


@given(st.binary(max_size=200) | st.text(alphabet="-BEGIN PGP SIGNATURE\n=:A", max_size=300))
def test_armour_of_anything(content: bytes | str) -> None:
    content = content if isinstance(content, bytes) else content.encode()
    with contextlib.suppress(ValueError):
        verify.dearmour(b"-----BEGIN PGP SIGNATURE-----\n\n" + content)


# --- manifests and statements


@pytest.fixture
def rewrite(public: Path, sign: Sign) -> Rewrite:
    """Change the manifest and sign it again, as a release key in wrong hands would."""

    def run(change: Callable[[bytes], bytes]) -> None:
        manifest = public / "3.3/SHA256SUMS"
        content = change(manifest.read_bytes())
        manifest.write_bytes(content)
        sign(content)

    return run


@pytest.mark.parametrize(
    "name",
    [
        b"../../etc/passwd",
        b"/etc/passwd",
        b"a/../../b",
        b"a//b",
        b".hidden",
        b"a\\b",
        b"-rf",
        b"a/b/c/d/e",
        b"a\x1b[2J",
        b"*binary",
        b"lock",
        b"",
    ],
)
def test_a_signed_manifest_with_bad_names_is_refused_whole(
    check: Check, rewrite: Rewrite, name: bytes, tmp_path: Path
) -> None:
    rewrite(lambda content: content + b"0" * 64 + b"  " + name + b"\n")
    status, answer = check("--all", "--directory", tmp_path / "d")
    assert status == 6
    assert "bad line" in answer["errors"][0]
    assert "\x1b" not in answer["errors"][0]
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("content", [b"", b"\n", b"0" * 64 + b"  cut-off"])
def test_an_empty_or_cut_manifest(check: Check, rewrite: Rewrite, content: bytes) -> None:
    rewrite(lambda _: content)
    assert check()[0] == 6


def test_a_huge_manifest_is_not_read_to_its_end(check: Check, public: Path) -> None:
    with (public / "3.3/SHA256SUMS").open("wb") as file:
        file.truncate(verify.MANIFEST_LIMIT + 1)
    status, answer = check()
    assert status == 6
    assert "larger than" in answer["errors"][0]


def test_an_old_release_under_a_new_tag(check: Check, public: Path) -> None:
    shutil.copytree(public / "3.3", public / "3.4")
    status, answer = check(tag="3.4")
    assert status == 6
    assert "of the release '3.3'" in answer["errors"][0]


def replaced(content: bytes, name: str, digest: str) -> bytes:
    lines = [line for line in content.split(b"\n") if not line.endswith(b"  " + name.encode())]
    return b"\n".join([digest.encode() + b"  " + name.encode(), *lines])


def test_a_manifest_that_says_other_than_the_statements(check: Check, rewrite: Rewrite) -> None:
    rewrite(lambda content: replaced(content, ISO, "0" * 64))
    status, answer = check()
    assert status == 1
    assert f"{ISO} is not in the manifest as alpha states it" in answer["errors"][0]


def test_a_statement_that_is_not_the_one_in_the_manifest(check: Check, public: Path) -> None:
    path = public / "3.3/statements/beta.json"
    path.write_bytes(path.read_bytes() + b" ")
    assert check()[0] == 1


def test_a_manifest_without_two_statements(check: Check, rewrite: Rewrite) -> None:
    rewrite(
        lambda content: b"\n".join(
            line for line in content.split(b"\n") if b"statements/beta" not in line
        )
    )
    status, answer = check()
    assert status == 6
    assert "not two" in answer["errors"][0]


@pytest.fixture
def restate(public: Path, rewrite: Rewrite, environment_keys: dict[str, CryptoSigner]) -> Restate:
    """Change what beta states, put it into the manifest and sign all of it again."""

    def run(change: Callable[[dict[str, Any]], object], key: str = "beta") -> None:
        path = public / "3.3/statements/beta.json"
        envelope = json.loads(path.read_text())
        document = json.loads(base64.b64decode(envelope["payload"]))
        change(document)
        path.write_text(json.dumps(dsse.sign(document, environment_keys[key])))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        rewrite(lambda content: replaced(content, "statements/beta.json", digest))

    return run


@pytest.mark.parametrize(
    ("where", "value", "expected"),
    [
        (("externalParameters", "commit"), "d" * 40, 1),
        (("externalParameters", "tag"), "3.2", 6),
        (("externalParameters", "tag"), None, 6),
        (("internalParameters", "job", "guest_sha256"), "0" * 64, 1),
        (("externalParameters",), None, 6),
    ],
)
def test_statements_that_disagree(
    check: Check, restate: Restate, where: tuple[str, ...], value: object, expected: int
) -> None:
    def change(document: dict[str, Any]) -> None:
        place = document["predicate"]["buildDefinition"]
        for key in where[:-1]:
            place = place[key]
        place[where[-1]] = value

    restate(change)
    assert check()[0] == expected


def test_a_statement_by_an_unknown_key(check: Check, restate: Restate, farm: Farm) -> None:
    restate(lambda document: None, key="stranger")
    assert check()[0] == 0
    status, answer = check(*environment_keys_of(farm))
    assert status == 6
    assert "statement of beta" in answer["errors"][0]


def test_a_statement_of_another_environment(check: Check, restate: Restate) -> None:
    def change(document: dict[str, Any]) -> None:
        document["predicate"]["runDetails"]["builder"]["id"] += "2"

    restate(change)
    assert check()[0] == 6


@settings(max_examples=10)
@given(st.binary(max_size=200), st.integers(0, 511))
def test_ed25519_agrees_with_the_library(message: bytes, bit: int) -> None:
    key = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(message).digest())
    public, signature = key.public_key().public_bytes_raw(), bytearray(key.sign(message))
    assert verify.ed25519_holds(public, message, bytes(signature))
    assert not verify.ed25519_holds(public, message + b"!", bytes(signature))
    signature[bit // 8] ^= 1 << bit % 8
    assert not verify.ed25519_holds(public, message, bytes(signature))


def test_ed25519_refuses_malleable_and_malformed_signatures() -> None:
    key = Ed25519PrivateKey.from_private_bytes(bytes(32))
    public, signature = key.public_key().public_bytes_raw(), key.sign(b"m")
    scalar = int.from_bytes(signature[32:], "little") + verify.ORDER
    assert not verify.ed25519_holds(public, b"m", signature[:32] + scalar.to_bytes(32, "little"))
    assert not verify.ed25519_holds(public, b"m", signature[:-1])
    assert not verify.ed25519_holds(public, b"m", signature + b"\0")
    assert not verify.ed25519_holds(public[:-1], b"m", signature)
    assert not verify.ed25519_holds(b"\xff" * 32, b"m", signature)


# --- files and the network


def test_a_file_that_differs(check: Check, tmp_path: Path, public: Path) -> None:
    bad = tmp_path / ISO
    content = bytearray((public / "3.3" / ISO).read_bytes())
    content[-1] ^= 1
    bad.write_bytes(content)
    unknown = tmp_path / "other.iso"
    unknown.write_bytes(content)
    status, answer = check("--file", bad, "--file", unknown, "--file", public / "3.3/lock")
    assert status == 1
    assert len(answer["errors"]) == 2
    assert "lock" in answer["verified"]
    assert ISO not in answer["verified"]


def test_a_file_under_another_name(check: Check, tmp_path: Path, public: Path) -> None:
    shutil.copy(public / "3.3" / ISO, tmp_path / "mini-amd64-3.3.packages")
    assert check("--file", tmp_path / "mini-amd64-3.3.packages")[0] == 1


def test_a_file_that_is_not_there(check: Check, tmp_path: Path) -> None:
    assert check("--file", tmp_path / ISO)[0] == 2


def test_a_download_that_differs_leaves_nothing(check: Check, public: Path, tmp_path: Path) -> None:
    (public / "3.3" / ISO).write_bytes(b"trojan")
    status, _ = check("--download", ISO, "--directory", tmp_path / "d")
    assert status == 1
    assert list((tmp_path / "d").iterdir()) == []


def test_a_file_in_the_way_of_a_download_is_not_overwritten(check: Check, tmp_path: Path) -> None:
    (tmp_path / ISO).write_bytes(b"mine")
    status, answer = check("--download", ISO, "--directory", tmp_path)
    assert status == 1
    assert "move it away" in answer["errors"][0]
    assert (tmp_path / ISO).read_bytes() == b"mine"


def offsets(server: Server) -> list[int | None]:
    return [offset for path, offset in server.seen if path.endswith(".iso")]


def test_a_truncated_download_is_resumed_where_it_broke_off(
    check: Check, server: Server, tmp_path: Path
) -> None:
    server.cuts = [1000, 5000]
    status, _ = check("--download", ISO, "--directory", tmp_path)
    assert status == 0
    assert offsets(server) == [None, 1000, 6000]


def test_a_download_goes_on_from_what_an_earlier_run_has_left(
    check: Check, server: Server, tmp_path: Path
) -> None:
    server.cuts = [1000, *[0] * 9]
    status, answer = check("--download", ISO, "--directory", tmp_path)
    assert status == 4
    assert "to resume" in answer["errors"][0]
    assert (tmp_path / f"{ISO}.part").stat().st_size == 1000
    server.seen, server.cuts = [], []
    assert check("--download", ISO, "--directory", tmp_path)[0] == 0
    assert offsets(server) == [1000]
    assert not (tmp_path / f"{ISO}.part").exists()


def test_a_server_that_knows_no_ranges(check: Check, server: Server, tmp_path: Path) -> None:
    server.ranges, server.cuts = False, [1000]
    assert check("--download", ISO, "--directory", tmp_path)[0] == 0
    assert offsets(server) == [None, None]


@pytest.mark.parametrize("length", [10, 16387, 20000])
def test_a_part_of_something_else_is_thrown_away(check: Check, tmp_path: Path, length: int) -> None:
    (tmp_path / f"{ISO}.part").write_bytes(b"x" * length)
    assert check("--download", ISO, "--directory", tmp_path)[0] == 0


def test_a_truncated_manifest_is_a_fault_of_the_network(check: Check, server: Server) -> None:
    server.cuts, server.cut_suffix = [10], ""
    status, answer = check()
    assert status == 4
    assert "cut off" in answer["errors"][0]


def test_a_server_that_is_not_there(check: Check, serve: Serve, tmp_path: Path) -> None:
    server = serve(tmp_path)
    url = server.url
    server.server_close()
    status, answer = check("--timeout", "2", url=url)
    assert status == 4
    assert answer["errors"]


def test_a_release_that_is_not_there(check: Check) -> None:
    assert check(tag="9.9")[0] == 4


def test_a_download_that_does_not_end(
    check: Check, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "DOWNLOAD_LIMIT", 1000)
    status, answer = check("--download", ISO, "--directory", tmp_path)
    assert status == 1
    assert "larger than" in answer["errors"][0]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--url", "ftp://example.org", "--tag", "3.3"],
        ["--url", "example.org", "--tag", "3.3"],
        ["--url", "https://example.org", "--tag", "../3.3"],
        ["--url", "https://example.org", "--tag", "3.3", "--fingerprint", "DEADBEEF"],
        ["--url", "https://example.org", "--tag", "3.3", "--environment-key", "alpha"],
        ["--url", "https://example.org", "--tag", "3.3", "--environment-key", "alpha=00"],
    ],
)
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert verify.main(arguments) == 2
    assert "usage:" in capsys.readouterr().err


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    size = 64 * 1024 * 1024
    with (tmp_path / "big").open("wb") as file:
        file.truncate(size)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    verify.sha256(tmp_path / "big")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 * 1024


def test_it_needs_only_the_standard_library() -> None:
    code = (
        "import sys, runpy; runpy.run_path(sys.argv[1]);"
        "print(*{m.split('.')[0] for m in sys.modules} - set(sys.stdlib_module_names))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, VERIFIER], capture_output=True, text=True
    )
    assert set(done.stdout.split()) <= {"__main__", "__mp_main__"}
    assert done.returncode == 0
