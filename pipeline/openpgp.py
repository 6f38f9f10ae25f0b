"""The release key: a detached OpenPGP signature by gpg, so that smart cards work too.

gpg uses the caller's own home, or, if `TWINBUILD_RELEASE_KEY` names an exported secret key, a
temporary home that holds just this key. `TWINBUILD_RELEASE_PASSPHRASE_FILE` names a file whose
first line is the passphrase; without it gpg asks by its own means.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.command import Completed, run
from pipeline.errors import SignatureInvalid

TIMEOUT_S = 300.0  # a person may have to fetch the card and type a PIN
# What gpg's agent needs to ask a person.
ASKING = ("GPG_TTY", "DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY", "DBUS_SESSION_BUS_ADDRESS")
UNUSABLE = {"e": "has expired", "r": "was revoked", "d": "is disabled", "i": "is invalid"}


@dataclass(frozen=True)
class Gpg:
    """gpg with the home that holds the release key."""

    env: Mapping[str, str]

    def run(self, *arguments: str | os.PathLike[str]) -> Completed:
        """Run gpg; its exit status is for the caller to judge."""
        argv = ["gpg", "--batch", "--no-tty", "--quiet", *arguments]
        return run(
            argv, timeout_s=TIMEOUT_S, env=self.env, accept=range(256), failure=SignatureInvalid
        )


@contextmanager
def open_gpg() -> Iterator[Gpg]:
    """Give gpg with the home that the environment variables choose; see above."""
    key_file = os.environ.get("TWINBUILD_RELEASE_KEY")
    asking = {name: os.environ[name] for name in ASKING if name in os.environ}
    if not key_file:
        home = os.environ.get("GNUPGHOME")
        yield Gpg({**asking, "GNUPGHOME": home} if home else asking)
        return
    # a short path: the agent's socket in it must not be longer than 107 bytes
    home = tempfile.mkdtemp(prefix="twinbuild-", dir="/tmp")
    gpg = Gpg({**asking, "GNUPGHOME": home})
    try:
        imported = gpg.run("--import", Path(key_file).absolute())
        if imported.status != 0:
            raise SignatureInvalid(
                f"TWINBUILD_RELEASE_KEY: gpg cannot import {key_file}", detail=imported.tail
            )
        yield gpg
    finally:
        run(["gpgconf", "--kill", "all"], timeout_s=30, env=gpg.env, accept=range(256))
        shutil.rmtree(home, ignore_errors=True)


def sign(gpg: Gpg, fingerprint: str, document: Path) -> None:
    """Write `<document>.asc`, armoured and detached; raise SignatureInvalid if that fails."""
    options = ["--armor", "--detach-sign", "--digest-algo", "SHA512", "--local-user", fingerprint]
    passphrase = os.environ.get("TWINBUILD_RELEASE_PASSPHRASE_FILE")
    if passphrase:
        options += ["--pinentry-mode", "loopback", "--passphrase-file", passphrase]
    signature = document.with_name(document.name + ".asc")
    done = gpg.run(*options, "--output", signature, document)
    if done.status != 0 or not signature.is_file():
        signature.unlink(missing_ok=True)
        raise SignatureInvalid(
            f"the release key {fingerprint} {_fault(gpg, fingerprint)}",
            remedy="renew it, or correct keys.release in farm.yaml; nothing is published",
            detail=done.tail,
        )


def public_key(gpg: Gpg, fingerprint: str) -> bytes:
    """Return the public half of just this key, as gpg exports it now, in binary form."""
    exported = gpg.run("--export-options", "export-minimal", "--export", fingerprint)
    if exported.status != 0 or not exported.stdout:
        raise SignatureInvalid(
            f"gpg has no public key {fingerprint}",
            remedy="gpg --import it, or correct keys.release in farm.yaml",
            detail=exported.tail,
        )
    return exported.stdout


def _fault(gpg: Gpg, fingerprint: str) -> str:
    """Return why the key could not sign, in words."""
    listed = gpg.run("--with-colons", "--list-secret-keys", fingerprint)
    fields = [line.split(":") for line in listed.text.split("\n") if line.startswith("sec:")]
    if not fields:
        return "is missing: gpg has no such secret key"
    return UNUSABLE.get(fields[0][1], "could not sign")
