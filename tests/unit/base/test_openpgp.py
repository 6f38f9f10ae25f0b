# SPDX-License-Identifier: GPL-3.0-or-later
"""Signing with the release key: how gpg asks a person, and what its failures are called."""

import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.base import gpg_failure, openpgp
from pipeline.base.errors import SignatureInvalid
from tests.gpg_home import CARD, GpgHome, made_home

pytestmark = pytest.mark.tools

ROOT = Path(__file__).parents[3]
KEY = "Release <release@example.org>"
PINENTRY, SCDAEMON, SYSTEM_ERROR = 5 << 24, 6 << 24, 1 << 15
VARIABLES = [*openpgp.ASKING, "TWINBUILD_RELEASE_KEY", "TWINBUILD_RELEASE_PASSPHRASE_FILE"]


@pytest.fixture(scope="module")
def home() -> Iterator[GpgHome]:
    with made_home(asks=True) as made:
        made.make(KEY, passphrase="secret")
        yield made


@pytest.fixture
def caller(home: GpgHome, monkeypatch: pytest.MonkeyPatch) -> GpgHome:
    """A caller with this home, no terminal and no screen."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GNUPGHOME", str(home.path))
    answer(home, "D secret")
    return home


def answer(home: GpgHome, line: str | None, *, card: tuple[str, str] = ("", "")) -> None:
    """Say what pinentry answers when it is asked for the passphrase, and how a card fails.

    `card` is a command to scdaemon and its answer.
    """
    (home.path / "answer").write_text(json.dumps(line))
    (home.path / "card").write_text(json.dumps(card))


def sign(fingerprint: str, folder: Path) -> None:
    document = folder / "SHA256SUMS"
    document.write_bytes(b"0  a\n")
    with openpgp.open_gpg() as gpg:
        openpgp.sign(gpg, fingerprint, document)
        assert document.with_name("SHA256SUMS.asc").read_bytes().startswith(b"-----BEGIN PGP")
        openpgp.try_to_sign(gpg, fingerprint)


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("D wrong", "could not sign: the passphrase is wrong"),
        (f"ERR {PINENTRY + 99} Operation cancelled", "the prompt for it was cancelled"),
        (f"ERR {PINENTRY + 198} Operation fully cancelled", "the prompt for it was cancelled"),
        (f"ERR {PINENTRY + 62} Timeout", "nobody answered in time"),
        (f"ERR {PINENTRY + 301} Window too small", "the terminal is too small"),
        (f"ERR {PINENTRY + SYSTEM_ERROR + 102} Inappropriate ioctl", "no terminal or screen"),
        (f"ERR {PINENTRY + SYSTEM_ERROR + 104} No such device", "no terminal or screen"),
        (f"ERR {PINENTRY + SYSTEM_ERROR + 1} Permission denied", "no terminal or screen"),
        (None, "no terminal or screen"),
        (f"ERR {PINENTRY + 1} General error", "could not sign; what gpg says is above"),
    ],
)
def test_each_answer_of_pinentry_has_its_message(
    line: str | None, what: str, caller: GpgHome, tmp_path: Path
) -> None:
    answer(caller, line)
    with pytest.raises(SignatureInvalid, match=what) as caught:
        sign(caller.fingerprint(KEY), tmp_path)
    assert "nothing is published" in str(caught.value)
    assert "renew" not in str(caught.value)
    assert not (tmp_path / "SHA256SUMS.asc").exists()


def test_pinentry_learns_where_it_can_ask(
    caller: GpgHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main, terminal = pty.openpty()
    try:
        monkeypatch.setenv("GPG_TTY", os.ttyname(terminal))
        monkeypatch.setenv("TERM", "xterm-256color")
        monkeypatch.setenv("DISPLAY", ":77")
        monkeypatch.setenv("XAUTHORITY", "/home/me/.Xauthority")
        monkeypatch.setenv("PINENTRY_USER_DATA", "mine")
        sign(caller.fingerprint(KEY), tmp_path)
        requests, environment = json.loads((caller.path / "requests").read_text())
        assert f"OPTION ttyname={os.ttyname(terminal)}" in requests
        assert "OPTION ttytype=xterm-256color" in requests
        assert environment["DISPLAY"] == ":77"
        assert environment["XAUTHORITY"] == "/home/me/.Xauthority"
        assert environment["PINENTRY_USER_DATA"] == "mine"
    finally:
        os.close(main)
        os.close(terminal)


def test_a_gpg_home_that_others_can_use_is_refused(caller: GpgHome) -> None:
    """The attacker has another account: reads a secret key, or writes a gpg-agent.conf."""
    folder = caller.path / "private-keys-v1.d"
    key = next(folder.iterdir())
    key.chmod(0o644)
    assert openpgp.own_gpg()  # nobody comes so far
    for path in (caller.path, folder):
        path.chmod(0o755)
    with pytest.raises(SignatureInvalid, match=r"gpg's key .* has mode 0644"):
        openpgp.own_gpg()
    key.chmod(0o600)
    assert openpgp.own_gpg()
    caller.path.chmod(0o777)
    with pytest.raises(SignatureInvalid, match="others can write into"):
        openpgp.own_gpg()
    for path in (caller.path, folder):
        path.chmod(0o700)


@pytest.mark.usefixtures("caller")
def test_what_gpg_gets_to_ask_by_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    given = dict.fromkeys(("WAYLAND_DISPLAY", "SSH_AUTH_SOCK", "XDG_RUNTIME_DIR"), "/run/x")
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LD_PRELOAD_LIKE", "no")
    monkeypatch.setenv("GPG_TTY", "not a tty")  # as GPG_TTY=$(tty) leaves it without one
    assert openpgp.asking() == {"GNUPGHOME": os.environ["GNUPGHOME"], **given}


def test_a_passphrase_is_typed_on_a_text_terminal(tmp_path: Path) -> None:
    """A release manager logged in by ssh: no screen, no GPG_TTY, Debian's own pinentry."""
    with made_home() as home:
        with (home.path / "gpg-agent.conf").open("a") as conf:
            conf.write("pinentry-program /usr/bin/pinentry-curses\n")
        fingerprint = home.make(KEY, passphrase="correct horse")
        main, terminal = pty.openpty()
        code = "import sys, pathlib; from pipeline.base import openpgp\n"
        code += "with openpgp.open_gpg() as gpg: openpgp.try_to_sign(gpg, sys.argv[1])"
        process = subprocess.Popen(
            [sys.executable, "-c", code, fingerprint],
            env={"GNUPGHOME": str(home.path), "TERM": "vt100", "PATH": os.environ["PATH"]},
            cwd=ROOT,
            stdin=terminal,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        os.close(terminal)
        shown, typed, deadline = b"", False, time.monotonic() + 30
        while process.poll() is None and time.monotonic() < deadline:
            if select.select([main], [], [], 0.05)[0]:
                try:
                    shown += os.read(main, 4096)
                except OSError:  # nobody has the other side open
                    time.sleep(0.01)
            if not typed and b"<Cancel>" in shown:
                os.write(main, b"correct horse\r")
                typed = True
        _, error = process.communicate(timeout=30)
        os.close(main)
    assert process.returncode == 0, error.decode()
    assert typed


@pytest.mark.parametrize("content", [b"wrong\n", b"", b"secret"])
def test_a_passphrase_from_a_file(
    content: bytes, caller: GpgHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(caller, None)
    path = tmp_path / "passphrase"
    path.touch(mode=0o600)
    path.write_bytes(content)
    monkeypatch.setenv("TWINBUILD_RELEASE_PASSPHRASE_FILE", str(path))
    if content == b"secret":
        sign(caller.fingerprint(KEY), tmp_path)
        return
    with pytest.raises(SignatureInvalid, match=f"passphrase is {'wrong' if content else 'empty'}"):
        sign(caller.fingerprint(KEY), tmp_path)


def test_without_a_pinentry_the_message_names_its_package(tmp_path: Path, caller: GpgHome) -> None:
    with made_home() as bare, pytest.MonkeyPatch.context() as patch:
        (bare.path / "gpg-agent.conf").write_text("pinentry-program /none\ns2k-count 65536\n")
        fingerprint = bare.make(KEY, passphrase="secret")
        patch.setenv("GNUPGHOME", str(bare.path))
        with pytest.raises(SignatureInvalid, match="apt-get install pinentry-curses"):
            sign(fingerprint, tmp_path)


def test_each_fault_of_a_key_has_its_message(caller: GpgHome, tmp_path: Path) -> None:
    expired = caller.make("Expired", now="20200101T000000")
    revoked = caller.make("Revoked")
    caller.revoke(revoked)
    certifies = caller.make("Certifies", use="cert")
    subkey = caller.make("Subkey", use="cert", expires="never", now="20200101T000000")
    clock = ["--faked-system-time", "20200101T000000", "--passphrase", ""]
    caller.gpg(*clock, "--quick-add-key", subkey, "ed25519", "sign", "1d")
    faults = {
        "A" * 40: r"is missing: gpg has no secret key",
        expired: rf"has expired; gpg --quick-set-expire {expired} 2y, then \./farm keys",
        revoked: r"was revoked; a release needs another key",
        certifies: r"cannot sign",
        subkey: rf"has expired; gpg --quick-set-expire {subkey} 2y '\*'",
    }
    for fingerprint, what in faults.items():
        with pytest.raises(SignatureInvalid, match=f"{fingerprint} {what}"):
            sign(fingerprint, tmp_path)


@pytest.mark.parametrize(
    ("command", "code", "what"),
    [
        ("SERIALNO", 112, "is on a smart card, and the prompt for the card or its PIN was cancel"),
        ("PKSIGN", 110, "is on a smart card that was taken out"),
        ("PKSIGN", 130, "is on a smart card whose PIN is blocked"),
        ("PKSIGN", 87, "the card's PIN is wrong"),
    ],
)
def test_a_card_that_does_not_sign(
    command: str, code: int, what: str, caller: GpgHome, tmp_path: Path
) -> None:
    with made_home(asks=True) as home, pytest.MonkeyPatch.context() as patch:
        fingerprint = home.make(KEY)
        move_to_card(home)
        card = (command, f"ERR {SCDAEMON + code} no <SCD>")
        answer(home, f"ERR {PINENTRY + 99} cancelled", card=card)
        patch.setenv("GNUPGHOME", str(home.path))
        with pytest.raises(SignatureInvalid, match=f"{fingerprint} .*{what}"):
            sign(fingerprint, tmp_path)


def move_to_card(home: GpgHome) -> None:
    """Replace the one secret key by the stub that gpg keeps of a key on a card."""
    home.stop()
    (path,) = (home.path / "private-keys-v1.d").iterdir()
    public = re.search(r"\(q\s*#([0-9A-F\s]+)#\)", path.read_text())
    assert public
    curve = f"(curve Ed25519)(flags eddsa)(q #{''.join(public[1].split())}#)"
    card = f"(shadowed t1-v1 (#{CARD}# OPENPGP.1))"
    path.write_text(f"Key: (shadowed-private-key (ecc {curve}{card}))\n")


def test_when_a_key_ends_to_sign() -> None:
    def row(kind: str, *, validity: str = "u", expires: str = "", use: str = "scSC") -> str:
        return f"{kind}:{validity}:255:22:AB:1:{expires}::u:::{use}:::+::ed25519:::0:\n"

    assert gpg_failure.expiry(row("sec")) is None
    assert gpg_failure.expiry(row("sec", expires="9")) == 9
    primary = row("sec", expires="9", use="cSC")
    assert gpg_failure.expiry(primary + row("ssb", use="s")) == 9
    assert gpg_failure.expiry(primary + row("ssb", expires="5", use="s")) == 5
    both = row("ssb", expires="5", use="s") + row("ssb", expires="7", use="s")
    assert gpg_failure.expiry(primary + both) == 7
    gone = row("ssb", expires="8", use="s", validity="e")
    assert gpg_failure.expiry(primary + both + gone) == 7
    assert gpg_failure.key_fault(row("sec").replace(":+:", ":#:")) is not None
