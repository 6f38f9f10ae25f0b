# SPDX-License-Identifier: GPL-3.0-or-later
"""The judge of gpg's words and the reading of keyrings, with real keys where it can be."""

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.base import gpgv
from pipeline.documents import signatures
from pipeline.documents.signatures import (
    FUTURE_TOLERANCE_S,
    Untrusted,
    all_good,
    any_good,
    dearmour,
    judge,
    read_keyring,
    read_packets,
)
from tests.debian_archive import SigningKey, make_key

pytestmark = pytest.mark.tools

ROOT = Path(__file__).parents[3]
NOW = 2_000_000_000
FPR, SUB = "A" * 40, "B" * 40
NEW = "[GNUPG:] NEWSIG\n"
TEXT = "[GNUPG:] PLAINTEXT 74 0 \n"
OTHERS = f"[GNUPG:] KEY_CONSIDERED {FPR} 0\n[GNUPG:] SIG_ID x 2026-01-01 1\n[GNUPG:] KEYEXPIRED 1\n"


def valid(*, made: int = 1000, ends: int = 0, digest: int = 8, form: str = "00") -> str:
    return f"[GNUPG:] VALIDSIG {SUB} 2026-01-01 {made} {ends} 4 0 22 {digest} {form} {FPR}\n"


GOOD_LINE = "[GNUPG:] GOODSIG 1 Archive\n"
GOOD = NEW + OTHERS + GOOD_LINE + valid()
UNKNOWN = f"{NEW}[GNUPG:] ERRSIG {'C' * 16} 1 8 00 1 9 {'C' * 40}\n[GNUPG:] NO_PUBKEY {'C' * 16}\n"
WORDS = ["GOODSIG", "VALIDSIG", "NEWSIG", "KEYEXPIRED", *(w.decode() for w in signatures.FAULTS)]


def judged(status: str, *, text: bool = False) -> list[signatures.Signature]:
    return all_good(judge(status.encode(), now=NOW, text=text))


def test_a_good_signature_says_by_whom_and_when() -> None:
    (signature,) = judged(GOOD)
    assert (signature.key, signature.primary, signature.made) == (SUB, FPR, 1000)
    assert signature.is_by(SUB)
    assert signature.is_by(FPR)
    assert signature.is_by(None)
    assert not signature.is_by("C" * 40)
    assert len(judged(GOOD + GOOD)) == 2


@pytest.mark.parametrize(
    ("status", "says"),
    [
        ("", "no OpenPGP signature"),
        (NEW, "not one good"),
        (GOOD_LINE + valid(), "not understood"),
        (NEW + GOOD_LINE, "not one good"),
        (NEW + valid(), "not one good"),
        (NEW + GOOD_LINE + NEW + valid(), "not one good"),
        (NEW + GOOD_LINE + GOOD_LINE + valid(), "not one good"),
        (NEW + GOOD_LINE + valid() + valid(), "not one good"),
        (GOOD[:-1], "cut off"),
        (GOOD + "gpgv: [GNUPG:] GOODSIG 1 x\n", "damaged"),
        (GOOD + "\n", "damaged"),
        (NEW + GOOD_LINE + valid().replace(" 22 ", " "), "damaged"),
        (NEW + GOOD_LINE + valid().replace(FPR, "AAAA"), "damaged"),
        (NEW + GOOD_LINE + valid().replace("1000", "x"), "damaged"),
        (GOOD + "[GNUPG:] SOMETHING_NEW\n", "SOMETHING_NEW"),
        (GOOD + "[GNUPG:] goodsig\n", "goodsig"),
        (GOOD + "[GNUPG:] NODATA 1\n", "something else beside it"),
        (GOOD + "[GNUPG:] FAILURE gpg-exit 33554433\n", "FAILURE"),
        (GOOD + UNKNOWN, f"{'C' * 40}, which is not in the keyring"),
        (UNKNOWN + GOOD, f"{'C' * 40}, which is not in the keyring"),
        (UNKNOWN.replace("C" * 40, "-"), f"{'C' * 16}, which is not in the keyring"),
        (UNKNOWN.replace(" 9 ", " 4 "), "of a kind that gpg cannot check"),
        (UNKNOWN.replace(" 1 8 00 1 9 ", " 1 2 00 1 5 "), "weak digest SHA-1"),
        (f"{GOOD}{NEW}[GNUPG:] BADSIG 3 Somebody\n", "signature is bad"),
        (f"{NEW}[GNUPG:] BADSIG 3 [GNUPG:] GOODSIG\n", "signature is bad"),
        (f"{NEW}[GNUPG:] EXPKEYSIG 3 Old\n{valid()}", "key that signed has expired"),
        (f"{NEW}[GNUPG:] EXPSIG 3 Old\n{valid()}", "signature has expired"),
        (f"{NEW}[GNUPG:] REVKEYSIG 3 Lost\n{valid()}", "was revoked"),
        (GOOD + "[GNUPG:] KEYREVOKED\n", "was revoked"),
        (GOOD + "[GNUPG:] TRUST_NEVER 0\n", "not to be trusted"),
        (NEW + GOOD_LINE + valid(digest=1), "weak digest MD5"),
        (NEW + GOOD_LINE + valid(digest=2), "weak digest SHA-1"),
        (NEW + GOOD_LINE + valid(digest=3), "weak digest RIPEMD160"),
        (NEW + GOOD_LINE + valid(digest=11), "weak digest SHA-224"),
        (NEW + GOOD_LINE + valid(digest=99), "weak digest"),
        (NEW + GOOD_LINE + valid(form="01"), "not over the exact bytes"),
        (NEW + GOOD_LINE + valid(form="10"), "not over the exact bytes"),
        (NEW + GOOD_LINE + valid(made=NOW + FUTURE_TOLERANCE_S + 1), "from the future"),
        (NEW + GOOD_LINE + valid(ends=NOW), "has expired"),
        (TEXT + GOOD, "not of the kind"),
    ],
)
def test_anything_less_is_refused(status: str, says: str) -> None:
    with pytest.raises(Untrusted, match=says):
        judged(status)


