# SPDX-License-Identifier: GPL-3.0-or-later
"""Explains why gpg could not sign, and what to do about it.

gpg reports `[GNUPG:] FAILURE sign CODE` as a status line (doc/DETAILS of GnuPG). The lower 16 bits
of CODE are an error code of libgpg-error, the seven bits from 24 on are its source. For a fault of
the key itself gpg only reports "unusable"; the key's listing tells why.
"""

from dataclasses import dataclass

from pipeline.base.errors import command_line

SYSTEM_ERROR = 1 << 15
END_OF_FILE = 16383
SOURCE_PINENTRY = 5
VALIDITY, EXPIRES, CAPABILITIES, WHERE = 1, 6, 11, 14  # fields of a listing (doc/DETAILS)
UNUSABLE = {"e": "has expired", "r": "was revoked", "d": "is disabled", "i": "is invalid"}


@dataclass(frozen=True)
class Reason:
    """A fault of a key, as the end of a sentence about that key, and the remedy."""

    what: str
    remedy: str


AGAIN = "try again; what is built stays built"
TERMINAL = Reason(
    "needs its passphrase, and gpg's pinentry has no terminal or screen to ask on",
    "run it in a terminal, or let TWINBUILD_RELEASE_PASSPHRASE_FILE name a file that has it",
)
AGENT = Reason("could not sign: gpg's agent does not answer", "gpgconf --kill all, then try again")
CANCELLED = Reason("could not sign: the prompt for it was cancelled", AGAIN)
CARD_CANCELLED = Reason(
    "is on a smart card, and the prompt for the card or its PIN was cancelled",
    "insert it, and try again",
)
REASONS = {
    7: Reason("is damaged: gpg calls its secret half bad", "import it again from your backup"),
    11: Reason("could not sign: the passphrase is wrong", AGAIN),
    62: Reason("could not sign: nobody answered in time when gpg asked", AGAIN),
    77: AGENT,
    78: AGENT,
    85: Reason(
        "needs its passphrase, and gpg has no program to ask for it",
        "apt-get install pinentry-curses",
    ),
    87: Reason("could not sign: the card's PIN is wrong", AGAIN),
    91: Reason("is on another card than the one in the reader", "insert the right one, try again"),
    99: CANCELLED,
    108: Reason("is on a smart card that answers with an error", "insert it again, and try again"),
    109: Reason("is on a smart card that was reset", AGAIN),
    110: Reason("is on a smart card that was taken out", "insert it, and try again"),
    111: Reason("is on a smart card that gpg cannot read", "insert it again, and try again"),
    112: Reason("is on a smart card that is not in the reader", "insert it, and try again"),
    119: Reason("is on a smart card, and gpg has no scdaemon", "apt-get install scdaemon"),
    120: Reason("is on a smart card, and scdaemon failed", "gpgconf --kill scdaemon, try again"),
    130: Reason("is on a smart card whose PIN is blocked", "gpg --card-edit: admin, passwd"),
    177: Reason("could not sign: the passphrase is empty", AGAIN),
    178: Reason("could not sign: no PIN was given", AGAIN),
    198: CANCELLED,
    301: Reason(
        "needs its passphrase, and the terminal is too small for gpg's pinentry",
        "make the window larger, or correct TERM",
    ),
}


def reason(status: str, listing: str) -> Reason:
    """Return why a key could not sign, from gpg's status lines and its listing of the key."""
    fault = key_fault(listing)
    if fault:
        return fault
    code, source = _code(status)
    if REASONS.get(code) is CANCELLED and _is_on_card(listing):
        return CARD_CANCELLED
    if code in REASONS:
        return REASONS[code]
    if source == SOURCE_PINENTRY and (code & SYSTEM_ERROR or code == END_OF_FILE):
        return TERMINAL
    return Reason("could not sign", "what gpg says is above")


def key_fault(listing: str) -> Reason | None:
    """Return the fault of the key in gpg's listing (`--with-colons`), or None."""
    keys = _keys(listing)
    if not keys:
        return Reason(
            "is missing: gpg has no secret key of that fingerprint",
            "gpg --import it, or set GNUPGHOME or TWINBUILD_RELEASE_KEY",
        )
    primary, signing = keys[0], _signing(keys)
    if primary[VALIDITY] in UNUSABLE:
        return _unusable(primary, listing)
    if not signing:
        what = "cannot sign: gpg has no secret key of it that signs"
        return Reason(what, f"{command_line('keys --name')} makes one that does")
    usable = [key for key in signing if key[VALIDITY] not in UNUSABLE]
    if not usable:
        return _unusable(signing[0], listing)
    if all(key[WHERE] == "#" for key in usable):
        return Reason("is not here: gpg has its public half and a stub", "gpg --import it")
    return None


def expiry(listing: str) -> int | None:
    """Return when a listed key expires for signing, in seconds since 1970; None if never."""
    keys = _keys(listing)
    ends = [key[EXPIRES] for key in _signing(keys) if key[VALIDITY] not in UNUSABLE]
    last = [max(map(int, ends))] if ends and all(ends) else []  # one of several keys is enough
    return min(last + [int(key[EXPIRES]) for key in keys[:1] if key[EXPIRES]], default=None)


def _keys(listing: str) -> list[list[str]]:
    kinds = ("sec:", "ssb:", "pub:", "sub:")
    lines = (line for line in listing.split("\n") if line.startswith(kinds))
    return [[*line.split(":"), *[""] * 12] for line in lines]


def _signing(keys: list[list[str]]) -> list[list[str]]:
    # Lower-case letters are this key's capabilities, upper-case ones include those of subkeys.
    return [key for key in keys if "s" in key[CAPABILITIES]]


def _is_on_card(listing: str) -> bool:
    """Tell whether the signing key is on a card: the listing then has its serial number."""
    signing = [key for key in _signing(_keys(listing)) if key[VALIDITY] not in UNUSABLE]
    return any(len(key[WHERE]) > 1 for key in signing)


def _unusable(key: list[str], listing: str) -> Reason:
    validity, fingerprint = key[VALIDITY], listing.partition("\nfpr:")[2].split(":")[8:9]
    if validity != "e":
        return Reason(UNUSABLE[validity], "a release needs another key: docs/how-to/keys.md")
    whole = "".join(fingerprint)
    extend = f"gpg --quick-set-expire {whole} 2y"
    if key[0] in ("ssb", "sub"):
        extend += " '*'"
    return Reason(UNUSABLE[validity], f"{extend}, then {command_line(f'keys --release {whole}')}")


def _code(status: str) -> tuple[int, int]:
    """Return the error code and source of gpg's last failure; 0 and 0 if it reports none."""
    failures = [
        line.split()
        for line in status.split("\n")
        if line.startswith("[GNUPG:] FAILURE ") and len(line.split()) == 4
    ]
    number = failures[-1][3] if failures else "0"
    value = int(number) if number.isascii() and number.isdigit() else 0
    return value & 0xFFFF, value >> 24 & 0x7F
