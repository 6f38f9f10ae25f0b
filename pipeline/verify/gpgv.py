# SPDX-License-Identifier: GPL-3.0-or-later
"""The signature of the manifest, checked by gpgv or gpg in a folder of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from pipeline.documents.signatures import (
    GPGV_OPTIONS,
    Untrusted,
    all_good,
    check_only_signatures,
    dearmour,
    judge,
    read_keyring,
)
from pipeline.verify.report import INFRASTRUCTURE, SIGNATURE, USAGE, Refused

GPG_TIMEOUT_S = 60


def check_signature(manifest: bytes, signature: bytes, keyring: bytes, pin: str | None) -> str:
    """Return the primary fingerprint of the key that signed `manifest`; raise Refused if none did.

    Every signature must be good and by a key in `keyring`, one of them by the key `pin` if given.
    """
    try:
        keys = read_keyring(keyring)
    except ValueError as error:
        raise Refused(SIGNATURE, f"the keyring is none: {error}") from error
    try:
        packets = dearmour(signature)
        check_only_signatures(packets)
    except ValueError as error:
        raise Refused(SIGNATURE, f"what should be a signature is none: {error}") from error
    try:
        with tempfile.TemporaryDirectory(prefix="verify-") as folder:
            home = Path(folder)
            for name, content in (("keyring", keys), ("signature", packets), ("data", manifest)):
                (home / name).write_bytes(content)
            status, complaint = _gpg(home)
    except OSError as error:
        raise Refused(INFRASTRUCTURE, f"cannot write into a temporary folder: {error}") from error
    try:
        signatures = all_good(judge(status, now=time.time()))
    except Untrusted as error:
        raise Refused(SIGNATURE, str(error)) from error
    if complaint:
        raise Refused(SIGNATURE, f"there is no good signature: {complaint}")
    for made in signatures:
        if made.is_by(pin):
            return made.primary
    raise Refused(SIGNATURE, f"the signature is by {signatures[0].primary}, not by {pin}")


def _gpg(home: Path) -> tuple[bytes, str]:
    """Run gpgv, or gpg where there is no gpgv; return its status lines and what it complained of.

    The status goes to a file of its own that nothing else writes to: user names and notations in
    what gpgv prints for people can look like status lines.
    """
    keyring, files = str(home / "keyring"), [str(home / "signature"), str(home / "data")]
    program = shutil.which("gpgv") or shutil.which("gpg")
    if program is None:
        raise Refused(USAGE, "neither gpgv nor gpg is installed: install the package gpgv")
    options = ["--homedir", str(home), "--keyring", keyring, *GPGV_OPTIONS]
    if Path(program).name == "gpg":
        options += ["--batch", "--no-options", "--no-default-keyring", "--trust-model", "always"]
        options += ["--no-auto-key-retrieve", "--disable-dirmngr"]
        files = ["--verify", *files]
    with (home / "status").open("w+b") as status:
        number = status.fileno()
        try:
            done = subprocess.run(
                [program, *options, "--status-fd", str(number), *files],
                env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "HOME": str(home)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=[number],
                timeout=GPG_TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Refused(SIGNATURE, f"{program} failed: {error}") from error
        status.seek(0)
        complaint = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        problem = complaint or f"{program} ended with status {done.returncode}"
        return status.read(), problem if done.returncode else ""