def test_a_clock_that_is_a_little_ahead_is_no_future() -> None:
    assert judged(NEW + GOOD_LINE + valid(made=NOW + FUTURE_TOLERANCE_S, ends=NOW + 1))


@pytest.mark.parametrize("status", [GOOD, UNKNOWN + GOOD, GOOD + UNKNOWN])
def test_one_good_signature_is_enough_for_an_archive(status: str) -> None:
    assert len(any_good(judge((TEXT + status).encode(), now=NOW, text=True))) == 1


@pytest.mark.parametrize("status", [GOOD, TEXT + TEXT + GOOD, TEXT + UNKNOWN, TEXT])
def test_a_text_needs_one_text_and_one_good_signature(status: str) -> None:
    with pytest.raises(Untrusted):
        any_good(judge(status.encode(), now=NOW, text=True))


def test_a_bad_signature_spoils_a_good_one() -> None:
    bad = f"{NEW}[GNUPG:] BADSIG 3 Somebody\n"
    for status in (GOOD + bad, bad + GOOD):
        with pytest.raises(Untrusted, match="signature is bad"):
            any_good(judge((TEXT + status).encode(), now=NOW, text=True))


@given(st.lists(st.sampled_from(WORDS), max_size=12))
def test_what_passes_is_a_good_and_valid_signature_and_nothing_else(words: list[str]) -> None:
    line = {"VALIDSIG": valid(), "NEWSIG": NEW}
    status = "".join(line.get(word, f"[GNUPG:] {word} 1 x\n") for word in words)
    try:
        judged(status)
    except Untrusted:
        return
    first, *groups = " ".join(w for w in words if w != "KEYEXPIRED").split("NEWSIG")
    assert not first.strip()
    assert groups
    assert all(sorted(group.split()) == ["GOODSIG", "VALIDSIG"] for group in groups)


@given(st.binary(max_size=300))
def test_no_bytes_do_more_than_be_refused(content: bytes) -> None:
    for status in (content, content + b"\n", GOOD.encode() + content):
        try:
            assert all_good(judge(status, now=NOW))
        except Untrusted:
            continue
        assert status == GOOD.encode()


def test_nothing_else_reads_what_gpg_says_of_a_signature() -> None:
    words = re.compile(r"GOODSIG|VALIDSIG|EXPKEYSIG|verify-tag.*--raw")
    readers = [
        str(path.relative_to(ROOT))
        for path in (*(ROOT / "pipeline").rglob("*.py"), ROOT / "verify.py", ROOT / "tasks.py")
        if words.search(path.read_text())
    ]
    assert sorted(readers) == ["pipeline/documents/signatures.py", "verify.py"]


