# SPDX-License-Identifier: GPL-3.0-or-later
"""The one place that starts programs on an installed system: gpgv, and nothing else.

What gpgv says is judged by `pipeline/documents/signatures.py`. It sees a home, a keyring and files
of its own; of the caller's environment only PATH takes part.
"""

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from pipeline.documents.signatures import (
    GPGV_OPTIONS,
    Signature,
    Untrusted,
    all_good,
    check_only_signatures,
    dearmour,
    judge,
    read_keyring,
)
from pipeline.kits.install.failure import InfrastructureFailed, UsageError

TIMEOUT_S = 60.0


def check_detached(data: bytes, signature: bytes, keyring: bytes) -> list[Signature]:
    """Return the detached signatures over `data`, every one of them good.

    `signature` and `keyring` are armoured or binary. Raise Untrusted if not, UsageError without
    gpgv, InfrastructureFailed if it does not end.
    """
    try:
        packets = dearmour(signature)
        check_only_signatures(packets)
    except ValueError as error:
        raise Untrusted(f"what should be a signature is none: {error}") from error
    try:
        keys = read_keyring(keyring)
    except ValueError as error:
        raise Untrusted(f"the keyring is none: {error}") from error
    with tempfile.TemporaryDirectory(prefix="twinbuild-gpgv-") as name:
        for file, content in {"keyring": keys, "signature": packets, "data": data}.items():
            Path(name, file).write_bytes(content)
        done = _gpgv(Path(name))
    signatures = all_good(judge(done.stdout, now=time.time()))
    if done.returncode:
        raise Untrusted(f"gpgv ended with status {done.returncode}")
    return signatures


def _gpgv(folder: Path) -> subprocess.CompletedProcess[bytes]:
    """Run gpgv in a folder; its status lines, and nothing else, are the standard output."""
    program = shutil.which("gpgv")
    if program is None:
        raise UsageError("the program gpgv is not installed", remedy="apt-get install gpgv")
    home = os.fspath(folder)
    options = ["--homedir", home, "--keyring", f"{home}/keyring", "--status-fd", "1"]
    try:
        return subprocess.run(
            [program, *options, *GPGV_OPTIONS, "signature", "data"],
            cwd=folder,
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "GNUPGHOME": home},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise InfrastructureFailed(
            f"gpgv did not end within {TIMEOUT_S:.0f} s", remedy="try again"
        ) from error
    except OSError as error:
        raise InfrastructureFailed(f"cannot start {program}: {error.strerror}") from error
