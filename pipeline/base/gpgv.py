# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs gpgv for the farm: who signed some bytes, according to the keys of one keyring alone.

`pipeline/documents/signatures.py` evaluates its output; the caller's gpg home, agent, key server
and configuration have no influence.
"""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.base import command
from pipeline.base.errors import SignatureInvalid
from pipeline.documents.signatures import (
    GPGV_OPTIONS,
    Signature,
    Untrusted,
    all_good,
    any_good,
    check_only_signatures,
    dearmour,
    judge,
    read_keyring,
)

TIMEOUT_S = 60.0
KEY_LIMIT = 1024 * 1024


class NoKeyring(Untrusted):
    """The bytes of a keyring are not OpenPGP public keys."""


def public_keys(folder: Path) -> bytes:
    """Return the OpenPGP packets in a folder's files `*.asc`, the farm's public keys."""
    packets = b""
    for file in sorted(folder.glob("*.asc")):
        try:
            with file.open("rb") as opened:
                content = opened.read(KEY_LIMIT + 1)
            if len(content) > KEY_LIMIT:
                raise ValueError(f"it is larger than {KEY_LIMIT} bytes")  # noqa: TRY301
            packets += dearmour(content)
        except OSError as error:
            raise SignatureInvalid(f"cannot read {file}: {error.strerror}") from error
        except ValueError as error:
            raise SignatureInvalid(f"{file} is not a public key: {error}") from error
    return packets


def check_detached(data: bytes, signature: bytes, keyring: bytes) -> list[Signature]:
    """Return the detached signatures over `data`, all of which are good.

    `signature` and `keyring` are armoured or binary. Raise Untrusted if any is not good.
    """
    try:
        packets = dearmour(signature)
        check_only_signatures(packets)
    except ValueError as error:
        raise Untrusted(f"what should be a signature is none: {error}") from error
    with tempfile.TemporaryDirectory(prefix="twinbuild-gpgv-") as name:
        files = {"signature": packets, "data": data}
        done = _gpgv(Path(name), keyring, files, "signature", "data")
    with _explained(done):
        signatures = all_good(judge(done.stdout, now=time.time()))
        if done.status:
            raise Untrusted(f"gpgv ended with status {done.status}")
        return signatures


def check_text(document: bytes, keyring: bytes) -> tuple[bytes, list[Signature]]:
    """Return the text of a clear-signed document and its good signatures, at least one.

    Archives sign with old and new keys at once: signatures by unknown, expired and revoked keys are
    ignored. Raise Untrusted if there is a bad signature, or no good one.
    """
    with tempfile.TemporaryDirectory(prefix="twinbuild-gpgv-") as name:
        text = Path(name, "text")
        files = {"document": document}
        done = _gpgv(Path(name), keyring, files, "--output", "text", "document")
        with _explained(done):
            good = any_good(judge(done.stdout, now=time.time(), text=True))
            if not text.is_file():
                raise Untrusted("gpgv gave no text")
        return text.read_bytes(), good


@contextmanager
def _explained(done: command.Completed) -> Iterator[None]:
    """Add gpgv's output to an Untrusted that the block raises."""
    try:
        yield
    except Untrusted as error:
        error.detail = f"{done.text}\n{done.stderr.decode(errors='replace')}".strip()
        raise


def _gpgv(
    folder: Path, keyring: bytes, files: dict[str, bytes], *arguments: str
) -> command.Completed:
    """Run gpgv in an empty folder; standard output has its status lines and nothing else."""
    try:
        keys = read_keyring(keyring)
    except ValueError as error:
        raise NoKeyring(f"the keyring is none: {error}") from error
    for name, content in {"keyring": keys, **files}.items():
        (folder / name).write_bytes(content)
    homes = ("--homedir", folder, "--keyring", folder / "keyring")
    return command.run(
        ["gpgv", *homes, "--status-fd", "1", *GPGV_OPTIONS, *arguments],
        cwd=folder,
        env={"GNUPGHOME": str(folder)},
        timeout_s=TIMEOUT_S,
        accept=range(256),
    )