# --- real keys ------------------------------------------------------------------------------------

YEAR_AGO = f"--faked-system-time={int(time.time()) - 365 * 86400}!"
WEEK_AGO = f"--faked-system-time={int(time.time()) - 7 * 86400}!"
DATA = b"what is signed\n"


@pytest.fixture(scope="module")
def homes() -> Iterator[Path]:
    """A folder with a short path for keys; what was started in it ends."""
    folder = Path(tempfile.mkdtemp(prefix="tb-", dir="/tmp"))
    yield folder
    for home in folder.iterdir():
        subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=True)
    shutil.rmtree(folder, ignore_errors=True)


def detached(key: SigningKey, *options: str) -> bytes:
    return key.gpg(*options, "--local-user", key.fingerprint, "--detach-sign", stdin=DATA)


def revoked(key: SigningKey) -> bytes:
    certificate = key.home / "openpgp-revocs.d" / f"{key.fingerprint}.rev"
    key.gpg("--import", stdin=certificate.read_bytes().replace(b":-----BEGIN", b"-----BEGIN"))
    return key.gpg("--export")


def verdict(signature: bytes, keyring: bytes) -> str:
    try:
        gpgv.check_detached(DATA, signature, keyring)
    except Untrusted as error:
        return str(error)
    return "good"


def test_a_signature_by_sha1_is_refused(homes: Path) -> None:
    """The attacker can make two texts with one SHA-1."""
    key = make_key(homes / "sha1")
    assert "weak digest SHA-1" in verdict(
        detached(key, "--digest-algo", "SHA1"), key.keyring.read_bytes()
    )


def test_a_signature_from_the_future_is_refused(homes: Path) -> None:
    """The attacker holds a key whose owner's clock was set, so that the signature looks newest."""
    key = make_key(homes / "future")
    ahead = int(time.time()) + 2 * FUTURE_TOLERANCE_S
    signature = detached(key, f"--faked-system-time={ahead}!")
    assert "from the future" in verdict(signature, key.keyring.read_bytes())
    little = int(time.time()) + FUTURE_TOLERANCE_S // 2
    assert verdict(detached(key, f"--faked-system-time={little}!"), key.keyring.read_bytes()) == (
        "good"
    )


def test_of_two_signers_the_unknown_one_is_named(homes: Path) -> None:
    known, unknown = make_key(homes / "known"), make_key(homes / "unknown")
    both = detached(known) + detached(unknown)
    message = verdict(both, known.keyring.read_bytes())
    assert f"{unknown.fingerprint}, which is not in the keyring" in message
    assert known.fingerprint not in message


def copies(key: SigningKey) -> dict[str, tuple[bytes, bytes, str]]:
    """Return old and new copies of one key, and what its signatures are worth with the two."""
    old = key.gpg("--export")
    key.gpg(WEEK_AGO, "--quick-set-expire", key.fingerprint, "seconds=86400")
    ended = key.gpg("--export")
    key.gpg("--quick-set-expire", key.fingerprint, "1y")
    renewed = key.gpg("--export")
    certificate = (key.home / "openpgp-revocs.d" / f"{key.fingerprint}.rev").read_bytes()
    bare = dearmour(certificate.replace(b":-----BEGIN", b"-----BEGIN"))
    gone = revoked(key)
    return {
        "expired": (old, ended, "expired"),
        "renewed": (ended, renewed, "good"),
        "revoked": (old, gone, "revoked"),
        "renewed, then revoked": (renewed, gone, "revoked"),
        "a certificate of revocation alone": (renewed, bare, "revoked"),
    }


def test_old_and_new_copies_of_a_key_count_together_in_either_order(homes: Path) -> None:
    """The attacker stole a key that was then revoked; the old copy is in the keyring, too."""
    key = make_key(homes / "copies", YEAR_AGO)
    other = make_key(homes / "other").keyring.read_bytes()
    signature = detached(key, WEEK_AGO)
    assert verdict(signature, key.keyring.read_bytes()) == "good"
    for name, (old, new, expected) in copies(key).items():
        for first, second in ((old, new), (new, old)):
            assert expected in verdict(signature, other + first + second), name
        joined = read_keyring(old + other + new)
        assert read_keyring(joined) == joined
        assert expected in verdict(signature, joined)


