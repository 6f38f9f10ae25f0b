from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import InputsUnverified
from pipeline.inputs.signed_release import judge

KEYRING = Path("keyring.gpg")
TEXT = "[GNUPG:] PLAINTEXT 74 0 \n"
NEW = "[GNUPG:] NEWSIG\n"
GOOD = f"{NEW}[GNUPG:] GOODSIG 1 Archive\n[GNUPG:] VALIDSIG A 2026-01-01 1 0 4 0 1 8 01 A\n"
UNKNOWN = f"{NEW}[GNUPG:] ERRSIG 2 1 8 01 1 9 -\n[GNUPG:] NO_PUBKEY 2\n"
VALID_BUT = "[GNUPG:] VALIDSIG B 2026-01-01 1 0 4 0 1 8 01 B\n"
WORDS = ["GOODSIG", "VALIDSIG", "BADSIG", "ERRSIG", "EXPSIG", "EXPKEYSIG", "REVKEYSIG", "NEWSIG"]


@pytest.mark.parametrize("status", [TEXT + GOOD, TEXT + UNKNOWN + GOOD, TEXT + GOOD + UNKNOWN])
def test_one_good_signature_is_enough(status: str) -> None:
    judge(status, KEYRING)


@pytest.mark.parametrize(
    ("status", "says"),
    [
        ("", "not signed"),
        (TEXT, "not signed"),
        (GOOD, "not signed"),
        (TEXT + TEXT + GOOD, "not signed"),
        (TEXT + UNKNOWN, "not signed"),
        (f"{TEXT}{GOOD}{NEW}[GNUPG:] BADSIG 3 Somebody\n", "bad signature"),
        (f"{TEXT}{NEW}[GNUPG:] BADSIG 3 Somebody\n{GOOD}", "bad signature"),
        (f"{TEXT}{NEW}[GNUPG:] EXPKEYSIG 3 Old\n{VALID_BUT}", "expired"),
        (f"{TEXT}{NEW}[GNUPG:] EXPSIG 3 Old\n{VALID_BUT}", "expired"),
        (f"{TEXT}{NEW}[GNUPG:] REVKEYSIG 3 Lost\n{VALID_BUT}", "revoked"),
        (f"{TEXT}{NEW}[GNUPG:] GOODSIG 3 Half\n", "not signed"),
        (f"{TEXT}{NEW}[GNUPG:] GOODSIG 3 Half\n{NEW}{VALID_BUT}", "not signed"),
        (f"{TEXT}{NEW}{VALID_BUT}", "not signed"),
        (f"{TEXT}{NEW}GOODSIG 1 Archive\nVALIDSIG A\n", "not signed"),
        (f"{TEXT}{NEW}[GNUPG:] EXPKEYSIG 3 [GNUPG:] GOODSIG\n{VALID_BUT}", "expired"),
    ],
)
def test_anything_less_is_refused(status: str, says: str) -> None:
    with pytest.raises(InputsUnverified, match=says):
        judge(status, KEYRING)


@given(st.lists(st.sampled_from(WORDS), max_size=12))
def test_what_passes_has_a_good_and_valid_signature_and_no_bad_one(words: list[str]) -> None:
    status = TEXT + "".join(f"[GNUPG:] {word} 1 x\n" for word in words)
    try:
        judge(status, KEYRING)
    except InputsUnverified:
        return
    groups = " ".join(words).split("NEWSIG")[1:]
    assert any({"GOODSIG", "VALIDSIG"} == set(group.split()) for group in groups)
    assert "BADSIG" not in words


@given(st.text(max_size=200))
def test_no_text_does_more_than_be_refused(status: str) -> None:
    with pytest.raises(InputsUnverified):
        judge(status, KEYRING)
