# SPDX-License-Identifier: GPL-3.0-or-later
"""A gpg home with keys of every kind, and programs of ours as pinentry and scdaemon."""

import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.base import openpgp

# Speaks the Assuan protocol of pinentry: answers as the file `answer` says, and notes down what it
# is asked for, and its environment.
PINENTRY = """#!{python}
import json, os, sys
from pathlib import Path
home = Path("{home}")
answer = json.loads((home / "answer").read_text())
requests = []
print("OK at your service", flush=True)
for line in sys.stdin:
    requests.append(line.rstrip())
    (home / "requests").write_text(json.dumps([requests, dict(os.environ)]))
    if line.startswith(("GETPIN", "CONFIRM")):
        if answer is None:
            sys.exit()
        print(answer, flush=True)
        if answer.startswith("D "):
            print("OK", flush=True)
    else:
        print("OK", flush=True)
    if line.startswith("BYE"):
        break
"""
# The serial number of the card that `SCDAEMON` has in its reader.
CARD = "D2760001240100000000000000010000"
# Speaks the Assuan protocol of scdaemon, for a card with the key that it is asked for; the file
# `card` says by which command it fails, and with which error.
SCDAEMON = """#!{python}
import json, sys
from pathlib import Path
print("OK a card is here", flush=True)
for line in sys.stdin:
    fails_at, error = json.loads(Path("{home}/card").read_text())
    command, *arguments = line.split()
    if command == fails_at:
        print(error, flush=True)
        continue
    if command == "SERIALNO":
        print("S SERIALNO {card}")
    elif command == "KEYINFO":
        print("S KEYINFO", arguments[0], "T {card} OPENPGP.1")
    print("OK", flush=True)
"""


@dataclass(frozen=True)
class GpgHome:
    """A throw-away gpg home."""

    path: Path

    def gpg(self, *arguments: str | Path, stdin: bytes | None = None, check: bool = True) -> bytes:
        """Run gpg in it without a passphrase being asked for; return what it prints."""
        options = ["--batch", "--quiet", "--no-tty", "--pinentry-mode", "loopback"]
        argv = ["gpg", "--homedir", str(self.path), *options, *map(str, arguments)]
        return subprocess.run(argv, input=stdin, check=check, capture_output=True).stdout

    def text(self, *arguments: str) -> str:
        """Run gpg as `gpg` does; return its output as text."""
        return self.gpg(*arguments).decode(errors="replace")

    def make(
        self,
        name: str,
        *,
        passphrase: str = "",
        use: str = "sign",
        expires: str = "1d",
        now: str = "",
        days_ago: int = 0,
    ) -> str:
        """Make a key; return its fingerprint."""
        clock = [f"--faked-system-time={now}"] if now else _clock(days_ago)
        key = ["--passphrase", passphrase, "--quick-gen-key", name, "ed25519", use, expires]
        self.gpg(*clock, *key)
        return self.fingerprint(name)

    def fingerprint(self, name: str) -> str:
        """Return the fingerprint of the one key with a user id."""
        (found,) = re.findall(
            r"^(?:pub:.*\n)fpr:+([0-9A-F]{40}):", self.text("--with-colons", "-k", f"={name}"), re.M
        )
        return str(found)

    def revoke(self, fingerprint: str) -> None:
        """Revoke a key by the certificate that gpg made with it."""
        certificate = (self.path / f"openpgp-revocs.d/{fingerprint}.rev").read_bytes()
        self.gpg("--import", stdin=certificate.replace(b":-----BEGIN", b"-----BEGIN"))

    def export(self, fingerprint: str, *options: str) -> bytes:
        """Return a key's public half."""
        return self.gpg(*options, "--export", fingerprint)

    def sign(self, content: bytes, fingerprint: str, *options: str, days_ago: int = 0) -> bytes:
        """Sign as `options` say; return the armoured output."""
        whole = ["--armor", "--local-user", fingerprint, *options, *_clock(days_ago)]
        return self.gpg(*whole, stdin=content)

    def stop(self) -> None:
        """End its agents."""
        argv = ["gpgconf", "--homedir", str(self.path), "--kill", "all"]
        subprocess.run(argv, check=False, capture_output=True)


def _clock(days_ago: int) -> list[str]:
    return [f"--faked-system-time={int(time.time()) - 86400 * days_ago}"] if days_ago else []


@contextmanager
def made_home(*, asks: bool = False) -> Iterator[GpgHome]:
    """Give a home with a short path, as its sockets need; with `asks` our own pinentry answers."""
    with tempfile.TemporaryDirectory(prefix="tw-", dir="/tmp", ignore_cleanup_errors=True) as name:
        home = GpgHome(Path(name))
        # By default it takes a tenth of a second to make a key of a passphrase, on purpose.
        lines = ["s2k-count 65536", "max-cache-ttl 0", "default-cache-ttl 0"]
        if asks:
            for key, program in (("pinentry", PINENTRY), ("scdaemon", SCDAEMON)):
                path = home.path / key
                path.write_text(program.format(python=sys.executable, home=name, card=CARD))
                path.chmod(0o700)
                lines.append(f"{key}-program {path}")
        (home.path / "gpg-agent.conf").write_text("\n".join(lines) + "\n")
        try:
            yield home
        finally:
            home.stop()
            shutil.rmtree(name, ignore_errors=True)


@contextmanager
def newcomers_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GpgHome]:
    """Give the home of somebody without keys and settings, whose other files are in `folder`."""
    for name in (*openpgp.ASKING, "TWINBUILD_RELEASE_KEY", "TWINBUILD_RELEASE_PASSPHRASE_FILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("TWINBUILD_KEY_ALPHA", "TWINBUILD_KEY_BETA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(folder / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / "home/.config"))
    with made_home() as made:
        monkeypatch.setenv("GNUPGHOME", str(made.path))
        yield made