def test_a_subkey_that_a_later_copy_revokes_is_refused_in_either_order(homes: Path) -> None:
    """The attacker holds a signing subkey that its owner has revoked."""
    key = make_key(homes / "subkey", YEAR_AGO)
    key.gpg(YEAR_AGO, "--quick-add-key", key.fingerprint, "ed25519", "sign", "never")
    old = key.gpg("--export")
    signature = detached(key, WEEK_AGO)
    steps = b"key 1\nrevkey\ny\n0\n\ny\nsave\n"
    key.gpg("--command-fd", "0", "--edit-key", key.fingerprint, stdin=steps)
    new = key.gpg("--export")
    assert verdict(signature, old) == "good"
    assert "revoked" in verdict(signature, old + new)
    assert "revoked" in verdict(signature, new + old)


def test_a_keyring_is_the_same_armoured_binary_as_a_keybox_and_with_a_byte_order_mark(
    homes: Path,
) -> None:
    key, other = make_key(homes / "forms"), make_key(homes / "second")
    key.gpg("--import", str(other.keyring))
    armoured = key.gpg("--armor", "--export")
    expected = read_keyring(armoured)
    assert len(list(read_packets(expected))) == 6
    for form in (
        key.gpg("--export"),
        b"\xef\xbb\xbf" + armoured,
        armoured.decode().encode("utf-16"),
        armoured.replace(b"\n", b"\r\n"),
        (key.home / "pubring.kbx").read_bytes(),
    ):
        assert read_keyring(form) == expected
    secret = key.gpg("--export-secret-keys")
    with pytest.raises(ValueError, match="secret key"):
        read_keyring(secret)


@given(st.binary(max_size=300))
def test_no_keyring_does_more_than_be_refused(content: bytes) -> None:
    for keyring in (content, bytes(8) + b"KBXf" + content, b"\xff\xfe" + content):
        try:
            packets = read_keyring(keyring)
        except ValueError:
            continue
        assert read_keyring(packets) == packets


SPOOF = "[GNUPG:] NEWSIG{0}[GNUPG:] GOODSIG{0}[GNUPG:] VALIDSIG"
SEPARATORS = ["\u2028", "\u2029", "\x85", "\x0b", "\x1c", "\r"]


def spoofing_key(home: Path, separator: str, expires: str) -> SigningKey:
    """Make an old key whose user ID looks like gpg's lines to who splits it at `separator`."""
    home.mkdir(mode=0o700)
    maker = SigningKey(home, "")
    user = f"Evil{separator}{SPOOF.format(separator)} <e@example.org>"
    made = ("--allow-freeform-uid", "--quick-gen-key", user, "ed25519", "sign", expires)
    maker.gpg(YEAR_AGO, *made)
    colons = maker.gpg("--with-colons", "--list-keys").decode().split("\n")
    fingerprint = next(row.split(":")[9] for row in colons if row.startswith("fpr"))
    key = SigningKey(home, fingerprint)
    key.keyring.write_bytes(key.gpg("--export"))
    return key


@pytest.mark.parametrize("separator", SEPARATORS)
@pytest.mark.parametrize("end", ["expired", "revoked"])
def test_a_user_id_that_looks_like_gpgs_lines_changes_nothing(
    homes: Path, separator: str, end: str
) -> None:
    """The attacker holds a key that has ended, of the keyring, and chose its user ID beforehand."""
    ends = "seconds=86400" if end == "expired" else "never"
    key = spoofing_key(homes / f"{end}-{ord(separator)}", separator, ends)
    signature = detached(key, YEAR_AGO)
    document = key.clearsign(b"Suite: trixie\n", YEAR_AGO)  # as a back-dated InRelease
    keyring = key.keyring.read_bytes() if end == "expired" else revoked(key)
    assert end in verdict(signature, keyring)
    with pytest.raises(Untrusted, match=end):
        gpgv.check_text(document, keyring)


def test_the_callers_gpg_home_takes_no_part(homes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, other = make_key(homes / "caller"), make_key(homes / "trusted")
    monkeypatch.setenv("GNUPGHOME", os.fspath(key.home))
    assert "not in the keyring" in verdict(detached(key), other.keyring.read_bytes())
