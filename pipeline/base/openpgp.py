# SPDX-License-Identifier: GPL-3.0-or-later
"""Signs with the release key: detached OpenPGP signatures by gpg, so that smart cards work, too.

gpg uses the caller's own home, or, if `TWINBUILD_RELEASE_KEY` names an exported secret key, a home
in memory with only this key. `TWINBUILD_RELEASE_PASSPHRASE_FILE` names a file whose first line is
the passphrase; without it, gpg's pinentry asks on the caller's terminal or screen.
"""

import os
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import verify
from pipeline.base import gpg_failure, key_home, private_file
from pipeline.base.command import Completed, run
from pipeline.base.errors import SignatureInvalid

TIMEOUT_S = 300.0  # a person may have to fetch the card and type a PIN
TRIAL = b"A trial signature of Twinbuild. It says that a key can sign, and vouches for nothing.\n"
# The variables that gpg's agent and pinentry need to ask a person: GnuPG's own list
# (common/session-env.c), and those that lead to a running agent.
ASKING = (
    *("GNUPGHOME", "GPG_TTY", "TERM", "DISPLAY", "XAUTHORITY", "WAYLAND_DISPLAY"),
    *("XDG_RUNTIME_DIR", "XDG_SESSION_TYPE", "DBUS_SESSION_BUS_ADDRESS", "SSH_AUTH_SOCK"),
    *("QT_QPA_PLATFORM", "GTK_IM_MODULE", "QT_IM_MODULE", "XMODIFIERS"),
    *("INSIDE_EMACS", "PINENTRY_USER_DATA", "PINENTRY_GEOM_HINT"),
)


@dataclass(frozen=True)
class Gpg:
    """gpg with the home that has the release key."""

    env: Mapping[str, str]
    options: tuple[str, ...] = ()

    def run(self, *arguments: str | os.PathLike[str], stdin: bytes | None = None) -> Completed:
        """Run gpg; the caller judges its exit status."""
        argv = ["gpg", "--batch", "--no-tty", "--quiet", *self.options, *arguments]
        return run(
            argv,
            timeout_s=TIMEOUT_S,
            env=self.env,
            stdin=stdin,
            accept=range(256),
            failure=SignatureInvalid,
        )


@contextmanager
def open_gpg(notify: Callable[[str], None] = lambda _: None) -> Iterator[Gpg]:
    """Yield gpg with the home that the environment variables choose, as described above.

    Secret keys left by killed processes are removed and reported to `notify`. Raise
    SignatureInvalid if the key cannot be imported, or if other users can read it.
    """
    key_home.remove_leftovers(notify)
    key_file = os.environ.get("TWINBUILD_RELEASE_KEY")
    if not key_file:
        yield own_gpg()
        return
    secret = private_file.read(Path(key_file), "the release key")
    with key_home.made(notify) as home:
        gpg = Gpg({**asking(), "GNUPGHOME": os.fspath(home)}, ("--no-autostart",))
        imported = gpg.run("--import", stdin=secret)
        if imported.status != 0:
            raise SignatureInvalid(
                f"TWINBUILD_RELEASE_KEY: gpg cannot import {key_file}", detail=imported.tail
            )
        yield gpg


def own_gpg() -> Gpg:
    """Return gpg with the caller's own home.

    Raise SignatureInvalid if others can change its content or read the secret keys, about which gpg
    itself only warns.
    """
    home = Path(os.environ.get("GNUPGHOME") or Path.home() / ".gnupg")
    folders = [folder for folder in (home, home / "private-keys-v1.d") if folder.is_dir()]
    for folder in folders:
        private_file.check_folder(folder, "gpg's keys")
    if all(folder.stat().st_mode & 0o077 for folder in folders):  # no folder keeps others out
        for key in (home / "private-keys-v1.d").glob("*.key"):
            private_file.read(key, "gpg's key")
    return Gpg(asking())


def asking() -> dict[str, str]:
    """Return the part of the caller's environment that gpg needs to ask for a passphrase."""
    env = {name: os.environ[name] for name in ASKING if os.environ.get(name)}
    terminal = _terminal(env.pop("GPG_TTY", None))
    return {**env, "GPG_TTY": terminal} if terminal else env


def _terminal(named: str | None) -> str | None:
    """Return the terminal to ask on: `named` if it is one, or else that of this process."""
    with suppress(OSError):
        if named and stat.S_ISCHR(Path(named).stat().st_mode):
            return named
    for descriptor in range(3):
        with suppress(OSError):
            return os.ttyname(descriptor)
    return None


def sign(gpg: Gpg, fingerprint: str, document: Path) -> None:
    """Write `<document>.asc`, armoured and detached; raise SignatureInvalid if that fails."""
    options: list[str | Path] = [
        "--status-fd",
        "1",
        "--armor",
        "--detach-sign",
        "--digest-algo",
        "SHA512",
    ]
    secret = passphrase()
    if secret is not None:
        options += ["--pinentry-mode", "loopback", "--passphrase-fd", "0"]
    signature = document.with_name(document.name + ".asc")
    options += ["--local-user", fingerprint, "--output", signature, document]
    done = gpg.run(*options, stdin=secret)
    if done.status != 0 or not signature.is_file():
        signature.unlink(missing_ok=True)
        why = gpg_failure.reason(done.text, listing(gpg, fingerprint))
        errors = done.stderr.decode(errors="replace").strip()
        raise SignatureInvalid(
            f"the release key {fingerprint} {why.what}",
            remedy=f"{why.remedy}; nothing is published",
            detail=errors,
        )


def try_to_sign(gpg: Gpg, fingerprint: str) -> None:
    """Sign a meaningless document and verify it; raise SignatureInvalid if that fails."""
    with tempfile.TemporaryDirectory(prefix="twinbuild-") as folder:
        document = Path(folder, "trial")
        document.write_bytes(TRIAL)
        sign(gpg, fingerprint, document)
        signature = document.with_name("trial.asc").read_bytes()
    try:
        verify.check_signature(TRIAL, signature, public_key(gpg, fingerprint), fingerprint)
    except verify.Refused as error:
        raise SignatureInvalid(
            f"the release key {fingerprint} signs, but nobody could verify it: {error}",
            remedy="make a key of another kind: docs/how-to/keys.md",
        ) from error


def listing(gpg: Gpg, fingerprint: str) -> str:
    """Return gpg's listing (`--with-colons`) of a secret key; empty if there is none."""
    return gpg.run("--with-colons", "--list-secret-keys", fingerprint).text


def passphrase() -> bytes | None:
    """Return the first line of the passphrase file, if one is named."""
    path = os.environ.get("TWINBUILD_RELEASE_PASSPHRASE_FILE")
    if not path:
        return None
    content = private_file.read(Path(path), "the release key's passphrase", limit=4096)
    return content.split(b"\n", 1)[0] + b"\n"


def public_key(gpg: Gpg, fingerprint: str) -> bytes:
    """Return the public half of this key alone, as gpg exports it now, in binary form."""
    exported = gpg.run("--export-options", "export-minimal", "--export", fingerprint)
    if exported.status != 0 or not exported.stdout:
        raise SignatureInvalid(
            f"gpg has no public key {fingerprint}",
            remedy="gpg --import it, or correct keys.release in farm.yaml",
            detail=exported.tail,
        )
    return exported.stdout
